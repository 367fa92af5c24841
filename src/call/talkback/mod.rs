//! The voice to a unit's speaker: prompts, and what an operator says, by RTSP or RTP.
//!
//! ```text
//! operator's ring ──> jitter buffer ──> decoder ──> mixer ──> encoder ──> packets ──> unit
//!                                         prompts ────┘        every 20 ms
//! ```
//!
//! One task a speaker. It connects at once and again and again, so that the way stands when somebody answers. Nothing that it
//! sends is late: what the unit does not take is dropped, and what waits too long in the buffer is made shorter.

mod backchannel;
mod decode;
mod dialogue;
mod failed;
mod jitter;
mod mix;
mod player;
pub mod prompts;
mod rtp_out;
mod rtsp;
mod sdp;
mod speak;
mod way;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::{Notify, watch};

pub use self::{
    prompts::{Prompt, Prompts},
    rtp_out::Encoding,
    way::Way,
};
use crate::{district::clock::Mono, host::scope::Scope, media::ring::Ring};

/// One unit's speaker.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where it is.
    pub way: Way,
    /// How loud everything is made; 1 changes nothing.
    pub volume: f32,
    /// What it says by itself.
    pub prompts: Arc<Prompts>,
}

/// Whether the way to a speaker stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Link {
    /// It has not been there yet.
    Connecting,
    /// The unit has said that it plays (RTSP), or nobody has complained (RTP); since then.
    Up(Mono),
    /// It is not there, and why, for people. It is tried again and again.
    Down(String),
}

impl Link {
    /// Whether it stands.
    pub fn is_up(&self) -> bool {
        matches!(self, Self::Up(_))
    }
}

/// Counts, for metrics.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Packets sent.
    pub sent: u64,
    /// Packets dropped because the unit did not take those before.
    pub refused: u64,
    /// An operator's frames that came too late, or too many at once, or could not be decoded.
    pub wasted: u64,
    /// Pieces of 20 ms that had to be made up.
    pub made_up: u64,
    /// How often the way was lost after it had stood.
    pub lost: u64,
}

/// A unit's speaker. When it is dropped the prompt that plays is played to its end, and the unit is told goodbye.
#[derive(Debug)]
pub struct Speaker {
    orders: Arc<Orders>,
    link: watch::Receiver<Link>,
    speaking: watch::Receiver<bool>,
}

/// What the task is told. Of two orders of a kind the newer counts, so this needs no queue.
#[derive(Debug, Default)]
struct Orders {
    wanted: Mutex<Wanted>,
    changed: Notify,
    stats: Mutex<Stats>,
}

/// See [`Orders`]; taken as a whole.
#[derive(Debug, Default)]
struct Wanted {
    prompt: Option<Option<Play>>,
    voice: Option<Option<Arc<Ring>>>,
    end: bool,
}

#[derive(Debug, Clone, Copy)]
struct Play {
    prompt: Prompt,
    again: Option<Duration>,
    at: Mono,
}

/// Starts the task of a speaker in `scope`, on the thread that the caller has entered. `name` is for the log.
pub fn start(name: &str, settings: Settings, scope: &Scope) -> Speaker {
    let orders = Arc::new(Orders::default());
    let (tell_link, link) = watch::channel(Link::Connecting);
    let (tell_speaking, speaking) = watch::channel(false);
    let told = speak::Told { orders: orders.clone(), link: tell_link, speaking: tell_speaking };
    scope.spawn("speaker", speak::run(name.to_owned(), settings, told, scope.stopping()));
    Speaker { orders, link, speaking }
}

impl Speaker {
    /// Plays a prompt now, instead of one that plays. `again` plays it once more whenever so much time has passed since its
    /// beginning, until another is played or [`Speaker::quiet`]. Where the way does not stand yet it is played when it does,
    /// unless that takes 10 s: then only one that is repeated still counts.
    pub fn play(&self, prompt: Prompt, again: Option<Duration>) {
        let at = crate::host::clock::mono();
        self.orders.tell(|wanted| wanted.prompt = Some(Some(Play { prompt, again, at })));
    }

    /// Plays no prompt any more.
    pub fn quiet(&self) {
        self.orders.tell(|wanted| wanted.prompt = Some(None));
    }

    /// Whose voice goes to the unit from now on: an operator's, or nobody's. Pictures in the ring are left out.
    pub fn voice(&self, ring: Option<Arc<Ring>>) {
        self.orders.tell(|wanted| wanted.voice = Some(ring));
    }

    /// Whether the way stands. When the task has ended, waiting for a change is an error.
    pub fn link(&self) -> watch::Receiver<Link> {
        self.link.clone()
    }

    /// Whether the operator speaks right now, by what the unit is sent: for a unit that must not listen meanwhile, and for the
    /// timeline. It says no a quarter of a second after the last word.
    pub fn speaking(&self) -> watch::Receiver<bool> {
        self.speaking.clone()
    }

    /// Counts so far.
    pub fn stats(&self) -> Stats {
        *lock(&self.orders.stats)
    }

    /// Ends it: the prompt that plays is played to its end, at most for 10 s, and the unit is told goodbye. [`Speaker::link`]
    /// closes when that is done.
    pub fn end(&self) {
        self.orders.tell(|wanted| wanted.end = true);
    }
}

impl Drop for Speaker {
    fn drop(&mut self) {
        self.end();
    }
}

impl Orders {
    fn tell(&self, change: impl FnOnce(&mut Wanted)) {
        change(&mut lock(&self.wanted));
        self.changed.notify_one();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
