//! The acknowledgements that one connection owes, in the order in which the messages came ([MQTT-4.6.0-2]).

use std::{collections::VecDeque, future::pending};

use bytes::Bytes;
use tokio::sync::oneshot::{self, error::TryRecvError};

use super::packet::Pid;
use crate::district::clock::Mono;

/// Presses and statuses of one connection that wait to be acknowledged. When full, the socket is read no further.
const MAX_IN_FLIGHT: usize = 64;

/// An acknowledgement that is owed.
pub(super) struct Owed {
    pub(super) reply: Reply,
    pub(super) outcome: Outcome,
    pub(super) since: Mono,
    /// Set for a press: its payload, to be shown to integrations once it is recorded; empty when there are none.
    pub(super) press: Option<Bytes>,
}

/// What goes back.
#[derive(Clone, Copy)]
pub(super) enum Reply {
    Nothing,
    PubAck(Pid),
    PubRec(Pid),
}

/// Whether the message is recorded.
pub(super) enum Outcome {
    Known(bool),
    Awaited(oneshot::Receiver<bool>),
}

impl Outcome {
    /// Waits for it. A proof dropped is a proof failed.
    pub(super) async fn known(self) -> bool {
        match self {
            Outcome::Known(proven) => proven,
            Outcome::Awaited(proof) => proof.await.unwrap_or(false),
        }
    }
}

/// An acknowledgement whose outcome is known.
pub(super) struct Settled {
    pub(super) reply: Reply,
    pub(super) proven: bool,
    pub(super) press: Option<Bytes>,
}

/// All that is owed.
#[derive(Default)]
pub(super) struct Replies(VecDeque<Owed>);

impl Replies {
    pub(super) fn owe(&mut self, owed: Owed) {
        self.0.push_back(owed);
    }

    /// Whether no more may be taken for now.
    pub(super) fn is_full(&self) -> bool {
        self.0.len() >= MAX_IN_FLIGHT
    }

    /// Since when the first one is owed.
    pub(super) fn oldest(&self) -> Option<Mono> {
        self.0.front().map(|first| first.since)
    }

    /// The first one, when its outcome is known.
    pub(super) fn settled(&mut self) -> Option<Settled> {
        let proven = match &mut self.0.front_mut()?.outcome {
            Outcome::Known(proven) => *proven,
            Outcome::Awaited(proof) => match proof.try_recv() {
                Ok(proven) => proven,
                Err(TryRecvError::Empty) => return None,
                Err(TryRecvError::Closed) => false,
            },
        };
        let Owed { reply, press, .. } = self.0.pop_front()?;
        Some(Settled { reply, proven, press })
    }

    /// Resolves when the outcome of the first one is known; never, when nothing is owed.
    pub(super) async fn first_known(&mut self) {
        let Some(first) = self.0.front_mut() else { return pending().await };
        if let Outcome::Awaited(proof) = &mut first.outcome {
            // Kept: a receiver gives its value once.
            first.outcome = Outcome::Known(proof.await.unwrap_or(false));
        }
    }

    /// The presses among them, in order, for when the connection is gone.
    pub(super) fn presses(self) -> impl Iterator<Item = (Outcome, Bytes)> {
        self.0.into_iter().filter_map(|owed| Some((owed.outcome, owed.press?)))
    }
}
