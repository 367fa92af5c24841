//! One client's connection: from CONNECT to its end. The loop takes what has come, settles what is proven, sends what
//! waits, in that order, and then sleeps until one of these can go on. Acknowledgements that are ready together leave
//! in one write; nothing is held back to wait for more.

use std::{collections::VecDeque, future::pending, io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::{
        mpsc::error::TrySendError,
        oneshot::{self, error::TryRecvError},
    },
    time::{Sleep, sleep_until, timeout},
};

use super::{
    Accepted, Event,
    end::End,
    listener::{GREETING_S, Shared},
    mailbox::Parcel,
    packet::{self, Connect, Fault, Packet, Pid, Publish, Qos},
    payload,
    rules::{self, Refusal, Role, Uplink},
    seats::{Holder, Seat},
    stream::Stream,
};
use crate::{
    district::{button::ButtonStatus, clock::Mono, ids::ButtonId},
    host::clock,
};

/// Presses and statuses of one connection that wait to be acknowledged. When full, the socket is read no further.
const MAX_IN_FLIGHT: usize = 64;
/// How long a press may wait to be recorded before its connection is closed.
const PROOF_WAIT: Duration = Duration::from_secs(30);
/// How long a client may leave what it is sent lying, in seconds.
const WRITE_S: u64 = 10;
/// Longest silence of a client that promised no keep-alive.
const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 60);
/// Least time between two [`Event::Heard`] of one connection.
const HEARD_EVERY: Duration = Duration::from_secs(5);
/// Largest status payload that is retained, in bytes.
const MAX_RETAINED: usize = 1024;
/// Read buffer of a connection at rest, in bytes. It doubles while it is read full, and shrinks when the client pauses.
const RESTING_BUFFER: usize = 512;
/// Bytes written at once before the rest of a mailbox waits for its turn.
const WRITE_CHUNK: usize = 16 * 1024;

/// A connection in its seat.
pub(super) struct Connection {
    stream: Stream,
    peer: SocketAddr,
    shared: Arc<Shared>,
    seat: Arc<Seat>,
    holder: Holder,
    input: BytesMut,
    want: usize,
    output: Vec<u8>,
    /// Bounded by [`MAX_IN_FLIGHT`]: in the order in which they came, which is the order of their acknowledgements.
    replies: VecDeque<Owed>,
    /// An event that found the queue full. Until it is handed on, nothing more is read.
    held: Option<Event>,
    silence: Duration,
    heard: Mono,
    reported: Mono,
    will: Option<Testament>,
    has_mail: bool,
    timer: Pin<Box<Sleep>>,
}

/// What a button left to be said.
struct Testament {
    status: ButtonStatus,
    payload: Bytes,
    retain: bool,
}

/// An acknowledgement that is owed.
struct Owed {
    reply: Reply,
    outcome: Outcome,
    since: Mono,
    /// Set for a press: its payload, to be shown to integrations once it is recorded; empty when there are none.
    press: Option<Bytes>,
}

#[derive(Clone, Copy)]
enum Reply {
    Nothing,
    PubAck(Pid),
    PubRec(Pid),
}

enum Outcome {
    Known(bool),
    Awaited(oneshot::Receiver<bool>),
}

/// Reads CONNECT, decides, answers. On refusal gives the client id it claimed, for the log.
pub(super) async fn greet(
    mut stream: Stream,
    peer: SocketAddr,
    shared: &Arc<Shared>,
) -> Result<Connection, (String, End)> {
    let certificate = stream.common_name();
    let mut input = BytesMut::with_capacity(RESTING_BUFFER);
    let deadline = tokio::time::Instant::now() + Duration::from_secs(GREETING_S);
    let late = || (String::new(), End::NoConnect(GREETING_S));
    loop {
        match packet::decode(&input) {
            Ok(None) => {
                let read = tokio::time::timeout_at(deadline, stream.read_buf(&mut input)).await;
                heard(read.map_err(|_| late())?).map_err(|end| (String::new(), end))?;
            }
            Ok(Some((Packet::Connect(connect), used))) => {
                let client_id = connect.client_id.to_owned();
                let seated = take_seat(&connect, certificate.as_deref(), shared).await;
                input.advance(used);
                return match seated {
                    Ok(seated) => Ok(seated.connection(stream, peer, shared, input)),
                    Err(end) => {
                        refuse(stream, &end).await;
                        Err((client_id, end))
                    }
                };
            }
            Ok(Some(_)) => return Err((String::new(), End::NotConnect)),
            Err(fault) => {
                let end = match fault {
                    Fault::Version(_) => End::Refused(Refusal::Version),
                    other => End::Malformed(other),
                };
                refuse(stream, &end).await;
                return Err((String::new(), end));
            }
        }
    }
}

