//! AAC as RTP payloads (RFC 3640, mode AAC-hbr): one access unit a packet, or a large one in parts. Pure.

use super::Payloads;

/// Bytes before an access unit: how long the headers are in bits, and one header of 13 bits size and 3 bits index.
const HEADERS: usize = 4;
/// A size has 13 bits.
const LARGEST: usize = (1 << 13) - 1;

/// What a description says of it beside the configuration (section 4.1).
pub const PARAMETERS: &str =
    "streamtype=5;profile-level-id=1;mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3";

/// An access unit as payloads of at most `most` bytes. None: it is larger than AAC can be.
pub(super) fn payloads(unit: &[u8], most: usize) -> Option<Payloads> {
    if unit.len() > LARGEST {
        return None;
    }
    // Each part says how large the whole is (section 3.2.3.1).
    let [high, low] = ((unit.len() << 3) as u16).to_be_bytes();
    let parts = unit.chunks(most.saturating_sub(HEADERS).max(1));
    Some(parts.map(|part| [&[0, 16, high, low], part].concat().into()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_travels_whole_where_it_fits_and_in_parts_that_say_its_size() {
        let unit: Vec<u8> = (0..200).collect();
        let whole = payloads(&unit, 1_400).unwrap();
        assert_eq!((whole.len(), &whole[0][..4], &whole[0][4..]), (1, &[0, 16, 6, 64][..], &unit[..]));
        let parts = payloads(&unit, 104).unwrap();
        assert!(parts.len() == 2 && parts.iter().all(|p| p.len() == 104 && p[..4] == [0, 16, 6, 64]));
        assert!(payloads(&vec![0; LARGEST + 1], 1_400).is_none());
    }
}
