//! The one task that owns the engine. Everything that happens comes to this desk; what the engine decides leaves it:
//! orders to the recorders at once, records to the journal, and, once those are synced, PUBACKs, states for buttons,
//! documents for headquarters and the board.
//!
//! Inputs that wait are taken together, so that many presses share one sync; nothing ever waits to be batched.

use std::{
    collections::{BTreeSet, HashSet, VecDeque},
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream::FuturesOrdered};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{error, info, warn};

use super::{board::Board, forwarder::Bell, hq::Headquarters, recorder::Recorders};
use crate::{
    district::{
        camera::CameraReport,
        clock::Mono,
        evidence::{EvidenceObject, Gap},
        ids::{CameraId, IncidentId},
        incident::Incident,
    },
    host::{clock, scope::Scope},
    incident::{
        engine::{CommandError, Effect, Engine, Outputs},
        record::{Command, Record},
        supervision::Sign,
    },
    intake::{self, Intake},
    spool::{Entry, Health, Journal},
    uplink::events::{self, Tag},
};

/// Inputs of one kind taken at a time.
const TURN: usize = 256;

/// Batches that wait for the disk before the desk stops taking presses: the buttons then wait, and resend.
const UNSYNCED_LIMIT: usize = 4096;

/// The journal is rewritten as a checkpoint when it has grown by so many bytes.
const CHECKPOINT_AFTER: u64 = 64 << 20;

/// The kind that a journal entry of ours has.
const RECORD: u8 = 1;

/// What recorders, the forwarder and the API bring to the desk.
#[derive(Debug)]
pub enum Work {
    /// An object of evidence is on disk.
    Stored(IncidentId, CameraId, EvidenceObject),
    /// Headquarters has an object of evidence.
    Uploaded(IncidentId, CameraId, String),
    /// Nobody holds an interval.
    Gap(IncidentId, CameraId, Gap),
    /// A recording has ended, having been ordered until then.
    Ended(IncidentId, CameraId, Mono),
    /// A step of headquarters, by HTTP.
    Command(Command, oneshot::Sender<Result<(), CommandError>>),
}

/// Everything that comes to the desk.
pub struct Inputs {
    /// Buttons.
    pub intake: mpsc::Receiver<intake::Event>,
    /// Headquarters' broker.
    pub events: mpsc::Receiver<events::Event>,
    /// Cameras.
    pub cameras: mpsc::Receiver<CameraReport>,
    /// Recorders, the forwarder, the API.
    pub work: mpsc::Receiver<Work>,
    /// The journal's disk.
    pub disk: watch::Receiver<Health>,
}

/// The desk.
pub struct Desk {
    engine: Engine,
    journal: Journal,
    board: Arc<Board>,
    intake: Intake,
    hq: Headquarters,
    recorders: Recorders,
    bell: Bell,
    progress: Arc<Progress>,
    /// Handed to the journal, not yet synced, in order.
    syncing: FuturesOrdered<std::pin::Pin<Box<dyn Future<Output = (bool, Batch)> + Send>>>,
    /// Not yet handed to the journal, because its queue is full.
    unsent: VecDeque<(Vec<Entry>, Batch)>,
    /// Incidents of batches that are not yet synced.
    waiting: VecDeque<BTreeSet<IncidentId>>,
    failing: bool,
    shown: BTreeSet<IncidentId>,
    journalled: u64,
}

/// What waits for one sync.
#[derive(Default)]
struct Batch {
    replies: Vec<intake::Accepted>,
    effects: Vec<Effect>,
    documents: Vec<(Arc<Incident>, Bytes)>,
    answers: Vec<Answer>,
}

/// What a command by HTTP is answered, once that is on disk.
type Answer = (oneshot::Sender<Result<(), CommandError>>, Result<(), CommandError>);

/// Shows that the desk is alive, for the watchdog and for metrics.
#[derive(Debug, Default)]
pub struct Progress {
    /// Milliseconds since boot of the last turn.
    turned: AtomicU64,
    /// Open incidents.
    pub open_incidents: AtomicU64,
    /// Presses acknowledged.
    pub presses: AtomicU64,
}

impl Progress {
    /// When the desk last finished a turn.
    pub fn last_turn(&self) -> Mono {
        Mono::from_boot(Duration::from_millis(self.turned.load(Ordering::Relaxed)))
    }
}

