//! A camera's AAC as Opus, for browsers, which take no AAC by WebRTC. Pure.
//!
//! Down-mixed to one channel: what is heard live is a place and a voice, and evidence keeps the AAC with all its channels.
//! At a rate that Opus knows (8, 12, 16, 24 and 48 kHz) nothing is resampled; any other goes to 48 kHz.

use std::{fmt, ops::RangeInclusive, sync::Arc};

use symphonia_codec_aac::AacDecoder;
use symphonia_core::{
    audio::{Audio, GenericAudioBufferRef},
    codecs::audio::{AudioCodecParameters, AudioDecoder, AudioDecoderOptions, well_known::CODEC_ID_AAC},
    packet::PacketRef,
    units::{Duration, Timestamp},
};

use super::{
    frame::{Codec, Format, Frame},
    opus::{OpusError, Stream},
    resample::Resampler,
};

/// Rates of AAC that are taken (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 9] = [8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000];
/// Those that Opus takes too.
const NATIVE: [u32; 5] = [8_000, 12_000, 16_000, 24_000, 48_000];
/// Samples an access unit (ISO/IEC 14496-3 section 4.5.2.1.1).
const UNIT: usize = 1_024;
/// No access unit is shorter: one channel of silence has 32 bits with its end. None is longer: its length has 13 bits (RFC
/// 3640 section 3.3.6).
const LENGTHS: RangeInclusive<usize> = 4..=8_191;
/// What an access unit ends with: ID_END of ISO/IEC 14496-3.
const END: u8 = 7;

/// Why AAC cannot be made into Opus.
#[derive(Debug, thiserror::Error)]
pub enum AacError {
    /// Not a kind of AAC that is decoded here.
    #[error("AAC that is not decoded here ({0}): set the camera to AAC-LC with one or two channels, or to G.711")]
    Config(String),
    /// A rate at which nobody sends sound.
    #[error("AAC at {0} Hz; 8000 to 48000 are known: set the camera's microphone to 16000")]
    Rate(u32),
    /// It is decoded, but cannot be encoded.
    #[error(transparent)]
    Opus(#[from] OpusError),
}

/// Makes one camera's AAC into Opus; other sound goes through as it is.
#[derive(Debug, Default)]
pub struct Transcoder {
    /// What the last frame was encoded in.
    format: Option<Arc<Format>>,
    /// None where that cannot be decoded.
    ear: Option<Ear>,
}

impl Transcoder {
    /// Takes the next frame of sound and gives the packets that are complete by it. A frame that cannot be decoded is
    /// as much silence.
    ///
    /// # Errors
    /// [`AacError`], once for each format that cannot be decoded; its frames come to nothing.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Result<Vec<Arc<Frame>>, AacError> {
        if frame.format.codec != Codec::Aac {
            return Ok(vec![frame.clone()]);
        }
        if self.format.as_ref() != Some(&frame.format) {
            self.format = Some(frame.format.clone());
            self.ear = None;
            self.ear = Some(Ear::new(&frame.format)?);
        }
        let mut out = Vec::new();
        if let Some(ear) = &mut self.ear {
            ear.hear(frame, &mut out)?;
        }
        Ok(out)
    }
}

/// Sound of one format on its way into Opus.
#[derive(Debug)]
struct Ear {
    decoder: Decoder,
    resampler: Resampler,
    /// The unbroken stretch that it is in.
    stream: Option<Stream>,
}

impl Ear {
    fn new(format: &Format) -> Result<Self, AacError> {
        let decoder = Decoder::new(format)?;
        let resampler = Resampler::new(decoder.rate, opus_rate(decoder.rate));
        Ok(Self { decoder, resampler, stream: None })
    }

    fn hear(&mut self, frame: &Arc<Frame>, out: &mut Vec<Arc<Frame>>) -> Result<(), OpusError> {
        let (from, to) = (self.decoder.rate, opus_rate(self.decoder.rate));
        let mut stream = match self.stream.take().filter(|stream| stream.goes_on_with(frame)) {
            Some(stream) => stream,
            None => {
                self.resampler = Resampler::new(from, to);
                let late = self.resampler.delay() as u64 * u64::from(to) / u64::from(from);
                Stream::new(frame, to, late as usize)?
            }
        };
        let mut samples = Vec::with_capacity(UNIT * to as usize / from as usize + 1);
        self.resampler.push(&self.decoder.unit(&frame.data), &mut samples);
        stream.push(frame, samples.into_iter(), out)?;
        self.stream = Some(stream);
        Ok(())
    }
}

