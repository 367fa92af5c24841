//! G.711 codes to linear samples (ITU-T G.711, tables 1a to 2b). Pure.

/// A-law: the 16-bit linear value of each code.
pub(super) const ALAW: [i16; 256] = {
    let mut table = [0; 256];
    let mut code = 0;
    while code < 256 {
        table[code] = alaw(code as u8);
        code += 1;
    }
    table
};

/// Mu-law: the 16-bit linear value of each code.
pub(super) const ULAW: [i16; 256] = {
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

#[cfg(test)]
mod tests {
    use super::*;

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
