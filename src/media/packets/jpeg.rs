//! JPEG pictures as RTP payloads (RFC 2435): those that a camera can have sent by RTP, baseline with the standard's own
//! Huffman tables. Pure.

use super::Payloads;

/// Tables come within the stream, as they are.
const Q: u8 = 255;
/// Marks (ITU-T T.81 table B.1).
const DQT: u8 = 0xdb;
const SOF0: u8 = 0xc0;
const DRI: u8 = 0xdd;
const SOS: u8 = 0xda;
const EOI: [u8; 2] = [0xff, 0xd9];

/// What a receiver must know of a picture.
#[derive(Debug, Default)]
struct Picture<'a> {
    /// Tables of quantization, 64 bytes each, by their number.
    tables: [Option<&'a [u8]>; 4],
    /// Of the luminance and of the chrominance.
    used: [usize; 2],
    /// 0: 4:2:2, 1: 4:2:0 (section 4.1).
    kind: u8,
    /// Across and down, in blocks of 8 pixels.
    size: [u8; 2],
    restart: Option<u16>,
    scan: &'a [u8],
}

/// A picture as payloads of at most `most` bytes. None: it is not one of those that RFC 2435 carries.
pub(super) fn payloads(jpeg: &[u8], most: usize) -> Option<Payloads> {
    let picture = Picture::read(jpeg)?;
    let tables: Vec<&[u8]> = picture.used.iter().map(|&t| picture.tables[t & 3]).collect::<Option<_>>()?;
    let mut out = Payloads::new();
    let mut at = 0;
    while at < picture.scan.len() {
        // The main header (section 3.1.1), that of restart markers (3.1.7), that of the tables (3.1.8).
        let mut payload = Vec::with_capacity(most);
        let [_, high, middle, low] = u32::try_from(at).ok().filter(|at| *at < 1 << 24)?.to_be_bytes();
        let kind = picture.kind | if picture.restart.is_some() { 64 } else { 0 };
        payload.extend([0, high, middle, low, kind, Q, picture.size[0], picture.size[1]]);
        if let Some(every) = picture.restart {
            // First and last part of the whole, its number unknown: the picture is put together before it is decoded.
            payload.extend(every.to_be_bytes());
            payload.extend([0xff, 0xff]);
        }
        if at == 0 {
            payload.extend([0, 0, 0, 128]);
            tables.iter().for_each(|table| payload.extend(*table));
        }
        let room = most.saturating_sub(payload.len()).max(1);
        let part = &picture.scan[at..picture.scan.len().min(at + room)];
        payload.extend(part);
        at += part.len();
        out.push(payload.into());
    }
    Some(out)
}

impl<'a> Picture<'a> {
    fn read(jpeg: &'a [u8]) -> Option<Self> {
        let mut picture = Self { kind: u8::MAX, ..Self::default() };
        let mut rest = jpeg.strip_prefix(&[0xff, 0xd8])?;
        loop {
            let [0xff, mark, high, low, ..] = *rest else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let (segment, after) = rest.get(2..)?.split_at_checked(length)?;
            let body = segment.get(2..)?;
            match mark {
                DQT => picture.quantization(body)?,
                SOF0 => picture.frame(body)?,
                DRI => {
                    let every = u16::from_be_bytes(*body.first_chunk()?);
                    picture.restart = (every > 0).then_some(every);
                }
                SOS => {
                    picture.scan = after.strip_suffix(&EOI).unwrap_or(after);
                    return (picture.kind != u8::MAX && !picture.scan.is_empty()).then_some(picture);
                }
                // Other ways to code (progressive and the like) have no place here.
                0xc1..=0xc3 | 0xc5..=0xc7 | 0xc9..=0xcb | 0xcd..=0xcf => return None,
                _ => {}
            }
            rest = after;
        }
    }

