//! Frames as RTP payloads that fit into datagrams: RFC 6184 for H.264, RFC 7798 for H.265, RFC 2435 for JPEG, RFC 3640 for
//! AAC, one payload for each packet of other sound. Pure.

pub mod aac;
mod jpeg;

use std::sync::Arc;

use super::{
    frame::{Codec, Frame, Track},
    init,
};

/// The payloads of one frame, in order; shared by all who send it.
pub type Payloads = Vec<Arc<[u8]>>;

/// H.264: several NAL units in one payload (RFC 6184 section 5.7.1), part of one (section 5.8).
const STAP_A: u8 = 24;
const FU_A: u8 = 28;

/// H.265: the same (RFC 7798 sections 4.4.2 and 4.4.3).
const AP: u8 = 48;
const FU: u8 = 49;

/// A frame as payloads of at most `most` bytes. A key frame has the parameter sets before it: whoever joins needs no
/// others. None: RTP has no payload for it (JPEG that no camera sends by RTP, AAC beyond its limits).
///
/// What follows a NAL unit whose length is wrong is left out.
pub fn payloads(frame: &Frame, most: usize) -> Option<Payloads> {
    match frame.format.codec {
        Codec::Pcmu | Codec::Pcma | Codec::Opus => Some(vec![frame.data.as_ref().into()]),
        Codec::H264 | Codec::H265 => Some(pictures(frame, most)),
        Codec::Jpeg => jpeg::payloads(&frame.data, most),
        Codec::Aac => aac::payloads(&frame.data, most),
    }
}

fn pictures(frame: &Frame, most: usize) -> Payloads {
    let nal = Nal { hevc: frame.format.codec == Codec::H265, most };
    let mut out = Vec::with_capacity(frame.data.len() / most + 2);
    let in_band = units(&frame.data).any(|unit| nal.is_parameter_set(unit));
    if frame.key && frame.track == Track::Video && !in_band {
        nal.together(&init::parameter_sets(&frame.format), &mut out);
    }
    units(&frame.data).for_each(|unit| nal.alone(unit, &mut out));
    out
}

/// NAL units behind their 4-byte lengths.
fn units(mut data: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, rest) = data.split_first_chunk::<4>()?;
        let (unit, rest) = rest.split_at_checked(u32::from_be_bytes(*length) as usize)?;
        data = rest;
        Some(unit)
    })
}

/// How NAL units are put into payloads.
#[derive(Clone, Copy)]
struct Nal {
    hevc: bool,
    most: usize,
}

impl Nal {
    fn header(self) -> usize {
        if self.hevc { 2 } else { 1 }
    }

    fn kind(self, unit: &[u8]) -> u8 {
        let first = unit.first().copied().unwrap_or(0);
        if self.hevc { first >> 1 & 0x3f } else { first & 0x1f }
    }

    fn is_parameter_set(self, unit: &[u8]) -> bool {
        if self.hevc { matches!(self.kind(unit), 32..=34) } else { matches!(self.kind(unit), 7 | 8) }
    }

    /// Small units in one payload; each alone where they are too large for that.
    fn together(self, units: &[Vec<u8>], out: &mut Payloads) {
        let size: usize = self.header() + units.iter().map(|u| u.len() + 2).sum::<usize>();
        if units.len() < 2 || size > self.most {
            return units.iter().for_each(|unit| self.alone(unit, out));
        }
        let mut payload = Vec::with_capacity(size);
        if self.hevc {
            payload.extend([AP << 1, 1]);
        } else {
            let importance = units.iter().filter_map(|u| u.first()).map(|b| b & 0x60).max().unwrap_or(0);
            payload.push(importance | STAP_A);
        }
        for unit in units {
            // Smaller than a payload, and so than 64 KiB.
            payload.extend((unit.len() as u16).to_be_bytes());
            payload.extend(unit);
        }
        out.push(payload.into());
    }

