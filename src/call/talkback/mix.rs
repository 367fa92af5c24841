//! What a unit hears: a voice, a prompt over it, as loud as is wanted. Pure.

use std::{sync::Arc, time::Duration};

use crate::{
    district::clock::Mono,
    media::{
        resample::Resampler,
        sound::{Sound, amplify, mix, piece},
    },
};

/// How loud the voice stays while a prompt plays: -14 dB.
const DUCKED: f32 = 0.2;

/// Mixes one unit's sound.
#[derive(Debug)]
pub(super) struct Mixer {
    rate: u32,
    volume: f32,
    prompt: Option<Playing>,
    /// How loud the voice was at the end of the last piece.
    voice: f32,
}

#[derive(Debug)]
struct Playing {
    sound: Arc<Sound>,
    /// From one beginning to the next.
    again: Option<Duration>,
    begins: Mono,
    /// It has been played already, and waits to be played again.
    waits: bool,
    /// Samples of `sound` that are used.
    used: usize,
    resampler: Resampler,
    ready: Vec<i16>,
}

impl Mixer {
    /// For a unit that plays at `rate`; `volume` 1 changes nothing.
    pub fn new(rate: u32, volume: f32) -> Self {
        Self { rate, volume, prompt: None, voice: 1.0 }
    }

    /// Plays a prompt from now on, instead of one that plays.
    pub fn play(&mut self, sound: Arc<Sound>, again: Option<Duration>, now: Mono) {
        let resampler = Resampler::new(sound.rate, self.rate);
        self.prompt = Some(Playing { sound, again, begins: now, waits: false, used: 0, resampler, ready: Vec::new() });
    }

    /// Plays no prompt.
    pub fn quiet(&mut self) {
        self.prompt = None;
    }

    /// The prompt that plays is the last: it is not played again.
    pub fn last(&mut self) {
        if let Some(prompt) = &mut self.prompt {
            prompt.again = None;
            if prompt.waits {
                self.prompt = None;
            }
        }
    }

    /// Whether a prompt plays, or waits to be played again.
    pub fn has_prompt(&self) -> bool {
        self.prompt.is_some()
    }

    /// The next piece of 20 ms. None: there is nothing to hear.
    pub fn next(&mut self, now: Mono, voice: Option<Vec<i16>>) -> Option<Vec<i16>> {
        let prompt = self.prompt(now);
        let gain = if prompt.is_some() { DUCKED } else { 1.0 };
        let mut piece = match (voice, prompt) {
            (None, None) => return None,
            (None, Some(prompt)) => prompt,
            (Some(voice), None) => self.faded(voice, gain),
            (Some(voice), Some(prompt)) => {
                let mut both = self.faded(voice, gain);
                mix(&mut both, &prompt);
                both
            }
        };
        self.voice = gain;
        amplify(&mut piece, self.volume);
        Some(piece)
    }

    /// The voice, from as loud as it was to `gain`.
    fn faded(&self, mut voice: Vec<i16>, gain: f32) -> Vec<i16> {
        if self.voice != 1.0 || gain != 1.0 {
            let step = (gain - self.voice) / voice.len().max(1) as f32;
            for (i, sample) in voice.iter_mut().enumerate() {
                *sample = (f32::from(*sample) * (self.voice + step * (i + 1) as f32)) as i16;
            }
        }
        voice
    }

    fn prompt(&mut self, now: Mono) -> Option<Vec<i16>> {
        let prompt = self.prompt.as_mut()?;
        if now < prompt.begins {
            return None;
        }
        prompt.waits = false;
        let next = prompt.piece(piece(self.rate));
        if next.is_none() {
            match prompt.again {
                Some(pace) => prompt.again_at((prompt.begins + pace).max(now)),
                None => self.prompt = None,
            }
        }
        next
    }
}

impl Playing {
    fn piece(&mut self, wanted: usize) -> Option<Vec<i16>> {
        while self.ready.len() < wanted && self.used < self.sound.samples.len() {
            let end = (self.used + self.sound.rate as usize / 50).min(self.sound.samples.len());
            self.resampler.push(&self.sound.samples[self.used..end], &mut self.ready);
            self.used = end;
        }
        if self.ready.is_empty() {
            return None;
        }
        self.ready.resize(self.ready.len().max(wanted), 0);
        Some(self.ready.drain(..wanted).collect())
    }

