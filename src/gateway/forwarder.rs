//! Evidence to headquarters' object store: what the media log holds and headquarters does not, the most urgent first; then
//! the playlist that makes it play, and at the end the manifest that makes it provable.
//!
//! It never stands in an event's way: events have a connection of their own. Names are deterministic, so what is put
//! twice after a crash overwrites itself with the same bytes.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{StreamExt, stream};
use tokio::sync::{Notify, mpsc};
use tracing::{debug, error, info, warn};

use super::{board::Board, shelf, work::Work};
use crate::{
    district::{
        clock::Mono,
        evidence::{CameraEvidence, Gap, GapReason},
        ids::{CameraId, DistrictId, IncidentId},
        incident::Incident,
        press::Progress,
    },
    host::{clock, scope::Scope},
    spool::{MediaStore, ObjectRef},
    uplink::objects::{PutError, Store},
};

/// Objects under way at a time.
const AT_ONCE: usize = 4;

/// Objects taken from the log at a time: a more urgent one waits for no more than these.
const ROUND: usize = 16;

/// A playlist is put at most this often while it grows.
const LISTS_EVERY: Duration = Duration::from_secs(1);

/// A document is put at most this often: however fast incidents change, their copies in the store take neither the disk
/// nor the line from the presses themselves.
const DOCUMENT_EVERY: Duration = Duration::from_millis(250);

/// Waits after a failure.
const WAIT: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// An object that the store refuses for good is tried again after this long, in case somebody mended the store.
const SET_ASIDE: Duration = Duration::from_secs(600);

/// An object that failed this often while others went through rests a while, and does not hold up the rest.
const FAILURES: u32 = 3;

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
}

/// Says that something new is there to forward.
#[derive(Clone, Default)]
pub struct Bell(Arc<Notify>);

impl Bell {
    /// Rings.
    pub fn ring(&self) {
        self.0.notify_one();
    }
}

/// Forwards evidence until its scope stops.
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
    /// Ceiling in bits a second.
    pub bandwidth: Option<u64>,
    /// Rung when there is something.
    pub bell: Bell,
    /// Counts.
    pub counts: Arc<Forwarded>,
}

/// What is behind at headquarters beside the objects themselves.
#[derive(Default)]
struct Lists {
    /// Cameras whose playlist or manifest is behind.
    behind: BTreeMap<(IncidentId, CameraId), Behind>,
    /// What was last put of each incident's document, and when: its revision, and its state, which headquarters' PUBACK
    /// moves without a revision.
    documents: HashMap<IncidentId, (Mono, u64, Progress)>,
    /// When the next document may be put.
    document_due: Mono,
    /// Whether documents wait for that.
    more_documents: bool,
    /// What each unfinished playlist said when it was last put.
    playlists: HashMap<(IncidentId, CameraId), String>,
    /// Objects of cameras whose lists are behind that headquarters has: those that the disk gave up for others too.
    delivered: HashMap<(IncidentId, CameraId), BTreeMap<(u32, String), ObjectRef>>,
    /// Objects that rest, until when.
    set_aside: HashMap<String, Mono>,
    /// How often an object failed while others went through.
    failed: HashMap<String, u32>,
    /// Objects that this gateway's disk has lost: nothing waits for them.
    lost: HashSet<String>,
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

#[derive(Clone, Copy)]
enum Behind {
    /// Something was delivered since then.
    Since(Mono),
    /// The gateway was restarted: headquarters may have it all.
    AfterRestart,
}

impl Behind {
    fn due(self, now: Mono) -> bool {
        match self {
            Behind::Since(then) => now.since(then) >= LISTS_EVERY,
            Behind::AfterRestart => true,
        }
    }
}

impl Lists {
    /// Headquarters has an object.
    fn has(&mut self, key: (IncidentId, CameraId), mut object: ObjectRef) {
        object.delivered = true;
        let place = (object.meta.number, object.meta.name.clone());
        self.delivered.entry(key).or_default().insert(place, object);
    }

