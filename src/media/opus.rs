//! Sound as Opus (RFC 6716): G.711, since no player takes it in MP4, and what [`super::aac`] decodes. Pure.
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
/// Opus ticks a second, whatever it encodes (RFC 7587 section 4.1).
const CLOCK: u32 = 48_000;
/// Packets a second: of 20 ms each.
const PACKETS: u32 = 50;
/// Bits a second: more than transparent for the telephone's 4 kHz, and nothing beside the pictures.
const TELEPHONE: i32 = 32_000;
/// The same for one channel of up to 20 kHz.
const WIDE: i32 = 48_000;
/// Encoder effort, 0 to 10. The least: every camera of an incident pays for it, and the bits are plenty.
const COMPLEXITY: i32 = 0;
/// No packet of 20 ms is longer (RFC 6716 section 3.4).
const MAX_PACKET: usize = 1275;
/// A camera's timestamps may be off by a second divided by this (40 ms) before the sound is moved to where they say.
const TOLERANCE: i64 = 25;

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
            Some(stream) if stream.goes_on_with(frame) => stream,
            other => {
                if let Some(mut old) = other {
                    old.pad(&mut out)?;
                }
                Stream::new(frame, RATE, 0)?
            }
        };
        stream.push(frame, frame.data.iter().map(|code| table[usize::from(*code)]), &mut out)?;
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

/// An unbroken stretch of sound of one channel.
#[derive(Debug)]
pub(super) struct Stream {
    encoder: Encoder,
    format: Arc<Format>,
    timeline: u32,
    /// Samples a second.
    rate: u32,
    /// By how many samples what comes out is late.
    late: i64,
    /// Samples not yet in a packet.
    samples: Vec<i16>,
    /// Where the sample after those stands, counted in samples from the camera's zero.
    next: i64,
    lost: u16,
    /// The newest frame, for its dates.
    newest: Arc<Frame>,
}

impl Stream {
    /// Begins with `first`. `rate`: of the samples that will be given, one that Opus knows. They come `late` samples late.
    pub fn new(first: &Arc<Frame>, rate: u32, late: usize) -> Result<Self, OpusError> {
        let mut encoder = Encoder::new(rate, Channels::Mono, Application::Audio)?;
        encoder.set_bitrate(Bitrate::Bits(if rate > RATE { WIDE } else { TELEPHONE }))?;
        encoder.set_complexity(COMPLEXITY)?;
        let late = i64::from(encoder.get_lookahead()?.clamp(0, rate as i32)) + late as i64;
        Ok(Self {
            encoder,
            format: Arc::new(format((late * i64::from(CLOCK / rate)) as u16, rate)),
            timeline: first.timeline,
            rate,
            late,
            samples: Vec::with_capacity((2 * rate / PACKETS) as usize),
            next: place(first, rate),
            lost: 0,
            newest: first.clone(),
        })
    }

    /// Whether a frame belongs to this stretch: after more than a second of nothing another one begins.
    pub fn goes_on_with(&self, frame: &Frame) -> bool {
        self.timeline == frame.timeline && self.off(frame) <= i64::from(self.rate)
    }

    /// How many samples are missing before this frame; negative where it repeats some.
    fn off(&self, frame: &Frame) -> i64 {
        place(frame, self.rate) - self.next
    }

    /// Takes the samples of a frame. A hole before it is filled with silence.
    pub fn push(
        &mut self,
        frame: &Arc<Frame>,
        samples: impl Iterator<Item = i16>,
        out: &mut Vec<Arc<Frame>>,
    ) -> Result<(), OpusError> {
        let (off, tolerance) = (self.off(frame), i64::from(self.rate) / TOLERANCE);
        if off > tolerance {
            self.samples.resize(self.samples.len() + off as usize, 0);
            self.next += off;
        }
        // Already heard: left out.
        let heard = if off < -tolerance { off.unsigned_abs() as usize } else { 0 };
        let before = self.samples.len();
        self.samples.extend(samples.skip(heard));
        self.next += (self.samples.len() - before) as i64;
        self.lost = self.lost.saturating_add(frame.lost_before);
        self.newest = frame.clone();
        self.encode(out)
    }

    fn pad(&mut self, out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let packet = self.packet();
        let missing = (packet - self.samples.len() % packet) % packet;
        self.samples.resize(self.samples.len() + missing, 0);
        self.next += missing as i64;
        self.encode(out)
    }

    /// Samples in a packet.
    fn packet(&self) -> usize {
        (self.rate / PACKETS) as usize
    }

    fn encode(&mut self, out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let (packet, rate) = (self.packet(), i64::from(self.rate));
        let (first, newest) = (self.next - self.samples.len() as i64, place(&self.newest, self.rate));
        let whole = self.samples.len() / packet * packet;
        for (i, samples) in self.samples[..whole].chunks_exact(packet).enumerate() {
            let mut packet = [0; MAX_PACKET];
            let length = self.encoder.encode(samples, &mut packet)?;
            let at = first + (i * samples.len()) as i64 - self.late;
            out.push(Arc::new(Frame {
                track: Track::Audio,
                timeline: self.timeline,
                ticks: at * (i64::from(CLOCK) / rate),
                captured: self.newest.captured.shifted((at - newest) * 1_000_000 / rate),
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

/// Where a frame stands, counted in samples from the camera's zero.
fn place(frame: &Frame, rate: u32) -> i64 {
    (frame.ticks * i64::from(rate)).div_euclid(i64::from(frame.format.clock_rate.max(1)))
}

/// Opus as a browser sends it: two channels at 48 kHz, nothing to skip.
pub fn stereo() -> Format {
    let [r0, r1, r2, r3] = CLOCK.to_le_bytes();
    Format { channels: 2, config: Bytes::copy_from_slice(&[1, 2, 0, 0, r0, r1, r2, r3, 0, 0, 0]), ..format(0, CLOCK) }
}

/// Opus, one channel; the configuration is the body of `OpusHead` (RFC 7845 section 5.1).
fn format(pre_skip: u16, rate: u32) -> Format {
    let [p0, p1] = pre_skip.to_le_bytes();
    let [r0, r1, r2, r3] = rate.to_le_bytes();
    Format {
        codec: Codec::Opus,
        clock_rate: CLOCK,
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
            let slack = i64::from(RATE) / TOLERANCE + i64::from(RATE / PACKETS);
            prop_assert!((last.ticks + 960 + 312 - at * 6).abs() <= slack * 6);
            prop_assert!(out.iter().all(|f| f.captured.micros() == 1_000_000_000 + (f.ticks / 6) * 125));
        }
    }
}
