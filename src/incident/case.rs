//! One incident as the engine holds it: its document and what a document does not show. Pure.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use crate::{
    call::state::{self, Change},
    district::{
        clock::{Mono, Now, Utc},
        correction::ClockCorrection,
        evidence::{CameraEvidence, DOCUMENT_OBJECTS, EvidenceObject, GAPS_KEPT, Gap},
        ids::{ButtonId, CameraId, IncidentId, PressId},
        incident::{Incident, PRESSES_SHOWN, PressEntry, PressedAt, TIMELINE_SHOWN, TimelineEntry},
        press::Progress,
    },
    media::fragment::fragment_number,
};

use super::record::{Anchor, Gone, Opened, PressKey, Reboot, Told, more_urgent};

/// How many keys of presses an incident remembers: a press that comes again later than that many others counts anew.
pub const KEYS_KEPT: usize = 256;

/// What begins at once, before any disk answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordOrder {
    /// For which incident.
    pub incident: IncidentId,
    /// At which button.
    pub button: ButtonId,
    /// Which camera.
    pub camera: CameraId,
    /// Its rank in the incident, the best first: what is uploaded first.
    pub rank: u32,
    /// From when; the ring reaches back.
    pub from: Mono,
    /// Until when. A later order for the same pair moves it.
    pub until: Mono,
    /// The same window as the document says it.
    pub window: (Utc, Utc),
    /// When the button was pressed, by the same clock.
    pub pressed_at: Utc,
    /// Whether the gateway was started since the window began.
    pub restarted: bool,
    /// Whether the machine was: then `from` is only when it went on.
    pub rebooted: bool,
    /// What was recorded and is here no longer.
    pub gone: Gone,
}

/// An incident and its bookkeeping.
#[derive(Debug)]
pub struct Case {
    /// What headquarters reads.
    pub document: Incident,
    /// What its presses are recognised by, oldest first, at most [`KEYS_KEPT`].
    pub keys: VecDeque<PressKey>,
    /// What its monotonic times mean.
    pub anchor: Anchor,
    /// The evidence window.
    pub from: Mono,
    /// Its end.
    pub until: Mono,
    /// The last revision that headquarters acknowledged.
    pub delivered: u64,
    /// Presses whose `delivered` the button has not been told yet, and the revision that carries them.
    pub untold: VecDeque<(Option<PressId>, u64)>,
    /// Evidence changed since the last revision.
    pub evidence_changed: bool,
    /// How much evidence that revision told of.
    pub told: Told,
    /// When the document was last put out.
    pub published: Mono,
    /// What is no longer in the media log, for each camera.
    pub gone: BTreeMap<CameraId, Gone>,
    /// Objects and bytes that are in the media log, are at headquarters, and are no longer listed here.
    unlisted: BTreeMap<CameraId, (usize, u64)>,
    /// In memory only: the disk was failing when it last changed.
    pub unstored: bool,
    /// The revision that the last press was put out with, and when.
    pub sent: (u64, Mono),
    /// Presses joined since, and wait for headquarters to acknowledge that one.
    pub behind: bool,
    /// When the next group rings, if nobody answers.
    pub escalates: Option<Mono>,
    /// The first revision that tells of its call's latest ring.
    rang: u64,
}

impl Case {
    /// The case that an [`Opened`] makes.
    pub fn new(opened: Opened) -> Self {
        let Opened { document, keys, from, until, delivered, anchor, gone, told: evidence_told, evidence_changed } =
            opened;
        // The first revision for evidence comes a while after the press, not with its first fragment.
        let pressed = &document.pressed_at;
        let published = Mono::from_boot(Duration::from_millis(pressed.monotonic_ms));
        let anchor = anchor.unwrap_or_else(|| Anchor { boot: pressed.boot.clone(), mono: published, wall: pressed.at });
        let told = delivered >= document.revision;
        let untold = document.presses.iter().filter(|_| !told).map(|p| (p.press.clone(), document.revision)).collect();
        let mut case = Self {
            rang: document.revision,
            document,
            keys: keys.into(),
            anchor,
            from,
            until,
            delivered,
            untold,
            evidence_changed,
            told: evidence_told,
            published,
            gone: gone.into_iter().collect(),
            unlisted: BTreeMap::new(),
            unstored: false,
            sent: (0, published),
            behind: false,
            escalates: None,
        };
        for camera in case.gone.keys().cloned().collect::<Vec<_>>() {
            case.settle(&camera);
        }
        case
    }

