//! How loud a camera's sound is, whatever it is encoded in.

use std::{sync::Arc, time::Duration};

use ::opus::Channels;

use super::{
    aac,
    frame::{Codec, Format, Frame, Track},
    g711, sound,
};

/// The rate that Opus is decoded at to be measured: a voice is below half of it.
const RATE: u32 = 8_000;
/// The longest that a packet of Opus sounds, in samples (RFC 6716 section 2.1.4).
const LONGEST: usize = RATE as usize * 120 / 1_000;

/// Measures the frames of one stream, in order.
#[derive(Debug, Default)]
pub struct Meter(Option<(Arc<Format>, Decoder)>);

#[derive(Debug)]
enum Decoder {
    G711(&'static [i16; 256]),
    Opus(::opus::Decoder),
    Aac(Box<aac::Decoder>),
    /// Of a kind that is not understood.
    Deaf,
}

impl Meter {
    /// How loud a frame is, in dBFS, and how long it sounds. None: no sound, or none that is understood.
    pub fn measure(&mut self, frame: &Frame) -> Option<(f32, Duration)> {
        if frame.track != Track::Audio {
            return None;
        }
        let known = self.0.take().filter(|(format, _)| *format == frame.format);
        let (_, decoder) = self.0.insert(known.unwrap_or_else(|| (frame.format.clone(), Decoder::of(&frame.format))));
        let (samples, rate) = decoder.decode(&frame.data, frame.format.clock_rate)?;
        let length = Duration::from_secs_f64(samples.len() as f64 / f64::from(rate.max(1)));
        Some((sound::level(&samples), length))
    }
}

impl Decoder {
    fn of(format: &Format) -> Self {
        match format.codec {
            Codec::Pcmu => Self::G711(&g711::ULAW),
            Codec::Pcma => Self::G711(&g711::ALAW),
            Codec::Opus => ::opus::Decoder::new(RATE, Channels::Mono).map_or(Self::Deaf, Self::Opus),
            Codec::Aac => aac::Decoder::new(format).map_or(Self::Deaf, |decoder| Self::Aac(Box::new(decoder))),
            _ => Self::Deaf,
        }
    }

    fn decode(&mut self, data: &[u8], clock_rate: u32) -> Option<(Vec<i16>, u32)> {
        match self {
            Self::G711(table) => Some((data.iter().map(|byte| table[usize::from(*byte)]).collect(), clock_rate)),
            Self::Opus(decoder) => {
                let mut samples = vec![0; LONGEST];
                let decoded = decoder.decode(data, &mut samples, false).ok()?;
                samples.truncate(decoded);
                Some((samples, RATE))
            }
            Self::Aac(decoder) => Some((decoder.unit(data), decoder.rate())),
            Self::Deaf => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{super::sound::test::tone, *};
    use crate::district::clock::{Mono, Utc};

    fn frame(format: Format, data: Vec<u8>) -> Frame {
        Frame {
            track: Track::Audio,
            timeline: 0,
            ticks: 0,
            captured: Utc::default(),
            arrived: Mono::default(),
            key: true,
            lost_before: 0,
            format: Arc::new(format),
            data: Bytes::from(data),
        }
    }

    #[test]
    fn a_tone_is_as_loud_in_opus_as_in_g711_and_what_is_unknown_is_no_sound() {
        let voice = tone(48_000, 440.0, 8_000.0, 48_000);
        let mut encoder = ::opus::Encoder::new(48_000, Channels::Mono, ::opus::Application::Voip).unwrap();
        let packets = voice.chunks_exact(960).map(|piece| encoder.encode_vec(piece, 1_500).unwrap());
        let mut meter = Meter::default();
        let opus: Vec<_> =
            packets.filter_map(|p| meter.measure(&frame(Format::bare(Codec::Opus, 48_000), p))).collect();
        assert!(opus.len() == 50 && opus.iter().all(|(_, length)| *length == Duration::from_millis(20)), "{opus:?}");
        let near = |value: u8| g711::ULAW[usize::from(value)].unsigned_abs().abs_diff(5_657);
        // One code whose size is that of the tone's mean power.
        let code = (0..=255).min_by_key(|value| near(*value)).unwrap();
        let (g711, length) = meter.measure(&frame(Format::bare(Codec::Pcmu, 8_000), vec![code; 160])).unwrap();
        assert_eq!(length, Duration::from_millis(20));
        assert!((opus[40].0 - g711).abs() < 1.5, "{} and {g711}", opus[40].0);
        assert_eq!(meter.measure(&frame(Format::bare(Codec::Jpeg, 90_000), vec![1])), None);
    }
}
