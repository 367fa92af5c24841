//! What waits to go down to one client: its subscriptions, the messages for it, what it has not acknowledged. Pure.
//!
//! This is the session of MQTT 3.1.1 section 4.1. It is kept in memory only and bounded: when the queue is full the oldest
//! message goes, because of two states the newer one counts.

use std::collections::VecDeque;

use bytes::Bytes;

use super::{
    filter,
    packet::{Pid, Qos},
};

/// Most subscriptions of one client.
const MAX_SUBSCRIPTIONS: usize = 32;
/// Most messages sent and not yet acknowledged: later ones wait in the queue.
const WINDOW: usize = 16;
/// Most messages of quality 2 received and not yet released (section 4.3.3).
const MAX_UNRELEASED: usize = 64;

/// One message on its way down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Topic, UTF-8.
    pub topic: Bytes,
    /// Payload.
    pub payload: Bytes,
    /// Whether it is a retained one, sent because of a new subscription (section 3.3.1.3).
    pub retain: bool,
}

/// A message with what the wire needs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parcel {
    /// The message.
    pub message: Message,
    /// Packet identifier for quality 1, none for quality 0.
    pub pid: Option<Pid>,
    /// Whether it was sent before.
    pub dup: bool,
}

/// What became of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// The client did not ask for it.
    Unwanted,
    /// It waits.
    Queued,
    /// It waits, and the oldest was dropped for it.
    QueuedForAnother,
}

#[derive(Debug)]
struct Waiting {
    message: Message,
    qos: Qos,
    sent_as: Option<Pid>,
}

/// The session of one client.
#[derive(Debug)]
pub struct Mailbox {
    subscriptions: Vec<(String, Qos)>,
    queue: VecDeque<Waiting>,
    unacknowledged: VecDeque<(Pid, Message)>,
    unreleased: Vec<Pid>,
    last: u16,
    capacity: usize,
}

impl Mailbox {
    /// An empty one that holds at most `capacity` messages.
    pub fn new(capacity: usize) -> Self {
        Self {
            subscriptions: Vec::new(),
            queue: VecDeque::new(),
            unacknowledged: VecDeque::new(),
            unreleased: Vec::new(),
            last: 0,
            capacity: capacity.max(1),
        }
    }

    /// Adds or replaces a subscription (section 3.8.4). Gives the quality granted: at most 1; `None` when there are too many.
    pub fn subscribe(&mut self, filter: &str, qos: Qos) -> Option<Qos> {
        let granted = qos.min(Qos::One);
        if let Some(known) = self.subscriptions.iter_mut().find(|(f, _)| f == filter) {
            known.1 = granted;
        } else if self.subscriptions.len() < MAX_SUBSCRIPTIONS {
            self.subscriptions.push((filter.to_owned(), granted));
        } else {
            return None;
        }
        Some(granted)
    }

    /// Removes a subscription.
    pub fn unsubscribe(&mut self, filter: &str) {
        self.subscriptions.retain(|(f, _)| f != filter);
    }

    /// Queues a message when a subscription asks for it. While the client is away only quality 1 waits for it.
    pub fn offer(&mut self, message: Message, connected: bool) -> Fate {
        let Ok(topic) = std::str::from_utf8(&message.topic) else { return Fate::Unwanted };
        let wanted = self.subscriptions.iter().filter(|(f, _)| filter::matches(f, topic)).map(|(_, qos)| *qos).max();
        match wanted {
            None => Fate::Unwanted,
            Some(Qos::Zero) if !connected => Fate::Unwanted,
            Some(qos) => self.queue(message, qos),
        }
    }

    /// Queues a retained message for a subscription just made, with the quality granted to it.
    pub fn queue(&mut self, message: Message, qos: Qos) -> Fate {
        let full = self.queue.len() >= self.capacity;
        if full {
            self.queue.pop_front();
        }
        self.queue.push_back(Waiting { message, qos, sent_as: None });
        if full { Fate::QueuedForAnother } else { Fate::Queued }
    }

    /// The next message to send, unless 16 of them wait for an acknowledgement.
    pub fn take(&mut self) -> Option<Parcel> {
        if self.queue.front()?.qos == Qos::Zero {
            let message = self.queue.pop_front()?.message;
            return Some(Parcel { message, pid: None, dup: false });
        }
        if self.unacknowledged.len() >= WINDOW {
            return None;
        }
        let Waiting { message, sent_as, .. } = self.queue.pop_front()?;
        let pid = sent_as.unwrap_or_else(|| self.free_pid());
        self.unacknowledged.push_back((pid, message.clone()));
        Some(Parcel { message, pid: Some(pid), dup: sent_as.is_some() })
    }

    /// The client has it (section 3.4). An identifier that is not in use is ignored.
    pub fn acknowledged(&mut self, pid: Pid) {
        self.unacknowledged.retain(|(p, _)| *p != pid);
    }