    /// Counts a failure of an object while others went through; whether it has had its chances.
    fn fails(&mut self, name: &str) -> bool {
        let failed = self.failed.entry(name.to_owned()).or_default();
        *failed += 1;
        *failed >= FAILURES && self.failed.remove(name).is_some()
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
        let mut lists = self.unfinished();
        let mut wait = WAIT.0;
        loop {
            match self.round(&mut lists).await {
                Ok(true) => wait = WAIT.0,
                Ok(false) => {
                    wait = WAIT.0;
                    let pause = if lists.more_documents { DOCUMENT_EVERY } else { LISTS_EVERY };
                    let pause = tokio::time::sleep(pause);
                    tokio::select! { () = self.bell.0.notified() => {}, () = pause => {} }
                }
                Err(e) => {
                    self.counts.failures.fetch_add(1, Relaxed);
                    match &e {
                        PutError::Misconfigured { .. } => error!(error = %e, "headquarters' store takes nothing"),
                        _ => warn!(error = %e, ?wait, "headquarters' store"),
                    }
                    tokio::time::sleep(wait).await;
                    wait = (wait * 2).min(WAIT.1);
                }
            }
        }
    }

    /// After a restart: every camera whose evidence is not complete may have lists that are behind.
    fn unfinished(&self) -> Lists {
        let mut lists = Lists::default();
        for incident in self.board.incidents(None, usize::MAX) {
            for evidence in &incident.evidence {
                lists.behind.insert((incident.id, evidence.camera.clone()), Behind::AfterRestart);
            }
        }
        lists
    }

    /// Puts what is most urgent. Whether there was something to do.
    async fn round(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        lists.set_aside.retain(|_, until| *until > now);
        // However many rest, as many others are looked for behind them.
        let limit = ROUND + lists.set_aside.len();
        let pending = self.asked(self.media.pending(limit).await).unwrap_or_default();
        let rests = |o: &ObjectRef| lists.set_aside.contains_key(&o.to_string());
        let todo: Vec<_> = pending.into_iter().filter(|o| !rests(o)).take(ROUND).collect();
        let found = !todo.is_empty();
        let mut turn = tokio::time::Instant::now();
        let uploads = todo.into_iter().map(|object| {
            let from = turn;
            turn += self.pace(object.meta.size);
            self.upload(object, from)
        });
        let uploads: Vec<_> = uploads.collect();
        let done: Vec<_> = stream::iter(uploads).buffer_unordered(AT_ONCE).collect().await;
        let works = done.iter().any(|(result, _)| result.is_ok());
        let mut failure = None;
        for (result, object) in done {
            let key = (object.meta.incident, object.meta.camera.clone());
            let name = object.to_string();
            match result {
                Ok(()) => {
                    lists.failed.remove(&name);
                    lists.behind.entry(key.clone()).or_insert(Behind::Since(now));
                    lists.has(key, object);
                }
                Err(Failure::Put(e @ PutError::Refused { .. })) => {
                    error!(error = %e, object = %object, "set aside; the rest goes on");
                    lists.set_aside.insert(name, now + SET_ASIDE);
                }
                Err(Failure::Put(e)) => {
                    if works && lists.fails(&name) {
                        warn!(error = %e, object = %object, "rests a while; the rest goes on");
                        lists.set_aside.insert(name, now + REST);
                    }
                    failure = Some(e);
                }
                Err(Failure::Lost(why)) => {
                    lists.set_aside.insert(name.clone(), now + SET_ASIDE);
                    if lists.lost.insert(name) {
                        error!(%why, object = %object, "evidence is damaged on this gateway's disk");
                        lists.behind.entry(key).or_insert(Behind::Since(now));
                        self.report_lost(&object).await;
                    }
                }
                Err(Failure::Unread) => drop(lists.set_aside.insert(name, now + REST)),
            }
        }
        match failure {
            // When some went through, the way is open: what is short is not held up by what failed.
            Some(e) if !works => Err(e),
            failure => {
                let document = self.put_document(lists).await?;
                let put = self.put_due_lists(lists).await?;
                failure.map_or(Ok(document || put || found), Err)
            }
        }
    }

    /// Evidence that is damaged is a gap.
    async fn report_lost(&self, object: &ObjectRef) {
        let meta = &object.meta;
        if meta.from < meta.to {
            let gap = Gap { from: meta.from, to: meta.to, reason: GapReason::DiskFailed };
            let _ = self.work.send(Work::Gap(meta.incident, meta.camera.clone(), gap)).await;
        }
    }

    /// How long so many bytes take under the ceiling.
    fn pace(&self, bytes: u64) -> Duration {
        self.bandwidth.map_or(Duration::ZERO, |bits| Duration::from_secs_f64(bytes as f64 * 8.0 / bits.max(1) as f64))
    }

    async fn upload(&self, object: ObjectRef, from: tokio::time::Instant) -> (Result<(), Failure>, ObjectRef) {
        tokio::time::sleep_until(from).await;
        (self.forward(&object).await, object)
    }

