//! Sound that is missing, made up from what was heard before (in the manner of ITU-T G.711 appendix I), and sound that
//! lasts too long, made shorter. Both by whole periods of the voice, so that its height stays. Pure.

use std::time::Duration;

/// The longest and shortest periods of a voice, in fractions of a second: 66 to 400 Hz.
const LONGEST: u32 = 66;
/// See `LONGEST`.
const SHORTEST: u32 = 400;
/// What is made up is as loud as what was heard for so long, and then fades.
const LOUD: Duration = Duration::from_millis(10);
/// After so long it is silence: what was said then is anybody's guess.
const GONE: Duration = Duration::from_millis(60);

/// Fills the holes in one stream.
#[derive(Debug)]
pub struct Concealer {
    rate: u32,
    /// The last of what was heard, two of the longest periods at most.
    heard: Vec<i16>,
    /// What has been made up since: its samples, and the period that it repeats.
    made_up: usize,
    period: usize,
}

impl Concealer {
    /// For a stream of that rate.
    pub fn new(rate: u32) -> Self {
        Self { rate, heard: Vec::new(), made_up: 0, period: 0 }
    }

    /// Takes the next samples that were heard. After a hole their beginning is blended with what was made up.
    pub fn heard(&mut self, samples: &mut [i16]) {
        if self.made_up > 0 {
            let blended = (self.rate as usize / 200).min(samples.len());
            for (i, sample) in samples[..blended].iter_mut().enumerate() {
                let share = (i + 1) as f32 / (blended + 1) as f32;
                *sample = (f32::from(*sample) * share + f32::from(self.next()) * (1.0 - share)) as i16;
            }
            self.made_up = 0;
        }
        let kept = 3 * (self.rate / LONGEST) as usize;
        self.heard.extend_from_slice(samples);
        self.heard.drain(..self.heard.len().saturating_sub(kept));
    }

    /// Makes up so many samples.
    pub fn missing(&mut self, samples: usize, out: &mut Vec<i16>) {
        if self.made_up == 0 {
            self.period = period(&self.heard, self.rate);
        }
        out.extend((0..samples).map(|_| self.next()));
    }

    fn next(&mut self) -> i16 {
        let (loud, gone) = (samples(LOUD, self.rate), samples(GONE, self.rate));
        let at = self.made_up;
        self.made_up += 1;
        if self.period == 0 || at >= gone {
            return 0;
        }
        let sample = self.heard[self.heard.len() - self.period + at % self.period];
        let size = (gone - at) as f32 / (gone - loud) as f32;
        (f32::from(sample) * size.min(1.0)) as i16
    }
}

/// Takes one period of the voice out of the samples, where they are long enough: at least 25 ms. Gives how many are gone.
pub fn shorten(samples: &mut Vec<i16>, rate: u32) -> usize {
    let period = period(samples, rate);
    if period == 0 || samples.len() < 2 * period {
        return 0;
    }
    // From the period before the last into the last, which it is so like.
    let from = samples.len() - 2 * period;
    for i in 0..period {
        let share = (i + 1) as f32 / (period + 1) as f32;
        let blended = f32::from(samples[from + i]) * (1.0 - share) + f32::from(samples[from + period + i]) * share;
        samples[from + i] = blended as i16;
    }
    samples.truncate(from + period);
    period
}

/// The period that the end of a sound has, in samples: where it is most like itself. Zero: it is too short to say.
fn period(sound: &[i16], rate: u32) -> usize {
    let (shortest, longest) = ((rate / SHORTEST) as usize, (rate / LONGEST) as usize);
    let longest = longest.min(sound.len() / 2);
    if longest < shortest {
        return 0;
    }
    let window = longest;
    let last = &sound[sound.len() - window..];
    let likeness = |lag: usize| {
        let before = &sound[sound.len() - window - lag..][..window];
        let together: f32 = last.iter().zip(before).map(|(a, b)| f32::from(*a) * f32::from(*b)).sum();
        let power: f32 = before.iter().map(|b| f32::from(*b).powi(2)).sum();
        together / power.sqrt().max(1.0)
    };
    (shortest..=longest).max_by(|a, b| likeness(*a).total_cmp(&likeness(*b))).unwrap_or(0)
}

fn samples(span: Duration, rate: u32) -> usize {
    (span.as_millis() as usize) * rate as usize / 1_000
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
    fn a_hole_in_a_tone_is_filled_with_the_tone_and_leaves_no_click() {
        let all = tone(8_000, 210.0, 8_000.0, 1_600);
        let mut concealer = Concealer::new(8_000);
        let mut out = Vec::new();
        for (i, piece) in all.chunks(160).enumerate() {
            if i == 5 {
                concealer.missing(160, &mut out);
            } else {
                let mut piece = piece.to_vec();
                concealer.heard(&mut piece);
                out.extend(piece);
            }
        }
        assert_eq!(out.len(), all.len());
        assert!(size_of(&out[800..960], 8_000, 210.0) > 5_000.0);
        let steps = |s: &[i16]| s.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max();
        // A period is a whole number of samples, so that the seam is nearly smooth.
        assert!(steps(&out) < steps(&all).map(|s| s * 2), "{:?} {:?}", steps(&out), steps(&all));
    }

    #[test]
    fn a_long_hole_fades_to_silence() {
        let mut concealer = Concealer::new(8_000);
        concealer.heard(&mut tone(8_000, 300.0, 8_000.0, 800));
        let mut out = Vec::new();
        (0..10).for_each(|_| concealer.missing(160, &mut out));
        let levels: Vec<f32> = out.chunks(160).map(level).collect();
        assert!(levels[0] > -16.0 && levels.windows(2).all(|w| w[1] <= w[0]) && levels[3] < -90.0, "{levels:?}");
    }

    #[test]
    fn what_is_made_shorter_keeps_its_height() {
        for rate in [8_000u32, 16_000] {
            let mut samples = tone(rate, 200.0, 8_000.0, rate as usize / 25);
            let gone = shorten(&mut samples, rate);
            // One, two or three periods of 5 ms.
            assert!(gone > 0 && gone.is_multiple_of(rate as usize / 200), "{gone}");
            assert_eq!(samples.len() + gone, rate as usize / 25);
            assert!(size_of(&samples, rate, 200.0) > 7_000.0);
        }
        assert_eq!(shorten(&mut vec![1; 10], 8_000), 0);
    }

    proptest! {
        #[test]
        fn whatever_was_heard_something_is_made_up(
            sounds in prop::collection::vec((prop::collection::vec(any::<i16>(), 0..400), 0usize..400), 0..12)
        ) {
            let mut concealer = Concealer::new(8_000);
            for (mut sound, hole) in sounds {
                concealer.heard(&mut sound);
                let mut out = Vec::new();
                concealer.missing(hole, &mut out);
                prop_assert_eq!(out.len(), hole);
                shorten(&mut sound, 8_000);
            }
        }
    }
}