impl Desk {
    /// A desk for an engine whose journal has been replayed; what it holds is on the board at once.
    pub fn new(
        engine: Engine,
        journal: Journal,
        board: Arc<Board>,
        intake: Intake,
        hq: Headquarters,
        recorders: Recorders,
        bell: Bell,
        progress: Arc<Progress>,
    ) -> Self {
        let mut desk = Self {
            engine,
            journal,
            board,
            intake,
            hq,
            recorders,
            bell,
            progress,
            syncing: FuturesOrdered::new(),
            unsent: VecDeque::new(),
            waiting: VecDeque::new(),
            failing: false,
            shown: BTreeSet::new(),
            journalled: 0,
        };
        desk.shown = desk.engine.incidents().collect();
        desk.shown.iter().for_each(|id| desk.show(*id));
        desk
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
        loop {
            let due = self.engine.next_timeout();
            let (mut out, mut replies, mut answers) = (Outputs::default(), Vec::new(), Vec::new());
            let (mut presses, mut acks, mut work) = (Vec::new(), Vec::new(), Vec::new());
            let taking = self.unsent.len() + self.syncing.len() < UNSYNCED_LIMIT;
            tokio::select! {
                biased;
                Some((synced, batch)) = self.syncing.next() => self.synced(synced, batch),
                n = inputs.intake.recv_many(&mut presses, TURN), if taking => if n == 0 { break },
                n = inputs.events.recv_many(&mut acks, TURN) => if n == 0 { break },
                Ok(()) = inputs.disk.changed() => self.disk(&mut inputs.disk, &mut out),
                Some(report) = inputs.cameras.recv() => self.camera(report),
                n = inputs.work.recv_many(&mut work, TURN) => if n == 0 { break },
                () = until(due) => self.engine.timeout(clock::now(), &mut out),
                () = tokio::time::sleep(Duration::from_millis(250)) => {}
                () = &mut stopping => break,
            }
            for event in presses {
                self.button(event, &mut out, &mut replies);
            }
            for event in acks {
                self.headquarters(event, &mut out);
            }
            for item in work {
                self.work(item, &mut out, &mut answers);
            }
            self.finish_turn(out, replies, answers);
        }
        self.drain().await;
    }

    // ---- inputs

    fn button(&mut self, event: intake::Event, out: &mut Outputs, replies: &mut Vec<intake::Accepted>) {
        use intake::Event;
        match event {
            Event::Press { press, accepted } => {
                info!(button = %press.button, press = ?press.press, kind = ?press.kind, "pressed");
                self.engine.sign(&press.button, Sign::Heard, press.received, out);
                self.engine.press(press, out);
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
                if !out.changed.contains(&incident) {
                    // The board learns of it without a new revision: headquarters knows already.
                    self.show(incident);
                }
            }
            Event::Delivered { .. } => {}
            Event::Command { payload, retained, now } => self.remote_command(&payload, retained, now, out),
            Event::SetAside { tag, revision, reason, .. } => {
                error!(?tag, revision, %reason, "headquarters does not take a document");
            }
            link => self.hq.link(link),
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
            Work::Uploaded(incident, camera, name) => self.engine.evidence_delivered(incident, &camera, &name),
            Work::Gap(incident, camera, gap) => {
                warn!(%incident, %camera, reason = ?gap.reason, from = %gap.from, to = %gap.to, "a gap in evidence");
                self.engine.evidence_gap(incident, &camera, gap, out);
            }
            Work::Ended(incident, camera, until) => {
                if self.recorders.ended(incident, &camera, until) {
                    self.engine.evidence_ended(incident, &camera, clock::now(), out);
                }
            }
            Work::Command(command, reply) => answers.push((reply, self.engine.command(command, clock::now(), out))),
        }
    }

    fn disk(&mut self, disk: &mut watch::Receiver<Health>, out: &mut Outputs) {
        let failing = match &*disk.borrow_and_update() {
            Health::Ok | Health::OnReserve { .. } => None,
            Health::Failing { error, .. } => Some(error.to_string()),
        };
        match failing {
            Some(why) if !self.failing => {
                error!(%why, "the journal's disk fails: presses are not acknowledged until it takes them");
                self.failing = true;
                self.engine.journal_failed(self.waiting.iter().flatten().copied().collect::<Vec<_>>(), out);
            }
            None if self.failing => {
                info!("the journal's disk has taken everything again");
                self.failing = false;
                self.engine.journal_recovered(out);
            }
            _ => {}
        }
    }

    // ---- outputs

    /// Sends the turn's outputs on their ways.
    fn finish_turn(&mut self, out: Outputs, replies: Vec<intake::Accepted>, answers: Vec<Answer>) {
        for order in out.orders {
            self.recorders.order(order);
        }
        let documents: Vec<_> = out.changed.iter().filter_map(|id| self.render(*id)).collect();
        let mut batch = Batch { replies, effects: out.effects, documents, answers };
        if self.failing {
            // Headquarters hears of it at once, truthfully as `received`; the button does not.
            self.put_out(std::mem::take(&mut batch.documents));
        }
        let entries = entries(&out.records);
        let nothing_waits = self.syncing.is_empty() && self.unsent.is_empty();
        let idle = batch.replies.is_empty()
            && batch.effects.is_empty()
            && batch.documents.is_empty()
            && batch.answers.is_empty();
        if entries.is_empty() && (nothing_waits || idle) {
            self.carry_out(batch);
        } else {
            self.waiting.push_back(out.changed);
            self.unsent.push_back((entries, batch));
        }
        self.hand_to_journal();
        self.checkpoint_if_due();
        let now = u64::try_from(clock::mono().since_boot().as_millis()).unwrap_or(0);
        self.progress.turned.store(now, Ordering::Relaxed);
        self.progress.open_incidents.store(self.engine.open_incidents() as u64, Ordering::Relaxed);
    }