/// The rate at which Opus takes what is sampled at `rate`.
fn opus_rate(rate: u32) -> u32 {
    if NATIVE.contains(&rate) { rate } else { 48_000 }
}

/// Decodes access units to one channel.
pub(super) struct Decoder {
    aac: AacDecoder,
    config: AudioCodecParameters,
    /// Samples a second.
    rate: u32,
}

impl Decoder {
    pub(super) fn new(format: &Format) -> Result<Self, AacError> {
        let mut config = AudioCodecParameters::new();
        config.for_codec(CODEC_ID_AAC).with_extra_data(format.config.as_ref().into());
        let aac = open(&config).map_err(|error| AacError::Config(error.to_string()))?;
        let rate = aac.codec_params().sample_rate.unwrap_or(0);
        if RATES.contains(&rate) { Ok(Self { aac, config, rate }) } else { Err(AacError::Rate(rate)) }
    }

    /// Samples a second.
    pub(super) fn rate(&self) -> u32 {
        self.rate
    }

    /// The samples of an access unit; silence where it cannot be decoded.
    pub(super) fn unit(&mut self, data: &[u8]) -> Vec<i16> {
        // Of a unit without sound the decoder gives what it gave before.
        let sounds = LENGTHS.contains(&data.len()) && data.first().is_some_and(|first| first >> 5 != END);
        if sounds {
            let packet = PacketRef::new(0, Timestamp::from(0_u32), Duration::from(UNIT as u32), data);
            if let Ok(GenericAudioBufferRef::F32(heard)) = self.aac.decode_ref(&packet) {
                return mixed(heard.plane(0).unwrap_or_default(), heard.plane(1));
            }
        }
        // What a damaged unit has said of its channels, the decoder would hold against all that follow.
        if let Ok(fresh) = open(&self.config) {
            self.aac = fresh;
        }
        vec![0; UNIT]
    }
}

fn open(config: &AudioCodecParameters) -> symphonia_core::errors::Result<AacDecoder> {
    AacDecoder::try_new(config, &AudioDecoderOptions::default())
}

/// One channel out of one or two.
fn mixed(left: &[f32], right: Option<&[f32]>) -> Vec<i16> {
    // A cast from f32 saturates, and makes 0 of what is no number.
    let sample = |s: f32| (s * 32_768.0).round() as i16;
    match right {
        Some(right) => left.iter().zip(right).map(|(l, r)| sample((l + r) / 2.0)).collect(),
        None => left.iter().copied().map(sample).collect(),
    }
}

