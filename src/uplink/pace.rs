//! How fast media may leave on a line of which nobody said how fast it is: as fast as the line carries without a queue
//! in front of it, in which an event would stand. Pure.
//!
//! The evidence is how long the broker takes to answer events, since that is what is to be kept short. It takes some
//! time on a free line. What it takes beyond that is the queue, in time; and from how the queue grew while so much was
//! sent follows what the line carries. The pace then stays a little below, and tries slowly whether more goes.
//!
//! What is slow without us is none of our business: when the queue stays although we sent little, its length is taken
//! for the line's own. While no broker answers, nobody waits, and the pace rises.

use std::{collections::VecDeque, time::Duration};

use crate::district::clock::Mono;

/// Where it begins when the broker first answers, in bits a second.
const FIRST: u64 = 2_000_000;
/// It never falls below this.
const LEAST: u64 = 500_000;
/// Nor rises above this: no line between a district and headquarters carries so much.
const MOST: u64 = 10_000_000_000;
/// A queue shorter than this is none: answers take that much longer by chance.
const TARGET: Duration = Duration::from_millis(10);
/// Answers that come within this time are one look at the line; the shortest counts.
const LOOK: Duration = Duration::from_millis(500);
/// The shortest answer of so long a time is that of a free line; a way that changed is known after it.
const REMEMBERED: Duration = Duration::from_secs(120);
/// So many looks in a row with a queue that does not shrink although we hold back: it is not ours.
const NOT_OURS: u32 = 5;
/// A queue of at least this is believed at once.
const LONG: Duration = Duration::from_millis(100);
/// Whoever sends this much of the pace, in percent, would send more.
const FULL: u64 = 85;
/// What is used of what the line is known to carry, in percent.
const USED: u64 = 97;
/// Above what is known it rises by this in a second, in per mille, until it is above by [`SURE`] percent.
const SLOWLY: u64 = 5;
/// See [`SLOWLY`]. Then the line has become faster, and each step is twice the one before, up to a quarter, as at the
/// beginning.
const SURE: u64 = 105;

/// What may leave in a second, and why.
#[derive(Debug)]
pub struct Pace {
    /// Bits a second.
    rate: u64,
    /// What the line carries, when it was last found out.
    carries: Option<u64>,
    /// What went last without a queue, and by how much it rises beyond what is known.
    clear: u64,
    step: u64,
    /// The shortest answers, each with when it came, shorter ones last.
    free: VecDeque<(Mono, Duration)>,
    /// The queue at the last look, and for how many looks it has been there.
    queue: Duration,
    looks: u32,
    /// Since the last look: when it was, the bits that were allowed to leave, the shortest answer.
    since: Option<Mono>,
    bits: u64,
    shortest: Option<Duration>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            rate: MOST,
            carries: None,
            clear: 0,
            step: 0,
            free: VecDeque::new(),
            queue: Duration::ZERO,
            looks: 0,
            since: None,
            bits: 0,
            shortest: None,
        }
    }
}

impl Pace {
    /// Bits a second, all that is on the line counted. No limit before the broker first answered.
    pub fn rate(&self) -> u64 {
        self.rate
    }

    /// So many bits leave.
    pub fn sent(&mut self, bits: u64) {
        self.bits = self.bits.saturating_add(bits);
    }

    /// The broker has answered after so long.
    pub fn answered(&mut self, took: Duration, now: Mono) {
        let Some(since) = self.since else {
            self.remember(took, now);
            self.rate = FIRST;
            return self.begin(now);
        };
        self.shortest = Some(self.shortest.map_or(took, |shortest| shortest.min(took)));
        let span = now.since(since);
        if span < LOOK {
            return;
        }
        let took = self.shortest.unwrap_or(took);
        self.remember(took, now);
        let queue = took.saturating_sub(self.of_a_free_line());
        self.look(queue, took, span, now);
        self.queue = queue;
        self.begin(now);
    }

    /// No broker answers: nobody waits.
    pub fn unheard(&mut self, now: Mono) {
        let Some(since) = self.since else { return };
        let span = now.since(since);
        if span >= LOOK {
            if per_second(self.bits, span) >= self.rate / 100 * FULL {
                self.set(self.rate.saturating_add(self.rate / 2));
                self.carries = None;
            }
            self.begin(now);
        }
    }

    /// Whether anything leaves of which it is not known yet what it did to the line.
    pub fn is_used(&self) -> bool {
        self.bits > 0
    }

    fn begin(&mut self, now: Mono) {
        (self.since, self.bits, self.shortest) = (Some(now), 0, None);
    }