    /// The case as a checkpoint holds it.
    pub fn snapshot(&self) -> Opened {
        let mut document = self.document.clone();
        for evidence in &mut document.evidence {
            evidence.objects.clear();
            evidence.settle();
        }
        Opened {
            document,
            keys: self.keys.iter().cloned().collect(),
            from: self.from,
            until: self.until,
            delivered: self.delivered,
            anchor: Some(self.anchor.clone()),
            gone: self.gone.iter().map(|(camera, gone)| (camera.clone(), *gone)).collect(),
            told: self.told,
            evidence_changed: self.evidence_changed,
        }
    }

    /// How much evidence there is.
    pub fn totals(&self) -> Told {
        let evidence = &self.document.evidence;
        Told {
            objects: evidence.iter().map(|e| e.object_count).sum(),
            delivered: evidence.iter().map(|e| e.delivered_count).sum(),
        }
    }

    /// An object that the media log held when the gateway started.
    pub fn found(&mut self, camera: &CameraId, object: EvidenceObject) {
        let changed = self.evidence_changed;
        self.object(camera, object);
        self.evidence_changed = changed;
    }

    /// The gateway was started again. What headquarters has of it, it still has under the new revision.
    pub fn resumed(&mut self, revision: u64, reboot: Option<Reboot>) {
        if self.delivered >= self.document.revision {
            self.delivered = self.delivered.max(revision);
        }
        self.document.revision = self.document.revision.max(revision);
        if let Some(Reboot { anchor, until }) = reboot {
            (self.from, self.until, self.published) = (anchor.mono, until, anchor.mono);
            self.anchor = anchor;
        }
    }

    /// Headquarters' broker has that revision. Whether it is the first proof that its call is known there.
    pub fn reached(&mut self, revision: u64) -> bool {
        let proves = self.rings_untold(revision);
        if let Some(call) = self.document.call.as_mut().filter(|_| proves) {
            call.reached = true;
        }
        proves
    }

    /// Whether that revision would be the first proof.
    pub fn rings_untold(&self, revision: u64) -> bool {
        revision >= self.rang && self.document.call.as_ref().is_some_and(|call| !call.reached)
    }

    /// Whether presses still join it.
    pub fn open(&self) -> bool {
        self.document.state < Progress::Closed
    }

    /// The clock was synchronised.
    pub fn correct_clock(&mut self, correction: ClockCorrection) {
        let by = correction.by_us;
        self.document.correct_clock(correction);
        self.document.revision += 1;
        self.anchor.wall = self.anchor.wall.shifted(by);
        self.gone.values_mut().for_each(|gone| gone.to = gone.to.shifted(by));
        let seconds = by as f64 / 1e6;
        self.note(correction.at, format!("clock synchronised: times before this moved by {seconds:+.3} s"), "clock");
    }

    /// What the clock of its press has to be corrected by, if this is the first time it is known: in the same boot, by
    /// what the monotonic clock says.
    pub fn clock_correction(&self, boot: &str, now: Now) -> Option<ClockCorrection> {
        let PressedAt { at, clock_synchronised, clock_correction, monotonic_ms, boot: of, .. } =
            &self.document.pressed_at;
        if *clock_synchronised || clock_correction.is_some() || of != boot || !now.synchronised {
            return None;
        }
        let pressed = Mono::from_boot(Duration::from_millis(*monotonic_ms));
        let is = now.wall.before(now.mono.since(pressed));
        Some(ClockCorrection { by_us: is.micros().saturating_sub(at.micros()), at: now.wall })
    }

    /// A press that belongs to it. Returns the oldest key when it is forgotten for this one.
    pub fn join(&mut self, entry: PressEntry, key: PressKey, until: Mono) -> Option<PressKey> {
        let doc = &mut self.document;
        doc.kind = more_urgent(doc.kind, entry.kind);
        doc.press_count += 1;
        doc.revision += 1;
        self.untold.push_back((entry.press.clone(), doc.revision));
        if self.untold.len() > PRESSES_SHOWN {
            self.untold.pop_front();
        }
        let what = match &entry.press {
            Some(id) => format!("pressed again ({id})"),
            None => "pressed again".to_owned(),
        };
        let at = entry.at;
        // The first press stays; of the others the latest.
        if doc.presses.len() >= PRESSES_SHOWN {
            doc.presses.remove(1);
        }
        doc.presses.push(entry);
        self.note(at, what, "journal");
        self.extend(until);
        self.keys.push_back(key);
        if self.keys.len() > KEYS_KEPT { self.keys.pop_front() } else { None }
    }