impl fmt::Debug for Decoder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Decoder").field("rate", &self.rate).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use opus::Channels;
    use proptest::prelude::*;

    use super::{
        super::{frame::Track, sound::test::size_of},
        *,
    };
    use crate::district::clock::{Mono, Utc};

    /// 440 Hz at half of full size, 16 kHz, one channel, by ffmpeg's encoder.
    const MONO: &[u8] = include_bytes!("tones/mono-16k.aac");
    /// The same on the left of two channels at 44.1 kHz.
    const LEFT: &[u8] = include_bytes!("tones/left-44k1.aac");

    /// The access units of an ADTS stream, and their AudioSpecificConfig.
    fn units(adts: &'static [u8]) -> (Vec<&'static [u8]>, [u8; 2]) {
        let (mut rest, mut units) = (adts, Vec::new());
        while let [_, _, b2, b3, b4, b5, ..] = *rest {
            let length = usize::from(b3 & 3) << 11 | usize::from(b4) << 3 | usize::from(b5) >> 5;
            units.push(&rest[7..length]);
            rest = &rest[length..];
            let rate = b2 >> 2 & 15;
            if rest.is_empty() {
                return (units, [2 << 3 | rate >> 1, rate << 7 | (b2 & 1) << 6 | b3 >> 6 << 3]);
            }
        }
        panic!("no ADTS");
    }

    fn format(rate: u32, config: &[u8]) -> Arc<Format> {
        Arc::new(Format { config: Bytes::copy_from_slice(config), channels: 1, ..Format::bare(Codec::Aac, rate) })
    }

    fn frame(format: &Arc<Format>, timeline: u32, ticks: i64, data: &[u8]) -> Arc<Frame> {
        Arc::new(Frame {
            track: Track::Audio,
            timeline,
            ticks,
            captured: Utc::from_micros(1_000_000_000 + ticks * 1_000_000 / i64::from(format.clock_rate)),
            arrived: Mono::from_boot(std::time::Duration::from_millis(5_000 + ticks as u64 / 16)),
            key: true,
            lost_before: 0,
            format: format.clone(),
            data: Bytes::copy_from_slice(data),
        })
    }

    /// A tone's frames one after the other, from `first` on.
    fn tone(adts: &'static [u8], rate: u32, first: i64) -> Vec<Arc<Frame>> {
        let (units, config) = units(adts);
        let format = format(rate, &config);
        let at = |i: usize| first + (i * UNIT) as i64;
        units.iter().enumerate().map(|(i, data)| frame(&format, 0, at(i), data)).collect()
    }

    fn push_all(transcoder: &mut Transcoder, frames: &[Arc<Frame>]) -> Vec<Arc<Frame>> {
        frames.iter().flat_map(|f| transcoder.push(f).unwrap()).collect()
    }

    fn decoded(packets: &[Arc<Frame>]) -> Vec<i16> {
        let mut decoder = opus::Decoder::new(48_000, Channels::Mono).unwrap();
        let mut out = Vec::new();
        for packet in packets {
            let mut piece = [0; 5_760];
            let n = decoder.decode(&packet.data, &mut piece, false).unwrap();
            out.extend(&piece[..n]);
        }
        out
    }

    #[test]
    fn a_tone_is_heard_at_its_height_and_size_and_two_channels_become_one() {
        for (adts, rate, size) in [(MONO, 16_000, 16_384.0), (LEFT, 44_100, 8_192.0)] {
            let frames = tone(adts, rate, 7_000);
            let packets = push_all(&mut Transcoder::default(), &frames);
            let length = frames.len() * UNIT * 50 / rate as usize;
            assert!(packets.len().abs_diff(length) <= 1, "{} packets for {length}", packets.len());
            let heard = decoded(&packets);
            let middle = &heard[9_600..19_200];
            let (at, beside) = (size_of(middle, 48_000, 440.0), size_of(middle, 48_000, 1_000.0));
            assert!((size * 0.8..size * 1.2).contains(&at) && beside < at / 50.0, "{rate} Hz: {at}, {beside}");
        }
    }

    #[test]
    fn packets_are_dated_by_what_is_heard_in_them_on_opus_clock() {
        let packets = push_all(&mut Transcoder::default(), &tone(MONO, 16_000, 16_000));
        // libopus looks ahead 6.5 ms in this mode.
        assert_eq!((packets[0].ticks, packets[0].timeline), (48_000 - 312, 0));
        assert_eq!(packets[0].captured.micros(), 1_001_000_000 - 6_500);
        assert_eq!(packets[0].arrived, Mono::from_boot(std::time::Duration::from_millis(6_000)));
        assert!(packets.windows(2).all(|w| w[1].ticks - w[0].ticks == 960));
        assert_eq!((packets[0].format.codec, packets[0].format.clock_rate), (Codec::Opus, 48_000));
        // Resampled, and so 12 samples of 44.1 kHz later still.
        let packets = push_all(&mut Transcoder::default(), &tone(LEFT, 44_100, 44_100));
        assert_eq!(packets[0].ticks, 48_000 - 312 - 13);
        assert!(packets.windows(2).all(|w| w[1].ticks - w[0].ticks == 960));
    }

    #[test]
    fn a_damaged_unit_is_as_much_silence_and_no_more() {
        let frames = tone(MONO, 16_000, 0);
        let whole = push_all(&mut Transcoder::default(), &frames);
        for damage in [&[][..], &[0x21, 0xff], &[0xff; 40], &[0x20; 9_000]] {
            let mut torn = frames.clone();
            torn[3] = frame(&frames[3].format, 0, frames[3].ticks, damage);
            let packets = push_all(&mut Transcoder::default(), &torn);
            assert!(packets.iter().zip(&whole).all(|(a, b)| a.ticks == b.ticks) && packets.len() == whole.len());
            let heard = decoded(&packets);
            let (missing, after) = (&heard[10_400..11_600], &heard[21_600..31_200]);
            let (missing, after) = (size_of(missing, 48_000, 440.0), size_of(after, 48_000, 440.0));
            assert!(missing < 300.0 && after > 13_000.0, "{damage:02x?}: {missing}, {after}");
        }
    }

    #[test]
    fn a_short_hole_is_silence_and_a_new_timeline_begins_anew() {
        let frames = tone(MONO, 16_000, 0);
        let (mut transcoder, data) = (Transcoder::default(), &frames[5].data);
        let mut packets = push_all(&mut transcoder, &frames[..5]);
        packets.extend(transcoder.push(&frame(&frames[0].format, 0, 7 * UNIT as i64, data)).unwrap());
        assert_eq!(packets.len(), 8 * UNIT / 320);
        let fresh = transcoder.push(&frame(&frames[0].format, 1, 99, data)).unwrap();
        assert_eq!((fresh[0].ticks, fresh[0].timeline), (99 * 3 - 312, 1));
    }

    #[test]
    fn what_cannot_be_decoded_is_said_once_and_other_sound_goes_through() {
        let mut transcoder = Transcoder::default();
        // HE-AAC said outright, six channels, nothing at all; 96 kHz.
        for (config, said) in [(&[0x2b, 0x11, 0x88, 0x00][..], "AAC-LC"), (&[0x14, 0x30], "AAC-LC"), (&[], "AAC-LC")]
            .into_iter()
            .chain([(&[0x10, 0x08][..], "96000 Hz")])
        {
            let bad = frame(&format(16_000, config), 0, 0, &[0; 20]);
            let error = transcoder.push(&bad).unwrap_err().to_string();
            assert!(error.contains(said) && error.contains("set the camera"), "{error}");
            assert!(transcoder.push(&bad).unwrap().is_empty(), "once is enough");
        }
        let g711 = frame(&Arc::new(Format::bare(Codec::Pcmu, 8_000)), 0, 0, &[0xff; 160]);
        assert!(Arc::ptr_eq(&transcoder.push(&g711).unwrap()[0], &g711));
        assert_eq!(push_all(&mut transcoder, &tone(MONO, 16_000, 0)).len(), units(MONO).0.len() * UNIT / 320);
    }

    fn config() -> impl Strategy<Value = Vec<u8>> {
        let real = prop::sample::select(vec![vec![0x14, 0x08], vec![0x12, 0x10], vec![0x15, 0x90], vec![0x11, 0x88]]);
        prop_oneof![4 => real, 1 => prop::collection::vec(any::<u8>(), 0..12)]
    }

    /// Bytes as they come, and real units with some of theirs changed.
    fn unit() -> impl Strategy<Value = Vec<u8>> {
        let all = [units(MONO).0, units(LEFT).0].concat();
        let torn =
            (prop::sample::select(all), prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6));
        let torn = torn.prop_map(|(unit, changes)| {
            let mut unit = unit.to_vec();
            changes.iter().for_each(|(at, byte)| *at.get_mut(&mut unit) = *byte);
            unit
        });
        prop_oneof![torn, prop::collection::vec(any::<u8>(), 0..300)]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]
        #[test]
        fn no_unit_and_no_config_does_harm_and_times_never_go_back(
            config in config(), rate in prop::sample::select(vec![16_000, 44_100, 90_000]),
            units in prop::collection::vec((unit(), 0i64..3_000), 0..12)
        ) {
            let (format, mut transcoder, mut out, mut at) = (format(rate, &config), Transcoder::default(), Vec::new(), 0);
            for (unit, hole) in units {
                out.extend(transcoder.push(&frame(&format, 0, at, &unit)).unwrap_or_default());
                at += UNIT as i64 + hole;
            }
            prop_assert!(out.windows(2).all(|w| w[1].ticks - w[0].ticks >= 960));
        }
    }
}