    fn remember(&mut self, took: Duration, now: Mono) {
        while self.free.back().is_some_and(|(_, held)| *held >= took) {
            self.free.pop_back();
        }
        self.free.push_back((now, took));
        while self.free.len() > 1 && self.free.front().is_some_and(|(at, _)| now.since(*at) > REMEMBERED) {
            self.free.pop_front();
        }
    }

    fn of_a_free_line(&self) -> Duration {
        self.free.front().map(|(_, took)| *took).unwrap_or_default()
    }

    fn look(&mut self, queue: Duration, took: Duration, span: Duration, now: Mono) {
        let sent = per_second(self.bits, span);
        if queue <= TARGET {
            self.clear = sent;
            if std::mem::take(&mut self.looks) > 0 {
                self.resume();
            } else if sent >= self.rate / 100 * FULL {
                self.rise(span);
            }
            return;
        }
        // Whoever sends next to nothing makes no queue.
        if sent < self.rate / 8 {
            return;
        }
        self.looks += 1;
        self.step = 0;
        if self.looks > NOT_OURS && queue + TARGET >= self.queue {
            self.free = VecDeque::from([(now, took)]);
            self.looks = 0;
            return self.resume();
        }
        self.hold_back(queue, span, sent);
    }

    fn hold_back(&mut self, queue: Duration, span: Duration, sent: u64) {
        // What left and does not stand in the queue went through.
        let through = (span + queue).saturating_sub(self.queue).max(span / 4);
        let carries = per_second(self.bits, through).min(self.rate);
        let known = match self.carries {
            // One late answer says little; the second is believed.
            Some(known) if self.looks == 1 && queue < LONG => {
                self.carries = Some(known.max(self.clear));
                return self.set(self.rate / 100 * 93);
            }
            // What went without a queue a moment ago goes, unless there are more signs.
            _ if self.looks <= 2 => carries.max(self.clear),
            // A queue that does not grow is no sign that the line became slower, unless TCP itself holds us back.
            Some(known) if queue <= self.queue + TARGET && sent >= self.rate / 100 * FULL => known.max(carries),
            _ => carries,
        };
        self.carries = Some(known.max(LEAST));
        // It is to be gone in a second, or in two: something goes all the time.
        let rest = Duration::from_secs(1).saturating_sub(queue).max(Duration::from_millis(500));
        self.set(known / 1_000 * u64::try_from(rest.as_millis()).unwrap_or(500) / 100 * USED);
    }

    /// The queue is gone.
    fn resume(&mut self) {
        if let Some(carries) = self.carries {
            self.set(carries / 100 * USED);
        }
    }

    fn rise(&mut self, span: Duration) {
        let millis = u64::try_from(span.min(Duration::from_secs(2)).as_millis()).unwrap_or(2_000);
        let quarter = self.rate / 4;
        let slow = match self.carries {
            None => quarter,
            Some(carries) => carries / 1_000 * SLOWLY * millis / 1_000,
        };
        let known = self.carries.is_some_and(|carries| self.rate < carries / 100 * SURE);
        self.step = if known { slow } else { (self.step * 2).clamp(slow.min(quarter), quarter) };
        self.set(self.rate.saturating_add(self.step.max(1_000)));
    }

    fn set(&mut self, rate: u64) {
        self.rate = rate.clamp(LEAST, MOST);
    }
}