/// Says CONNACK with a return code, where there is one, and closes ([MQTT-3.2.2-5]).
async fn refuse(mut stream: Stream, end: &End) {
    let code = match end {
        End::Refused(refusal) => refusal.code(),
        End::Busy => 3,
        _ => return,
    };
    let mut out = Vec::with_capacity(4);
    packet::connack(&mut out, false, code);
    let _ = timeout(Duration::from_secs(1), async {
        stream.write_all(&out).await?;
        stream.shutdown().await
    })
    .await;
}

struct Seated {
    seat: Arc<Seat>,
    holder: Holder,
    session_present: bool,
    keep_alive: u16,
    will: Option<Testament>,
}

async fn take_seat(connect: &Connect<'_>, certificate: Option<&str>, shared: &Shared) -> Result<Seated, End> {
    let id = rules::claimed(connect, certificate).map_err(End::Refused)?;
    let seat = shared.seats.get(id);
    rules::proven(seat.map(|s| &s.proof), &shared.decoy, connect.password, certificate).map_err(End::Refused)?;
    let seat = seat.ok_or(End::Refused(Refusal::Credentials))?;
    seat.role.may_leave(connect.will.as_ref()).map_err(End::Refused)?;
    let attached = match &seat.role {
        Role::Integration(_) => seat.attach(connect.clean_session, || ()),
        Role::Button(button) => {
            // The place in the queue first: so "connected" and "disconnected" of two connections cannot change order.
            let place = timeout(Duration::from_secs(GREETING_S), shared.events.reserve()).await;
            let place = place.map_err(|_| End::Busy)?.map_err(|_| End::Stopping)?;
            let (button, now) = (button.clone(), clock::now());
            seat.attach(connect.clean_session, || place.send(Event::Connected { button, now }))
        }
    };
    shared.counters.sessions.add();
    if attached.took_over {
        shared.counters.takeovers.add();
    }
    let will = connect.will.as_ref().map(|will| Testament {
        status: payload::will(will.payload),
        payload: Bytes::copy_from_slice(will.payload),
        retain: will.retain,
    });
    let (holder, session_present) = (attached.holder, attached.session_present);
    Ok(Seated { seat: seat.clone(), holder, session_present, keep_alive: connect.keep_alive, will })
}

impl Seated {
    fn connection(self, stream: Stream, peer: SocketAddr, shared: &Arc<Shared>, input: BytesMut) -> Connection {
        let mut output = Vec::new();
        packet::connack(&mut output, self.session_present, 0);
        let silence = match self.keep_alive {
            0 => LONGEST_SILENCE,
            seconds => Duration::from_millis(1_500 * u64::from(seconds)),
        };
        let now = clock::mono();
        Connection {
            stream,
            peer,
            shared: shared.clone(),
            seat: self.seat,
            holder: self.holder,
            input,
            want: RESTING_BUFFER,
            output,
            replies: VecDeque::new(),
            held: None,
            silence,
            heard: now,
            reported: now,
            will: self.will,
            has_mail: self.session_present,
            timer: Box::pin(sleep_until(clock::deadline(now + silence))),
        }
    }
}

impl Connection {
    /// Serves it to its end.
    pub(super) async fn run(mut self) {
        tracing::debug!(peer = %self.peer, client = %self.name(), "MQTT session began");
        let Err(end) = self.serve().await;
        self.shared.counters.ended(&end);
        tracing::debug!(peer = %self.peer, client = %self.name(), reason = %end, "MQTT connection ended");
        self.finish(end).await;
    }

    fn name(&self) -> String {
        match &self.seat.role {
            Role::Button(id) => id.to_string(),
            Role::Integration(may_read) => format!("integration that reads {}", may_read.join(", ")),
        }
    }

    async fn serve(&mut self) -> Result<std::convert::Infallible, End> {
        let stopping = self.shared.scope.stopping();
        tokio::pin!(stopping);
        loop {
            let taken = self.take_packets();
            let settled = self.settle();
            if let Err(end) = taken.and(settled) {
                // What is proven is still acknowledged.
                let _ = self.write().await;
                return Err(end);
            }
            self.collect_mail()?;
            self.write().await?;
            if self.has_mail || self.has_more() {
                continue;
            }
            tokio::select! {
                () = &mut stopping => return Err(End::Stopping),
                woken = self.wait() => woken?,
            }
        }
    }

    /// Whether a packet that is here already can be taken now.
    fn has_more(&self) -> bool {
        !self.is_blocked() && !matches!(packet::decode(&self.input), Ok(None))
    }

    fn is_blocked(&self) -> bool {
        self.held.is_some() || self.replies.len() >= MAX_IN_FLIGHT
    }

