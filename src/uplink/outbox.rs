//! What the events task tells, in order, to a reader that may be slow.

use std::collections::VecDeque;

use tokio::sync::mpsc;

use super::events::Event;

/// Events on their way to the reader.
///
/// When the reader's channel is full they wait here, in order. From [`Outbox::ROOM`] on nothing more is read from the
/// broker or sent to it, so the queue grows only by what one packet, or a failure not told before, adds.
pub(super) struct Outbox {
    events: mpsc::Sender<Event>,
    queue: VecDeque<Event>,
}

impl Outbox {
    const ROOM: usize = 256;

    pub(super) fn new(events: mpsc::Sender<Event>) -> Self {
        Self { events, queue: VecDeque::new() }
    }

    pub(super) fn push(&mut self, event: Event) {
        if !self.queue.is_empty() {
            self.queue.push_back(event);
        } else if let Err(mpsc::error::TrySendError::Full(event)) = self.events.try_send(event) {
            self.queue.push_back(event);
        }
    }

    /// Whether there is room for what another packet may bring.
    pub(super) fn has_room(&self) -> bool {
        self.queue.len() < Self::ROOM
    }

    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Waits for room in the reader's channel. Safe to cancel.
    pub(super) async fn flush_one(&mut self) {
        match self.events.reserve().await {
            Ok(permit) => {
                if let Some(event) = self.queue.pop_front() {
                    permit.send(event);
                }
            }
            Err(_) => self.queue.clear(),
        }
    }
}
