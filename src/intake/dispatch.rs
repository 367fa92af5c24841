//! What each packet of a session does.

use bytes::Bytes;
use tokio::sync::{mpsc::error::TrySendError, oneshot};

use super::{
    Accepted, Event,
    connection::{Connection, MAX_RETAINED, PROOF_WAIT},
    end::End,
    mailbox::Mailbox,
    packet::{self, Packet, Pid, Publish, Qos},
    payload,
    replies::{Outcome, Owed, Reply},
    rules::{Role, Uplink},
};
use crate::{district::ids::ButtonId, host::clock};

impl Connection {
    /// Does what a packet asks for.
    ///
    /// # Errors
    /// Why the connection ends with it.
    pub(super) fn take(&mut self, packet: Packet<'_>) -> Result<(), End> {
        match packet {
            Packet::Publish(publish) => self.take_publish(publish),
            Packet::PubAck(pid) => self.mailbox(|m| m.acknowledged(pid)).map(|()| self.has_mail = true),
            Packet::PubRel(pid) => {
                self.mailbox(|m| m.release(pid))?;
                packet::pubcomp(&mut self.output, pid);
                Ok(())
            }
            Packet::Subscribe(pid, filters) => self.subscribe(pid, &filters),
            Packet::Unsubscribe(pid, filters) => {
                self.mailbox(|m| filters.iter().for_each(|f| m.unsubscribe(f)))?;
                packet::unsuback(&mut self.output, pid);
                Ok(())
            }
            Packet::PingReq => {
                packet::pingresp(&mut self.output);
                Ok(())
            }
            Packet::Disconnect => Err(End::Disconnected),
            Packet::Connect(_) => Err(End::SecondConnect),
            // Nothing goes down with quality 2.
            Packet::PubRec(_) => Err(End::Unexpected("PUBREC")),
            Packet::PubComp(_) => Err(End::Unexpected("PUBCOMP")),
        }
    }

    fn take_publish(&mut self, publish: Publish<'_>) -> Result<(), End> {
        let uplink = self.seat.role.publishes(publish.topic).ok_or(End::Forbidden)?;
        let Role::Button(button) = &self.seat.role else { return Err(End::Forbidden) };
        let button = button.clone();
        let reply = match (publish.qos, publish.pid) {
            (Qos::One, Some(pid)) => Reply::PubAck(pid),
            (Qos::Two, Some(pid)) => Reply::PubRec(pid),
            _ => Reply::Nothing,
        };
        if let Reply::PubRec(pid) = reply
            && self.mailbox(|m| m.has_taken(pid))?
        {
            self.owe(reply, Outcome::Known(true), None);
            return Ok(());
        }
        match uplink {
            Uplink::Press => self.take_press(button, &publish, reply),
            Uplink::Status => self.take_status(button, &publish, reply),
        }
    }

    fn take_press(&mut self, button: ButtonId, publish: &Publish<'_>, reply: Reply) -> Result<(), End> {
        let (press, odd) = payload::press(&button, publish.payload, clock::now());
        self.shared.counters.presses.add();
        let odd = odd.map(payload::Oddity::as_str);
        // A retained press would be pressed again by every subscription: it is taken, and not retained.
        if let Some(odd) = odd.or(publish.retain.then_some("press is marked as retained")) {
            self.odd(&button, odd);
        }
        let (sender, proof) = oneshot::channel();
        self.hand_on(Event::Press { press, accepted: Accepted(sender) })?;
        let shown = if self.shared.fanout.is_used() { Bytes::copy_from_slice(publish.payload) } else { Bytes::new() };
        self.owe(reply, Outcome::Awaited(proof), Some(shown));
        Ok(())
    }

    fn take_status(&mut self, button: ButtonId, publish: &Publish<'_>, reply: Reply) -> Result<(), End> {
        self.shared.counters.statuses.add();
        let message = Bytes::copy_from_slice(publish.payload);
        if publish.retain {
            self.retain(&button, &message);
        }
        if self.shared.fanout.is_used() {
            self.shared.fanout.send(publish.topic.to_owned().into(), message);
        }
        if !publish.payload.is_empty() {
            let (status, odd) = payload::status(publish.payload);
            if let Some(odd) = odd {
                self.odd(&button, odd.as_str());
            }
            if let Some(status) = status {
                self.hand_on(Event::Status { button, status, now: clock::now() })?;
            }
        }
        self.owe(reply, Outcome::Known(true), None);
        Ok(())
    }

    fn retain(&self, button: &ButtonId, status: &Bytes) {
        if status.len() > MAX_RETAINED {
            return self.odd(button, "status is too large to be retained");
        }
        self.seat.retain_status((!status.is_empty()).then(|| status.clone()));
    }

    fn odd(&self, button: &ButtonId, what: &str) {
        self.shared.counters.odd_payloads.add();
        if let Some(held_back) = self.shared.oddities.allow(clock::mono()) {
            tracing::warn!(%button, peer = %self.peer, what, held_back, "odd payload, taken all the same");
        }
    }

    fn subscribe(&mut self, pid: Pid, filters: &[(&str, Qos)]) -> Result<(), End> {
        let mut granted = Vec::with_capacity(filters.len());
        for &(filter, qos) in filters {
            let mut given = None;
            if self.seat.role.may_read(filter) {
                given = self.mailbox(|m| m.subscribe(filter, qos))?;
            }
            granted.push(given);
            if let (Some(qos), Role::Integration(_)) = (given, &self.seat.role) {
                // A new subscription brings what is retained ([MQTT-3.3.1-6], [MQTT-3.8.4-3]).
                let retained = self.shared.seats.retained(filter);
                self.mailbox(|m| {
                    retained.into_iter().for_each(|message| {
                        let _ = m.queue(message, qos);
                    })
                })?;
            }
        }
        packet::suback(&mut self.output, pid, &granted);
        self.has_mail = true;
        Ok(())
    }

    /// This connection's mailbox.
    ///
    /// # Errors
    /// [`End::TakenOver`].
    pub(super) fn mailbox<R>(&self, f: impl FnOnce(&mut Mailbox) -> R) -> Result<R, End> {
        self.seat.mailbox(&self.holder, f).ok_or(End::TakenOver)
    }

    fn owe(&mut self, reply: Reply, outcome: Outcome, press: Option<Bytes>) {
        let now = clock::mono();
        let due = clock::deadline(now + PROOF_WAIT);
        if matches!(outcome, Outcome::Awaited(_)) && self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        self.replies.owe(Owed { reply, outcome, since: now, press });
    }

    /// Hands an event on, or holds it when the queue is full.
    fn hand_on(&mut self, event: Event) -> Result<(), End> {
        match self.shared.events.try_send(event) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(event)) => {
                self.held = Some(event);
                Ok(())
            }
            Err(TrySendError::Closed(_)) => Err(End::Stopping),
        }
    }
}
