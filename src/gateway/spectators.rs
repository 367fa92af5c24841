//! Who watches by RTSP, counted where it happens and read by the metrics.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

/// Those who watch.
#[derive(Debug, Default)]
pub struct Spectators {
    sessions: AtomicU64,
    begun: AtomicU64,
    skipped: AtomicU64,
    lost: AtomicU64,
}

/// What was counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// Sessions that play now.
    pub sessions: u64,
    /// Sessions that began to play.
    pub begun: u64,
    /// Frames left out for clients that were too slow.
    pub skipped: u64,
    /// Datagrams that could not be sent.
    pub lost: u64,
}

impl Spectators {
    /// One more that watches, until what this returns is dropped.
    pub fn enter(self: &Arc<Self>) -> Seat {
        self.sessions.fetch_add(1, Relaxed);
        self.begun.fetch_add(1, Relaxed);
        Seat(self.clone())
    }

    /// What was counted until now.
    pub fn counted(&self) -> Counted {
        let [sessions, begun, skipped, lost] =
            [&self.sessions, &self.begun, &self.skipped, &self.lost].map(|n| n.load(Relaxed));
        Counted { sessions, begun, skipped, lost }
    }
}

/// One that watches.
#[derive(Debug)]
pub struct Seat(Arc<Spectators>);

impl Seat {
    /// It was too slow, and so many frames were left out.
    pub fn skipped(&self, frames: u64) {
        self.0.skipped.fetch_add(frames, Relaxed);
    }

    /// A datagram for it could not be sent.
    pub fn lost(&self) {
        self.0.lost.fetch_add(1, Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}