    /// Handles every whole packet that has come, until one has to wait.
    fn take_packets(&mut self) -> Result<(), End> {
        let mut input = std::mem::take(&mut self.input);
        let mut used = 0;
        let taken = loop {
            if self.is_blocked() {
                break Ok(());
            }
            match packet::decode(&input[used..]) {
                Ok(Some((packet, n))) => {
                    used += n;
                    if let Err(end) = self.take(packet) {
                        break Err(end);
                    }
                }
                Ok(None) => break Ok(()),
                Err(fault) => break Err(End::Malformed(fault)),
            }
        };
        input.advance(used);
        self.input = input;
        taken
    }

    fn take(&mut self, packet: Packet<'_>) -> Result<(), End> {
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
            match payload::status(publish.payload) {
                Some(status) => self.hand_on(Event::Status { button, status, now: clock::now() })?,
                None => self.odd(&button, "status is not a JSON object"),
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

    fn mailbox<R>(&self, f: impl FnOnce(&mut super::mailbox::Mailbox) -> R) -> Result<R, End> {
        self.seat.mailbox(&self.holder, f).ok_or(End::TakenOver)
    }

    fn owe(&mut self, reply: Reply, outcome: Outcome, press: Option<Bytes>) {
        let now = clock::mono();
        let due = clock::deadline(now + PROOF_WAIT);
        if matches!(outcome, Outcome::Awaited(_)) && self.timer.deadline() > due {
            self.timer.as_mut().reset(due);
        }
        self.replies.push_back(Owed { reply, outcome, since: now, press });
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

    /// Acknowledges, in order, everything that is proven.
    fn settle(&mut self) -> Result<(), End> {
        while let Some(first) = self.replies.front_mut() {
            let proven = match &mut first.outcome {
                Outcome::Known(proven) => *proven,
                Outcome::Awaited(proof) => match proof.try_recv() {
                    Ok(proven) => proven,
                    Err(TryRecvError::Empty) => return Ok(()),
                    Err(TryRecvError::Closed) => false,
                },
            };
            let Some(owed) = self.replies.pop_front() else { return Ok(()) };
            if let Some(payload) = owed.press {
                conclude(&self.shared, &self.seat.role, proven, payload);
            }
            match owed.reply {
                Reply::Nothing => {}
                _ if !proven => return Err(End::Withheld),
                Reply::PubAck(pid) => packet::puback(&mut self.output, pid),
                Reply::PubRec(pid) => {
                    if !self.mailbox(|m| m.take_once(pid))? {
                        return Err(End::Unreleased);
                    }
                    packet::pubrec(&mut self.output, pid);
                }
            }
        }
        Ok(())
    }

    /// Moves what waits in the mailbox into the output, a chunk at a time.
    fn collect_mail(&mut self) -> Result<(), End> {
        if !self.has_mail {
            return Ok(());
        }
        let output = &mut self.output;
        let emptied = self.seat.mailbox(&self.holder, |mailbox| {
            while output.len() < WRITE_CHUNK {
                let Some(Parcel { message, pid, dup }) = mailbox.next() else { return true };
                packet::publish(output, &message.topic, &message.payload, pid, dup, message.retain);
            }
            false
        });
        self.has_mail = !emptied.ok_or(End::TakenOver)?;
        Ok(())
    }

    async fn write(&mut self) -> Result<(), End> {
        if self.output.is_empty() {
            return Ok(());
        }
        let written = timeout(Duration::from_secs(WRITE_S), async {
            self.stream.write_all(&self.output).await?;
            self.stream.flush().await
        });
        match written.await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(End::Lost(error.kind())),
            Err(_) => return Err(End::Stalled(WRITE_S)),
        }
        self.output.clear();
        Ok(())
    }

    /// Sleeps until there is something to do.
    async fn wait(&mut self) -> Result<(), End> {
        let blocked = self.is_blocked();
        if !blocked && self.read_what_is_here()? {
            return Ok(());
        }
        let shared = self.shared.clone();
        tokio::select! {
            () = self.holder.notified() => {
                self.has_mail = true;
                Ok(())
            }
            proven = first_proof(&mut self.replies) => {
                if let Some(first) = self.replies.front_mut() {
                    // Kept for `settle`: a receiver gives its value once.
                    first.outcome = Outcome::Known(proven);
                }
                Ok(())
            }
            place = shared.events.reserve(), if self.held.is_some() => {
                let place = place.map_err(|_| End::Stopping)?;
                if let Some(event) = self.held.take() {
                    place.send(event);
                }
                self.heard = clock::mono();
                Ok(())
            }
            read = self.stream.read_buf(&mut self.input), if !blocked => {
                let n = heard(read)?;
                self.received(n);
                Ok(())
            }
            () = &mut self.timer => self.look_at_the_clock(blocked),
        }
    }

    /// Reads without waiting. When nothing is here, a buffer that has grown shrinks: most connections rest most of
    /// the time.
    fn read_what_is_here(&mut self) -> Result<bool, End> {
        if self.input.capacity() - self.input.len() < self.want / 2 {
            self.input.reserve(self.want);
        }
        if let Some(read) = self.stream.read_buf(&mut self.input).now_or_never() {
            let n = heard(read)?;
            self.received(n);
            return Ok(true);
        }
        if self.input.is_empty() && self.want > RESTING_BUFFER {
            self.want = RESTING_BUFFER;
            self.input = BytesMut::with_capacity(RESTING_BUFFER);
            self.output = Vec::new();
        }
        Ok(false)
    }

    fn received(&mut self, n: usize) {
        if n >= self.want / 2 {
            self.want = (self.want * 2).min(packet::MAX_PACKET);
        }
        let now = clock::mono();
        self.heard = now;
        if now.since(self.reported) >= HEARD_EVERY
            && let Role::Button(button) = &self.seat.role
        {
            self.reported = now;
            let _ = self.shared.events.try_send(Event::Heard { button: button.clone(), now: clock::now() });
        }
    }

    fn look_at_the_clock(&mut self, blocked: bool) -> Result<(), End> {
        let now = clock::mono();
        if blocked {
            // It is we who do not listen.
            self.heard = now;
        }
        if now.since(self.heard) >= self.silence {
            return Err(End::Silent(self.silence.as_secs()));
        }
        let mut next = self.heard + self.silence;
        if let Some(first) = self.replies.front() {
            if now.since(first.since) >= PROOF_WAIT {
                return Err(End::Withheld);
            }
            next = next.min(first.since + PROOF_WAIT);
        }
        self.timer.as_mut().reset(clock::deadline(next));
        Ok(())
    }

    /// What remains when the socket is done: an event that waits is still handed on, the end is told, and presses that
    /// are recorded later are still shown to integrations.
    async fn finish(mut self, end: End) {
        let grace = if end == End::Stopping { Duration::from_secs(1) } else { PROOF_WAIT };
        let _ = timeout(Duration::from_secs(1), self.stream.shutdown()).await;
        let Self { stream, shared, seat, holder, replies, held, will, .. } = self;
        drop(stream);
        if let Some(event) = held {
            let _ = timeout(grace, shared.events.send(event)).await;
        }
        match &seat.role {
            Role::Button(button) if end != End::Stopping && end != End::TakenOver => {
                let place = timeout(grace, shared.events.reserve()).await;
                let will = will.filter(|_| end.executes_will());
                let said = will.as_ref().and_then(|w| w.retain.then(|| w.payload.clone()));
                let left = seat.detach(&holder, said, || {
                    let will = will.as_ref().map(|w| w.status.clone());
                    let event = Event::Disconnected {
                        button: button.clone(),
                        now: clock::now(),
                        reason: end.to_string(),
                        will,
                    };
                    if let Ok(Ok(place)) = place {
                        place.send(event);
                    }
                });
                if let Some(will) = will.filter(|_| left) {
                    shared.fanout.send(format!("buttons/{button}/status").into(), will.payload);
                }
            }
            _ => {
                seat.detach(&holder, None, || ());
            }
        }
        let deadline = tokio::time::Instant::now() + grace;
        for owed in replies {
            if let (Outcome::Awaited(proof), Some(payload)) = (owed.outcome, owed.press) {
                let recorded = matches!(tokio::time::timeout_at(deadline, proof).await, Ok(Ok(true)));
                conclude(&shared, &seat.role, recorded, payload);
            }
        }
    }
}

/// Counts what became of a press, and shows it to integrations when it is recorded.
fn conclude(shared: &Shared, role: &Role, recorded: bool, payload: Bytes) {
    if !recorded {
        return shared.counters.withheld.add();
    }
    shared.counters.recorded.add();
    if let Role::Button(button) = role
        && shared.fanout.is_used()
    {
        shared.fanout.send(format!("buttons/{button}/press").into(), payload);
    }
}

/// The outcome of the first acknowledgement owed, once it is known; never, when none is awaited.
async fn first_proof(replies: &mut VecDeque<Owed>) -> bool {
    match replies.front_mut().map(|first| &mut first.outcome) {
        Some(Outcome::Awaited(proof)) => proof.await.unwrap_or(false),
        Some(Outcome::Known(proven)) => *proven,
        None => pending().await,
    }
}

fn heard(read: io::Result<usize>) -> Result<usize, End> {
    match read {
        Ok(0) => Err(End::Closed),
        Ok(n) => Ok(n),
        Err(error) => Err(End::Lost(error.kind())),
    }
}
