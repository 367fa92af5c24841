//! G.711 sound as Opus (RFC 6716), since no player takes G.711 in MP4. Pure.
//!
//! Packets of 20 ms with exact times on Opus's 48 kHz clock. The encoder delays sound by its lookahead; packets are
//! dated earlier by as much, so that what is heard at a time is what was captured then (RFC 7845 section 4.2, pre-skip).

use std::sync::Arc;

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};

use super::{
    frame::{Codec, Format, Frame, Track},
    g711,
};

/// Samples a second of G.711.
const RATE: u32 = 8_000;
/// Samples in a packet of 20 ms.
const PACKET: usize = 160;
/// Opus ticks in a sample of G.711.
const TICKS: i64 = 6;
/// Bits a second: more than transparent for the telephone's 4 kHz, and nothing beside the pictures.
const BITRATE: i32 = 32_000;
/// Encoder effort, 0 to 10. The least: every camera of an incident pays for it, and 32 kbit/s are plenty for 4 kHz.
const COMPLEXITY: i32 = 0;
/// No packet of 20 ms is longer (RFC 6716 section 3.4).
const MAX_PACKET: usize = 1275;
/// A camera's timestamps may be off by this many samples (40 ms) before the sound is moved to where they say.
const TOLERANCE: i64 = 320;
/// A hole of up to this many samples (1 s) is filled with silence; at a longer one the sound begins anew.
const FILL: i64 = 8_000;

/// Why sound cannot be made into Opus.
#[derive(Debug, thiserror::Error)]
pub enum OpusError {
    /// Not what G.711 is on cameras.
    #[error(
        "G.711 with {channels} channels at {rate} Hz; only 1 at 8000 is known: set the camera's microphone to mono"
    )]
    Shape {
        /// Ticks a second.
        rate: u32,
        /// Channels.
        channels: u16,
    },
    /// The encoder refused.
    #[error("the Opus encoder failed")]
    Encoder(#[from] opus::Error),
}

/// Makes one camera's G.711 into Opus; other sound goes through as it is.
#[derive(Debug, Default)]
pub struct Transcoder {
    stream: Option<Stream>,
}

impl Transcoder {
    /// Takes the next frame of sound and gives the packets that are complete by it. AAC and Opus come out as they went
    /// in. After an error the stream begins anew with the next frame.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Result<Vec<Arc<Frame>>, OpusError> {
        let table = match frame.format.codec {
            Codec::Pcmu => &g711::ULAW,
            Codec::Pcma => &g711::ALAW,
            _ => return Ok(vec![frame.clone()]),
        };
        let (rate, channels) = (frame.format.clock_rate, frame.format.channels);
        if rate != RATE || channels > 1 {
            return Err(OpusError::Shape { rate, channels });
        }
        let mut out = Vec::new();
        let mut stream = match self.stream.take() {
            Some(stream) if stream.timeline == frame.timeline && stream.off(frame) <= FILL => stream,
            other => {
                if let Some(mut old) = other {
                    old.pad(&mut out)?;
                }
                Stream::new(frame)?
            }
        };
        stream.push(frame, table, &mut out)?;
        self.stream = Some(stream);
        Ok(out)
    }

    /// What is left of the sound, filled up with silence to a whole packet.
    pub fn finish(&mut self) -> Result<Vec<Arc<Frame>>, OpusError> {
        let mut out = Vec::new();
        if let Some(mut stream) = self.stream.take() {
            stream.pad(&mut out)?;
        }
        Ok(out)
    }
}

/// An unbroken stretch of sound.
#[derive(Debug)]
struct Stream {
    encoder: Encoder,
    format: Arc<Format>,
    timeline: u32,
    /// The encoder's delay in samples.
    lookahead: i64,
    /// Samples not yet in a packet.
    samples: Vec<i16>,
    /// Where the sample after those stands, in the camera's ticks.
    next: i64,
    lost: u16,
    /// The newest frame, for its dates.
    newest: Arc<Frame>,
}

