//! The task behind [`super::events`]: one connection after the other, each served in one loop.

use std::{future::Future, pin::Pin, pin::pin, sync::Arc, time::Duration};

use futures::{FutureExt, StreamExt};
use rumqttc::{AsyncClient, Incoming, Outgoing, Packet, QoS, SubscribeReasonCode};
use tokio::sync::mpsc;

use super::{
    events::{Aside, Event, MAX_COMMAND, Settings, Shared},
    lanes::{Document, Lane, Tag, Ticket},
    link::{Backhaul, Link},
    mqtt,
    outbox::Outbox,
    tls,
    wire::Wire,
};
use crate::{district::clock::Mono, host::clock};

/// What is in flight at shutdown has so long to be acknowledged.
const FAREWELL: Duration = Duration::from_secs(1);
/// After a packet that is too large to read, commands are not subscribed to for so long: a broker that retains such a
/// packet would otherwise end every connection.
const DEAF: Duration = Duration::from_secs(300);
/// With nothing else to wait for, look again after this.
const IDLE: Duration = Duration::from_secs(3600);
/// While media leave at a pace that is being found out, the broker is asked so often how long it takes.
const ASK: Duration = Duration::from_millis(200);
/// A broker that does not answer that question for so long does not answer it at all.
const MUTE: Duration = Duration::from_secs(10);

/// Runs until `stopping` resolves.
pub(super) async fn run(
    settings: Settings,
    shared: Arc<Shared>,
    events: mpsc::Sender<Event>,
    stopping: impl Future<Output = ()>,
) {
    if settings.addresses.is_empty() {
        tracing::error!("headquarters has no address; nothing will be sent");
        return;
    }
    let link = Link::new(settings.addresses.len(), fastrand::u64(..), clock::mono());
    let width = usize::from(settings.window.max(1));
    let outbox = Outbox::new(events);
    let told = vec![None; settings.addresses.len()];
    let mut task =
        Task { settings, shared, outbox, link, width, told, deaf_until: None, backhaul: None, stopped: false };
    let mut stopping = pin!(stopping);
    while task.wait(stopping.as_mut()).await == Next::GoOn {
        match task.connection(stopping.as_mut()).await {
            Ok(()) => return,
            Err(_) if task.stopped => return,
            Err(broken) => task.failed(broken),
        }
    }
}

#[derive(PartialEq)]
enum Next {
    GoOn,
    Stop,
}

/// The end of a connection or an attempt.
struct Broken {
    reason: String,
    /// It was the broker who ended it.
    by_broker: bool,
}

impl Broken {
    fn line(reason: String) -> Self {
        Self { reason, by_broker: false }
    }
}

struct Task {
    settings: Settings,
    shared: Arc<Shared>,
    outbox: Outbox,
    link: Link,
    /// How many documents may be in flight: halved when a connection fails, one more for each acknowledgement. A line
    /// too slow for the whole window, or a document that breaks the connection, so ends up with one at a time.
    width: usize,
    deaf_until: Option<Mono>,
    /// The name of the backhaul that was told last.
    backhaul: Option<Backhaul>,
    /// For each address, the failure that was told last.
    told: Vec<Option<String>>,
    stopped: bool,
}

impl Task {
    /// Waits until the next attempt is due.
    async fn wait(&mut self, mut stopping: Pin<&mut impl Future<Output = ()>>) -> Next {
        loop {
            self.tell_state();
            let now = clock::mono();
            if let Some(pacer) = &self.settings.pacer {
                pacer.unheard(now);
            }
            let due = self.link.next_attempt();
            if now >= due {
                return Next::GoOn;
            }
            let due = self.link.next_change(now).map_or(due, |change| change.min(due));
            tokio::select! {
                () = stopping.as_mut() => return Next::Stop,
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(clock::deadline(due)) => {}
                () = self.outbox.flush_one(), if !self.outbox.is_empty() => {}
            }
        }
    }