    /// The client is back: what it did not acknowledge goes again, in order and under the same identifiers
    /// ([MQTT-4.4.0-1]).
    pub fn resume(&mut self) {
        while let Some((pid, message)) = self.unacknowledged.pop_back() {
            self.queue.push_front(Waiting { message, qos: Qos::One, sent_as: Some(pid) });
        }
    }

    /// Forgets everything: a clean session.
    pub fn clear(&mut self) {
        *self = Self::new(self.capacity);
    }

    /// Whether a message of quality 2 was taken under this identifier and not yet released: a repeat (section 4.3.3).
    pub fn has_taken(&self, pid: Pid) -> bool {
        self.unreleased.contains(&pid)
    }

    /// Notes that a message of quality 2 is taken. `false` when 64 of them wait for their release.
    pub fn take_once(&mut self, pid: Pid) -> bool {
        let fits = self.unreleased.len() < MAX_UNRELEASED;
        if fits && !self.has_taken(pid) {
            self.unreleased.push(pid);
        }
        fits
    }

    /// The client released a message of quality 2 (section 3.6): its identifier may mean a new one.
    pub fn release(&mut self, pid: Pid) {
        self.unreleased.retain(|p| *p != pid);
    }

    fn free_pid(&mut self) -> Pid {
        loop {
            self.last = self.last.wrapping_add(1);
            // At most WINDOW + capacity are in use, so this ends.
            if let Some(pid) = Pid::new(self.last)
                && !self.unacknowledged.iter().any(|(p, _)| *p == pid)
                && !self.queue.iter().any(|w| w.sent_as == Some(pid))
            {
                return pid;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(payload: &'static str) -> Message {
        Message {
            topic: Bytes::from_static(b"buttons/b1/state"),
            payload: Bytes::from_static(payload.as_bytes()),
            retain: false,
        }
    }

    fn subscribed(capacity: usize) -> Mailbox {
        let mut m = Mailbox::new(capacity);
        assert_eq!(m.subscribe("buttons/b1/state", Qos::Two), Some(Qos::One));
        m
    }

    #[test]
    fn only_what_is_subscribed_waits() {
        let mut m = Mailbox::new(4);
        assert_eq!(m.offer(message("a"), true), Fate::Unwanted);
        m.subscribe("buttons/b1/#", Qos::Zero);
        assert_eq!(m.offer(message("a"), false), Fate::Unwanted);
        assert_eq!(m.offer(message("b"), true), Fate::Queued);
        let parcel = m.take().unwrap();
        assert_eq!((parcel.pid, parcel.message.payload.as_ref()), (None, &b"b"[..]));
    }

    #[test]
    fn the_oldest_goes_when_it_is_full() {
        let mut m = subscribed(2);
        assert_eq!(m.offer(message("a"), false), Fate::Queued);
        assert_eq!(m.offer(message("b"), false), Fate::Queued);
        assert_eq!(m.offer(message("c"), false), Fate::QueuedForAnother);
        assert_eq!(m.take().unwrap().message.payload.as_ref(), b"b");
    }

    #[test]
    fn what_was_not_acknowledged_goes_again_in_order_under_its_identifier() {
        let mut m = subscribed(8);
        for p in ["a", "b", "c"] {
            m.offer(message(p), true);
        }
        let first: Vec<_> = std::iter::from_fn(|| m.take()).collect();
        m.acknowledged(first[1].pid.unwrap());
        m.resume();
        let again: Vec<_> = std::iter::from_fn(|| m.take()).collect();
        assert_eq!(again.len(), 2);
        assert!(again.iter().all(|p| p.dup));
        assert_eq!((again[0].pid, again[1].pid), (first[0].pid, first[2].pid));
    }

    #[test]
    fn the_window_holds_the_rest_back() {
        let mut m = subscribed(100);
        for _ in 0..20 {
            m.offer(message("a"), true);
        }
        let sent: Vec<_> = std::iter::from_fn(|| m.take()).collect();
        assert_eq!(sent.len(), WINDOW);
        m.acknowledged(sent[0].pid.unwrap());
        assert!(m.take().is_some() && m.take().is_none());
    }

    #[test]
    fn a_message_of_quality_two_is_taken_once_until_it_is_released() {
        let mut m = Mailbox::new(1);
        let pid = Pid::new(9).unwrap();
        assert!(!m.has_taken(pid) && m.take_once(pid) && m.has_taken(pid));
        m.release(pid);
        assert!(!m.has_taken(pid));
        for n in 1..=64 {
            assert!(m.take_once(Pid::new(n).unwrap()));
        }
        assert!(!m.take_once(Pid::new(65).unwrap()));
    }

    #[test]
    fn subscriptions_are_bounded() {
        let mut m = Mailbox::new(1);
        for i in 0..MAX_SUBSCRIPTIONS {
            assert!(m.subscribe(&format!("a/{i}"), Qos::One).is_some());
        }
        assert_eq!(m.subscribe("b", Qos::One), None);
        assert_eq!(m.subscribe("a/1", Qos::Zero), Some(Qos::Zero));
    }
}
