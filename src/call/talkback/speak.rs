//! The task of one speaker: connects, speaks every 20 ms, connects again.

use std::{future::Future, pin::pin, sync::Arc, time::Duration};

use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval, sleep},
};

use super::{
    Link, Orders, Play, Settings, Stats,
    backchannel::Sent,
    failed::Failed,
    lock,
    mix::Mixer,
    player::Player,
    rtp_out::{Encoding, Packets},
    way::Open,
};
use crate::{
    district::clock::Mono,
    host::clock,
    media::{
        frame::Track,
        ring::{Read, Reader, Start},
        sound::{PIECE, SILENCE, level, piece},
        voice::Voice,
    },
};

/// The shortest and longest times between two attempts.
const SOONEST: Duration = Duration::from_millis(200);
/// See `SOONEST`.
const LATEST: Duration = Duration::from_secs(5);
/// A way that stood for so long is tried at once when it is lost.
const STOOD: Duration = Duration::from_secs(5);
/// A prompt that could not begin for so long is about a moment that has passed.
const STALE: Duration = Duration::from_secs(10);
/// A prompt at the end is played for so long at most.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// Most frames that are read from a ring for one piece: 20 ms are a handful, after a jam some dozens. The rest is read next.
const READ_AT_ONCE: usize = 256;

/// Whom the task hears and tells.
pub(super) struct Told {
    pub orders: Arc<Orders>,
    pub link: watch::Sender<Link>,
    pub speaking: watch::Sender<bool>,
}

/// What was ordered, as far as it goes beyond one connection.
#[derive(Default)]
struct State {
    prompt: Option<Play>,
    reader: Option<Reader>,
    /// When it was told to end.
    ending: Option<Mono>,
}

/// Why speaking stopped.
enum Stopped {
    Ended,
    Lost(Failed),
}

/// Runs until the speaker is ended or the scope stops.
pub(super) async fn run(name: String, settings: Settings, told: Told, stopping: impl Future<Output = ()>) {
    let mut stopping = pin!(stopping);
    let (mut state, mut wait) = (State::default(), SOONEST);
    let mut random = fastrand::Rng::new();
    loop {
        let opened = tokio::select! {
            () = &mut stopping => return,
            () = ended(&told, &mut state) => return,
            opened = settings.way.open(&mut random) => opened,
        };
        let failed = match opened {
            Ok((mut open, encoding, packets)) => {
                let since = clock::mono();
                tracing::info!(unit = name, ?encoding, "the way to the speaker stands");
                told.link.send_replace(Link::Up(since));
                let mut voice = Speaking::new(&settings, &told, encoding, packets, &mut state);
                let stopped = tokio::select! {
                    () = &mut stopping => Stopped::Ended,
                    stopped = voice.speak(&mut open) => stopped,
                };
                told.speaking.send_if_modified(std::mem::take);
                match stopped {
                    Stopped::Ended => return open.close().await,
                    Stopped::Lost(failed) => {
                        if clock::mono().since(since) >= STOOD {
                            wait = SOONEST;
                        }
                        lock(&told.orders.stats).lost += 1;
                        failed
                    }
                }
            }
            Err(failed) => failed,
        };
        if state.ending.is_some() {
            return;
        }
        let words = failed.to_string();
        let is_new = told.link.send_if_modified(|link| {
            let down = Link::Down(words.clone());
            let is_new = *link != down;
            *link = down;
            is_new
        });
        if is_new {
            tracing::warn!(unit = name, why = words, "no way to the speaker");
        }
        // A unit that refuses our password locks us out when it is asked too often.
        let refused = matches!(failed, Failed::Login { .. } | Failed::NoLogin { .. });
        let pause = if refused { LATEST } else { wait };
        wait = (wait * 2).min(LATEST);
        tokio::select! {
            () = &mut stopping => return,
            () = ended(&told, &mut state) => return,
            () = sleep(pause) => {}
        }
    }
}

/// Takes orders while the way does not stand; resolves when the speaker is ended.
async fn ended(told: &Told, state: &mut State) {
    loop {
        state.take(&told.orders);
        if state.ending.is_some() {
            return;
        }
        // What an operator says meanwhile is not said later.
        told.orders.changed.notified().await;
    }
}

impl State {
    /// Takes the newest orders. Gives whether the prompt is another.
    fn take(&mut self, orders: &Orders) -> bool {
        let wanted = std::mem::take(&mut *lock(&orders.wanted));
        if wanted.end {
            self.ending.get_or_insert_with(clock::mono);
        }
        if let Some(ring) = wanted.voice {
            self.reader = ring.map(|ring| ring.reader(Start::Now));
        }
        match wanted.prompt {
            Some(prompt) => {
                self.prompt = prompt;
                true
            }
            None => false,
        }
    }
}