    /// One connection, from the first packet to the last. `Ok` when the scope stops.
    async fn connection(&mut self, mut stopping: Pin<&mut impl Future<Output = ()>>) -> Result<(), Broken> {
        let Some(address) = self.settings.addresses.get(self.link.address()).cloned() else {
            return Err(Broken::line("headquarters has no address".into()));
        };
        if address.tls && self.settings.tls_roots.is_none() {
            let system = tls::client_config(None, None).map_err(|e| Broken::line(format!("{address}: {e}")))?;
            self.settings.tls_roots = Some(system);
        }
        let (client, eventloop) = mqtt::open(&self.settings, &address);
        let mut packets = pin!(mqtt::packets(eventloop));
        let mut wire = Wire::new(address, clock::mono());
        loop {
            self.tell_state();
            wire.pause(!self.outbox.has_room(), clock::mono());
            if wire.connected && !wire.paused {
                self.send(&client, &mut wire)?;
            }
            self.ask(&client, &mut wire);
            let due = self.due(&wire);
            tokio::select! {
                biased;
                () = stopping.as_mut(), if wire.closing.is_none() => {
                    self.stopped = true;
                    if !wire.connected {
                        return Ok(());
                    }
                    wire.closing = Some(clock::mono() + FAREWELL);
                    self.offer_farewell();
                }
                () = self.outbox.flush_one(), if !self.outbox.is_empty() => {}
                packet = packets.next(), if !wire.paused => match packet {
                    Some(Ok(packet)) => {
                        if self.happened(packet, &client, &mut wire)? == Next::Stop {
                            return Ok(());
                        }
                    }
                    Some(Err(error)) => return self.ended(&error, &wire),
                    None => return self.broken(&wire, "the client ended"),
                },
                () = self.shared.wake.notified() => {}
                () = tokio::time::sleep_until(clock::deadline(due)) => {
                    if self.overdue(&client, &mut wire)? == Next::Stop {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Sends as much as the window allows.
    fn send(&mut self, client: &AsyncClient, wire: &mut Wire) -> Result<(), Broken> {
        let suspects = wire.suspects_at().is_some_and(|at| clock::mono() >= at);
        let mut inner = self.shared.lock();
        while let Some((ticket, document)) = inner.lanes.take(self.width, suspects) {
            wire.sending(clock::mono());
            let topic = document.topic.as_str();
            if let Some(pacer) = &self.settings.pacer {
                // It does not wait; media do, so that both together are what the line carries.
                let _ = pacer.take(topic.len() + document.payload.len());
            }
            let publish = client.publish_bytes(topic, QoS::AtLeastOnce, document.retain, document.payload.clone());
            // Its queue has room for the whole window, so it never waits.
            if !matches!(publish.now_or_never(), Some(Ok(()))) {
                return self.broken(wire, "the MQTT client takes nothing more");
            }
            wire.handed.push_back(ticket);
        }
        if wire.closing.is_some() && !wire.leaving && inner.lanes.is_idle() {
            wire.leaving = true;
            // Refused only when the client has ended; the deadline then ends us.
            let _ = client.try_disconnect();
        }
        Ok(())
    }

    /// Something was read or written.
    fn happened(&mut self, packet: rumqttc::Event, client: &AsyncClient, wire: &mut Wire) -> Result<Next, Broken> {
        match packet {
            rumqttc::Event::Incoming(packet) => {
                wire.progress = clock::mono();
                self.received(packet, client, wire)?;
            }
            rumqttc::Event::Outgoing(Outgoing::Publish(id)) => {
                wire.unacked.extend(wire.handed.pop_front().map(|ticket| (id, ticket)));
            }
            rumqttc::Event::Outgoing(Outgoing::PingReq) => {
                wire.sending(clock::mono());
                wire.pinging = true;
                wire.pinged = Some(clock::mono());
            }
            rumqttc::Event::Outgoing(Outgoing::AwaitAck(id)) => {
                self.broken(
                    wire,
                    &format!("the broker leaves packet {id} unacknowledged while it acknowledges others"),
                )?;
            }
            rumqttc::Event::Outgoing(Outgoing::Disconnect) => return Ok(Next::Stop),
            rumqttc::Event::Outgoing(_) => {}
        }
        Ok(Next::GoOn)
    }

    fn received(&mut self, packet: Incoming, client: &AsyncClient, wire: &mut Wire) -> Result<(), Broken> {
        match packet {
            Packet::ConnAck(_) => self.connected(client, wire),
            Packet::PubAck(ack) => {
                let Some(at) = wire.unacked.iter().position(|(id, _)| *id == ack.pkid) else {
                    return self.broken(wire, &format!("the broker acknowledges packet {}, never sent", ack.pkid));
                };
                let Some((_, ticket)) = wire.unacked.remove(at) else { return Ok(()) };
                self.proven(wire);
                self.delivered(ticket);
            }
            Packet::SubAck(ack) => {
                wire.subscribing = false;
                if ack.return_codes.contains(&SubscribeReasonCode::Failure) {
                    let topic = self.settings.commands_topic();
                    tracing::error!(address = %wire.address, topic, "headquarters' broker lets us hear no commands; check its access rules");
                }
                self.proven(wire);
            }
            Packet::PingResp => {
                wire.pinging = false;
                self.heard(wire.pinged.take());
                self.proven(wire);
            }
            Packet::UnsubAck(_) => {
                self.heard(wire.asked.take());
                self.proven(wire);
            }
            Packet::Publish(publish) => self.commanded(publish),
            _ => {}
        }
        Ok(())
    }

    fn connected(&mut self, client: &AsyncClient, wire: &mut Wire) {
        let now = clock::mono();
        wire.connected = true;
        self.link.connected(now);
        let mut inner = self.shared.lock();
        inner.lanes.connected();
        inner.stats.connections += 1;
        inner.stats.address = Some(wire.address.clone());
        drop(inner);
        if self.deaf_until.is_none_or(|until| now >= until) {
            self.subscribe(client, wire);
        }
    }

    fn subscribe(&mut self, client: &AsyncClient, wire: &mut Wire) {
        self.deaf_until = None;
        wire.sending(clock::mono());
        // The queue has room. Without a SUBACK, the deadline ends the connection.
        wire.subscribing = true;
        let _ = client.try_subscribe(self.settings.commands_topic(), QoS::AtLeastOnce);
    }

    /// Asks how long the broker takes, in the way of events, while media go too: by a question that every broker answers at
    /// once and that changes nothing.
    fn ask(&self, client: &AsyncClient, wire: &mut Wire) {
        let Some(pacer) = &self.settings.pacer else { return };
        let now = clock::mono();
        if wire.proven.is_none() || wire.asked.is_some_and(|since| now.since(since) >= MUTE) {
            return pacer.unheard(now);
        }
        if wire.asked.is_none() && now >= wire.ask_at && pacer.asks() && wire.closing.is_none() {
            let asked = client.try_unsubscribe(format!("{}/none", self.settings.commands_topic()));
            wire.asked = asked.is_ok().then_some(now);
            wire.ask_at = now + ASK;
        }
    }

    /// The broker has answered what was sent then.
    fn heard(&self, sent: Option<Mono>) {
        if let (Some(pacer), Some(sent)) = (&self.settings.pacer, sent) {
            let now = clock::mono();
            pacer.answered(now.since(sent), now);
        }
    }

    /// The broker has answered something.
    fn proven(&mut self, wire: &mut Wire) {
        let now = clock::now();
        self.link.worked(now.mono);
        if wire.proven.is_none() {
            wire.proven = Some(now.mono);
            self.tell_state();
            self.told.fill(None);
            tracing::info!(address = %wire.address, "headquarters' broker is connected");
            self.outbox.push(Event::Up { address: wire.address.clone(), now });
        }
    }

    fn delivered(&mut self, ticket: Ticket) {
        self.width = (self.width + 1).min(usize::from(self.settings.window.max(1)));
        let mut inner = self.shared.lock();
        let delivered = inner.lanes.acked(ticket);
        inner.stats.delivered += 1;
        drop(inner);
        if let Some((tag, revision)) = delivered {
            self.outbox.push(Event::Delivered { tag, revision, now: clock::now() });
        }
    }

    fn commanded(&mut self, publish: rumqttc::Publish) {
        if publish.payload.len() > MAX_COMMAND {
            tracing::warn!(
                bytes = publish.payload.len(),
                limit = MAX_COMMAND,
                "a command is too large and was ignored"
            );
            return;
        }
        self.shared.lock().stats.commands += 1;
        self.outbox.push(Event::Command { payload: publish.payload, retained: publish.retain, now: clock::now() });
    }

    /// When to look even if nothing happens.
    fn due(&self, wire: &Wire) -> Mono {
        let now = clock::mono();
        let deaf = self.deaf_until.filter(|_| wire.connected);
        let suspects = wire.suspects_at().filter(|at| *at > now);
        let ask = self.settings.pacer.as_ref().filter(|p| p.pace().is_some()).map(|_| wire.ask_at.max(now + ASK));
        [self.stalled_at(wire), self.link.next_change(now), deaf, suspects, wire.closing, ask]
            .into_iter()
            .flatten()
            .fold(now + IDLE, Mono::min)
    }

    fn stalled_at(&self, wire: &Wire) -> Option<Mono> {
        wire.stalled_at(&self.settings, self.shared.lock().lanes.flying_bytes())
    }

    fn overdue(&mut self, client: &AsyncClient, wire: &mut Wire) -> Result<Next, Broken> {
        let now = clock::mono();
        if wire.closing.is_some_and(|at| now >= at) {
            return Ok(Next::Stop);
        }
        if self.stalled_at(wire).is_some_and(|at| now >= at) {
            let waited = now.since(wire.progress).as_secs();
            self.broken(wire, &format!("no answer for {waited} s"))?;
        }
        if wire.connected && self.deaf_until.is_some_and(|until| now >= until) {
            self.subscribe(client, wire);
        }
        Ok(Next::GoOn)
    }

    fn ended(&mut self, error: &rumqttc::ConnectionError, wire: &Wire) -> Result<(), Broken> {
        if wire.leaving {
            return Ok(());
        }
        if mqtt::is_too_large(error) {
            self.deaf_until = Some(clock::mono() + DEAF);
            return self.broken(wire, "a command of more than 1 MiB; for 5 minutes no commands are heard");
        }
        let reason = format!("{}: {}", wire.address, mqtt::reason(error));
        Err(Broken { reason, by_broker: wire.connected && mqtt::is_closed(error) })
    }

    fn broken(&self, wire: &Wire, reason: &str) -> Result<(), Broken> {
        Err(Broken::line(format!("{}: {reason}", wire.address)))
    }

    /// The connection, or the attempt, is over: everything in flight goes again.
    fn failed(&mut self, broken: Broken) {
        let Broken { reason, by_broker } = broken;
        let now = clock::now();
        let mut inner = self.shared.lock();
        let (again, suspect) = inner.lanes.failed(by_broker);
        inner.stats.resent += again as u64;
        inner.stats.failures += 1;
        inner.stats.address = None;
        drop(inner);
        if again > 0 {
            self.width = (self.width / 2).max(1);
        }
        let address = self.link.address();
        self.link.failed(now.mono);
        // What `stats` says is never behind what is told.
        self.tell_state();
        let told = self.told.get_mut(address);
        if let Some(told) = told.filter(|told| told.as_ref() != Some(&reason)) {
            tracing::warn!(reason, again, "headquarters' broker is not reached");
            *told = Some(reason.clone());
            self.outbox.push(Event::Down { reason, now });
        }
        if let Some((tag, revision)) = suspect {
            tracing::warn!(?tag, revision, reason = %Aside::Suspect, "a document was set aside");
            self.outbox.push(Event::SetAside { tag, revision, reason: Aside::Suspect, now });
        }
    }

    /// The last thing headquarters hears of us.
    fn offer_farewell(&mut self) {
        let topic = self.settings.status_topic();
        let payload = self.settings.offline("stopped").into();
        let mut inner = self.shared.lock();
        let revision = inner.lanes.latest(&topic).map_or(1, |latest| latest.saturating_add(1));
        let farewell = Document { topic, lane: Lane::Status, payload, revision, retain: true, tag: Tag::Status };
        // Never refused: it is small.
        let _ = inner.lanes.offer(farewell);
    }

    /// Tells what changed beside the connection: refused documents, and the name of the backhaul.
    fn tell_state(&mut self) {
        let now = clock::mono();
        let state = self.link.state(now);
        let mut inner = self.shared.lock();
        inner.stats.backhaul = Some(state);
        while self.outbox.has_room() {
            let Some(event) = inner.refused.pop_front() else { break };
            if let Event::SetAside { tag, revision, reason, .. } = &event {
                tracing::error!(?tag, revision, %reason, "a document was set aside");
            }
            self.outbox.push(event);
        }
        drop(inner);
        if self.backhaul != Some(state) {
            self.backhaul = Some(state);
            let worked = self.link.worked_at();
            self.outbox.push(Event::Backhaul { state, worked, now: clock::now() });
        }
    }
}