    /// One object, from the log to headquarters.
    async fn forward(&self, object: &ObjectRef) -> Result<(), Failure> {
        let meta = &object.meta;
        let name = format!("{}/{}", shelf::folder(&self.district, meta.incident, &meta.camera), meta.name);
        let bytes = match self.media.read(object).await {
            Ok(bytes) => bytes,
            Err(e @ crate::spool::Error::Damaged { .. }) => return Err(Failure::Lost(e.to_string())),
            Err(e) => {
                warn!(object = %object, error = %e, "the media log");
                return Err(Failure::Unread);
            }
        };
        let size = bytes.len() as u64;
        self.store.put(&name, bytes).await?;
        let marked = match self.media.delivered(object) {
            Ok(ticket) => ticket.await,
            Err(e) => Err(e),
        };
        if let Err(e) = marked {
            warn!(object = %object, error = %e, "delivered, but that could not be written down; it will be sent again");
        }
        self.counts.objects.fetch_add(1, Relaxed);
        self.counts.bytes.fetch_add(size, Relaxed);
        debug!(%name, size, "delivered");
        let _ = self.work.send(Work::Uploaded(meta.incident, meta.camera.clone(), meta.name.clone())).await;
        Ok(())
    }

    /// Puts the lists that are behind and due, the newest incidents' first, and no more than a round: evidence that came
    /// meanwhile goes before the rest. Whether one was put.
    async fn put_due_lists(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        let due: Vec<_> = lists
            .behind
            .iter()
            .rev()
            .filter(|(_, b)| b.due(now))
            .take(ROUND)
            .map(|(key, behind)| (key.clone(), *behind))
            .collect();
        for (key, behind) in &due {
            let (incident, camera) = key;
            let document = self.board.incident_of(*incident);
            let Some(evidence) = document.as_ref().and_then(|d| d.evidence.iter().find(|e| e.camera == *camera)) else {
                lists.behind.remove(key);
                lists.delivered.remove(key);
                continue;
            };
            let maybe = matches!(behind, Behind::AfterRestart);
            match self.put_lists(*incident, evidence, maybe, lists).await {
                Ok(true) => {
                    info!(%incident, %camera, "all evidence of this camera is at headquarters");
                    lists.behind.remove(key);
                    lists.playlists.remove(key);
                    lists.delivered.remove(key);
                }
                Ok(false) => drop(lists.behind.insert(key.clone(), Behind::Since(now))),
                Err(e @ PutError::Refused { .. }) => {
                    error!(error = %e, "left out; the rest goes on");
                    lists.behind.remove(key);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(!due.is_empty())
    }

    /// The playlist; and the manifest when nothing will come any more. Whether that is so.
    async fn put_lists(
        &self,
        incident: IncidentId,
        evidence: &CameraEvidence,
        maybe: bool,
        lists: &mut Lists,
    ) -> Result<bool, PutError> {
        let Some(held) = self.asked(self.media.evidence(incident, &evidence.camera).await) else { return Ok(false) };
        let folder = shelf::folder(&self.district, incident, &evidence.camera);
        let settled = |o: &ObjectRef| o.delivered || lists.lost.contains(&o.to_string());
        let finished = evidence.ended && held.iter().all(settled);
        let key = (incident, evidence.camera.clone());
        held.into_iter().filter(|o| o.delivered).for_each(|o| lists.has(key.clone(), o));
        let there: Vec<_> = lists.delivered.get(&key).into_iter().flat_map(BTreeMap::values).cloned().collect();
        if there.len() < evidence.delivered_count {
            // Delivered by an earlier run, and no longer on this disk: lists without them would take back what is known.
            warn!(%incident, camera = %evidence.camera, "headquarters has more than this disk; its lists stay");
            return Ok(finished);
        }
        let manifest_name = format!("{folder}/manifest.json");
        if there.is_empty() || (finished && maybe && self.store.head(&manifest_name).await?.is_some()) {
            return Ok(finished);
        }
        let growing = CameraEvidence { ended: finished, ..evidence.clone() };
        let playlist = shelf::playlist(&there, Some(&growing));
        if finished || lists.playlists.get(&key) != Some(&playlist) {
            self.store.put(&format!("{folder}/index.m3u8"), Bytes::from(playlist.clone())).await?;
            lists.playlists.insert(key, playlist);
        }
        if finished {
            let manifest = shelf::manifest(folder.clone(), &there, evidence);
            let json = serde_json::to_vec_pretty(&manifest).unwrap_or_default();
            self.store.put(&manifest_name, Bytes::from(json)).await?;
        }
        Ok(finished)
    }

    /// `incident.json` of an incident that changed: of new ones the newest, else the one that was put longest ago.
    /// Whether one was put.
    async fn put_document(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        if now < lists.document_due {
            return Ok(false);
        }
        lists.document_due = now + DOCUMENT_EVERY;
        let incidents = self.board.incidents(None, usize::MAX);
        let held: HashSet<_> = incidents.iter().map(|i| i.id).collect();
        lists.documents.retain(|id, _| held.contains(id));
        let put_at = |d: &Incident| match lists.documents.get(&d.id) {
            None => Some(Mono::default()),
            Some((at, revision, state)) => ((*revision, *state) != (d.revision, d.state)).then_some(*at),
        };
        let changed = incidents.iter().filter_map(|d| Some((put_at(d)?, Reverse(d.id), d)));
        lists.more_documents = false;
        let Some((_, _, document)) =
            changed.inspect(|_| lists.more_documents = true).min_by_key(|(at, id, _)| (*at, *id))
        else {
            return Ok(false);
        };
        let json = serde_json::to_vec_pretty(document.as_ref()).unwrap_or_default();
        let name = format!("{}/incidents/{}/incident.json", self.district, document.id);
        match self.store.put(&name, Bytes::from(json)).await {
            Err(e @ PutError::Refused { .. }) => error!(error = %e, "left out; the rest goes on"),
            put => put?,
        }
        lists.documents.insert(document.id, (now, document.revision, document.state));
        Ok(true)
    }

    /// What the media log answered; a failure is logged, and asked again in the next round.
    fn asked<T>(&self, answer: Result<T, crate::spool::Error>) -> Option<T> {
        answer.inspect_err(|e| warn!(error = %e, "the media log")).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        district::clock::Utc,
        spool::{MediaSettings, ObjectMeta},
        uplink::objects,
    };

    struct Rig {
        forwarder: Forwarder,
        work: mpsc::Receiver<Work>,
        out: std::path::PathBuf,
        log: std::path::PathBuf,
        _dir: tempfile::TempDir,
    }

    fn rig() -> Rig {
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
            bandwidth: None,
            bell: Bell::default(),
            counts: Arc::default(),
        };
        Rig { forwarder, work: queue, out, log, _dir: dir }
    }

    async fn store(rig: &Rig, incident: IncidentId, name: &str, number: u32) {
        let payload = Bytes::from(vec![number as u8; 1000]);
        let meta = ObjectMeta {
            incident,
            camera: "c1".parse().unwrap(),
            rank: 0,
            name: name.into(),
            number,
            from: Utc::from_micros(1_000_000 * i64::from(number)),
            to: Utc::from_micros(1_000_000 * i64::from(number + 1)),
            duration_us: 1_000_000,
            key: true,
            sha256: crate::media::manifest::sha256(&payload),
            size: 1000,
            extra: serde_json::Value::Null,
        };
        rig.forwarder.media.append(meta, payload).unwrap().await.unwrap();
    }

    #[tokio::test]
    async fn however_many_objects_the_store_refuses_the_rest_is_delivered() {
        let rig = rig();
        let (old, new) = (IncidentId::derive(1, b"old"), IncidentId::derive(2, b"new"));
        store(&rig, old, "00001.m4s", 1).await;
        for n in 0..2 * ROUND as u32 {
            store(&rig, new, &format!("no//name-{n}"), n).await;
        }
        let mut lists = Lists::default();
        for _ in 0..4 {
            rig.forwarder.round(&mut lists).await.unwrap();
        }
        assert!(rig.out.join(format!("saddar/incidents/{old}/c1/00001.m4s")).exists());
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
        let mut lists = Lists::default();
        rig.forwarder.round(&mut lists).await.unwrap();
        let gaps = |rig: &mut Rig| {
            let next = || rig.work.try_recv().ok();
            std::iter::from_fn(next).filter(|w| matches!(w, Work::Gap(..))).count()
        };
        assert_eq!(gaps(&mut rig), 1);
        let mut evidence = CameraEvidence::asked("c1".parse().unwrap(), Utc::default(), Utc::default());
        evidence.ended = true;
        assert!(rig.forwarder.put_lists(incident, &evidence, false, &mut lists).await.unwrap());
        assert!(rig.out.join(format!("saddar/incidents/{incident}/c1/manifest.json")).exists());
        rig.forwarder.round(&mut lists).await.unwrap();
        assert_eq!(gaps(&mut rig), 0, "told once");
    }
}
