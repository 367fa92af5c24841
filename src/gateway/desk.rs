//! The one task that owns the engine. Everything that happens comes to this desk; what the engine decides leaves it:
//! orders to the recorders, which wait for no disk, records to the journal, and, once those are synced, PUBACKs, states
//! for buttons, documents for headquarters and the board.
//!
//! Inputs that wait are taken together, so that many presses share one sync; a press never waits to be batched.

use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;
use tracing::{debug, error, info, warn};

use super::{
    board::{Board, CallNews, Document},
    exchange::Exchange,
    forwarder::Bell,
    hq::Headquarters,
    keepers::Keepers,
    ledger::{Answer, Ledger, Promises},
    recorders::Recorders,
    turn::{Inputs, TURN, Turn},
    work::Work,
};
use crate::{
    district::{camera::CameraReport, clock::Mono, ids::IncidentId},
    host::{clock, scope::Scope},
    incident::{
        engine::{Effect, Engine, Outputs},
        record::{Command, Record},
        supervision::Sign,
    },
    intake::{self, Intake},
    spool::Health,
    uplink::events::{self, Tag},
};

/// A disk that has not answered for so long is treated as one that refuses: headquarters hears of a press without it.
const DISK_PATIENCE: Duration = Duration::from_millis(100);

/// Where everything goes that leaves the desk.
pub struct Ways {
    /// The API and the page.
    pub board: Arc<Board>,
    /// Buttons.
    pub intake: Intake,
    /// Headquarters' broker.
    pub hq: Headquarters,
    /// Evidence.
    pub recorders: Recorders,
    /// What is kept beside it.
    pub keepers: Keepers,
    /// Calls.
    pub exchange: Exchange,
    /// Wakes the forwarder.
    pub bell: Bell,
    /// The watchdog and metrics.
    pub progress: Arc<Progress>,
}

/// The desk.
pub struct Desk {
    engine: Engine,
    ledger: Ledger,
    board: Arc<Board>,
    intake: Intake,
    hq: Headquarters,
    recorders: Recorders,
    keepers: Keepers,
    exchange: Exchange,
    bell: Bell,
    progress: Arc<Progress>,
    failing: bool,
}

/// Which senders are still there; those that stop first are not waited for.
struct Open {
    intake: bool,
    events: bool,
    work: bool,
}

/// Shows that the desk is alive, for the watchdog and for metrics.
#[derive(Debug, Default)]
pub struct Progress {
    /// Milliseconds since boot of the last turn.
    turned: AtomicU64,
    /// Open incidents.
    pub open_incidents: AtomicU64,
    /// Presses acknowledged.
    pub presses: AtomicU64,
    /// Documents that are not yet handed to the way to headquarters.
    pub documents_unsent: AtomicU64,
    /// Milliseconds since boot from when on the journal's disk has not answered; 0 when it owes nothing.
    disk_owes: AtomicU64,
}

impl Progress {
    fn turn(&self, engine: &Engine, ledger: &Ledger) {
        self.turned.store(millis(clock::mono()), Ordering::Relaxed);
        self.disk_owes.store(ledger.waiting_since().map_or(0, millis), Ordering::Relaxed);
        self.open_incidents.store(engine.open_incidents() as u64, Ordering::Relaxed);
        let unsent = engine.held_back() + ledger.documents();
        self.documents_unsent.store(unsent as u64, Ordering::Relaxed);
    }

    /// When the desk last finished a turn.
    pub fn last_turn(&self) -> Mono {
        Mono::from_boot(Duration::from_millis(self.turned.load(Ordering::Relaxed)))
    }

    /// Whether the journal's disk has not answered yet.
    #[cfg(test)]
    pub fn owes(&self) -> bool {
        self.disk_owes.load(Ordering::Relaxed) != 0
    }

    /// How long the journal's disk has not answered.
    pub fn disk_silence(&self) -> Duration {
        match self.disk_owes.load(Ordering::Relaxed) {
            0 => Duration::ZERO,
            since => clock::mono().since(Mono::from_boot(Duration::from_millis(since))),
        }
    }
}

fn millis(at: Mono) -> u64 {
    u64::try_from(at.since_boot().as_millis()).unwrap_or(0)
}

