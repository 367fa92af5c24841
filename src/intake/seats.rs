//! One seat for every configured identity, and who sits in it. Nothing here grows beyond what is configured.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;
use tokio::sync::Notify;

use super::{
    filter,
    mailbox::{Fate, Mailbox, Message},
    rules::{Proof, Role},
};

/// What one connection holds while it sits in a seat; woken when there is something for it, or when it lost the seat.
pub(super) type Holder = Arc<Notify>;

/// A configured identity.
pub(super) struct Seat {
    pub(super) role: Role,
    pub(super) proof: Proof,
    state: Mutex<State>,
}

struct State {
    holder: Option<Holder>,
    /// Whether the session outlives its connection (clean session 0).
    kept: bool,
    mailbox: Mailbox,
    /// A button's retained status, as it wrote it.
    status: Option<Bytes>,
}

/// How a connection came to its seat.
pub(super) struct Attached {
    pub(super) holder: Holder,
    /// For CONNACK ([MQTT-3.2.2-2]).
    pub(super) session_present: bool,
    /// Whether another connection had to leave.
    pub(super) took_over: bool,
}

impl Seat {
    /// An empty seat whose mailbox holds at most `capacity` messages.
    pub(super) fn new(role: Role, proof: Proof, capacity: usize) -> Self {
        let state = State { holder: None, kept: false, mailbox: Mailbox::new(capacity), status: None };
        Self { role, proof, state: Mutex::new(state) }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives the seat to a new connection; the one that had it loses it. `announce` runs while no other connection can
    /// come or go, so what it says is in order.
    pub(super) fn attach(&self, clean_session: bool, announce: impl FnOnce()) -> Attached {
        let holder = Holder::default();
        let mut state = self.state();
        let previous = state.holder.replace(holder.clone());
        let session_present = state.kept && !clean_session;
        if session_present {
            state.mailbox.resume();
        } else {
            state.mailbox.clear();
        }
        state.kept = !clean_session;
        announce();
        drop(state);
        if let Some(previous) = &previous {
            previous.notify_one();
        }
        Attached { holder, session_present, took_over: previous.is_some() }
    }

    /// Leaves the seat. For the connection that still had it, `status` is retained when there is one, and `farewell` runs
    /// under the same condition as above. Gives whether it still had it.
    pub(super) fn detach(&self, holder: &Holder, status: Option<Bytes>, farewell: impl FnOnce()) -> bool {
        let mut state = self.state();
        let mine = state.holder.as_ref().is_some_and(|h| Arc::ptr_eq(h, holder));
        if mine {
            state.holder = None;
            if !state.kept {
                state.mailbox.clear();
            }
            if let Some(status) = status {
                state.status = Some(status).filter(|s| !s.is_empty());
            }
            farewell();
        }
        mine
    }

    /// The mailbox, for the connection that has the seat; `None` for one that lost it.
    pub(super) fn mailbox<R>(&self, holder: &Holder, f: impl FnOnce(&mut Mailbox) -> R) -> Option<R> {
        let mut state = self.state();
        let mine = state.holder.as_ref().is_some_and(|h| Arc::ptr_eq(h, holder));
        mine.then(|| f(&mut state.mailbox))
    }

    /// Queues a message for whoever sits here, or for when it is back.
    pub(super) fn offer(&self, message: Message) -> Fate {
        let mut state = self.state();
        let connected = state.holder.is_some();
        let fate = state.mailbox.offer(message, connected);
        if fate != Fate::Unwanted
            && let Some(holder) = &state.holder
        {
            holder.notify_one();
        }
        fate
    }

    /// Keeps a button's retained status; `None` removes it ([MQTT-3.3.1-10]).
    pub(super) fn retain_status(&self, payload: Option<Bytes>) {
        self.state().status = payload;
    }
}

/// All seats.
pub(super) struct Seats(HashMap<String, Arc<Seat>>);

impl Seats {
    /// Of these, by id.
    pub(super) fn new(seats: HashMap<String, Arc<Seat>>) -> Self {
        Self(seats)
    }

    /// The seat of that id.
    pub(super) fn get(&self, id: &str) -> Option<&Arc<Seat>> {
        self.0.get(id)
    }

    /// The retained status messages that `filter` matches.
    pub(super) fn retained(&self, filter: &str) -> Vec<Message> {
        let of = |seat: &Arc<Seat>| {
            let Role::Button(id) = &seat.role else { return None };
            let topic = format!("buttons/{id}/status");
            let payload = filter::matches(filter, &topic).then(|| seat.state().status.clone())??;
            Some(Message { topic: topic.into(), payload, retain: true })
        };
        self.0.values().filter_map(of).collect()
    }
}
