//! Media to headquarters' object store: what the media log holds and headquarters does not, the most urgent first; then
//! what makes it play and provable.
//!
//! It never stands in an event's way: events have a connection of their own. Names are deterministic, so what is put
//! twice after a crash overwrites itself with the same bytes. Two loops share the work: one keeps objects under way, the
//! other puts the lists that follow them, so that neither waits for the other.

mod days;
mod lists;
mod order;
mod proofs;

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, error, warn};

use super::{board::Board, shelf, work::Work};
use crate::{
    district::{
        clock::Mono,
        evidence::{Gap, GapReason},
        identity::Identity,
        ids::{DistrictId, IncidentId},
    },
    host::{clock, scope::Scope},
    spool::{Error, MediaStore, ObjectRef},
    uplink::objects::{PutError, Store},
};

use self::{
    days::Days,
    lists::{DOCUMENT_EVERY, LISTS_EVERY, Lists},
    order::Line,
};

/// Objects taken from the log at a time.
const ROUND: usize = 16;

/// Waits after a failure.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An object that the store refuses for good is tried again after this long, in case somebody mended the store.
const SET_ASIDE: Duration = Duration::from_secs(600);

/// How long it rests.
const REST: Duration = Duration::from_secs(60);

/// Counts, for metrics.
#[derive(Debug, Default)]
pub struct Forwarded {
    /// Objects that headquarters has confirmed.
    pub objects: AtomicU64,
    /// Their bytes.
    pub bytes: AtomicU64,
    /// Attempts that failed.
    pub failures: AtomicU64,
    /// Objects that the store refuses, or that fail while others go through, now.
    pub set_aside: AtomicU64,
    /// Why nothing goes through, and since when.
    trouble: Mutex<Option<(Mono, PutError)>>,
}

impl Forwarded {
    /// Why headquarters' store takes nothing now, and since when: the first failure since something last went through.
    pub fn trouble(&self) -> Option<(Mono, PutError)> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn troubled(&self, now: Mono, error: Option<&PutError>) {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(error) = error else { return *trouble = None };
        let since = trouble.as_ref().map_or(now, |(since, _)| *since);
        // The first of its kind stays: the others name other objects, and a status that changes is told again.
        let is_new = |known: &PutError| std::mem::discriminant(known) != std::mem::discriminant(error);
        if trouble.as_ref().is_none_or(|(_, known)| is_new(known)) {
            *trouble = Some((since, error.clone()));
        }
    }
}

/// Says that something new is there to forward.
#[derive(Clone, Default)]
pub struct Bell(Arc<(Notify, AtomicU64)>);

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.0.1.fetch_add(1, Relaxed);
        self.0.0.notify_one();
    }

    /// How often it has rung.
    fn rung(&self) -> u64 {
        self.0.1.load(Relaxed)
    }
}

/// Forwards media until its scope stops.
pub struct Forwarder {
    /// Which district.
    pub district: DistrictId,
    /// Where from.
    pub media: MediaStore,
    /// Where to.
    pub store: Store,
    /// Gaps and ends of recordings stand in the documents.
    pub board: Arc<Board>,
    /// Told of what headquarters has.
    pub work: mpsc::Sender<Work>,
    /// Rung when there is something.
    pub bell: Bell,
    /// Counts.
    pub counts: Arc<Forwarded>,
    /// What evidence is signed with; none: it is not.
    pub identity: Option<Arc<Identity>>,
}

/// Why an object is not at headquarters.
enum Failure {
    /// The store's word.
    Put(PutError),
    /// This gateway's disk does not give it back as it was.
    Lost(String),
    /// It is not there any more, or cannot be read just now.
    Unread,
}

impl From<PutError> for Failure {
    fn from(error: PutError) -> Self {
        Self::Put(error)
    }
}

/// What the loop of objects tells the loop of lists.
#[derive(Default)]
struct Shared {
    evidence: Mutex<Vec<(IncidentId, ObjectRef, Fate)>>,
    days: Mutex<Days>,
}

/// What became of an object of evidence.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Headquarters has it.
    Delivered,
    /// This disk does not give it back as it was.
    Lost,
}

