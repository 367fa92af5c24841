//! G.711 codes to linear samples and back (ITU-T G.711, tables 1a to 2b). Pure.

/// A-law: the 16-bit linear value of each code.
pub const ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = alaw(code as u8);
        code += 1;
    }
    table
};

/// Mu-law: the 16-bit linear value of each code.
pub const ULAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = ulaw(code as u8);
        code += 1;
    }
    table
};

/// The even bits are inverted on the line; then sign, three bits of segment, four of step.
const fn alaw(code: u8) -> i16 {
    let code = code ^ 0x55;
    let (segment, step) = ((code >> 4) & 7, (code & 0x0f) as i16);
    let size = match segment {
        0 => (step << 4) + 8,
        s => ((step << 4) + 0x108) << (s - 1),
    };
    if code & 0x80 == 0 { -size } else { size }
}

/// All bits are inverted on the line; the segments begin 132 (33 x 4) below what they would without the bias.
const fn ulaw(code: u8) -> i16 {
    let code = !code;
    let (segment, step) = ((code >> 4) & 7, (code & 0x0f) as i16);
    let size = (((step << 3) + 0x84) << segment) - 0x84;
    if code & 0x80 == 0 { size } else { -size }
}

/// The mu-law code nearest below a sample's size (table 2a).
pub fn to_ulaw(sample: i16) -> u8 {
    // The largest that has a code, and the bias that makes every segment begin at a power of two.
    let size = sample.unsigned_abs().min(32_635) + 132;
    let segment = size.ilog2() as u16 - 7;
    let code = (segment << 4) | ((size >> (segment + 3)) & 0x0f);
    !(code as u8 | if sample < 0 { 0x80 } else { 0 })
}

/// The A-law code of a sample (table 1a).
pub fn to_alaw(sample: i16) -> u8 {
    let size = (if sample < 0 { !sample } else { sample } as u16) >> 4;
    let code = match size {
        0..32 => size,
        _ => {
            let segment = size.ilog2() as u16 - 3;
            (segment << 4) | ((size >> (segment - 1)) & 0x0f)
        }
    };
    (code as u8 | if sample < 0 { 0 } else { 0x80 }) ^ 0x55
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_its_own_code_again() {
        for code in 0..=255u8 {
            // Mu-law has two zeros.
            let ulaw = if code == 0x7f { 0xff } else { code };
            assert_eq!(to_ulaw(ULAW[usize::from(code)]), ulaw, "{code:#x}");
            assert_eq!(to_alaw(ALAW[usize::from(code)]), code, "{code:#x}");
        }
    }

    #[test]
    fn a_sample_comes_back_as_the_nearest_code_lets_it() {
        for sample in i16::MIN..=i16::MAX {
            // Steps are a sixteenth of the segment's size; the clip is at 32,124.
            let most = i32::from(sample.unsigned_abs()) / 16 + 16;
            for back in [ULAW[usize::from(to_ulaw(sample))], ALAW[usize::from(to_alaw(sample))]] {
                assert!((i32::from(back) - i32::from(sample)).abs() <= most, "{sample} came back as {back}");
            }
        }
    }

    #[test]
    fn codes_have_the_values_of_the_standard() {
        // Largest values: 8,031 (14 bits) and 4,032 (13 bits), in 16 bits.
        assert_eq!((ULAW[0x80], ULAW[0x00]), (8031 * 4, -8031 * 4));
        assert_eq!((ALAW[0xaa], ALAW[0x2a]), (4032 * 8, -4032 * 8));
        // Silence on the line.
        assert_eq!((ULAW[0xff], ULAW[0x7f], ALAW[0xd5], ALAW[0x55]), (0, 0, 8, -8));
    }

    #[test]
    fn louder_codes_are_louder() {
        for code in 0..127usize {
            assert!(ULAW[0x80 + code] > ULAW[0x80 + code + 1]);
            assert!(ALAW[(0x80 + code) ^ 0x55] < ALAW[(0x80 + code + 1) ^ 0x55]);
            assert_eq!(ULAW[code], -ULAW[0x80 + code]);
        }
    }
}
