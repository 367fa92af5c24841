//! When somebody speaks: by how far a sound is above the noise of its place. Pure.
//!
//! The noise is what is left when nobody speaks, so its level follows at once downwards, and slowly upwards. A syllable's
//! end is not the end of speaking: that is a quarter of a second after the last loud moment.

use std::time::Duration;

use crate::district::clock::Mono;

/// Speech is at least so much above the noise, in dB.
const ABOVE: f32 = 9.0;
/// And at least so loud, in dBFS.
const LEAST: f32 = -52.0;
/// The loudest that noise is thought to be, in dBFS: beyond it everything is speech.
const LOUDEST_NOISE: f32 = -30.0;
/// How fast the noise's level rises to what is heard, in dB a second.
const RISE: f32 = 3.0;
/// Speech goes on for so long after its last loud moment.
const HANGOVER: Duration = Duration::from_millis(250);
/// Spurts with less than this between them are one.
const JOINED: Duration = Duration::from_secs(1);
/// What is shorter is a cough or a knock.
const SHORTEST: Duration = Duration::from_millis(300);
/// A loud moment is one when so much of sound has been loud.
const ATTACK: Duration = Duration::from_millis(40);

/// From when to when somebody spoke.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Spurt {
    /// The first moment.
    pub from: Mono,
    /// The last one.
    pub to: Mono,
}

/// Listens to one voice.
#[derive(Debug)]
pub struct Voice {
    noise: f32,
    /// Sound that has been loud without a break.
    loud: Duration,
    heard: Option<Mono>,
    /// Speaking now: the last loud moment.
    speaking: Option<Mono>,
    /// Not told yet; something may still join it.
    spurt: Option<Spurt>,
}

impl Default for Voice {
    fn default() -> Self {
        Self { noise: -60.0, loud: Duration::ZERO, heard: None, speaking: None, spurt: None }
    }
}

impl Voice {
    /// Takes the level (dBFS) of a piece of sound of `length` that ended at `now`. Gives a spurt that nothing can join
    /// any more.
    pub fn hear(&mut self, now: Mono, level: f32, length: Duration) -> Option<Spurt> {
        self.heard = Some(now);
        let loud = level > LEAST && level > self.noise + ABOVE;
        if level < self.noise {
            self.noise = level;
        } else {
            self.noise = (self.noise + RISE * length.as_secs_f32()).min(level).min(LOUDEST_NOISE);
        }
        self.loud = if loud { self.loud + length } else { Duration::ZERO };
        if self.loud >= ATTACK {
            self.speaking = Some(now);
            let from = now.before(self.loud);
            match &mut self.spurt {
                Some(spurt) if from.since(spurt.to) < JOINED => spurt.to = now,
                old => return old.replace(Spurt { from, to: now }).filter(Spurt::counts),
            }
        }
        self.pass(now)
    }

    /// Time passes without sound: nothing arrives. Gives as [`Voice::hear`] does.
    pub fn pass(&mut self, now: Mono) -> Option<Spurt> {
        self.speaking = self.speaking.filter(|last| now.since(*last) < HANGOVER);
        // One more piece, so that a spurt that would still join has come.
        let over = self.spurt.is_some_and(|spurt| now.since(spurt.to) >= JOINED + ATTACK);
        if over { self.spurt.take().filter(Spurt::counts) } else { None }
    }

    /// Whether somebody speaks now.
    pub fn is_speaking(&self) -> bool {
        self.speaking.is_some()
    }

    /// The spurt that has begun, as far as it is known: for what is shown while it goes on.
    pub fn begun(&self) -> Option<Spurt> {
        self.spurt.filter(Spurt::counts)
    }

    /// The last spurt, when nothing more will be heard.
    pub fn finish(&mut self) -> Option<Spurt> {
        self.speaking = None;
        self.spurt.take().filter(Spurt::counts)
    }
}

impl Spurt {
    fn counts(&self) -> bool {
        self.to.since(self.from) >= SHORTEST
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::sound::PIECE, *};

    /// Hears levels for so many milliseconds each.
    fn hear(voice: &mut Voice, from: u64, parts: &[(f32, u64)]) -> Vec<(u64, u64)> {
        let (mut at, mut spurts) = (from, Vec::new());
        for (level, ms) in parts {
            for _ in 0..ms / 20 {
                at += 20;
                spurts.extend(voice.hear(Mono::from_boot(Duration::from_millis(at)), *level, PIECE));
            }
        }
        spurts.extend(voice.finish());
        let ms = |at: Mono| at.since_boot().as_millis() as u64;
        spurts.iter().map(|s| (ms(s.from), ms(s.to))).collect()
    }

    #[test]
    fn pauses_within_a_sentence_do_not_end_it_and_a_long_one_does() {
        let parts = [(-70., 1_000), (-25., 600), (-70., 900), (-25., 400), (-70., 1_500), (-25., 500), (-70., 2_000)];
        assert_eq!(hear(&mut Voice::default(), 0, &parts), [(1_000, 2_900), (4_400, 4_900)]);
    }

    #[test]
    fn a_knock_is_no_speech_and_neither_is_a_faint_hiss() {
        assert_eq!(hear(&mut Voice::default(), 0, &[(-80., 500), (-20., 200), (-80., 2_000), (-55., 3_000)]), []);
    }

    #[test]
    fn noise_that_stays_becomes_the_place_and_a_voice_above_it_is_heard() {
        let mut voice = Voice::default();
        let spurts = hear(&mut voice, 0, &[(-70., 1_000), (-45., 20_000), (-28., 1_000), (-45., 2_000)]);
        assert_eq!(spurts.len(), 2, "{spurts:?}");
        assert!(spurts[0].1 < 8_000, "{spurts:?}");
        assert_eq!(spurts[1], (21_000, 22_000));
    }

    #[test]
    fn speaking_begins_within_two_pieces_and_ends_a_moment_after() {
        let mut voice = Voice::default();
        let mut said = Vec::new();
        for i in 1..100u64 {
            let level = if (20..40).contains(&i) { -20.0 } else { -70.0 };
            voice.hear(Mono::from_boot(PIECE * i as u32), level, PIECE);
            if voice.is_speaking() {
                said.push(i);
            }
        }
        assert_eq!((said[0], *said.last().unwrap()), (21, 39 + 12));
    }

    #[test]
    fn a_spurt_is_told_when_sound_stops_coming() {
        let mut voice = Voice::default();
        let at = |ms| Mono::from_boot(Duration::from_millis(ms));
        for i in 1..=50 {
            assert_eq!(voice.hear(at(i * 20), -20.0, PIECE), None);
        }
        assert_eq!(voice.pass(at(1_900)), None);
        assert_eq!(voice.pass(at(2_100)), Some(Spurt { from: at(0), to: at(1_000) }));
        assert!(!voice.is_speaking());
    }

    proptest! {
        #[test]
        fn spurts_are_in_order_apart_and_long_enough(levels in prop::collection::vec((-96f32..0.0, 20u64..1_500), 1..40)) {
            let spurts = hear(&mut Voice::default(), 0, &levels);
            prop_assert!(spurts.iter().all(|(from, to)| to - from >= 300));
            prop_assert!(spurts.windows(2).all(|w| w[1].0 - w[0].1 >= 1_000));
        }
    }
}
