//! What the listener counts, for metrics, and logs that cannot be flooded from outside.

use std::{
    collections::BTreeMap,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use super::end::End;
use crate::district::clock::Mono;

/// What happened since the start. Counts only go up, except [`Stats::connections`].
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Stats {
    /// TCP connections open now, those still in their handshake included.
    pub connections: u64,
    /// TCP connections accepted.
    pub accepted: u64,
    /// TCP connections closed at once because there were too many in all.
    pub over_limit: u64,
    /// TCP connections closed at once because there were too many from their address.
    pub over_limit_address: u64,
    /// Sessions that began: CONNECT answered with 0.
    pub sessions: u64,
    /// Sessions that took over from an older connection of the same identity.
    pub takeovers: u64,
    /// Presses received, repeats included.
    pub presses: u64,
    /// Presses recorded.
    pub recorded: u64,
    /// Presses that could not be recorded, or not in time: no acknowledgement was given.
    pub withheld: u64,
    /// Payloads that were odd and taken all the same.
    pub odd_payloads: u64,
    /// Status messages received.
    pub statuses: u64,
    /// Messages queued for clients.
    pub queued: u64,
    /// Messages for clients dropped, the oldest first, because a client's queue was full.
    pub dropped: u64,
    /// Messages that the local integrations missed because the router's queue was full.
    pub fanout_dropped: u64,
    /// Connections that ended, by why.
    pub ended: BTreeMap<&'static str, u64>,
}

macro_rules! counters {
    ($($name:ident),*) => {
        /// The counters behind [`Stats`].
        #[derive(Debug, Default)]
        pub(super) struct Counters {
            $(pub(super) $name: Counter,)*
            ended: Mutex<BTreeMap<&'static str, u64>>,
        }

        impl Counters {
            /// All of them, now.
            pub(super) fn read(&self, connections: u64) -> Stats {
                let ended = self.ended.lock().unwrap_or_else(PoisonError::into_inner).clone();
                Stats { connections, $($name: self.$name.0.load(Relaxed),)* ended }
            }
        }
    };
}

counters!(
    accepted,
    over_limit,
    over_limit_address,
    sessions,
    takeovers,
    presses,
    recorded,
    withheld,
    odd_payloads,
    statuses,
    queued,
    dropped,
    fanout_dropped
);

impl Counters {
    /// Counts a connection's end.
    pub(super) fn ended(&self, end: &End) {
        *self.ended.lock().unwrap_or_else(PoisonError::into_inner).entry(end.label()).or_default() += 1;
    }
}

/// A number that goes up.
#[derive(Debug, Default)]
pub(super) struct Counter(AtomicU64);

impl Counter {
    pub(super) fn add(&self) {
        self.0.fetch_add(1, Relaxed);
    }
}

/// Lets through one log line a second, and tells it how many it stands for.
#[derive(Debug, Default)]
pub(super) struct Seldom {
    last_s: AtomicU64,
    held_back: AtomicU64,
}

impl Seldom {
    /// `Some(n)` when a line may be written, `n` being how many were held back before it.
    pub(super) fn allow(&self, now: Mono) -> Option<u64> {
        let second = now.since_boot().as_secs().max(1);
        if self.last_s.swap(second, Relaxed) == second {
            self.held_back.fetch_add(1, Relaxed);
            return None;
        }
        Some(self.held_back.swap(0, Relaxed))
    }
}