    fn quantization(&mut self, mut body: &'a [u8]) -> Option<()> {
        while let [which, rest @ ..] = body {
            // Sixteen bits each come from nothing that cameras are.
            let table = self.tables.get_mut(usize::from(*which))?;
            let (values, after) = rest.split_at_checked(64)?;
            *table = Some(values);
            body = after;
        }
        Some(())
    }

    fn frame(&mut self, body: &[u8]) -> Option<()> {
        let [8, y1, y0, x1, x0, 3, _, luma, q0, _, 0x11, q1, _, 0x11, q2, ..] = *body else { return None };
        self.kind = match luma {
            0x21 => 0,
            0x22 => 1,
            _ => return None,
        };
        if q1 != q2 {
            return None;
        }
        self.used = [q0.into(), q1.into()];
        let blocks = |pixels: [u8; 2]| u8::try_from(u16::from_be_bytes(pixels).div_ceil(8)).ok();
        self.size = [blocks([x1, x0])?, blocks([y1, y0])?];
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Bytes of the main header (section 3.1.1), and of those of restart markers and quantization tables (3.1.7, 3.1.8).
    const MAIN: usize = 8;
    const RESTART: usize = 4;
    const TABLES: usize = 4;

    fn jpeg(luma: u8, restart: Option<u16>, scan: &[u8]) -> Vec<u8> {
        let mut all = vec![0xff, 0xd8, 0xff, 0xe0, 0, 4, 1, 2];
        for which in [0, 1] {
            all.extend([0xff, DQT, 0, 67, which]);
            all.extend([which + 1; 64]);
        }
        all.extend([0xff, SOF0, 0, 17, 8, 2, 0xd0, 5, 0, 3, 1, luma, 0, 2, 0x11, 1, 3, 0x11, 1]);
        if let Some(every) = restart {
            all.extend([&[0xff, DRI, 0, 4][..], &every.to_be_bytes()].concat());
        }
        all.extend([0xff, SOS, 0, 12, 3, 1, 0, 2, 0x11, 3, 0x11, 0, 0x3f, 0]);
        [&all, scan, &EOI].concat()
    }

    #[test]
    fn the_first_part_has_the_tables_and_each_says_where_it_belongs() {
        let scan: Vec<u8> = (0..=255).cycle().take(3_000).collect();
        let sent = payloads(&jpeg(0x22, None, &scan), 1_400).unwrap();
        assert_eq!(sent.len(), 3);
        assert_eq!(sent[0][..MAIN + TABLES], [0, 0, 0, 0, 1, 255, 160, 90, 0, 0, 0, 128]);
        assert_eq!((sent[0][12], sent[0][12 + 64]), (1, 2));
        let bodies = [&sent[0][MAIN + TABLES + 128..], &sent[1][MAIN..], &sent[2][MAIN..]];
        assert_eq!(bodies.concat(), scan);
        let at = |p: &[u8]| u32::from_be_bytes([0, p[1], p[2], p[3]]) as usize;
        assert_eq!(at(&sent[2]), bodies[0].len() + bodies[1].len());
    }

    #[test]
    fn restart_intervals_and_the_other_sampling_are_said() {
        let sent = payloads(&jpeg(0x21, Some(80), &[1, 2, 3]), 1_400).unwrap();
        assert_eq!((sent[0][4], &sent[0][MAIN..MAIN + RESTART]), (64, &[0, 80, 0xff, 0xff][..]));
    }

    #[test]
    fn what_rfc_2435_does_not_carry_is_left_out() {
        assert!(payloads(&jpeg(0x11, None, &[1]), 1_400).is_none(), "4:4:4");
        assert!(payloads(&jpeg(0x22, None, &[]), 1_400).is_none(), "nothing");
        assert!(payloads(&[0xff, 0xd8, 0xff, 0xc2, 0, 2], 1_400).is_none(), "progressive");
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..200), cut in 0usize..400) {
            let _ = payloads(&bytes, 100);
            let mut torn = jpeg(0x22, Some(1), &bytes);
            torn.truncate(cut);
            let _ = payloads(&torn, 100);
        }
    }
}