impl Desk {
    /// A desk for an engine whose journal has been replayed.
    pub fn new(engine: Engine, ledger: Ledger, ways: Ways) -> Self {
        let Ways { board, intake, hq, recorders, keepers, exchange, bell, progress } = ways;
        Self { engine, ledger, board, intake, hq, recorders, keepers, exchange, bell, progress, failing: false }
    }

    /// Works until the scope stops; then takes what is there already, and waits for the disk a moment.
    pub async fn run(mut self, mut inputs: Inputs, scope: Scope) {
        let stopping = scope.stopping();
        tokio::pin!(stopping);
        let mut out = Outputs::default();
        self.engine.resume(clock::now(), &mut out);
        for condition in self.engine.conditions() {
            self.board.condition(condition.clone());
            self.hq.condition(condition);
        }
        self.finish_turn(out, Vec::new(), Vec::new());
        let mut open = Open { intake: true, events: true, work: true };
        while !scope.is_stopping() {
            let patience = self.ledger.waiting_since().filter(|_| !self.failing).map(|since| since + DISK_PATIENCE);
            let due = [self.engine.next_timeout(), self.ledger.due(), patience].into_iter().flatten().min();
            let mut turn = Turn::default();
            let taking = open.intake && self.ledger.has_room();
            tokio::select! {
                biased;
                kept = self.ledger.synced() => self.keep(kept),
                n = inputs.intake.recv_many(&mut turn.buttons, TURN), if taking => open.intake = n > 0,
                n = inputs.events.recv_many(&mut turn.hq, TURN), if open.events => open.events = n > 0,
                n = inputs.work.recv_many(&mut turn.work, TURN), if open.work => open.work = n > 0,
                Some(report) = inputs.cameras.recv() => turn.cameras.push(report),
                // Looked at in every turn.
                Ok(()) = inputs.disk.changed() => inputs.disk.mark_changed(),
                () = until(due) => {}
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
                () = &mut stopping => break,
            }
            // Whatever else is there already: however many presses come, nothing else starves.
            turn.drain(&mut inputs, taking);
            self.turn(turn, &mut inputs.disk);
        }
        let mut last = Turn::default();
        last.drain(&mut inputs, self.ledger.has_room());
        self.turn(last, &mut inputs.disk);
        self.settle().await;
    }

    fn turn(&mut self, turn: Turn, disk: &mut watch::Receiver<Health>) {
        let (mut out, mut replies, mut answers) = (Outputs::default(), Vec::new(), Vec::new());
        // First: what comes while the disk does not answer is `received`, and this turn may be the first to notice.
        self.disk(disk, clock::mono(), &mut out);
        turn.cameras.into_iter().for_each(|report| self.camera(report));
        turn.buttons.into_iter().for_each(|event| self.button(event, &mut out, &mut replies));
        turn.hq.into_iter().for_each(|event| self.headquarters(event, &mut out));
        turn.work.into_iter().for_each(|item| self.work(item, &mut out, &mut answers));
        let now = clock::now();
        if self.engine.next_timeout().is_some_and(|due| due <= now.mono) {
            self.engine.timeout(now, &mut out);
        }
        self.finish_turn(out, replies, answers);
    }

    // ---- inputs

    fn button(&mut self, event: intake::Event, out: &mut Outputs, replies: &mut Vec<intake::Accepted>) {
        use intake::Event;
        match event {
            Event::Press { press, accepted } => {
                self.engine.sign(&press.button, Sign::Heard, press.received, out);
                let (before, button, id, kind) =
                    (out.records.len(), press.button.clone(), press.press.clone(), press.kind);
                self.engine.press(press, out);
                // However often a button is pressed, its incident is news once.
                if matches!(out.records.get(before), Some(Record::Opened(_))) {
                    info!(%button, press = ?id, ?kind, "pressed");
                } else {
                    debug!(%button, press = ?id, ?kind, "pressed again");
                }
                replies.push(accepted);
            }
            Event::Status { button, status, now } => self.engine.sign(&button, Sign::Status(status), now, out),
            Event::Connected { button, now } => self.engine.sign(&button, Sign::Connected, now, out),
            Event::Heard { button, now } => self.engine.sign(&button, Sign::Heard, now, out),
            Event::Disconnected { button, now, will, .. } => self.engine.sign(&button, Sign::Gone(will), now, out),
        }
    }

