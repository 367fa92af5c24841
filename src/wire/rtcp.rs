//! RTCP of a sender (RFC 3550 section 6). Pure.

use crate::district::clock::Utc;

/// Seconds from 1900 (NTP) to 1970.
const NTP_1970: u64 = 2_208_988_800;
/// Packet types (section 12.1).
const SENDER_REPORT: u8 = 200;
const DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// The types that there are.
const TYPES: std::ops::RangeInclusive<u8> = 200..=207;
/// Who sends: the same for all of a session's tracks, which belong together by it.
const NAME: &[u8; 6] = b"chowki";

/// What has been sent of a track.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sent {
    /// RTP packets.
    pub packets: u32,
    /// Bytes of their payloads.
    pub octets: u32,
}

/// A sender report with a canonical name (sections 6.4.1 and 6.5): at this wall time the track's clock stood there.
pub fn sender_report(ssrc: u32, wall: Utc, timestamp: u32, sent: Sent) -> Vec<u8> {
    let since_1970 = u64::try_from(wall.micros()).unwrap_or(0);
    let seconds = (since_1970 / 1_000_000 + NTP_1970) as u32;
    let fraction = (((since_1970 % 1_000_000) << 32) / 1_000_000) as u32;
    let mut bytes = vec![0x80, SENDER_REPORT, 0, 6];
    for word in [ssrc, seconds, fraction, timestamp, sent.packets, sent.octets] {
        bytes.extend(word.to_be_bytes());
    }
    // One chunk, item CNAME (1), ended by zeros to a full word.
    bytes.extend([0x81, DESCRIPTION, 0, 4]);
    bytes.extend(ssrc.to_be_bytes());
    bytes.extend([1, NAME.len() as u8]);
    bytes.extend(NAME);
    bytes.extend([0; 4]);
    bytes
}

/// That a track has ended (section 6.6), behind a last report as every compound packet has one at its head.
pub fn goodbye(mut report: Vec<u8>, ssrc: u32) -> Vec<u8> {
    report.extend([0x81, GOODBYE, 0, 1]);
    report.extend(ssrc.to_be_bytes());
    report
}

/// Whether these bytes are RTCP by their first packet (section A.2): a receiver lives.
pub fn is_rtcp(bytes: &[u8]) -> bool {
    let [first, kind, high, low, ..] = bytes else { return false };
    let length = 4 * (usize::from(u16::from_be_bytes([*high, *low])) + 1);
    first >> 6 == 2 && TYPES.contains(kind) && length <= bytes.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_ties_wall_time_to_the_tracks_clock() {
        let wall = Utc::from_micros(1_772_366_400_500_000);
        let report = sender_report(7, wall, 9, Sent { packets: 3, octets: 4_000 });
        assert_eq!(report.len(), 28 + 20);
        let word = |i: usize| u32::from_be_bytes(report[4 * i..4 * i + 4].try_into().unwrap());
        let seconds = (1_772_366_400_u64 + NTP_1970) as u32;
        assert_eq!([1, 2, 3, 4, 5, 6].map(word), [7, seconds, 1 << 31, 9, 3, 4_000]);
        assert!(is_rtcp(&report) && is_rtcp(&goodbye(report, 7)));
    }

    #[test]
    fn what_only_looks_like_rtcp_is_none() {
        // A receiver report without blocks is one.
        assert!(is_rtcp(&[0x80, 201, 0, 1, 0, 0, 0, 7]));
        for other in [&[][..], &[0x80, 201, 0, 1, 0, 0, 0], &[0x40, 201, 0, 0], &[0x80, 96, 0, 0], b"\xce\xfa\xed\xfe"]
        {
            assert!(!is_rtcp(other), "{other:?}");
        }
    }
}