fn per_second(bits: u64, span: Duration) -> u64 {
    let micros = span.as_micros().max(1);
    u64::try_from(u128::from(bits) * 1_000_000 / micros).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A line with a queue, and somebody who always has something to send. Ten milliseconds a step.
    struct Line {
        pace: Pace,
        now: Duration,
        bits_per_second: f64,
        /// In bits; at most `holds` seconds of the line.
        queue: f64,
        holds: f64,
        /// What an answer takes beside the queue.
        way: Duration,
        /// How much of the pace is used.
        used: f64,
        chance: fastrand::Rng,
        carried: f64,
        /// For each step, the queue in milliseconds.
        waits: Vec<f64>,
    }

    const STEP: Duration = Duration::from_millis(10);

    impl Line {
        fn new(bits_per_second: f64) -> Self {
            Self {
                pace: Pace::default(),
                now: Duration::from_secs(1_000),
                bits_per_second,
                queue: 0.0,
                holds: 0.4,
                way: Duration::from_millis(20),
                used: 1.0,
                chance: fastrand::Rng::with_seed(1),
                carried: 0.0,
                waits: Vec::new(),
            }
            .idle()
        }

        /// Events came before there was anything to send.
        fn idle(mut self) -> Self {
            self.used = 0.0;
            self.run(3, 100);
            Self { used: 1.0, ..self }
        }

        fn wait(&self) -> f64 {
            self.queue / self.bits_per_second
        }

        /// So many seconds; an event every `every` steps.
        fn run(&mut self, seconds: u64, every: usize) {
            (self.carried, self.waits) = (0.0, Vec::new());
            let mut answers: Vec<(Duration, Duration)> = Vec::new();
            for step in 0..usize::try_from(seconds).unwrap() * 100 {
                let (span, was) = (STEP.as_secs_f64(), self.queue);
                // When the queue is full, TCP takes no more than goes.
                let room = self.bits_per_second * (self.holds + span) - was;
                let sent = (self.pace.rate() as f64 * self.used * span).min(room);
                self.pace.sent(sent as u64);
                let through = (was + sent).min(self.bits_per_second * span);
                self.queue = was + sent - through;
                self.carried += through;
                self.waits.push(self.wait() * 1e3);
                self.now += STEP;
                if step % every == 0 {
                    let by_chance = Duration::from_micros(self.chance.u64(0..4_000));
                    let took = self.way + by_chance + Duration::from_secs_f64(self.wait());
                    answers.push((self.now + took, took));
                }
                let now = self.now;
                for (_, took) in answers.extract_if(.., |(at, _)| *at <= now) {
                    self.pace.answered(took, Mono::from_boot(now));
                }
            }
        }

        fn share(&self) -> f64 {
            self.carried / (self.bits_per_second * self.waits.len() as f64 * STEP.as_secs_f64())
        }

        fn waited(&self, quantile: f64) -> f64 {
            let mut waits = self.waits.clone();
            waits.sort_by(f64::total_cmp);
            waits[((waits.len() - 1) as f64 * quantile) as usize]
        }
    }

    #[test]
    fn lines_of_all_rates_are_used_and_have_no_queue() {
        for rate in [1e6, 5e6, 20e6, 100e6, 1e9] {
            for every in [10, 100, 200] {
                let mut line = Line::new(rate);
                line.run(40, every);
                line.run(600, every);
                let (share, p50, p99) = (line.share(), line.waited(0.5), line.waited(0.99));
                assert!(share > 0.95, "{rate}, {every}: {share} used");
                assert!(p50 < 8.0 && p99 < 40.0, "{rate}, {every}: {p50}, {p99} ms");
            }
        }
    }

    #[test]
    fn a_line_that_became_slower_has_no_queue_for_long() {
        let mut line = Line::new(20e6);
        line.run(60, 100);
        line.bits_per_second = 5e6;
        line.run(15, 100);
        line.run(120, 100);
        assert!(line.share() > 0.9 && line.waited(0.99) < 50.0, "{} {}", line.share(), line.waited(0.99));
    }

    #[test]
    fn a_line_that_became_faster_is_used_in_the_end() {
        let mut line = Line::new(5e6);
        line.run(60, 100);
        line.bits_per_second = 50e6;
        line.run(60, 100);
        line.run(60, 100);
        assert!(line.share() > 0.9, "{}", line.share());
    }

    #[test]
    fn a_broker_that_became_slow_holds_nothing_up_for_long() {
        let mut line = Line::new(20e6);
        line.run(60, 100);
        line.way += Duration::from_millis(300);
        line.run(30, 100);
        line.run(120, 100);
        assert!(line.share() > 0.9, "{}", line.share());
    }

    #[test]
    fn late_answers_now_and_then_cost_little() {
        let mut line = Line::new(20e6);
        line.run(60, 100);
        let mut shares = Vec::new();
        for _ in 0..20 {
            line.way = Duration::from_millis(80);
            line.run(1, 100);
            line.way = Duration::from_millis(20);
            line.run(19, 100);
            shares.push(line.share());
        }
        let mean = shares.iter().sum::<f64>() / shares.len() as f64;
        assert!(mean > 0.9, "{mean}");
    }

    #[test]
    fn who_sends_little_learns_nothing_and_loses_nothing() {
        let mut line = Line::new(20e6);
        line.run(60, 100);
        let before = line.pace.rate();
        line.used = 0.1;
        line.run(300, 100);
        let after = line.pace.rate();
        assert!(after >= before / 10 * 9 && after <= before / 10 * 11, "{before} {after}");
    }

    #[test]
    fn while_no_broker_answers_nobody_waits() {
        let mut pace = Pace::default();
        assert_eq!(pace.rate(), MOST);
        pace.answered(Duration::from_millis(20), Mono::from_boot(Duration::ZERO));
        assert_eq!(pace.rate(), FIRST);
        for second in 0..30 {
            pace.sent(pace.rate());
            pace.unheard(Mono::from_boot(Duration::from_secs(second)));
        }
        assert!(pace.rate() > 1_000_000_000);
    }
}