    fn headquarters(&mut self, event: events::Event, out: &mut Outputs) {
        use events::Event;
        match event {
            Event::Delivered { tag: Tag::Incident(incident), revision, now } => {
                self.engine.delivered(incident, revision, now, out);
            }
            Event::Delivered { .. } => {}
            Event::Command { payload, retained, now } => self.remote_command(&payload, retained, now, out),
            Event::SetAside { tag, revision, reason, .. } => {
                error!(?tag, revision, %reason, "headquarters does not take a document");
            }
            link => {
                if let Event::Backhaul { state, worked, now } = &link {
                    self.keepers.backhaul(now.mono, *state, *worked);
                }
                self.hq.link(link);
            }
        }
    }

    fn remote_command(&mut self, payload: &[u8], retained: bool, now: crate::district::clock::Now, out: &mut Outputs) {
        if retained {
            warn!("a retained command is ignored: commands are said once, without the retain flag");
            return;
        }
        match serde_json::from_slice::<Command>(payload) {
            Ok(command) => {
                if let Err(e) = self.engine.command(command, now, out) {
                    warn!(error = %e, "a command of headquarters is not carried out");
                }
            }
            Err(e) => warn!(error = %e, "a command of headquarters is not understood; see `chowki schema command`"),
        }
    }

    fn camera(&mut self, report: CameraReport) {
        self.board.camera(&report);
        self.engine.camera(report);
    }

    fn work(&mut self, work: Work, out: &mut Outputs, answers: &mut Vec<Answer>) {
        match work {
            Work::Stored(incident, camera, object) => {
                self.engine.evidence_stored(incident, &camera, object);
                self.bell.ring();
            }
            Work::Uploaded(incident, camera, object) => self.engine.evidence_stored(incident, &camera, object),
            Work::Gap(incident, camera, gap) => {
                warn!(%incident, %camera, reason = ?gap.reason, from = %gap.from, to = %gap.to, "a gap in evidence");
                self.engine.evidence_gap(incident, &camera, gap, out);
            }
            Work::Evicted(part) => {
                let removed = (part.names.as_slice(), part.bytes, part.gap.to);
                self.engine.evidence_evicted(part.incident, &part.camera, removed, out);
            }
            Work::Ended(incident, camera, until) => {
                if self.recorders.ended(incident, &camera, until) {
                    self.engine.evidence_ended(incident, &camera, clock::now(), out);
                }
            }
            Work::Call(incident, input, reply) => {
                // A call waits for no disk, and nobody may be there to hear.
                let _ = reply.send(self.engine.call(incident, input, clock::now(), out));
            }
            Work::Command(command, reply) => {
                answers.push((reply, self.engine.command(command, clock::now(), out)));
            }
        }
    }

    /// Looks at the journal's disk: whether it refuses, or has not answered for too long.
    fn disk(&mut self, disk: &mut watch::Receiver<Health>, now: Mono, out: &mut Outputs) {
        let refused = match &*disk.borrow_and_update() {
            Health::Ok | Health::OnReserve { .. } => None,
            Health::Failing { error, .. } => Some(error.clone()),
        };
        let silent = self.ledger.waiting_since().is_some_and(|since| now.since(since) >= DISK_PATIENCE);
        match (refused, silent, self.failing) {
            (Some(why), _, false) => {
                error!(%why, "the journal's disk fails: presses are not acknowledged until it takes them");
                self.disk_failed(out);
            }
            (None, true, false) => {
                warn!(patience = ?DISK_PATIENCE, "the journal's disk is slow: headquarters hears of presses before it has them");
                self.disk_failed(out);
            }
            (None, false, true) => {
                info!("the journal's disk has taken everything again");
                self.failing = false;
                self.engine.journal_recovered(out);
            }
            _ => {}
        }
    }

    fn disk_failed(&mut self, out: &mut Outputs) {
        self.failing = true;
        self.engine.journal_failed(self.ledger.waiting(), out);
    }

    // ---- outputs