impl Shared {
    fn days(&self) -> MutexGuard<'_, Days> {
        self.days.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn evidence(&self) -> MutexGuard<'_, Vec<(IncidentId, ObjectRef, Fate)>> {
        self.evidence.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Forwarder {
    /// Starts the task.
    pub fn start(self, scope: &Scope) {
        let stopping = scope.stopping();
        scope.spawn("forwarder", async move {
            tokio::select! { () = self.run() => {}, () = stopping => {} }
        });
    }

    async fn run(self) {
        let shared = Shared::default();
        tokio::join!(self.objects(&shared), self.follow(&shared));
    }

    /// Keeps objects under way.
    async fn objects(&self, shared: &Shared) {
        let mut line = Line::default();
        let (mut under_way, mut confirming) = (FuturesUnordered::new(), FuturesUnordered::new());
        loop {
            while let Some(object) = self.next(&mut line, shared).await {
                under_way.push(self.upload(object));
            }
            self.counts.set_aside.store(line.set_aside.len() as u64, Relaxed);
            let now = clock::mono();
            let paused = line.paused.map(|(until, _)| until).filter(|until| *until > now);
            let pause = paused.unwrap_or(now + LISTS_EVERY);
            tokio::select! {
                biased;
                Some(done) = under_way.next(), if !under_way.is_empty() => {
                    if let Some((incident, object)) = self.settle(&mut line, shared, done).await {
                        confirming.push(self.confirm(incident, object));
                    }
                }
                Some((incident, object)) = confirming.next(), if !confirming.is_empty() => {
                    line.busy.remove(&object.to_string());
                    shared.evidence().push((incident, object, Fate::Delivered));
                }
                () = self.bell.0.0.notified() => {}
                () = tokio::time::sleep_until(clock::deadline(pause)) => {}
            }
        }
    }

    /// What became of an object that was under way; evidence that headquarters has is given back.
    async fn settle(&self, line: &mut Line, shared: &Shared, done: Done) -> Option<(IncidentId, ObjectRef)> {
        let Done { result, object, begun } = done;
        let (now, name) = (clock::mono(), object.to_string());
        line.busy.remove(&name);
        match result {
            Ok(()) => {
                line.failed.remove(&name);
                (line.worked, line.paused) = (now, None);
                self.counts.troubled(now, None);
                if let Some(incident) = object.meta.kept.incident() {
                    line.busy.insert(name, None);
                    return Some((incident, object));
                }
                shared.days().add(object, Fate::Delivered);
            }
            Err(Failure::Put(e @ PutError::Refused { .. })) => {
                error!(error = %e, object = %object, "set aside; the rest goes on");
                line.set_aside.insert(name, now + SET_ASIDE);
            }
            Err(Failure::Put(e)) => {
                self.counts.failures.fetch_add(1, Relaxed);
                // When others went through meanwhile, the way is open: what is short is not held up by what failed.
                if line.worked >= begun {
                    if line.fails(&name) {
                        warn!(error = %e, object = %object, "rests a while; the rest goes on");
                        line.set_aside.insert(name, now + REST);
                    }
                    return None;
                }
                self.counts.troubled(now, Some(&e));
                let wait = line.paused.map_or(WAIT.0, |(_, wait)| wait);
                match &e {
                    PutError::Misconfigured { .. } => error!(error = %e, "headquarters' store takes nothing"),
                    _ => warn!(error = %e, ?wait, "headquarters' store"),
                }
                // Those that fail together are one failure.
                if line.paused.is_none_or(|(until, _)| now >= until) {
                    line.paused = Some((now + wait, (wait * 2).min(WAIT.1)));
                }
            }
            Err(Failure::Lost(why)) => {
                line.set_aside.insert(name.clone(), now + SET_ASIDE);
                if line.lost.insert(name) {
                    error!(%why, object = %object, "media is damaged on this gateway's disk");
                    self.report_lost(shared, object).await;
                }
            }
            Err(Failure::Unread) => drop(line.set_aside.insert(name, now + REST)),
        }
        None
    }

    /// What is damaged is a gap.
    async fn report_lost(&self, shared: &Shared, object: ObjectRef) {
        let Some(incident) = object.meta.kept.incident() else { return shared.days().add(object, Fate::Lost) };
        if object.meta.from < object.meta.to {
            let gap = Gap { from: object.meta.from, to: object.meta.to, reason: GapReason::DiskFailed };
            let _ = self.work.send(Work::Gap(incident, object.meta.camera.clone(), gap)).await;
        }
        shared.evidence().push((incident, object, Fate::Lost));
    }

    async fn upload(&self, object: ObjectRef) -> Done {
        let begun = clock::mono();
        Done { result: self.forward(&object).await, object, begun }
    }

    /// One object, from the log to headquarters.
    async fn forward(&self, object: &ObjectRef) -> Result<(), Failure> {
        let meta = &object.meta;
        let name = format!("{}/{}", shelf::folder(&self.district, meta.kept, &meta.camera), meta.name);
        let bytes = match self.media.read(object).await {
            Ok(bytes) => bytes,
            Err(e @ Error::Damaged { .. }) => return Err(Failure::Lost(e.to_string())),
            Err(e) => {
                warn!(object = %object, error = %e, "the media log");
                return Err(Failure::Unread);
            }
        };
        let size = bytes.len() as u64;
        self.store.put(&name, bytes).await?;
        self.counts.objects.fetch_add(1, Relaxed);
        self.counts.bytes.fetch_add(size, Relaxed);
        debug!(%name, size, "at headquarters");
        Ok(())
    }

    /// Writes down that headquarters has an object of evidence, and tells the desk. Others are under way meanwhile: a mark
    /// waits for the next sync.
    async fn confirm(&self, incident: IncidentId, object: ObjectRef) -> (IncidentId, ObjectRef) {
        self.mark(&object).await;
        let held = shelf::shown(&object.meta, true);
        let _ = self.work.send(Work::Uploaded(incident, object.meta.camera.clone(), held)).await;
        (incident, object)
    }

    /// Writes down that headquarters has an object.
    async fn mark(&self, object: &ObjectRef) {
        let marked = match self.media.delivered(object) {
            Ok(ticket) => ticket.await,
            Err(e) => Err(e),
        };
        if let Err(e) = marked {
            warn!(object = %object, error = %e, "delivered, but that could not be written down; it will be sent again");
        }
    }

    /// Puts the lists that follow objects.
    async fn follow(&self, shared: &Shared) {
        let mut lists = Lists::after_restart(&self.board.incidents(None, usize::MAX));
        let mut wait = WAIT.0;
        loop {
            let pause = match self.follow_once(&mut lists, shared).await {
                Ok(pause) => {
                    wait = WAIT.0;
                    pause
                }
                Err(e) => {
                    self.counts.failures.fetch_add(1, Relaxed);
                    warn!(error = %e, ?wait, "headquarters' store");
                    let pause = wait;
                    wait = (wait * 2).min(WAIT.1);
                    pause
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// Puts what is due; how long until there may be more.
    async fn follow_once(&self, lists: &mut Lists, shared: &Shared) -> Result<Duration, PutError> {
        for (incident, object, fate) in std::mem::take(&mut *shared.evidence()) {
            lists.take(incident, object, fate);
        }
        let document = self.put_document(lists).await?;
        // A list that cannot be put does not keep the document's proof back.
        self.put_proofs(lists).await?;
        let list = self.put_due_lists(lists).await?;
        self.put_proofs(lists).await?;
        self.put_key(lists).await;
        let day = self.put_due_day(shared).await?;
        Ok(if document || list || day || lists.more_documents { DOCUMENT_EVERY } else { LISTS_EVERY / 2 })
    }

    /// What the media log answered; a failure is logged, and asked again in the next round.
    fn asked<T>(&self, answer: Result<T, Error>) -> Option<T> {
        answer.inspect_err(|e| warn!(error = %e, "the media log")).ok()
    }
}

/// An object that was under way.
struct Done {
    result: Result<(), Failure>,
    object: ObjectRef,
    begun: Mono,
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::{order::AT_ONCE, *};
    use crate::{
        district::{clock::Utc, evidence::CameraEvidence},
        spool::{Buffer, Kept, MediaLane, MediaSettings, ObjectMeta},
        uplink::objects,
    };

    pub(super) struct Rig {
        pub forwarder: Forwarder,
        work: mpsc::Receiver<Work>,
        pub out: std::path::PathBuf,
        log: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    pub(super) fn rig() -> Rig {
        let dir = tempfile::tempdir().unwrap();
        let (log, out) = (dir.path().join("media"), dir.path().join("hq"));
        std::fs::create_dir(&out).unwrap();
        let settings =
            MediaSettings { sync_every: Duration::ZERO, keep_free: 0, recent_bytes: 0, ..MediaSettings::default() };
        let (media, _, _) = MediaStore::open(&log, settings, &Scope::new("test")).unwrap();
        let (work, queue) = mpsc::channel(1024);
        let forwarder = Forwarder {
            district: "saddar".parse().unwrap(),
            media,
            store: objects::open(&objects::Settings::new(format!("file://{}", out.display()))).unwrap(),
            board: Arc::new(Board::new(0)),
            work,
            bell: Bell::default(),
            counts: Arc::default(),
            identity: None,
        };
        Rig { forwarder, work: queue, out, log, _dir: dir }
    }

    impl Rig {
        /// Forwards objects until there is nothing more to begin.
        async fn run_until_idle(&self) -> Shared {
            let shared = Shared::default();
            let most = Duration::from_secs(2);
            let _ = tokio::time::timeout(most, self.forwarder.objects(&shared)).await;
            shared
        }
    }

    async fn store(rig: &Rig, incident: IncidentId, name: &str, number: u32) {
        keep(rig, Kept::Evidence { incident }, name, number).await;
    }

    async fn keep(rig: &Rig, kept: Kept, name: &str, number: u32) {
        let payload = Bytes::from(vec![number as u8; 1000]);
        let meta = meta(kept, name, number, &payload);
        rig.forwarder.media.append(meta, payload).unwrap().await.unwrap();
    }

    fn meta(kept: Kept, name: &str, number: u32, payload: &[u8]) -> ObjectMeta {
        ObjectMeta {
            kept,
            urgent: false,
            gap: None,
            chunk: 0,
            camera: "c1".parse().unwrap(),
            rank: 0,
            name: name.into(),
            number,
            from: Utc::from_micros(1_000_000 * i64::from(number)),
            to: Utc::from_micros(1_000_000 * i64::from(number + 1)),
            duration_us: 1_000_000,
            key: true,
            sha256: crate::media::manifest::sha256(payload),
            size: payload.len() as u64,
            extra: serde_json::Value::Null,
        }
    }

    #[tokio::test]
    async fn however_many_objects_the_store_refuses_the_rest_is_delivered() {
        let rig = rig();
        let (old, new) = (IncidentId::derive(1, b"old"), IncidentId::derive(2, b"new"));
        store(&rig, old, "00001.m4s", 1).await;
        for n in 0..2 * ROUND as u32 {
            store(&rig, new, &format!("no//name-{n}"), n).await;
        }
        rig.run_until_idle().await;
        assert!(rig.out.join(format!("saddar/incidents/{old}/c1/00001.m4s")).exists());
    }

    #[tokio::test]
    async fn evidence_has_its_place_while_a_backlog_is_under_way_and_every_lane_is_looked_at() {
        let rig = rig();
        let incident = IncidentId::derive(1, b"x");
        for n in 1..8 {
            let kept = Kept::Buffer { buffer: Buffer::Outage };
            keep(&rig, kept, &format!("2023-11-14/{n}.m4s"), n).await;
        }
        let (shared, mut line) = (Shared::default(), Line::default());
        let mut lanes = Vec::new();
        while let Some(object) = rig.forwarder.next(&mut line, &shared).await {
            lanes.push(object.meta.kept.lane());
        }
        assert_eq!(lanes, [MediaLane::Outage; AT_ONCE - 1], "one place is kept");
        store(&rig, incident, "00001.m4s", 1).await;
        rig.forwarder.bell.ring();
        let next = rig.forwarder.next(&mut line, &shared).await.unwrap();
        assert_eq!(next.meta.kept, Kept::Evidence { incident });
        assert!(!line.candidates[MediaLane::Outage as usize].is_empty(), "it is known that they wait");
        assert!(rig.forwarder.next(&mut line, &shared).await.is_none());
    }

    #[tokio::test]
    async fn a_playlist_that_grows_lists_no_fragment_before_one_that_is_listed_and_none_behind_a_hole() {
        let rig = rig();
        let incident = IncidentId::derive(1, b"x");
        let extra = |n: u32| {
            let extra = shelf::Extra::Fragment { fragment: n, init: 0, at_us: 0, discontinuity: false, lost: false };
            serde_json::to_value(extra).unwrap()
        };
        for n in 1..=6 {
            let payload = Bytes::from(vec![n as u8; 10]);
            let meta =
                ObjectMeta { extra: extra(n), ..meta(Kept::Evidence { incident }, &format!("{n}.m4s"), n, &payload) };
            rig.forwarder.media.append(meta, payload).unwrap().await.unwrap();
        }
        let mut evidence = CameraEvidence::asked("c1".parse().unwrap(), Utc::default(), Utc::default());
        evidence.ended = true;
        let index = rig.out.join(format!("saddar/incidents/{incident}/c1/index.m3u8"));
        let (mut lists, mut said) = (Lists::default(), Vec::new());
        // The seconds around the press first, then what is behind them in part, then what was before, then the rest.
        for delivered in [&[3, 4][..], &[6], &[1, 2], &[5]] {
            for object in rig.forwarder.media.pending(16).await.unwrap() {
                if delivered.contains(&object.meta.number) {
                    rig.forwarder.media.delivered(&object).unwrap().await.unwrap();
                    lists.take(incident, object, Fate::Delivered);
                }
            }
            let finished = rig.forwarder.put_lists(incident, None, &evidence, false, &mut lists).await.unwrap();
            let text = std::fs::read_to_string(&index).unwrap();
            let names: Vec<u32> = text.lines().filter_map(|l| l.strip_suffix(".m4s")?.parse().ok()).collect();
            said.push((names, finished, text.contains("ENDLIST")));
        }
        let growing = |names: &[u32]| (names.to_vec(), false, false);
        assert_eq!(said[..3], [growing(&[3, 4]), growing(&[3, 4]), growing(&[3, 4])]);
        assert_eq!(said[3], (vec![1, 2, 3, 4, 5, 6], true, true));
    }

    #[tokio::test]
    async fn an_object_that_this_disk_has_lost_is_a_gap_and_nothing_waits_for_it() {
        let mut rig = rig();
        let incident = IncidentId::derive(1, b"x");
        store(&rig, incident, "00001.m4s", 1).await;
        store(&rig, incident, "00002.m4s", 2).await;
        for file in std::fs::read_dir(&rig.log).unwrap().map(|f| f.unwrap().path()).filter(|f| f.is_file()) {
            let mut bytes = std::fs::read(&file).unwrap();
            if let Some(at) = bytes.windows(100).position(|w| w == [1u8; 100]) {
                bytes[at] ^= 0xff;
                std::fs::write(&file, bytes).unwrap();
            }
        }
        let shared = rig.run_until_idle().await;
        let gaps = |rig: &mut Rig| {
            let next = || rig.work.try_recv().ok();
            std::iter::from_fn(next).filter(|w| matches!(w, Work::Gap(..))).count()
        };
        assert_eq!(gaps(&mut rig), 1);
        let mut evidence = CameraEvidence::asked("c1".parse().unwrap(), Utc::default(), Utc::default());
        evidence.ended = true;
        let mut lists = Lists::default();
        for (incident, object, fate) in std::mem::take(&mut *shared.evidence()) {
            lists.take(incident, object, fate);
        }
        assert!(rig.forwarder.put_lists(incident, None, &evidence, false, &mut lists).await.unwrap());
        assert!(rig.out.join(format!("saddar/incidents/{incident}/c1/manifest.json")).exists());
        assert_eq!(gaps(&mut rig), 0, "told once");
    }
}