impl Stream {
    fn new(first: &Arc<Frame>) -> Result<Self, OpusError> {
        let mut encoder = Encoder::new(RATE, Channels::Mono, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
        encoder.set_complexity(COMPLEXITY)?;
        let lookahead = i64::from(encoder.get_lookahead()?.clamp(0, RATE as i32));
        Ok(Self {
            encoder,
            format: Arc::new(format((lookahead * TICKS) as u16)),
            timeline: first.timeline,
            lookahead,
            samples: Vec::with_capacity(2 * PACKET),
            next: first.ticks,
            lost: 0,
            newest: first.clone(),
        })
    }

    /// How many samples are missing before this frame; negative where it repeats some.
    fn off(&self, frame: &Frame) -> i64 {
        frame.ticks - self.next
    }

    fn push(&mut self, frame: &Arc<Frame>, table: &[i16; 256], out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let mut codes: &[u8] = &frame.data;
        let off = self.off(frame);
        if off > TOLERANCE {
            self.samples.resize(self.samples.len() + off as usize, 0);
            self.next += off;
        } else if off < -TOLERANCE {
            // Already heard: left out.
            codes = codes.get(off.unsigned_abs() as usize..).unwrap_or_default();
        }
        self.samples.extend(codes.iter().map(|c| table[usize::from(*c)]));
        self.next += codes.len() as i64;
        self.lost = self.lost.saturating_add(frame.lost_before);
        self.newest = frame.clone();
        self.encode(out)
    }

    fn pad(&mut self, out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let missing = (PACKET - self.samples.len() % PACKET) % PACKET;
        self.samples.resize(self.samples.len() + missing, 0);
        self.next += missing as i64;
        self.encode(out)
    }

    fn encode(&mut self, out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let first = self.next - self.samples.len() as i64;
        let whole = self.samples.len() / PACKET * PACKET;
        for (i, samples) in self.samples[..whole].chunks_exact(PACKET).enumerate() {
            let mut packet = [0; MAX_PACKET];
            let length = self.encoder.encode(samples, &mut packet)?;
            let at = first + (i * PACKET) as i64 - self.lookahead;
            out.push(Arc::new(Frame {
                track: Track::Audio,
                timeline: self.timeline,
                ticks: at * TICKS,
                captured: self.newest.captured.shifted((at - self.newest.ticks) * 1_000_000 / i64::from(RATE)),
                arrived: self.newest.arrived,
                key: true,
                lost_before: std::mem::take(&mut self.lost),
                format: self.format.clone(),
                data: Bytes::copy_from_slice(&packet[..length]),
            }));
        }
        self.samples.drain(..whole);
        Ok(())
    }
}

/// Opus as a browser sends it: two channels at 48 kHz, nothing to skip.
pub fn stereo() -> Format {
    let [r0, r1, r2, r3] = 48_000_u32.to_le_bytes();
    Format { channels: 2, config: Bytes::copy_from_slice(&[1, 2, 0, 0, r0, r1, r2, r3, 0, 0, 0]), ..format(0) }
}

/// Opus, one channel; the configuration is the body of `OpusHead` (RFC 7845 section 5.1).
fn format(pre_skip: u16) -> Format {
    let [p0, p1] = pre_skip.to_le_bytes();
    let [r0, r1, r2, r3] = RATE.to_le_bytes();
    Format {
        codec: Codec::Opus,
        clock_rate: 48_000,
        width: 0,
        height: 0,
        channels: 1,
        config: Bytes::copy_from_slice(&[1, 1, p0, p1, r0, r1, r2, r3, 0, 0, 0]),
        rfc6381: "opus".into(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::district::clock::{Mono, Utc};

    fn sound(codec: Codec, timeline: u32, ticks: i64, samples: usize) -> Arc<Frame> {
        let format = Format {
            codec,
            clock_rate: 8_000,
            width: 0,
            height: 0,
            channels: 1,
            config: Bytes::new(),
            rfc6381: String::new(),
        };
        Arc::new(Frame {
            track: Track::Audio,
            timeline,
            ticks,
            captured: Utc::from_micros(1_000_000_000 + ticks * 125),
            arrived: Mono::from_boot(Duration::from_secs(5)),
            key: true,
            lost_before: 0,
            format: Arc::new(format),
            data: vec![0xff; samples].into(),
        })
    }

    fn ticks(frames: &[Arc<Frame>]) -> Vec<i64> {
        frames.iter().map(|f| f.ticks).collect()
    }

    #[test]
    fn packets_are_dated_by_what_is_heard_in_them() {
        let mut t = Transcoder::default();
        let out = t.push(&sound(Codec::Pcmu, 0, 8_000, 400)).unwrap();
        // libopus looks ahead 6.5 ms at 8 kHz in this mode.
        assert_eq!(ticks(&out), [48_000 - 312, 48_000 - 312 + 960]);
        assert_eq!(out[0].captured.micros(), 1_001_000_000 - 6_500);
        assert_eq!(out[0].format.config[2..4], 312u16.to_le_bytes());
        assert_eq!(ticks(&t.finish().unwrap()), [48_000 - 312 + 1920]);
        assert!(t.finish().unwrap().is_empty());
    }

    #[test]
    fn a_short_hole_is_silence_and_a_long_one_or_a_new_timeline_begins_anew() {
        let mut t = Transcoder::default();
        t.push(&sound(Codec::Pcma, 0, 0, 160)).unwrap();
        assert_eq!(ticks(&t.push(&sound(Codec::Pcma, 0, 800, 160)).unwrap()), [648, 1608, 2568, 3528, 4488]);
        assert_eq!(ticks(&t.push(&sound(Codec::Pcma, 0, 80_000, 160)).unwrap()), [480_000 - 312]);
        let fresh = t.push(&sound(Codec::Pcma, 1, 7, 160)).unwrap();
        assert_eq!((ticks(&fresh), fresh[0].timeline), (vec![42 - 312], 1));
    }

    #[test]
    fn wobbling_timestamps_make_no_holes_and_repeated_sound_is_left_out() {
        let mut t = Transcoder::default();
        let mut all = Vec::new();
        for (i, wobble) in [0i64, 90, -80, 300, 0, -300].into_iter().enumerate() {
            all.extend(t.push(&sound(Codec::Pcmu, 0, 10_000 + i as i64 * 160 + wobble, 160)).unwrap());
        }
        assert_eq!(all.len(), 6);
        assert!(all.windows(2).all(|w| w[1].ticks - w[0].ticks == 960));
        assert!(t.push(&sound(Codec::Pcmu, 0, 10_000, 800)).unwrap().is_empty());
    }

    #[test]
    fn other_sound_goes_through_untouched_and_stereo_is_refused() {
        let mut t = Transcoder::default();
        let mut aac = (*sound(Codec::Aac, 0, 5, 10)).clone();
        aac.lost_before = 3;
        let aac = Arc::new(aac);
        assert!(Arc::ptr_eq(&t.push(&aac).unwrap()[0], &aac));
        let mut stereo = (*sound(Codec::Pcmu, 0, 5, 10)).clone();
        Arc::make_mut(&mut stereo.format).channels = 2;
        assert!(matches!(t.push(&Arc::new(stereo)), Err(OpusError::Shape { channels: 2, .. })));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]
        #[test]
        fn opus_covers_the_sound_and_its_times_never_go_back(
            packets in prop::collection::vec((1usize..700, 0i64..2_000), 1..60)
        ) {
            let (mut t, mut out, mut at) = (Transcoder::default(), Vec::new(), 0);
            for (samples, hole) in packets {
                at += hole;
                out.extend(t.push(&sound(Codec::Pcmu, 0, at, samples)).unwrap());
                at += samples as i64;
            }
            out.extend(t.finish().unwrap());
            prop_assert!(out.windows(2).all(|w| w[1].ticks - w[0].ticks >= 960));
            let last = out.last().unwrap();
            // Each resynchronisation leaves the packets within tolerance of the camera's own time.
            prop_assert!((last.ticks + 960 + 312 - at * 6).abs() <= (TOLERANCE + PACKET as i64) * 6);
            prop_assert!(out.iter().all(|f| f.captured.micros() == 1_000_000_000 + (f.ticks / 6) * 125));
        }
    }
}