    fn again_at(&mut self, begins: Mono) {
        (self.begins, self.used, self.waits) = (begins, 0, true);
        self.ready.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::media::sound::{
        PIECE, level,
        test::{size_of, tone},
    };

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    fn sound(rate: u32, hertz: f64, ms: u32) -> Arc<Sound> {
        Arc::new(Sound { rate, samples: tone(rate, hertz, 8_000.0, (rate * ms / 1_000) as usize) })
    }

    /// Whether each of the pieces from `from` on is heard.
    fn heard(mixer: &mut Mixer, from: u64, pieces: u64) -> Vec<bool> {
        (0..pieces).map(|i| mixer.next(at(from + i * 20), None).is_some()).collect()
    }

    #[test]
    fn a_prompt_is_heard_once_or_at_its_pace_until_it_is_quiet() {
        let mut mixer = Mixer::new(8_000, 1.0);
        mixer.play(sound(8_000, 500.0, 100), None, at(0));
        assert_eq!(heard(&mut mixer, 0, 7), [true, true, true, true, true, false, false]);
        assert!(!mixer.has_prompt());
        mixer.play(sound(8_000, 500.0, 40), Some(Duration::from_millis(100)), at(200));
        assert_eq!(heard(&mut mixer, 200, 7), [true, true, false, false, false, true, true]);
        mixer.quiet();
        assert_eq!(heard(&mut mixer, 400, 2), [false, false]);
    }

    #[test]
    fn the_last_prompt_is_played_to_its_end_and_not_again() {
        let mut mixer = Mixer::new(8_000, 1.0);
        mixer.play(sound(8_000, 500.0, 60), Some(Duration::from_millis(100)), at(0));
        heard(&mut mixer, 0, 1);
        mixer.last();
        assert_eq!(heard(&mut mixer, 20, 3), [true, true, false]);
        assert!(!mixer.has_prompt());
        mixer.play(sound(8_000, 500.0, 60), Some(Duration::from_millis(100)), at(0));
        heard(&mut mixer, 0, 4);
        mixer.last();
        assert!(!mixer.has_prompt(), "one that only waits is not played");
        mixer.play(sound(8_000, 500.0, 20), None, at(0));
        mixer.last();
        assert_eq!(heard(&mut mixer, 0, 2), [true, false], "one that has not begun is played");
    }

    #[test]
    fn the_voice_steps_back_behind_a_prompt_and_comes_forward_again() {
        let mut mixer = Mixer::new(16_000, 1.0);
        let voice = |i: usize| tone(16_000, 1_000.0, 8_000.0, 16_000)[i * 320..][..320].to_vec();
        mixer.play(sound(8_000, 500.0, 400), None, at(0));
        let out: Vec<i16> = (0..40).flat_map(|i| mixer.next(at(i as u64 * 20), Some(voice(i))).unwrap()).collect();
        let (during, after) = (&out[1_600..4_800], &out[8_000..]);
        assert!((1_500.0..1_700.0).contains(&size_of(during, 16_000, 1_000.0)));
        assert!(size_of(during, 16_000, 500.0) > 7_500.0);
        assert!(size_of(after, 16_000, 1_000.0) > 7_900.0 && size_of(after, 16_000, 500.0) < 50.0);
    }

    #[test]
    fn volume_is_that_of_everything() {
        let mut mixer = Mixer::new(8_000, 0.5);
        mixer.play(sound(8_000, 500.0, 400), None, at(0));
        let prompt = mixer.next(at(0), None).unwrap();
        let both = mixer.next(at(20), Some(vec![0; 160])).unwrap();
        assert!((level(&prompt) - level(&both)).abs() < 1.0);
        assert!((size_of(&prompt, 8_000, 500.0) - 4_000.0).abs() < 100.0);
        assert_eq!(PIECE, Duration::from_millis(20));
    }
}
