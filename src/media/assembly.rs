//! RTP packets of H.264 back to pictures (RFC 6184): what [`packets`](super::packets) does, the other way. Pure.
//!
//! Packets may come late or out of order; they wait for each other a moment. What is lost for good costs every picture up
//! to the next key frame: a decoder would show damage where nobody expects it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::{nal::sps::SeqParameterSet, rbsp};

use super::frame::{Codec, Format};
use crate::district::clock::Mono;

/// A packet that is missing is waited for so long: a line's round trip, for it to be sent again.
const PATIENCE: Duration = Duration::from_millis(250);
/// Packets that wait. When there are more, the missing one is given up.
const WAITING: usize = 512;
/// Largest picture, in bytes. What is larger is given up.
const LARGEST: usize = 4 << 20;

/// Kinds of payloads and NAL units (RFC 6184 table 1, ITU-T H.264 table 7-1).
const IDR: u8 = 5;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// An RTP packet as it came in.
#[derive(Debug, Clone)]
pub struct Packet {
    /// Extended sequence number.
    pub number: u64,
    /// Extended RTP time, 90 kHz.
    pub time: i64,
    /// The last of its picture.
    pub marker: bool,
    /// What it carries.
    pub payload: Arc<[u8]>,
    /// When it came.
    pub arrived: Mono,
}

/// A picture.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Extended RTP time, 90 kHz.
    pub time: i64,
    /// Decoding can begin here.
    pub key: bool,
    /// Packets lost before it.
    pub lost_before: u16,
    /// When its last packet came.
    pub arrived: Mono,
    /// What a decoder must know.
    pub format: Arc<Format>,
    /// NAL units behind their 4-byte lengths, without parameter sets.
    pub data: Bytes,
}

/// Puts pictures together.
#[derive(Debug, Default)]
pub struct Assembler {
    waiting: BTreeMap<u64, Packet>,
    /// The number of the packet that comes next.
    next: Option<u64>,
    picture: Parts,
    sets: Sets,
    format: Option<Arc<Format>>,
    /// Something of the pictures since the last key frame is missing.
    broken: bool,
    lost: u16,
}

/// A picture that is not whole yet.
#[derive(Debug, Default)]
struct Parts {
    time: Option<i64>,
    data: BytesMut,
    /// A NAL unit in parts: its bytes so far.
    part: Option<BytesMut>,
    key: bool,
    damaged: bool,
}

/// The latest parameter sets.
#[derive(Debug, Default, PartialEq, Eq, Clone)]
struct Sets {
    sequence: Vec<u8>,
    picture: Vec<u8>,
}

impl Assembler {
    /// Takes a packet; gives the pictures that are whole by it.
    pub fn push(&mut self, packet: Packet) -> Vec<Picture> {
        let now = packet.arrived;
        let next = *self.next.get_or_insert(packet.number);
        if packet.number < next {
            return Vec::new();
        }
        self.waiting.insert(packet.number, packet);
        let mut out = Vec::new();
        loop {
            while let Some(packet) = self.next.and_then(|next| self.waiting.remove(&next)) {
                self.next = Some(packet.number + 1);
                self.take(packet, &mut out);
            }
            let Some((&first, oldest)) = self.waiting.first_key_value() else { return out };
            if now.since(oldest.arrived) < PATIENCE && self.waiting.len() <= WAITING {
                return out;
            }
            let missing = first - self.next.unwrap_or(first);
            self.lost = self.lost.saturating_add(u16::try_from(missing).unwrap_or(u16::MAX));
            (self.next, self.broken, self.picture.damaged) = (Some(first), true, true);
        }
    }

    /// Whether nothing can be shown before the next key frame.
    pub fn wants_key(&self) -> bool {
        self.broken || self.format.is_none()
    }

    fn take(&mut self, packet: Packet, out: &mut Vec<Picture>) {
        if self.picture.time.is_some_and(|time| time != packet.time) {
            // Its last packet had no marker.
            self.finish(packet.arrived, out);
        }
        self.picture.time = Some(packet.time);
        if self.payload(&packet.payload).is_none() || self.picture.data.len() > LARGEST {
            self.picture.damaged = true;
        }
        if packet.marker {
            self.finish(packet.arrived, out);
        }
    }

