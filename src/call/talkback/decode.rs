//! An operator's frames as samples at the unit's rate. Opus by libopus, with its concealment and the copies of lost
//! frames that senders put into the next (RFC 6716 section 2.1.7); G.711 by [`crate::media::conceal`]. Pure.

use std::time::Duration;

use opus::Channels;

use crate::media::{
    conceal::Concealer,
    frame::Codec,
    g711::{ALAW, ULAW},
    resample::Resampler,
};

/// Samples a second of G.711.
const G711: u32 = 8_000;

/// Sound that cannot be decoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    #[error("libopus: {0}")]
    Opus(#[from] opus::Error),
    #[error("{0:?} is no sound that an operator's browser sends")]
    Codec(Codec),
}

/// Decodes one stream.
#[derive(Debug)]
pub(super) enum Decoder {
    Opus { decoder: opus::Decoder, rate: u32 },
    G711 { table: &'static [i16; 256], concealer: Concealer, resampler: Resampler },
}

impl Decoder {
    /// For frames of that codec, to samples at `rate`: 8, 12, 16, 24 or 48 kHz.
    pub fn new(codec: Codec, rate: u32) -> Result<Self, Broken> {
        let table = match codec {
            Codec::Pcmu => &ULAW,
            Codec::Pcma => &ALAW,
            Codec::Opus => return Ok(Self::Opus { decoder: opus::Decoder::new(rate, Channels::Mono)?, rate }),
            other => return Err(Broken::Codec(other)),
        };
        Ok(Self::G711 { table, concealer: Concealer::new(G711), resampler: Resampler::new(G711, rate) })
    }

    /// The next frame's samples.
    pub fn frame(&mut self, data: &[u8], out: &mut Vec<i16>) -> Result<(), Broken> {
        match self {
            Self::Opus { decoder, rate } => {
                // No packet is longer than 120 ms.
                Self::opus(decoder, data, *rate as usize * 120 / 1_000, false, out)
            }
            Self::G711 { table, concealer, resampler } => {
                let mut samples: Vec<i16> = data.iter().map(|code| table[usize::from(*code)]).collect();
                concealer.heard(&mut samples);
                resampler.push(&samples, out);
                Ok(())
            }
        }
    }

    /// Samples in place of sound that is missing. `next` is the packet right after it, if that is there.
    pub fn missing(&mut self, length: Duration, next: Option<&[u8]>, out: &mut Vec<i16>) -> Result<(), Broken> {
        match self {
            Self::Opus { decoder, rate } => {
                // In steps of 2.5 ms, as libopus counts.
                let steps = (length.as_micros() / 2_500).clamp(1, 48) as usize;
                let samples = steps * *rate as usize / 400;
                match next {
                    Some(next) if Self::opus(decoder, next, samples, true, out).is_ok() => Ok(()),
                    _ => Self::opus(decoder, &[], samples, false, out),
                }
            }
            Self::G711 { concealer, resampler, .. } => {
                let mut made_up = Vec::new();
                concealer.missing((length.as_micros() * u128::from(G711) / 1_000_000) as usize, &mut made_up);
                resampler.push(&made_up, out);
                Ok(())
            }
        }
    }

    fn opus(
        decoder: &mut opus::Decoder,
        data: &[u8],
        samples: usize,
        copy: bool,
        out: &mut Vec<i16>,
    ) -> Result<(), Broken> {
        let before = out.len();
        out.resize(before + samples, 0);
        let decoded = decoder.decode(data, &mut out[before..], copy);
        out.truncate(before + *decoded.as_ref().unwrap_or(&0));
        decoded?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use opus::{Application, Encoder};
    use proptest::prelude::*;

    use super::*;
    use crate::media::{
        g711::to_ulaw,
        sound::{
            PIECE,
            test::{size_of, tone},
        },
    };

    fn packets(samples: &[i16]) -> Vec<Vec<u8>> {
        let mut encoder = Encoder::new(48_000, Channels::Mono, Application::Voip).unwrap();
        encoder.set_inband_fec(true).unwrap();
        encoder.set_packet_loss_perc(20).unwrap();
        samples.chunks_exact(960).map(|piece| encoder.encode_vec(piece, 1_275).unwrap()).collect()
    }

    fn size_without(codec: Codec, packets: &[Vec<u8>], rate: u32, every: usize, copies: bool) -> f64 {
        let mut decoder = Decoder::new(codec, rate).unwrap();
        let mut out = Vec::new();
        for (i, packet) in packets.iter().enumerate() {
            if i % every == every - 1 {
                let next = packets.get(i + 1).filter(|_| copies).map(|p| &p[..]);
                decoder.missing(PIECE, next, &mut out).unwrap();
            } else {
                decoder.frame(packet, &mut out).unwrap();
            }
        }
        assert_eq!(out.len(), packets.len() * rate as usize / 50);
        size_of(&out[out.len() / 4..], rate, 1_000.0)
    }

    #[test]
    fn a_tone_survives_every_codec_rate_and_loss() {
        let opus = packets(&tone(48_000, 1_000.0, 8_000.0, 48_000));
        let codes: Vec<u8> = tone(8_000, 1_000.0, 8_000.0, 8_000).into_iter().map(to_ulaw).collect();
        let ulaw: Vec<Vec<u8>> = codes.chunks(160).map(<[u8]>::to_vec).collect();
        for rate in [8_000, 16_000, 48_000] {
            for (every, copies) in [(1_000, false), (20, false), (20, true)] {
                let (a, b) = (
                    size_without(Codec::Opus, &opus, rate, every, copies),
                    size_without(Codec::Pcmu, &ulaw, rate, every, copies),
                );
                assert!(a > 6_500.0 && b > 6_500.0, "{rate} Hz, one of {every} lost: {a} {b}");
            }
        }
    }

    #[test]
    fn what_an_operator_does_not_send_is_refused() {
        assert!(Decoder::new(Codec::Aac, 8_000).is_err());
        assert!(Decoder::new(Codec::Opus, 44_100).is_err());
    }

    proptest! {
        #[test]
        fn no_packet_does_harm(packets in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..10)) {
            let mut decoder = Decoder::new(Codec::Opus, 8_000).unwrap();
            let mut out = Vec::new();
            for packet in packets {
                let _ = decoder.missing(PIECE, Some(&packet), &mut out);
                let _ = decoder.frame(&packet, &mut out);
            }
        }
    }
}
