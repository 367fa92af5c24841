//! What is in a sound, for tests.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{f64::consts::TAU, path::Path};

use chowki::media::g711::ULAW;

/// A tone.
pub fn tone(rate: u32, hertz: f64, samples: usize) -> Vec<i16> {
    (0..samples).map(|i| ((i as f64 * hertz * TAU / f64::from(rate)).sin() * 8_000.0) as i16).collect()
}

/// The size of a tone in a sound (Goertzel's algorithm).
pub fn size_of(samples: &[i16], rate: u32, hertz: f64) -> f64 {
    let w = hertz * TAU / f64::from(rate);
    let (mut a, mut b) = (0.0, 0.0);
    for sample in samples {
        (a, b) = (f64::from(*sample) + 2.0 * w.cos() * a - b, a);
    }
    (a * a + b * b - 2.0 * w.cos() * a * b).max(0.0).sqrt() * 2.0 / samples.len().max(1) as f64
}

/// What a speaker got as mu-law codes in a file.
pub fn heard(file: &Path) -> Vec<i16> {
    std::fs::read(file).unwrap_or_default().into_iter().map(|code| ULAW[usize::from(code)]).collect()
}

/// The tone among some that is largest in the last half second of what a speaker got, where it is loud at all.
pub fn latest(file: &Path, tones: &[f64]) -> Option<f64> {
    let all = heard(file);
    let last = all.get(all.len().checked_sub(4_000)?..)?;
    let sizes = tones.iter().map(|hertz| (size_of(last, 8_000, *hertz), *hertz));
    sizes.filter(|(size, _)| *size > 300.0).max_by(|a, b| a.0.total_cmp(&b.0)).map(|(_, hertz)| hertz)
}
