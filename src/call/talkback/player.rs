//! An operator's frames as pieces of 20 ms, one whenever the unit needs one. Pure.

use std::{sync::Arc, time::Duration};

use super::{
    decode::Decoder,
    jitter::{Counts, Jitter, Pull},
};
use crate::{
    district::clock::Mono,
    media::{
        conceal::shorten,
        frame::{Codec, Frame},
        sound::piece,
    },
};

/// Sound is shortened at most so often, so that nobody hears it.
const SHORTEN_EVERY: Duration = Duration::from_millis(100);

/// Plays one voice.
#[derive(Debug)]
pub(super) struct Player {
    rate: u32,
    jitter: Jitter,
    decoder: Option<(Codec, Decoder)>,
    /// Decoded, and not yet played.
    samples: Vec<i16>,
    shortened: Mono,
    broken: u64,
}

impl Player {
    /// To samples at `rate`.
    pub fn new(rate: u32) -> Self {
        let (jitter, shortened) = (Jitter::default(), Mono::default());
        Self { rate, jitter, decoder: None, samples: Vec::new(), shortened, broken: 0 }
    }

    /// Takes a frame as it arrives.
    pub fn push(&mut self, frame: Arc<Frame>) {
        self.jitter.push(frame);
    }

    /// The next piece of 20 ms. None: nobody speaks.
    pub fn next(&mut self, now: Mono) -> Option<Vec<i16>> {
        let piece = piece(self.rate);
        if self.jitter.has_to_spare() && now.since(self.shortened) >= SHORTEN_EVERY {
            self.fill(2 * piece, now);
            let gone = shorten(&mut self.samples, self.rate);
            self.jitter.shortened(Duration::from_secs_f64(gone as f64 / f64::from(self.rate)));
            self.shortened = now;
        }
        self.fill(piece, now);
        if self.samples.is_empty() {
            return None;
        }
        // The end of what was said is less than a piece.
        self.samples.resize(self.samples.len().max(piece), 0);
        Some(self.samples.drain(..piece).collect())
    }

    fn fill(&mut self, wanted: usize, now: Mono) {
        // Every frame adds at least 2.5 ms, unless it is broken.
        for _ in 0..32 {
            if self.samples.len() >= wanted {
                return;
            }
            let filled = match self.jitter.pull(now) {
                Pull::Frame(frame) => self.decode(&frame),
                Pull::Missing { length, next } => self.make_up(length, next.as_deref()),
                Pull::Nothing => return,
            };
            if filled.is_none() {
                self.broken += 1;
            }
        }
    }

    fn decode(&mut self, frame: &Frame) -> Option<()> {
        let codec = frame.format.codec;
        if self.decoder.as_ref().is_none_or(|(of, _)| *of != codec) {
            self.decoder = Some((codec, Decoder::new(codec, self.rate).ok()?));
        }
        let (_, decoder) = self.decoder.as_mut()?;
        decoder.frame(&frame.data, &mut self.samples).ok()
    }

    fn make_up(&mut self, length: Duration, next: Option<&Frame>) -> Option<()> {
        let (_, decoder) = self.decoder.as_mut()?;
        decoder.missing(length, next.map(|frame| &frame.data[..]), &mut self.samples).ok()
    }

    /// Counts so far, and how many frames could not be decoded.
    pub fn counts(&self) -> (Counts, u64) {
        (self.jitter.counts(), self.broken)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::{
        district::clock::Utc,
        media::{
            frame::{Format, Track},
            g711::{ULAW, to_ulaw},
            sound::{
                level,
                test::{size_of, tone},
            },
        },
    };

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    fn frame(n: usize, codes: &[u8], arrived: u64) -> Arc<Frame> {
        Arc::new(Frame {
            track: Track::Audio,
            timeline: 0,
            ticks: (n * codes.len()) as i64,
            captured: Utc::default(),
            arrived: at(arrived),
            key: true,
            lost_before: 0,
            format: Arc::new(Format::bare(Codec::Pcmu, 8_000)),
            data: Bytes::copy_from_slice(codes),
        })
    }

    fn codes() -> Vec<u8> {
        tone(8_000, 400.0, 8_000.0, 80_000).into_iter().map(to_ulaw).collect()
    }

    #[test]
    fn frames_of_any_length_become_an_unbroken_tone() {
        let codes = codes();
        for samples in [80, 160, 240, 480, 960] {
            let mut player = Player::new(8_000);
            let (mut out, mut sent) = (Vec::new(), 0);
            for now in (5..4_000).step_by(20) {
                while (sent + 1) * samples / 8 <= now {
                    player.push(frame(sent, &codes[sent * samples..][..samples], now as u64));
                    sent += 1;
                }
                out.extend(player.next(at(now as u64)).unwrap_or_default());
            }
            let steps = out.windows(2).map(|w| (i32::from(w[1]) - i32::from(w[0])).abs()).max();
            assert!(steps < Some(3_500), "{samples}: {steps:?}");
            assert!(size_of(&out[1_600..], 8_000, 400.0) > 7_000.0, "{samples}");
        }
    }

    #[test]
    fn after_a_jam_the_voice_comes_back_to_the_listener_without_a_break() {
        let codes = codes();
        let mut player = Player::new(8_000);
        let (mut sent, mut out, mut spare) = (0, Vec::new(), false);
        // The network holds everything back for 150 ms, once.
        let due = |n: u64| if (1_000..1_150).contains(&(n * 20)) { 1_150 } else { n * 20 };
        for now in (5..12_000).step_by(20) {
            while due(sent) <= now {
                player.push(frame(sent as usize, &codes[(sent as usize % 400) * 160..][..160], due(sent)));
                sent += 1;
            }
            out.extend(player.next(at(now)).unwrap_or_default());
            spare |= player.jitter.has_to_spare();
        }
        let (counts, broken) = player.counts();
        assert_eq!((counts.dropped, counts.late, broken), (0, 0, 0));
        assert!((3..=8).contains(&counts.missing), "{counts:?}");
        assert!(spare, "the voice stayed as late as it was");
        let later: Vec<f32> = out[out.len() - 8_000..].chunks(160).map(level).collect();
        assert!(later.iter().all(|l| *l > -20.0), "{later:?}");
        assert!(!player.jitter.has_to_spare());
    }

    #[test]
    fn codes_come_out_as_they_went_in() {
        let mut player = Player::new(8_000);
        for n in 0..10 {
            player.push(frame(n, &[n as u8 * 9; 160], n as u64 * 20));
        }
        let out: Vec<i16> = (0..10).flat_map(|i| player.next(at(200 + i * 20)).unwrap()).collect();
        assert!((0..10).all(|n| out[n * 160..][..160].iter().all(|s| *s == ULAW[n * 9])));
    }
}