    /// Moves the end of the evidence window, never back.
    pub fn extend(&mut self, until: Mono) {
        if until <= self.until {
            return;
        }
        self.until = until;
        let to = self.anchor.wall.after(until.since(self.anchor.mono));
        for evidence in &mut self.document.evidence {
            evidence.to = evidence.to.max(to);
            evidence.ended = false;
            evidence.complete = false;
        }
    }

    /// Adds a line to the history; of too many the middle goes.
    pub fn note(&mut self, at: Utc, what: String, proof: &str) {
        let timeline = &mut self.document.timeline;
        if timeline.len() >= TIMELINE_SHOWN {
            timeline.remove(TIMELINE_SHOWN / 2);
        }
        timeline.push(TimelineEntry { at, what, proof: proof.to_owned() });
    }

    /// Something happened to its call.
    pub fn call(&mut self, change: Change, at: Utc) {
        let Some(call) = &mut self.document.call else { return };
        let line = state::line(call, &change);
        let worth_telling = !matches!(change, Change::Spoke(_));
        let answered = matches!(change, Change::Took { .. });
        let rings = matches!(change, Change::Rang { .. });
        state::apply(call, change, at);
        if let Some(line) = line {
            self.note(at, line, "journal");
        }
        let voice = CameraId::of_operator();
        if answered && self.evidence(&voice).is_none() {
            // What the operator says is evidence like what a camera sees, from when she answers.
            let to = self.anchor.wall.after(self.until.since(self.anchor.mono));
            self.document.evidence.push(CameraEvidence::asked(voice, at, to.max(at)));
        }
        if worth_telling {
            self.document.revision += 1;
            self.rang = if rings { self.document.revision } else { self.rang };
        } else {
            // With the next revision for evidence, of which it is a part.
            self.evidence_changed = true;
        }
    }

    /// The evidence of one camera.
    pub fn evidence(&mut self, camera: &CameraId) -> Option<&mut CameraEvidence> {
        self.document.evidence.iter_mut().find(|e| e.camera == *camera)
    }

    /// An object is on disk here, or headquarters has it, as somebody tells who may be late: what has been removed since
    /// is counted already.
    pub fn told(&mut self, camera: &CameraId, object: EvidenceObject) {
        let gone = self.gone.get(camera).is_some_and(|gone| gone.covers(&object.name));
        if !gone || self.evidence(camera).is_some_and(|e| e.objects.iter().any(|o| o.name == object.name)) {
            self.object(camera, object);
        }
    }

    /// An object is on disk here, or headquarters has it.
    pub fn object(&mut self, camera: &CameraId, object: EvidenceObject) {
        let Some(evidence) = self.evidence(camera) else { return };
        match evidence.objects.iter_mut().rfind(|o| o.name == object.name) {
            // Who stores it may tell of it after who has delivered it.
            Some(known) => {
                let delivered = object.delivered || (known.delivered && known.sha256 == object.sha256);
                *known = EvidenceObject { delivered, ..object };
            }
            None => {
                let number = fragment_number(&object.name);
                let is_later = |o: &&EvidenceObject| number.is_some() && fragment_number(&o.name) > number;
                let behind = evidence.objects.iter().rev().take_while(is_later).count();
                evidence.objects.insert(evidence.objects.len() - behind, object);
            }
        }
        self.unlist(camera);
        self.settle(camera);
        self.evidence_changed = true;
    }

    /// Keeps the list short however long an incident lasts: the oldest that headquarters has are only counted.
    fn unlist(&mut self, camera: &CameraId) {
        let Some(evidence) = self.document.evidence.iter_mut().find(|e| e.camera == *camera) else { return };
        if evidence.objects.len() < 2 * DOCUMENT_OBJECTS {
            return;
        }
        let over = evidence.objects.len() - DOCUMENT_OBJECTS;
        let confirmed = evidence.objects.iter().take(over).take_while(|o| o.delivered).count();
        let (objects, bytes) = self.unlisted.entry(camera.clone()).or_default();
        *objects += confirmed;
        *bytes += evidence.objects.drain(..confirmed).map(|o| o.size).sum::<u64>();
    }

