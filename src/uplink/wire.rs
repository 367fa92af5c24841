//! What is going on on one connection to headquarters' broker, and when it counts as dead. Pure.

use std::{collections::VecDeque, time::Duration};

use super::{
    events::{Address, Settings},
    lanes::Ticket,
};
use crate::district::clock::Mono;

/// Bytes in flight that add a second to the patience.
const SLOW_LINE: u64 = 8 * 1024;
/// A document suspected of breaking connections is sent on one that has held for so long.
const SUSPECTS_AFTER: Duration = Duration::from_secs(10);

/// What is going on on one connection.
pub(super) struct Wire {
    pub(super) address: Address,
    pub(super) connected: bool,
    /// Since when the broker answers.
    pub(super) proven: Option<Mono>,
    /// Handed to rumqttc, which takes them in this order; no packet id yet.
    pub(super) handed: VecDeque<Ticket>,
    /// On the wire, with their packet ids, oldest first.
    pub(super) unacked: VecDeque<(u16, Ticket)>,
    pub(super) subscribing: bool,
    pub(super) pinging: bool,
    /// Since when the ping is out, and the question how long the broker takes.
    pub(super) pinged: Option<Mono>,
    pub(super) asked: Option<Mono>,
    /// When that may be asked again.
    pub(super) ask_at: Mono,
    /// When something came back last, or when something was sent first after a silence.
    pub(super) progress: Mono,
    /// Nothing is read, because the reader of our events is slow.
    pub(super) paused: bool,
    /// Shutdown: when to give up.
    pub(super) closing: Option<Mono>,
    pub(super) leaving: bool,
}

impl Wire {
    pub(super) fn new(address: Address, now: Mono) -> Self {
        Self {
            address,
            connected: false,
            proven: None,
            handed: VecDeque::new(),
            unacked: VecDeque::new(),
            subscribing: false,
            pinging: false,
            pinged: None,
            asked: None,
            ask_at: now,
            progress: now,
            paused: false,
            closing: None,
            leaving: false,
        }
    }

    fn outstanding(&self) -> bool {
        self.subscribing || self.pinging || !self.handed.is_empty() || !self.unacked.is_empty()
    }

    /// From when on suspected documents are sent.
    pub(super) fn suspects_at(&self) -> Option<Mono> {
        self.proven.map(|since| since + SUSPECTS_AFTER)
    }

    /// Something is about to be sent.
    pub(super) fn sending(&mut self, now: Mono) {
        if !self.outstanding() {
            self.progress = now;
        }
    }

    /// Notes whether anything is read now. A pause of ours is not held against the broker.
    pub(super) fn pause(&mut self, paused: bool, now: Mono) {
        if self.paused && !paused {
            self.progress = now;
        }
        self.paused = paused;
    }

    /// When the connection counts as dead if nothing comes back before, with so many bytes in flight.
    pub(super) fn stalled_at(&self, settings: &Settings, bytes: usize) -> Option<Mono> {
        if self.paused {
            None
        } else if !self.connected {
            Some(self.progress + settings.connect_timeout)
        } else {
            let slow = Duration::from_secs(bytes as u64 / SLOW_LINE);
            self.outstanding().then(|| self.progress + settings.patience + slow)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Mono {
        Mono::from_boot(Duration::from_secs(seconds))
    }

    #[test]
    fn a_connection_is_dead_only_when_something_is_outstanding_and_we_listen() {
        let settings = Settings::new("saddar".parse().unwrap(), Vec::new());
        let mut wire = Wire::new("mqtt://hq.example".parse().unwrap(), at(0));
        assert_eq!(wire.stalled_at(&settings, 0), Some(at(5)));
        wire.connected = true;
        assert_eq!(wire.stalled_at(&settings, 0), None);
        wire.sending(at(100));
        wire.subscribing = true;
        assert_eq!(wire.stalled_at(&settings, 0), Some(at(110)));
        assert_eq!(wire.stalled_at(&settings, 256 * 1024), Some(at(142)));
        wire.sending(at(105));
        assert_eq!(wire.stalled_at(&settings, 0), Some(at(110)), "sending more is no answer");
        wire.pause(true, at(105));
        assert_eq!(wire.stalled_at(&settings, 0), None);
        wire.pause(false, at(205));
        assert_eq!(wire.stalled_at(&settings, 0), Some(at(215)));
    }
}