    /// Takes what a packet carries apart. None: it is not what RFC 6184 says.
    fn payload(&mut self, payload: &[u8]) -> Option<()> {
        let (header, rest) = payload.split_first()?;
        match header & 0x1f {
            1..=23 => self.unit(payload),
            STAP_A => {
                let mut rest = rest;
                while let Some((length, after)) = rest.split_first_chunk::<2>() {
                    let (unit, after) = after.split_at_checked(u16::from_be_bytes(*length).into())?;
                    self.unit(unit);
                    rest = after;
                }
            }
            FU_A => {
                let (place, body) = rest.split_first()?;
                if place & 0x80 != 0 {
                    self.picture.part = Some(BytesMut::from(&[header & 0xe0 | place & 0x1f][..]));
                }
                let part = self.picture.part.as_mut()?;
                part.extend_from_slice(body);
                if part.len() > LARGEST {
                    return None;
                }
                if place & 0x40 != 0 {
                    let whole = self.picture.part.take()?;
                    self.unit(&whole);
                }
            }
            _ => return None,
        }
        Some(())
    }

    fn unit(&mut self, unit: &[u8]) {
        let Some(header) = unit.first() else { return };
        match header & 0x1f {
            SPS => self.sets.sequence = unit.to_vec(),
            PPS => self.sets.picture = unit.to_vec(),
            DELIMITER => {}
            kind => {
                self.picture.key |= kind == IDR;
                // Bounded by what a packet and a picture may be, and so within 32 bits.
                self.picture.data.put_u32(unit.len() as u32);
                self.picture.data.extend_from_slice(unit);
            }
        }
    }

    fn finish(&mut self, arrived: Mono, out: &mut Vec<Picture>) {
        let Parts { time, data, part, key, damaged } = std::mem::take(&mut self.picture);
        let damaged = damaged || part.is_some();
        let Some(time) = time.filter(|_| !data.is_empty() || damaged) else { return };
        if damaged {
            self.broken = true;
            return;
        }
        if key {
            let known = self.format.as_ref().is_some_and(|f| f.config == self.sets.avcc());
            if !known {
                self.format = self.sets.format().map(Arc::new);
            }
        }
        let Some(format) = self.format.clone().filter(|_| key || !self.broken) else { return };
        self.broken = false;
        let lost_before = std::mem::take(&mut self.lost);
        out.push(Picture { time, key, lost_before, arrived, format, data: data.freeze() });
    }
}

impl Sets {
    /// The body of `avcC` (ISO/IEC 14496-15 section 5.3.3.1.2); empty where a set is missing.
    fn avcc(&self) -> Vec<u8> {
        let (sps, pps) = (&self.sequence, &self.picture);
        let lengths = (u16::try_from(sps.len()), u16::try_from(pps.len()));
        let ([_, profile, compatible, level, ..], false, (Ok(s), Ok(p))) = (&sps[..], pps.is_empty(), lengths) else {
            return Vec::new();
        };
        let head = [1, *profile, *compatible, *level, 0xff, 0xe1];
        [&head[..], &s.to_be_bytes(), sps, &[1], &p.to_be_bytes(), pps].concat()
    }

