//! One client's connection: from CONNECT to its end. The loop takes what has come, settles what is proven, sends what
//! waits, in that order, and then sleeps until one of these can go on. Acknowledgements that are ready together leave
//! in one write; nothing is held back to wait for more.

use std::{io, net::SocketAddr, pin::Pin, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use futures::FutureExt;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Sleep, sleep_until, timeout},
};

use super::{
    Event,
    end::End,
    greeting::{Seated, Testament},
    listener::Shared,
    mailbox::Parcel,
    packet,
    replies::{Replies, Reply},
    rules::Role,
    seats::{Holder, Seat},
    stream::Stream,
};
use crate::{district::clock::Mono, host::clock};

/// How long a press may wait to be recorded before its connection is closed.
pub(super) const PROOF_WAIT: Duration = Duration::from_secs(30);
/// How long a client may leave what it is sent lying, in seconds.
const WRITE_S: u64 = 10;
/// Longest silence of a client that promised no keep-alive.
const LONGEST_SILENCE: Duration = Duration::from_secs(30 * 60);
/// Least time between two [`Event::Heard`] of one connection.
const HEARD_EVERY: Duration = Duration::from_secs(5);
/// Largest status payload that is retained, in bytes.
pub(super) const MAX_RETAINED: usize = 1024;
/// Read buffer of a connection at rest, in bytes. It doubles while it is read full, and shrinks when the client pauses.
pub(super) const RESTING_BUFFER: usize = 512;
/// Bytes written at once before the rest of a mailbox waits for its turn.
const WRITE_CHUNK: usize = 16 * 1024;

/// A connection in its seat.
pub(super) struct Connection {
    stream: Stream,
    pub(super) peer: SocketAddr,
    pub(super) shared: Arc<Shared>,
    pub(super) seat: Arc<Seat>,
    pub(super) holder: Holder,
    input: BytesMut,
    want: usize,
    pub(super) output: Vec<u8>,
    /// What is owed. When it is full, nothing more is read.
    pub(super) replies: Replies,
    /// An event that found the queue full. Until it is handed on, nothing more is read.
    pub(super) held: Option<Event>,
    silence: Duration,
    heard: Mono,
    reported: Mono,
    will: Option<Testament>,
    pub(super) has_mail: bool,
    pub(super) timer: Pin<Box<Sleep>>,
}

impl Connection {
    /// The connection of one that was let in; it begins with CONNACK.
    pub(super) fn new(stream: Stream, peer: SocketAddr, shared: Arc<Shared>, input: BytesMut, seated: Seated) -> Self {
        let mut output = Vec::new();
        packet::connack(&mut output, seated.session_present, 0);
        let silence = match seated.keep_alive {
            0 => LONGEST_SILENCE,
            seconds => Duration::from_millis(1_500 * u64::from(seconds)),
        };
        let now = clock::mono();
        Self {
            stream,
            peer,
            shared,
            seat: seated.seat,
            holder: seated.holder,
            input,
            want: RESTING_BUFFER,
            output,
            replies: Replies::default(),
            held: None,
            silence,
            heard: now,
            reported: now,
            will: seated.will,
            has_mail: seated.session_present,
            timer: Box::pin(sleep_until(clock::deadline(now + silence))),
        }
    }

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
        self.held.is_some() || self.replies.is_full()
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

    /// Acknowledges, in order, everything that is proven.
    fn settle(&mut self) -> Result<(), End> {
        while let Some(settled) = self.replies.settled() {
            if let Some(payload) = settled.press {
                conclude(&self.shared, &self.seat.role, settled.proven, payload);
            }
            match settled.reply {
                Reply::Nothing => {}
                _ if !settled.proven => return Err(End::Withheld),
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
                let Some(Parcel { message, pid, dup }) = mailbox.take() else { return true };
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
            () = self.replies.first_known() => Ok(()),
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
        if let Some(since) = self.replies.oldest() {
            if now.since(since) >= PROOF_WAIT {
                return Err(End::Withheld);
            }
            next = next.min(since + PROOF_WAIT);
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
                let said =
                    will.as_ref().filter(|w| w.retain && w.payload.len() <= MAX_RETAINED).map(|w| w.payload.clone());
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
        for (outcome, payload) in replies.presses() {
            let recorded = matches!(tokio::time::timeout_at(deadline, outcome.known()).await, Ok(true));
            conclude(&shared, &seat.role, recorded, payload);
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

/// What a read means: nothing read is the end.
pub(super) fn heard(read: io::Result<usize>) -> Result<usize, End> {
    match read {
        Ok(0) => Err(End::Closed),
        Ok(n) => Ok(n),
        Err(error) => Err(End::Lost(error.kind())),
    }
}