/// One connection's voice.
struct Speaking<'a> {
    settings: &'a Settings,
    told: &'a Told,
    state: &'a mut State,
    encoding: Encoding,
    packets: Packets,
    player: Player,
    mixer: Mixer,
    ear: Voice,
    sent: u64,
    refused: u64,
    before: Stats,
}

impl<'a> Speaking<'a> {
    fn new(settings: &'a Settings, told: &'a Told, encoding: Encoding, packets: Packets, state: &'a mut State) -> Self {
        let rate = encoding.rate();
        let (now, before) = (clock::mono(), *lock(&told.orders.stats));
        // Of a voice that goes on, what is said from now on.
        if let Some(reader) = &mut state.reader {
            reader.skip_to_now();
        }
        let mut speaking = Self {
            settings,
            told,
            state,
            encoding,
            packets,
            player: Player::new(rate),
            mixer: Mixer::new(rate, settings.volume),
            ear: Voice::default(),
            sent: 0,
            refused: 0,
            before,
        };
        speaking.state.take(&told.orders);
        speaking.resume(now);
        speaking
    }

    /// Plays the prompt that was ordered before the way stood, or that was cut.
    fn resume(&mut self, now: Mono) {
        let Some(play) = self.state.prompt else { return };
        if now.since(play.at) < STALE || play.again.is_some() {
            self.mixer.play(self.settings.prompts.sound(play.prompt).clone(), play.again, now);
        } else {
            self.state.prompt = None;
        }
    }

    async fn speak(&mut self, open: &mut Open) -> Stopped {
        let mut pace = interval(PIECE);
        let first = pace.tick().await;
        // A piece that was missed is not made up for: the unit would only hear the next one later.
        pace.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            tokio::select! {
                biased;
                // Ticks are said to be when they should have been, so pieces that were missed count.
                at = pace.tick() => match self.piece(open, (at - first).as_millis() / PIECE.as_millis()) {
                    Ok(true) => {}
                    Ok(false) => return Stopped::Ended,
                    Err(failed) => return Stopped::Lost(failed),
                },
                failed = open.serve() => return Stopped::Lost(failed),
            }
        }
    }

    /// Sends 20 ms. False when all has been said.
    fn piece(&mut self, open: &mut Open, number: u128) -> Result<bool, Failed> {
        let now = clock::mono();
        self.orders(now);
        if self.state.ending.is_some_and(|at| !self.mixer.has_prompt() || now.since(at) >= LAST_WORDS) {
            return Ok(false);
        }
        let voice = self.voice(now);
        if let Some(samples) = self.mixer.next(now, voice) {
            let packet = self.packets.packet(&samples, number as u64)?;
            match open.send(&packet)? {
                Sent::Yes => self.sent += 1,
                Sent::Dropped => self.refused += 1,
            }
        }
        if !self.mixer.has_prompt() {
            // It has been heard.
            self.state.prompt = None;
        }
        self.count();
        Ok(true)
    }

    fn orders(&mut self, now: Mono) {
        if self.state.take(&self.told.orders) {
            self.mixer.quiet();
            if let Some(play) = self.state.prompt {
                self.mixer.play(self.settings.prompts.sound(play.prompt).clone(), play.again, now);
            }
        }
        if self.state.ending.is_some() {
            self.mixer.last();
            self.state.reader = None;
        }
    }

    /// The operator's next piece; silence while she says nothing; none without an operator.
    fn voice(&mut self, now: Mono) -> Option<Vec<i16>> {
        for _ in 0..READ_AT_ONCE {
            match self.state.reader.as_mut().and_then(Reader::try_next) {
                Some(Read::Frame(frame)) if frame.track == Track::Audio => self.player.push(frame),
                Some(Read::Frame(_) | Read::Skipped(_)) => {}
                Some(Read::Ended) => self.state.reader = None,
                None => break,
            }
        }
        let said = self.player.next(now);
        let heard = said.as_deref().map_or(SILENCE, level);
        self.ear.hear(now, heard, PIECE);
        let speaks = self.ear.is_speaking();
        self.told.speaking.send_if_modified(|speaking| std::mem::replace(speaking, speaks) != speaks);
        said.or_else(|| self.state.reader.is_some().then(|| vec![0; piece(self.encoding.rate())]))
    }

    fn count(&self) {
        let (counts, broken) = self.player.counts();
        let before = self.before;
        *lock(&self.told.orders.stats) = Stats {
            sent: before.sent + self.sent,
            refused: before.refused + self.refused,
            wasted: before.wasted + counts.late + counts.dropped + broken,
            made_up: before.made_up + counts.missing,
            lost: before.lost,
        };
    }
}