    /// One unit: as it is where it fits, else in parts of equal size.
    fn alone(self, unit: &[u8], out: &mut Payloads) {
        if unit.len() <= self.header() {
            return;
        }
        if unit.len() <= self.most {
            return out.push(unit.into());
        }
        let (header, body) = unit.split_at(self.header());
        let room = self.most.saturating_sub(self.header() + 1).max(1);
        let parts = body.len().div_ceil(room);
        let each = body.len().div_ceil(parts);
        for (i, part) in body.chunks(each).enumerate() {
            let place = if i == 0 { 0x80 } else { 0 } | if (i + 1) * each >= body.len() { 0x40 } else { 0 };
            let mut payload = Vec::with_capacity(self.header() + 1 + part.len());
            if self.hevc {
                payload.extend([header[0] & 0x81 | FU << 1, header[1]]);
            } else {
                payload.push(header[0] & 0xe0 | FU_A);
            }
            payload.push(place | self.kind(unit));
            payload.extend(part);
            out.push(payload.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;
    use rtp::{codecs::h264::H264Packet, packetizer::Depacketizer};

    use super::*;
    use crate::{
        district::clock::{Mono, Utc},
        media::frame::Format,
    };

    const AVCC: &[u8] = &[1, 0x4d, 0x40, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x28, 1, 0, 2, 0x68, 0xee];

    fn frame(codec: Codec, key: bool, units: &[Vec<u8>]) -> Frame {
        let data: Vec<u8> = units.iter().flat_map(|u| [&(u.len() as u32).to_be_bytes()[..], u].concat()).collect();
        let config = if codec == Codec::H264 { Bytes::from_static(AVCC) } else { Bytes::new() };
        let format = Format { config, ..Format::bare(codec, 90_000) };
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

    /// What a receiver makes of H.264 payloads: units behind their lengths.
    fn received(payloads: &Payloads) -> Vec<u8> {
        let mut packet = H264Packet::default();
        packet.is_avc = true;
        payloads.iter().flat_map(|p| packet.depacketize(&Bytes::copy_from_slice(p)).unwrap()).collect()
    }

    /// What a receiver makes of H.265 payloads (RFC 7798 section 4.4): units behind their lengths.
    fn received_hevc(payloads: &Payloads) -> Vec<Vec<u8>> {
        let mut units: Vec<Vec<u8>> = Vec::new();
        for p in payloads {
            match (p[0] >> 1 & 0x3f, p.get(2)) {
                (49, Some(fu)) if fu & 0x80 != 0 => {
                    units.push([&[p[0] & 0x81 | (fu & 0x3f) << 1, p[1]], &p[3..]].concat());
                }
                (49, _) => units.last_mut().unwrap().extend(&p[3..]),
                _ => units.push(p.to_vec()),
            }
        }
        units
    }

    #[test]
    fn a_key_frame_has_its_parameter_sets_before_it_unless_they_are_in_it() {
        let idr = [vec![0x65, 1, 2, 3]];
        let sent = payloads(&frame(Codec::H264, true, &idr), 100).unwrap();
        assert_eq!((sent.len(), sent[0][0], &sent[1][..]), (2, 0x60 | STAP_A, &idr[0][..]));
        assert_eq!(
            received(&sent),
            [&[0, 0, 0, 4][..], &AVCC[8..12], &[0, 0, 0, 2], &AVCC[15..], &[0, 0, 0, 4], &idr[0]].concat()
        );
        let own = [vec![0x67, 9], vec![0x68, 9], vec![0x65, 1]];
        assert_eq!(payloads(&frame(Codec::H264, true, &own), 100).unwrap().len(), 3);
        assert_eq!(payloads(&frame(Codec::H264, false, &idr), 100).unwrap().len(), 1);
    }

    #[test]
    fn a_wrong_length_ends_the_frame_and_nothing_else() {
        let mut wrong = frame(Codec::H264, false, &[vec![0x41, 7]]);
        wrong.data = [&wrong.data[..], &[0, 0, 1, 0, 5]].concat().into();
        assert_eq!(payloads(&wrong, 100).unwrap().len(), 1);
        wrong.data = Bytes::from_static(&[0xff; 3]);
        assert!(payloads(&wrong, 100).unwrap().is_empty());
        assert!(payloads(&frame(Codec::Jpeg, true, &[]), 100).is_none());
    }

    proptest! {
        #[test]
        fn what_is_sent_is_what_is_received(
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 3..4_000), 1..6), most in 60usize..1_400,
        ) {
            let of = |head: &[u8]| bodies.iter().map(|b| [head, b].concat()).collect::<Vec<_>>();
            let avc = frame(Codec::H264, false, &of(&[0x41]));
            let sent = payloads(&avc, most).unwrap();
            prop_assert!(sent.iter().all(|p| p.len() <= most));
            prop_assert_eq!(received(&sent), avc.data.to_vec());
            let hevc = of(&[0x02, 0x01]);
            let sent = payloads(&frame(Codec::H265, false, &hevc), most).unwrap();
            prop_assert!(sent.iter().all(|p| p.len() <= most));
            prop_assert_eq!(received_hevc(&sent), hevc);
        }
    }
}