    fn format(&self) -> Option<Format> {
        let config = self.avcc();
        let [_, profile, compatible, level] = *self.sequence.first_chunk::<4>()?;
        let body = rbsp::decode_nal(&self.sequence).ok()?;
        let read = SeqParameterSet::from_bits(rbsp::BitReader::new(&*body)).ok()?;
        let (width, height) = read.pixel_dimensions().ok()?;
        (!config.is_empty()).then(|| Format {
            codec: Codec::H264,
            clock_rate: 90_000,
            width: u16::try_from(width).unwrap_or(u16::MAX),
            height: u16::try_from(height).unwrap_or(u16::MAX),
            channels: 0,
            config: config.into(),
            rfc6381: format!("avc1.{profile:02x}{compatible:02x}{level:02x}"),
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{
        district::clock::Utc,
        media::{
            frame::{Frame, Track},
            packets,
        },
    };

    /// Of a browser: 640 by 360, constrained baseline.
    const SPS_360P: &[u8] = &[0x67, 0x42, 0xc0, 0x1e, 0x8c, 0x8d, 0x40, 0x50, 0x17, 0xfc, 0xb0, 0x0f, 0x08, 0x84, 0x6a];
    const PPS: &[u8] = &[0x68, 0xce, 0x3c, 0x80];

    fn frame(key: bool, units: &[Vec<u8>]) -> Frame {
        let data: Vec<u8> = units.iter().flat_map(|u| [&(u.len() as u32).to_be_bytes()[..], u].concat()).collect();
        let sets = Sets { sequence: SPS_360P.to_vec(), picture: PPS.to_vec() };
        let format = Format { config: sets.avcc().into(), ..Format::bare(Codec::H264, 90_000) };
        Frame {
            track: Track::Video,
            timeline: 0,
            ticks: 0,
            captured: Utc::default(),
            arrived: Mono::default(),
            key,
            lost_before: 0,
            format: Arc::new(format),
            data: data.into(),
        }
    }

    fn ms(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    /// Pictures as a browser sends them, 33 ms apart, a key frame every ten.
    fn stream(sizes: &[usize]) -> (Vec<Bytes>, Vec<Packet>) {
        let (mut pictures, mut packets) = (Vec::new(), Vec::new());
        for (i, size) in sizes.iter().enumerate() {
            let key = i % 10 == 0;
            let slice = |n: usize| [&[if key { 0x65 } else { 0x41 }][..], &vec![n as u8; *size]].concat();
            let frame = frame(key, &[slice(i), slice(i + 1)]);
            pictures.push(frame.data.clone());
            let payloads = packets::payloads(&frame, 1_140).unwrap();
            let last = payloads.len() - 1;
            for (n, payload) in payloads.into_iter().enumerate() {
                packets.push(Packet {
                    number: packets.len() as u64 + 7,
                    time: i as i64 * 3_000,
                    marker: n == last,
                    payload,
                    arrived: ms(i as u64 * 33),
                });
            }
        }
        (pictures, packets)
    }

    fn all(packets: impl IntoIterator<Item = Packet>) -> Vec<Picture> {
        let mut assembler = Assembler::default();
        packets.into_iter().flat_map(|p| assembler.push(p)).collect()
    }

    #[test]
    fn the_format_is_what_the_stream_says() {
        let (_, packets) = stream(&[100]);
        let format = all(packets)[0].format.clone();
        assert_eq!((format.width, format.height, format.rfc6381.as_str()), (640, 360, "avc1.42c01e"));
        let (sets, sequence) = (super::super::init::parameter_sets(&format), SPS_360P.to_vec());
        assert_eq!(sets, [sequence, PPS.to_vec()]);
    }

    #[test]
    fn after_a_loss_nothing_is_shown_before_the_next_key_frame() {
        let (pictures, mut packets) = stream(&[3_000; 30]);
        let lost = packets.iter().position(|p| p.time == 4 * 3_000).unwrap();
        packets.remove(lost + 1);
        let seen = all(packets);
        let times: Vec<_> = seen.iter().map(|p| p.time / 3_000).collect();
        assert_eq!(times, (0..4).chain(10..30).collect::<Vec<_>>());
        assert_eq!((seen[4].lost_before, seen[4].key, &seen[4].data), (1, true, &pictures[10]));
    }

    #[test]
    fn what_is_no_h264_ends_nothing_and_shows_nothing() {
        let bad: [&[u8]; 7] = [&[], &[24, 0], &[24, 0xff, 0xff, 1], &[28], &[28, 0x40], &[31, 1], &[24, 0, 9, 1]];
        let (_, good) = stream(&[100]);
        let mut assembler = Assembler::default();
        for (i, payload) in bad.into_iter().enumerate() {
            let packet =
                Packet { number: i as u64, time: i as i64, marker: true, payload: payload.into(), arrived: ms(0) };
            assert!(assembler.push(packet).is_empty());
        }
        let after = good.into_iter().map(|p| Packet { number: p.number, ..p });
        assert_eq!(after.flat_map(|p| assembler.push(p)).count(), 1);
    }

    proptest! {
        #[test]
        fn packets_in_any_order_within_a_moment_are_the_pictures_that_were_sent(
            sizes in prop::collection::vec(1usize..4_000, 1..40), swaps in prop::collection::vec(0usize..400, 0..60)
        ) {
            let (pictures, mut packets) = stream(&sizes);
            for at in swaps {
                // The first one says where numbers begin.
                if at > 0 && at + 1 < packets.len() {
                    packets.swap(at, at + 1);
                }
            }
            let seen: Vec<_> = all(packets).into_iter().map(|p| p.data).collect();
            prop_assert_eq!(seen, pictures);
        }

        #[test]
        fn whatever_comes_is_taken(payloads in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..40), 0..60)) {
            let packet = |(i, payload): (usize, Vec<u8>)| Packet {
                number: i as u64, time: (i / 3) as i64, marker: i % 3 == 2, payload: payload.into(), arrived: ms(i as u64)
            };
            all(payloads.into_iter().enumerate().map(packet));
        }
    }
}