    /// Sends the turn's outputs on their ways.
    fn finish_turn(&mut self, out: Outputs, replies: Vec<intake::Accepted>, answers: Vec<Answer>) {
        self.tell_calls(&out);
        if self.failing {
            // Headquarters hears of it at once, truthfully as `received`; the button does not.
            self.put_out(documents(&self.engine, &out.changed));
        }
        // Nobody waits for headquarters' PUBACKs, conditions and gaps to be on disk.
        let awaited = !(replies.is_empty() && answers.is_empty() && out.changed.is_empty());
        let promises = || {
            let shown = documents(&self.engine, out.shown.difference(&out.changed));
            let changed = if self.failing { Vec::new() } else { documents(&self.engine, &out.changed) };
            // Written here, while the disk works; those that are only shown, when somebody looks.
            changed.iter().for_each(|d| drop(d.json()));
            Promises { replies, answers, effects: out.effects, documents: changed, shown }
        };
        if let Some(free) = self.ledger.write(&out.records, out.changed.clone(), awaited, promises) {
            self.keep(free);
        }
        // The disk has only been handed what it is to write: recordings begin while it does.
        for order in out.orders {
            self.recorders.order(order);
        }
        self.ledger.write_due(clock::mono());
        self.ledger.hand_over();
        if !self.failing && self.ledger.checkpoint_if_due(&self.engine) {
            let held: HashSet<_> = self.engine.incidents().collect();
            self.board.keep(|id| held.contains(id));
        }
        self.progress.turn(&self.engine, &self.ledger);
    }

    /// Tells how calls stand, before any disk has answered. That one rings for the first time stands in the incident's
    /// document; headquarters is not told twice.
    fn tell_calls(&self, out: &Outputs) {
        for event in out.calls.iter().filter_map(|incident| self.engine.call_event(*incident)) {
            self.exchange.follow(&event);
            let known = self.board.call_of(event.incident).is_some();
            let news = CallNews::new(event);
            let revision = self.board.call(news.clone());
            // After a start the board knows none yet, and headquarters does.
            if known || news.event.call.rings > 1 {
                self.hq.call(&news, revision);
            }
        }
    }

    /// Tells what is proven now.
    fn keep(&mut self, kept: Promises) {
        self.progress.presses.fetch_add(kept.replies.len() as u64, Ordering::Relaxed);
        for reply in kept.replies {
            reply.recorded();
        }
        for (reply, answer) in kept.answers {
            // The caller may have hung up; the command is carried out all the same.
            let _ = reply.send(answer);
        }
        self.put_out(kept.documents);
        for document in kept.shown {
            self.board.incident(document);
        }
        for effect in kept.effects {
            match effect {
                Effect::Tell(button, message) => self.intake.tell(&button, &message),
                Effect::Condition(condition) => {
                    self.hq.condition(&condition);
                    self.board.condition(condition);
                }
            }
        }
    }

    fn put_out(&mut self, documents: Vec<Arc<Document>>) {
        for document in documents {
            // What waited for a slow disk may be older than what was put out meanwhile, as `received`.
            if self.board.incident(document.clone()) {
                self.hq.incident(&document.incident, document.json());
            }
        }
    }

    /// Waits for the disk a moment at the end, so that what can be acknowledged is.
    async fn settle(&mut self) {
        let waiting = async {
            self.ledger.write_resting();
            while !self.ledger.is_idle() {
                self.ledger.hand_over();
                let kept = self.ledger.synced().await;
                self.keep(kept);
            }
        };
        let _ = tokio::time::timeout(Duration::from_secs(2), waiting).await;
    }
}

/// Incidents' documents as they are now.
fn documents<'a>(engine: &Engine, ids: impl IntoIterator<Item = &'a IncidentId>) -> Vec<Arc<Document>> {
    ids.into_iter().filter_map(|id| engine.document(*id)).map(Document::new).collect()
}

/// Resolves at that time, never when there is none.
async fn until(due: Option<Mono>) {
    match due {
        Some(at) => tokio::time::sleep_until(clock::deadline(at)).await,
        None => std::future::pending().await,
    }
}

/// Shows on the board what the engine knows after replay.
pub fn show(engine: &Engine, board: &Board) {
    for document in engine.incidents().filter_map(|id| engine.document(id)) {
        board.incident(Document::new(document));
    }
}
