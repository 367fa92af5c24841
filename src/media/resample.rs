//! Sound at another rate: a windowed sinc, one set of weights for each place that an output sample can have between two
//! input samples. Pure.
//!
//! What is above nine tenths of the lower rate's half is taken away before it could fold down. Integer ratios need a
//! handful of sets; 44.1 kHz to 8 kHz needs 80.

use std::f64::consts::PI;

use super::sound::Sound;

/// Zero crossings of the sinc on each side.
const CROSSINGS: usize = 12;
/// Of the lower rate's half, what passes.
const PASSED: f64 = 0.92;

/// Makes a stream of samples at one rate into one at another. As many come out as go in, by time: it begins with a
/// silence of [`Resampler::delay`] samples of the input instead of with less.
#[derive(Debug)]
pub struct Resampler {
    /// Output samples for every `down` input samples.
    up: usize,
    down: usize,
    /// Input samples on each side that an output sample is made of.
    half: usize,
    /// `up` sets of `2 * half` weights.
    weights: Vec<f32>,
    /// Input that is still needed.
    held: Vec<i16>,
    /// Where the next output sample stands: `1 / up` of an input sample after the first held.
    at: usize,
}

impl Resampler {
    /// From `from` samples a second to `to`. Both are taken as at least 1.
    pub fn new(from: u32, to: u32) -> Self {
        let (from, to) = (from.max(1) as usize, to.max(1) as usize);
        let divisor = common(from, to);
        let (up, down) = (to / divisor, from / divisor);
        if up == down {
            return Self { up, down, half: 0, weights: Vec::new(), held: Vec::new(), at: 0 };
        }
        let scale = (to as f64 / from as f64).min(1.0);
        let half = (CROSSINGS as f64 / scale).ceil() as usize;
        let weights = (0..up).flat_map(|phase| weights(half, phase as f64 / up as f64, scale * PASSED)).collect();
        Self { up, down, half, weights, held: vec![0; 2 * half - 1], at: 0 }
    }

    /// By how many samples of the input the output is late.
    pub fn delay(&self) -> usize {
        self.half
    }

    /// Takes the next samples, and gives what can be made of them.
    pub fn push(&mut self, samples: &[i16], out: &mut Vec<i16>) {
        if self.half == 0 {
            return out.extend(samples);
        }
        self.held.extend(samples);
        let taps = 2 * self.half;
        loop {
            let (first, phase) = (self.at / self.up, self.at % self.up);
            let Some(input) = self.held.get(first..first + taps) else { break };
            let weights = &self.weights[phase * taps..][..taps];
            let sum: f32 = input.iter().zip(weights).map(|(s, w)| f32::from(*s) * w).sum();
            out.push(sum.round() as i16);
            self.at += self.down;
        }
        let done = (self.at / self.up).min(self.held.len());
        self.held.drain(..done);
        self.at -= done * self.up;
    }

    /// A whole sound at another rate, not late.
    pub fn whole(sound: &Sound, to: u32) -> Vec<i16> {
        let mut resampler = Self::new(sound.rate, to);
        let late = resampler.delay() * resampler.up / resampler.down;
        let mut out = Vec::new();
        resampler.push(&sound.samples, &mut out);
        resampler.push(&vec![0; resampler.delay()], &mut out);
        out.drain(..late.min(out.len()));
        out
    }
}

/// Weights of the samples around a place `phase` of the way from one input sample to the next. They add up to one.
fn weights(half: usize, phase: f64, cutoff: f64) -> impl Iterator<Item = f32> {
    let weight = move |i: usize| {
        let x = i as f64 - (half as f64 - 1.0) - phase;
        let sinc = if x == 0.0 { 1.0 } else { (PI * cutoff * x).sin() / (PI * cutoff * x) };
        // Blackman's window.
        let place = PI * (x / half as f64).clamp(-1.0, 1.0);
        sinc * (0.42 + 0.5 * place.cos() + 0.08 * (2.0 * place).cos())
    };
    let sum: f64 = (0..2 * half).map(weight).sum();
    (0..2 * half).map(move |i| (weight(i) / sum) as f32)
}

fn common(a: usize, b: usize) -> usize {
    if b == 0 { a } else { common(b, a % b) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{
        super::sound::{
            level,
            test::{size_of, tone},
        },
        *,
    };

    #[test]
    fn a_tone_keeps_its_height_and_size_at_every_rate() {
        for from in [8_000, 11_025, 16_000, 24_000, 32_000, 44_100, 48_000] {
            for to in [8_000, 16_000, 24_000, 48_000] {
                let sound = Sound { rate: from, samples: tone(from, 1_000.0, 10_000.0, from as usize) };
                let out = Resampler::whole(&sound, to);
                assert!(out.len().abs_diff(to as usize) <= 1, "{from} to {to}: {}", out.len());
                let middle = &out[to as usize / 4..to as usize * 3 / 4];
                let size = size_of(middle, to, 1_000.0);
                assert!((9_900.0..10_100.0).contains(&size), "{from} to {to}: {size}");
            }
        }
    }

    #[test]
    fn what_the_lower_rate_cannot_hold_is_taken_away_and_not_folded_down() {
        let sound = Sound { rate: 48_000, samples: tone(48_000, 5_200.0, 20_000.0, 48_000) };
        let out = Resampler::whole(&sound, 8_000);
        assert!(level(&out[800..7_200]) < -60.0, "{}", level(&out[800..7_200]));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn a_stream_is_the_same_however_it_is_cut_and_as_long_as_what_went_in(
            cuts in prop::collection::vec(0usize..500, 1..20), rates in prop::sample::select(vec![
                (8_000, 48_000), (48_000, 8_000), (8_000, 16_000), (16_000, 8_000), (24_000, 16_000), (8_000, 8_000)
            ])
        ) {
            let (from, to) = rates;
            let all = tone(from, 440.0, 9_000.0, cuts.iter().sum());
            let (mut once, mut cut) = (Vec::new(), Vec::new());
            Resampler::new(from, to).push(&all, &mut once);
            let mut resampler = Resampler::new(from, to);
            let mut rest = &all[..];
            for n in cuts {
                let (now, later) = rest.split_at(n);
                resampler.push(now, &mut cut);
                rest = later;
            }
            prop_assert_eq!(&once, &cut);
            prop_assert_eq!(once.len(), (all.len() * to as usize).div_ceil(from as usize));
        }
    }
}
