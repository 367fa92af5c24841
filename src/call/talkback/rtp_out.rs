//! Samples as RTP packets of 20 ms (RFC 3550; RFC 3551 for G.711, RFC 7587 for Opus). Pure.

use bytes::Bytes;
use opus::{Application, Bitrate, Channels, Encoder};
use rtp::{header::Header, packet::Packet};
use webrtc_util::marshal::Marshal;

use crate::media::{
    g711::{to_alaw, to_ulaw},
    sound::piece,
};

/// What a speaker plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// G.711 mu-law.
    Pcmu,
    /// G.711 A-law.
    Pcma,
    /// Opus.
    Opus,
}

impl Encoding {
    /// Samples a second that are made for it. Opus is given what a voice needs: 16 kHz.
    pub const fn rate(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Opus => 16_000,
        }
    }

    /// Ticks a second of its RTP timestamps.
    pub const fn clock(self) -> u32 {
        match self {
            Self::Pcmu | Self::Pcma => 8_000,
            Self::Opus => 48_000,
        }
    }

    /// The RTP payload type where nobody says another: those of RFC 3551, and the one that is usual for Opus.
    pub const fn payload_type(self) -> u8 {
        match self {
            Self::Pcmu => 0,
            Self::Pcma => 8,
            Self::Opus => 111,
        }
    }
}

/// Bits a second of Opus: clear speech at 16 kHz.
const BITRATE: i32 = 24_000;
/// Lost packets, in percent, that senders of Opus make copies against.
const LOSS: i32 = 5;
/// Encoder effort, 0 to 10; there is one speaker at a time a call.
const COMPLEXITY: i32 = 5;
/// No packet is longer (RFC 6716 section 3.4).
const MAX_PACKET: usize = 1_275;

/// Sound that cannot be encoded.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unsent {
    #[error("the Opus encoder failed: {0}")]
    Opus(#[from] opus::Error),
    #[error("no RTP packet can be made: {0}")]
    Rtp(#[from] webrtc_util::Error),
}

/// Makes one stream of packets.
#[derive(Debug)]
pub(super) struct Packets {
    encoding: Encoding,
    opus: Option<Encoder>,
    header: Header,
    /// Timestamp of the piece with the number zero.
    began: u32,
    last: Option<u64>,
}

impl Packets {
    /// A stream in that encoding and with that payload type, whose numbers begin at random places.
    pub fn new(encoding: Encoding, payload_type: u8, random: &mut fastrand::Rng) -> Result<Self, Unsent> {
        let opus = match encoding {
            Encoding::Pcmu | Encoding::Pcma => None,
            Encoding::Opus => {
                let mut encoder = Encoder::new(encoding.rate(), Channels::Mono, Application::Voip)?;
                encoder.set_bitrate(Bitrate::Bits(BITRATE))?;
                encoder.set_complexity(COMPLEXITY)?;
                encoder.set_inband_fec(true)?;
                encoder.set_packet_loss_perc(LOSS)?;
                Some(encoder)
            }
        };
        let header = Header {
            version: 2,
            payload_type,
            sequence_number: random.u16(..),
            ssrc: random.u32(..),
            ..Header::default()
        };
        Ok(Self { encoding, opus, header, began: random.u32(..), last: None })
    }

    /// The packet of a piece of 20 ms. `number` counts pieces from the beginning, those that were silent and not sent too:
    /// so the receiver knows of a pause.
    pub fn packet(&mut self, samples: &[i16], number: u64) -> Result<Bytes, Unsent> {
        let payload = match (&mut self.opus, self.encoding) {
            (Some(encoder), _) => {
                let mut packet = vec![0; MAX_PACKET];
                let length = encoder.encode(samples, &mut packet)?;
                packet.truncate(length);
                packet
            }
            (None, Encoding::Pcma) => samples.iter().map(|s| to_alaw(*s)).collect(),
            (None, _) => samples.iter().map(|s| to_ulaw(*s)).collect(),
        };
        // The first after a pause is marked (RFC 3551 section 4.1).
        self.header.marker = self.last.is_none_or(|last| number != last + 1);
        self.header.timestamp =
            self.began.wrapping_add((number as u32).wrapping_mul(piece(self.encoding.clock()) as u32));
        let packet = Packet { header: self.header.clone(), payload: payload.into() }.marshal()?;
        self.header.sequence_number = self.header.sequence_number.wrapping_add(1);
        self.last = Some(number);
        Ok(packet)
    }
}

#[cfg(test)]
mod tests {
    use webrtc_util::marshal::Unmarshal;

    use super::*;
    use crate::media::{
        g711::{ALAW, ULAW},
        sound::test::{size_of, tone},
    };

    fn sent(encoding: Encoding, numbers: &[u64]) -> Vec<Packet> {
        let mut packets = Packets::new(encoding, 100, &mut fastrand::Rng::with_seed(7)).unwrap();
        let tone = tone(encoding.rate(), 1_000.0, 8_000.0, piece(encoding.rate()) * numbers.len());
        let made = tone.chunks(piece(encoding.rate())).zip(numbers).map(|(s, n)| packets.packet(s, *n).unwrap());
        made.map(|mut bytes| Packet::unmarshal(&mut bytes).unwrap()).collect()
    }

    #[test]
    fn packets_say_where_they_stand_and_where_a_pause_was() {
        for encoding in [Encoding::Pcmu, Encoding::Pcma, Encoding::Opus] {
            let sent = sent(encoding, &[0, 1, 5]);
            let ticks = piece(encoding.clock()) as u32;
            let times: Vec<u32> =
                sent.iter().map(|p| p.header.timestamp.wrapping_sub(sent[0].header.timestamp) / ticks).collect();
            assert_eq!(times, [0, 1, 5]);
            assert_eq!(sent.iter().map(|p| p.header.marker).collect::<Vec<_>>(), [true, false, true]);
            assert_eq!(sent[2].header.sequence_number.wrapping_sub(sent[0].header.sequence_number), 2);
            assert!(sent.iter().all(|p| p.header.payload_type == 100 && p.header.ssrc == sent[0].header.ssrc));
        }
    }

    #[test]
    fn what_is_sent_is_the_sound_in_every_encoding() {
        let numbers: Vec<u64> = (0..50).collect();
        for (encoding, table) in [(Encoding::Pcmu, &ULAW), (Encoding::Pcma, &ALAW)] {
            let codes = sent(encoding, &numbers).into_iter().flat_map(|p| p.payload);
            let samples: Vec<i16> = codes.map(|c| table[usize::from(c)]).collect();
            assert!((size_of(&samples, 8_000, 1_000.0) - 8_000.0).abs() < 400.0);
        }
        let mut decoder = opus::Decoder::new(48_000, Channels::Mono).unwrap();
        let mut samples = Vec::new();
        for packet in sent(Encoding::Opus, &numbers) {
            let mut piece = [0; 960];
            assert_eq!(decoder.decode(&packet.payload, &mut piece, false).unwrap(), 960);
            samples.extend(piece);
        }
        assert!(size_of(&samples[9_600..], 48_000, 1_000.0) > 6_500.0);
    }
}