    /// Works out the counts of a camera's evidence: of what is listed, and what is not.
    fn settle(&mut self, camera: &CameraId) {
        let Some(evidence) = self.document.evidence.iter_mut().find(|e| e.camera == *camera) else { return };
        evidence.settle();
        let (mut objects, mut bytes) = self.unlisted.get(camera).copied().unwrap_or_default();
        if let Some(gone) = self.gone.get(camera) {
            (objects, bytes) = (objects + gone.objects, bytes + gone.bytes);
        }
        evidence.object_count += objects;
        evidence.delivered_count += objects;
        evidence.bytes += bytes;
        let whole = evidence.object_count > 0 && evidence.delivered_count == evidence.object_count;
        evidence.complete = evidence.ended && evidence.gaps.is_empty() && whole;
    }

    /// Objects were removed from the media log; headquarters has them. A [`super::record::Record::Evicted`] counts them.
    pub fn forget(&mut self, camera: &CameraId, names: &[String], bytes: u64) {
        let Some(evidence) = self.document.evidence.iter_mut().find(|e| e.camera == *camera) else { return };
        let (objects, size) = (evidence.objects.len(), evidence.objects.iter().map(|o| o.size).sum::<u64>());
        evidence.objects.retain(|o| !names.contains(&o.name));
        let listed = objects - evidence.objects.len();
        let listed_bytes = size - evidence.objects.iter().map(|o| o.size).sum::<u64>();
        let unlisted = self.unlisted.entry(camera.clone()).or_default();
        unlisted.0 = unlisted.0.saturating_sub(names.len().saturating_sub(listed));
        unlisted.1 = unlisted.1.saturating_sub(bytes.saturating_sub(listed_bytes));
    }

    /// So much more is no longer in the media log.
    pub fn evicted(&mut self, camera: CameraId, more: Gone) {
        let gone = self.gone.entry(camera.clone()).or_default();
        *gone = gone.and(more);
        self.settle(&camera);
    }

    /// Nobody holds an interval.
    pub fn gap(&mut self, camera: &CameraId, gap: Gap) {
        let correction = self.document.pressed_at.clock_correction;
        let Some(evidence) = self.evidence(camera) else { return };
        let gap = correction.map_or(gap.clone(), |c| {
            let window = (evidence.from, evidence.to);
            Gap { from: c.fit(gap.from, window), to: c.fit(gap.to, window), ..gap }
        });
        if evidence.gaps.contains(&gap) {
            return;
        }
        let full = evidence.gaps.len() >= GAPS_KEPT;
        match evidence.gaps.last_mut() {
            // One outage is one gap, however often it is reported.
            Some(last) if full || (last.reason == gap.reason && gap.from <= last.to) => last.to = last.to.max(gap.to),
            _ => evidence.gaps.push(gap),
        }
        self.settle(camera);
        self.evidence_changed = true;
    }

    /// Recording of a camera has ended.
    pub fn evidence_ended(&mut self, camera: &CameraId) {
        if let Some(evidence) = self.evidence(camera) {
            evidence.ended = true;
            self.settle(camera);
            self.evidence_changed = true;
        }
    }

    /// The recording of each camera, and whether it has ended already.
    pub fn orders(&self) -> impl Iterator<Item = (RecordOrder, bool)> {
        let rebooted = self.anchor.boot != self.document.pressed_at.boot;
        let order = move |(rank, e): (u32, &CameraEvidence)| {
            let (incident, camera, button) = (self.document.id, e.camera.clone(), self.document.button.id.clone());
            // What an operator says begins when she answers.
            let later =
                if e.camera == CameraId::of_operator() { e.from.since(self.anchor.wall) } else { Duration::ZERO };
            let from = if later.is_zero() { self.from } else { self.anchor.mono + later };
            let (until, window) = (self.until, (e.from, e.to));
            let gone = self.gone.get(&e.camera).copied().unwrap_or_default();
            let restarted = false;
            let pressed_at = self.document.pressed_at.at;
            let order = RecordOrder {
                incident,
                button,
                camera,
                rank,
                from,
                until,
                window,
                pressed_at,
                restarted,
                rebooted,
                gone,
            };
            (order, e.ended)
        };
        (0..).zip(&self.document.evidence).map(order)
    }

    /// Whether every camera's recording has ended.
    pub fn all_ended(&self) -> bool {
        self.document.evidence.iter().all(|e| e.ended)
    }

    /// Whether nothing of it is on its way any more: it may leave memory. A gateway that stands alone sends nothing.
    pub fn finished(&self, alone: bool) -> bool {
        let at_headquarters = self.delivered >= self.document.revision
            && !self.evidence_changed
            && self.document.evidence.iter().all(|e| e.delivered_count == e.object_count);
        !self.open() && self.all_ended() && (alone || at_headquarters)
    }
}