    fn hand_to_journal(&mut self) {
        while let Some((entries, batch)) = self.unsent.pop_front() {
            let bytes: usize = entries.iter().map(|e| e.payload.len()).sum();
            match self.journal.try_append(entries.clone()) {
                Ok(ticket) => {
                    self.journalled += bytes as u64;
                    self.syncing.push_back(Box::pin(async move { (ticket.await.is_ok(), batch) }));
                }
                Err(_full) => {
                    self.unsent.push_front((entries, batch));
                    return;
                }
            }
        }
    }

    fn synced(&mut self, synced: bool, batch: Batch) {
        self.waiting.pop_front();
        if synced {
            self.carry_out(batch);
        } else {
            // The journal has ended: the replies are dropped, and the buttons resend to the next run.
            error!("the journal has ended with entries unwritten; their presses stay unacknowledged");
        }
    }

    fn carry_out(&mut self, batch: Batch) {
        self.progress.presses.fetch_add(batch.replies.len() as u64, Ordering::Relaxed);
        for reply in batch.replies {
            reply.recorded();
        }
        for (reply, answer) in batch.answers {
            // The caller may have hung up; the command is carried out all the same.
            let _ = reply.send(answer);
        }
        self.put_out(batch.documents);
        for effect in batch.effects {
            match effect {
                Effect::Tell(button, message) => self.intake.tell(&button, &message),
                Effect::Condition(condition) => {
                    self.hq.condition(&condition);
                    self.board.condition(condition);
                }
            }
        }
    }

    fn put_out(&mut self, documents: Vec<(Arc<Incident>, Bytes)>) {
        for (document, json) in documents {
            self.hq.incident(&document, json.clone());
            self.shown.insert(document.id);
            self.board.incident(document, json);
        }
    }

    fn show(&self, incident: IncidentId) {
        if let Some((document, json)) = self.render(incident) {
            self.board.incident(document, json);
        }
    }

    fn render(&self, id: IncidentId) -> Option<(Arc<Incident>, Bytes)> {
        let document = self.engine.document(id)?;
        match serde_json::to_vec(&document) {
            Ok(json) => Some((Arc::new(document), json.into())),
            Err(e) => {
                error!(incident = %id, error = %e, "a document could not be written");
                None
            }
        }
    }

    fn checkpoint_if_due(&mut self) {
        if self.journalled < CHECKPOINT_AFTER || self.failing || !self.unsent.is_empty() {
            return;
        }
        let Ok(ticket) = self.journal.checkpoint(entries(&self.engine.snapshot())) else { return };
        self.journalled = 0;
        self.waiting.push_back(BTreeSet::new());
        self.syncing.push_back(Box::pin(async move {
            // A disk that refuses the snapshot changes nothing: the older segments stay, and it is tried again.
            if let Err(e) = ticket.await {
                warn!(error = %e, "no checkpoint of the journal this time");
            }
            (true, Batch::default())
        }));
        let held: HashSet<_> = self.engine.incidents().collect();
        let gone: Vec<_> = self.shown.iter().filter(|id| !held.contains(id)).copied().collect();
        for id in &gone {
            self.shown.remove(id);
        }
        self.board.forget(gone);
    }

    /// Waits for the disk a moment at the end, so that what can be acknowledged is.
    async fn drain(&mut self) {
        self.hand_to_journal();
        let limit = Duration::from_secs(2);
        while let Ok(Some((synced, batch))) = tokio::time::timeout(limit, self.syncing.next()).await {
            self.synced(synced, batch);
        }
    }
}

/// Resolves at that time, never when there is none.
async fn until(due: Option<Mono>) {
    match due {
        Some(at) => tokio::time::sleep_until(clock::deadline(at)).await,
        None => std::future::pending().await,
    }
}

fn entries(records: &[Record]) -> Vec<Entry> {
    let entry = |record: &Record| match serde_json::to_vec(record) {
        Ok(json) => Some(Entry { kind: RECORD, payload: json.into() }),
        Err(e) => {
            error!(error = %e, ?record, "a record could not be written");
            None
        }
    };
    records.iter().filter_map(entry).collect()
}

/// Brings an engine to where the journal left it. Returns how many entries could not be read.
pub fn replay(engine: &mut Engine, entries: impl IntoIterator<Item = Entry>) -> usize {
    let mut unread = 0;
    for entry in entries.into_iter().filter(|e| e.kind == RECORD) {
        match serde_json::from_slice(&entry.payload) {
            Ok(record) => engine.replay(record),
            Err(e) => {
                warn!(error = %e, "a journal entry is not understood by this version; it is left as it is");
                unread += 1;
            }
        }
    }
    unread
}
