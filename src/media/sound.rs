//! Sound as samples: one channel, 16 bits. How loud it is, louder, together. Pure.

use std::time::Duration;

/// What sound is cut into on its way to a unit.
pub const PIECE: Duration = Duration::from_millis(20);

/// Silence, in dBFS: nothing is quieter.
pub const SILENCE: f32 = -96.0;

/// Sound that is all there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sound {
    /// Samples a second.
    pub rate: u32,
    /// One channel.
    pub samples: Vec<i16>,
}

impl Sound {
    /// How long it plays.
    pub fn length(&self) -> Duration {
        Duration::from_secs_f64(self.samples.len() as f64 / f64::from(self.rate.max(1)))
    }
}

/// Samples in [`PIECE`] at a rate.
pub const fn piece(rate: u32) -> usize {
    (rate / 50) as usize
}

/// Root mean square, in dB below a square wave of full size; [`SILENCE`] at the least.
pub fn level(samples: &[i16]) -> f32 {
    let power: f64 = samples.iter().map(|s| f64::from(*s).powi(2)).sum::<f64>() / samples.len().max(1) as f64;
    let level = 10.0 * (power / f64::from(1 << 30)).log10();
    (level as f32).max(SILENCE)
}

/// `gain` times as large, cut off at full size. 1 changes nothing.
pub fn amplify(samples: &mut [i16], gain: f32) {
    if gain == 1.0 {
        return;
    }
    for sample in samples {
        // A cast from f32 saturates, and makes 0 of what is no number.
        *sample = (f32::from(*sample) * gain).round() as i16;
    }
}

/// Adds `other` to the front of `samples`, cut off at full size.
pub fn mix(samples: &mut [i16], other: &[i16]) {
    for (sample, other) in samples.iter_mut().zip(other) {
        *sample = sample.saturating_add(*other);
    }
}

#[cfg(test)]
pub mod test {
    //! Tones, and how to know them again.

    use std::f64::consts::TAU;

    /// A sine of that size.
    pub fn tone(rate: u32, hertz: f64, size: f64, samples: usize) -> Vec<i16> {
        (0..samples).map(|i| ((i as f64 * hertz * TAU / f64::from(rate)).sin() * size) as i16).collect()
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
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_are_those_of_known_tones() {
        assert!((level(&test::tone(8_000, 1_000.0, 32_767.0, 8_000)) + 3.01).abs() < 0.02);
        assert!((level(&[i16::MAX; 160])).abs() < 0.01);
        assert_eq!((level(&[0; 160]), level(&[])), (SILENCE, SILENCE));
    }

    #[test]
    fn what_is_too_loud_is_cut_off_and_does_not_turn_round() {
        let mut samples = [20_000, -20_000, 100, 0];
        amplify(&mut samples, 2.0);
        assert_eq!(samples, [i16::MAX, i16::MIN, 200, 0]);
        mix(&mut samples, &[1, -1, 1]);
        assert_eq!(samples, [i16::MAX, i16::MIN, 201, 0]);
        amplify(&mut samples, f32::NAN);
        assert_eq!(samples, [0; 4]);
    }
}
