//! The media log on a disk that crashes at every operation and on one that refuses: making room, evidence that is written
//! again for it, words about gaps, and an index that is there, gone or old afterwards.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::atomic::Ordering::Relaxed,
};

use futures::FutureExt;

use super::*;
use crate::{
    district::{clock::Utc, ids::IncidentId},
    host::scope::Scope,
    spool::{
        disk::Disk,
        media_log::MediaStore,
        object::{Buffer, Kept},
        retention::SegmentUse,
        segment::SEGMENT_HEADER,
        sim::SimDisk,
    },
};

/// How many histories of crashes in a row to try; more by hand.
const SEEDS: u64 = 12;

fn settings() -> MediaSettings {
    MediaSettings {
        segment_bytes: 12 << 10,
        quota: 60 << 10,
        keep_free: 0,
        queue_bytes: 40 << 10,
        sync_every: Duration::ZERO,
        recent_bytes: 4 << 10,
    }
}

/// Where indexes lie: in memory, where there is such a place.
fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A media log that is open, and who waits for it.
struct Open {
    store: MediaStore,
    writer: Writer,
    heard: mpsc::Receiver<Vec<Evicted>>,
    storing: Vec<(ObjectMeta, Ticket<ObjectRef>)>,
    /// Whether the disk says that nothing is damaged.
    sound: bool,
    /// Bytes that the start found and wrote again; none any more once room was made.
    found: u64,
}

fn open(disk: &SimDisk, dir: &Path) -> Result<Open, Error> {
    let before: u64 = disk.list(dir).unwrap_or_default().iter().map(|file| file.bytes).sum();
    let (store, writer, heard, report) =
        MediaStore::prepare(Arc::new(disk.clone()), dir, settings(), &Scope::new("test"))?;
    let current = writer.log.current_segment().and_then(|number| writer.indexing.uses.get(&number));
    // Written, or tried in vain.
    let tried: u64 = writer.unwritten.iter().map(|record| record.header.record_len()).sum();
    let rewritten = current.map_or(SEGMENT_HEADER + tried, |held| held.bytes);
    Ok(Open { store, writer, heard, storing: Vec::new(), sound: report.is_sound(), found: before + rewritten })
}

/// What was handed over.
struct Known {
    meta: ObjectMeta,
    payload: Bytes,
    /// As far as it was said to be durable.
    stored: Option<ObjectMeta>,
    /// Headquarters has it.
    there: bool,
}

/// What a media log is expected to hold.
struct Model {
    rng: fastrand::Rng,
    objects: BTreeMap<Vec<u8>, Known>,
    next: u32,
    /// What is written chunk by chunk: all of it, and as far as it is.
    making: Option<(ObjectMeta, Bytes, ObjectMeta)>,
    /// To be ended where it is, since a chunk was refused.
    ending: Option<ObjectMeta>,
    /// Words about gaps that were seen, as they were last seen.
    words: BTreeMap<Vec<u8>, ObjectMeta>,
    /// Words that headquarters heard.
    told: Vec<ObjectMeta>,
    /// On their way to headquarters, as they were read; and marks come later.
    under_way: Vec<(u8, ObjectRef)>,
    evictions: u64,
    /// Objects that went before headquarters had them.
    dropped: u64,
    /// Bytes that were written again to make room, by this process and the one before.
    carried: [u64; 2],
    /// Whether the disk refused something.
    refused: bool,
}

fn covers(word: &ObjectMeta, meta: &ObjectMeta) -> bool {
    word.camera == meta.camera && word.from <= meta.from && meta.to <= word.to
}

fn short(words: &[ObjectMeta]) -> String {
    let word = |m: &ObjectMeta| format!(" {} {}-{}", m.camera, m.from.micros() / 1_000_000, m.to.micros() / 1_000_000);
    words.iter().map(word).collect()
}

impl Model {
    fn new(seed: u64) -> Self {
        Self {
            rng: fastrand::Rng::with_seed(seed),
            objects: BTreeMap::new(),
            next: 0,
            making: None,
            ending: None,
            words: BTreeMap::new(),
            told: Vec::new(),
            under_way: Vec::new(),
            evictions: 0,
            dropped: 0,
            carried: [0; 2],
            refused: false,
        }
    }

    /// The next second of a camera: evidence, or of a buffer.
    fn object(&mut self) -> (ObjectMeta, Bytes) {
        self.next += 1;
        let n = self.next;
        let kept = match self.rng.u8(0..8) {
            0 | 1 => Kept::Evidence { incident: IncidentId::derive(1_000 + u64::from(n / 20), b"x") },
            2 => Kept::Buffer { buffer: Buffer::Bulk },
            _ => Kept::Buffer { buffer: Buffer::Outage },
        };
        let payload = vec![n as u8; self.rng.usize(300..2_500)];
        // Now and then a while passes.
        let from = Utc::from_micros((i64::from(n) + i64::from(n / 16) * 30) * 1_000_000);
        let meta = ObjectMeta {
            kept,
            camera: if self.rng.u8(0..3) == 0 { "c2".parse().unwrap() } else { "c1".parse().unwrap() },
            rank: 0,
            urgent: false,
            name: format!("{n:05}.m4s"),
            number: n,
            from,
            to: from.shifted(1_000_000),
            duration_us: 1_000_000,
            key: true,
            sha256: [n as u8; 32],
            size: payload.len() as u64,
            gap: None,
            chunk: 0,
            extra: serde_json::Value::Null,
        };
        (meta, payload.into())
    }

    fn work(&mut self, open: &mut Open, disk: &SimDisk, steps: usize) {
        for _ in 0..steps {
            for _ in 0..self.rng.usize(0..10) {
                self.append(open);
            }
            self.deliver(open);
            for _ in 0..6 {
                // Now and then what was written is due still when more is.
                let refused = if self.rng.u8(0..3) == 0 { open.writer.turn() } else { open.writer.step() };
                self.hear(open);
                if disk.is_cut() {
                    return;
                }
                self.look(open);
                if matches!(refused, None | Some(Error::Full { .. })) {
                    break;
                }
            }
        }
        open.writer.settle(None);
        self.hear(open);
        open.found = 0;
    }

    /// Hands an object over, or a chunk of one.
    fn append(&mut self, open: &mut Open) {
        if let Some(meta) = self.ending.take() {
            match open.store.append_chunk(meta.clone(), Bytes::new(), false) {
                Ok(ticket) => open.storing.push((meta, ticket)),
                Err(_) => self.ending = Some(meta),
            }
            return;
        }
        let (all, payload, before) = match self.making.take() {
            Some((all, payload, before)) => (all, payload, Some(before)),
            None => {
                let (all, payload) = self.object();
                (all, payload, None)
            }
        };
        let from = before.as_ref().map_or(0, |m| m.size as usize);
        let whole = before.is_none() && self.rng.bool();
        let to = if whole { payload.len() } else { self.rng.usize(from + 1..=payload.len()) };
        let more = to < payload.len() && self.rng.u8(0..5) != 0;
        let span = Duration::from_millis((1_000 * to / payload.len()).max(1) as u64);
        let mut sha256 = all.sha256;
        sha256[..8].copy_from_slice(&to.to_be_bytes());
        let chunk = before.as_ref().map_or(0, |m| m.chunk + 1);
        let meta = ObjectMeta { size: to as u64, to: all.from.after(span), sha256, chunk, ..all.clone() };
        match open.store.append_chunk(meta.clone(), payload.slice(from..to), more) {
            Ok(ticket) => {
                let stored = self.objects.remove(&meta.key()).and_then(|known| known.stored);
                let known = Known { meta: meta.clone(), payload: payload.slice(..to), stored, there: false };
                self.objects.insert(meta.key(), known);
                open.storing.push((meta.clone(), ticket));
                self.making = more.then_some((all, payload, meta));
            }
            Err(_) => self.ending = before.map(|meta| ObjectMeta { chunk: meta.chunk + 1, ..meta }),
        }
    }

    /// Some of what waits goes to headquarters; the mark follows later, as it was read.
    fn deliver(&mut self, open: &mut Open) {
        if self.rng.u8(0..3) == 0 {
            let pending = open.writer.shared.index().unwrap().pending(None, 1_000).unwrap();
            for object in &pending {
                if self.rng.u8(0..6) != 0 {
                    continue;
                }
                self.under_way.push((self.rng.u8(0..4), object.clone()));
                match (&object.meta.gap, self.objects.get_mut(&object.meta.key())) {
                    (Some(_), _) => self.told.push(object.meta.clone()),
                    (None, Some(known)) => known.there = true,
                    (None, None) => panic!("{object} was never handed over"),
                }
            }
        }
        for (later, object) in std::mem::take(&mut self.under_way) {
            match later {
                0 => drop(open.store.delivered(&object).unwrap()),
                _ => self.under_way.push((later - 1, object)),
            }
        }
    }

    /// Takes what was said since the last time.
    fn hear(&mut self, open: &mut Open) {
        let objects = &mut self.objects;
        open.storing.retain_mut(|(meta, ticket)| match ticket.now_or_never() {
            None => true,
            Some(stored) => {
                if stored.is_ok() {
                    objects.get_mut(&meta.key()).unwrap().stored = Some(meta.clone());
                }
                false
            }
        });
        while let Ok(parts) = open.heard.try_recv() {
            assert!(parts.iter().all(|p| p.delivered), "{parts:?}");
        }
        self.carried[0] = open.writer.carried;
        self.evictions = self.evictions.max(open.writer.shared.counts.evicted.load(Relaxed));
        self.dropped = self.dropped.max(open.writer.shared.counts.dropped.load(Relaxed));
    }

    /// Notes which words about gaps there are.
    fn look(&mut self, open: &Open) {
        for object in open.writer.shared.index().unwrap().pending(None, usize::MAX).unwrap() {
            if object.meta.gap.is_some() {
                self.words.insert(object.meta.key(), object.meta);
            }
        }
    }

    /// What was said to be durable is there once, or headquarters has it, or there is a word that it is gone.
    fn check(&self, open: &Open, what: &str) {
        let index = open.writer.shared.index().unwrap();
        let pending = index.pending(None, usize::MAX).unwrap();
        let words: Vec<_> = pending.iter().map(|o| &o.meta).filter(|m| m.gap.is_some()).cloned().collect();
        let unwritten = open.writer.unwritten.iter().filter_map(|r| serde_json::from_slice::<ObjectMeta>(&r.meta).ok());
        let unwritten: Vec<_> = unwritten.collect();
        let heard: Vec<_> =
            words.iter().chain(&self.told).chain(unwritten.iter().filter(|m| m.gap.is_some())).cloned().collect();
        let begun = self.making.as_ref().map(|(all, ..)| all).or(self.ending.as_ref());
        // Nobody hears of what has not ended, or whose end waits for the disk.
        let storing = open.storing.iter().map(|(meta, _)| meta);
        let waits: BTreeSet<_> =
            begun.into_iter().chain(storing).cloned().chain(unwritten).map(|meta| meta.key()).collect();
        let begun = begun.map(ObjectMeta::key);
        for (key, known) in &self.objects {
            let row = index.get(key).unwrap();
            let read = row.as_ref().map(|row| (row, open.writer.shared.read(row)));
            if let Some((row, Ok(bytes))) = &read {
                // Chunks that nobody was told of may be there, and may not.
                assert_eq!(*bytes, known.payload.slice(..bytes.len()), "{what}: {row}");
                assert_eq!(bytes.len() as u64, row.meta.size, "{what}: {row}");
                let promised = known.stored.as_ref().map_or(0, |meta| meta.size);
                assert!(row.meta.size >= promised, "{what}: {row}: {} of {promised}", row.meta.size);
            }
            if let Some((row, _)) = &read {
                assert_ne!(begun.as_ref(), Some(key), "{what}: {row} has not ended");
                assert!(!row.delivered || known.there, "{what}: {row} is not at headquarters");
            }
            // What was never promised may have been found after a kill and be lost by a power cut; what has gone with a word
            // may come back with an index that is built anew, where the disk refused to cut it off.
            let is_lost = read.is_none_or(|(_, read)| read.is_err());
            if let Some(meta) = known.stored.as_ref().filter(|_| is_lost && !known.there && !waits.contains(key)) {
                let evicted = heard.iter().any(|word| covers(word, meta));
                assert!(!meta.stays() && evicted, "{what}: {meta:?} is gone, and nobody says so: {}", short(&heard));
            }
        }
        // A word that was said once is said until headquarters has heard it.
        for word in self.words.values() {
            assert!(heard.iter().any(|w| covers(w, word)), "{what}: no word any more about {word:?}");
        }
        for word in &words {
            let within = |m: &ObjectMeta| m.camera == word.camera && word.from <= m.from && m.from < word.to;
            let metas = self.objects.values().map(|k| &k.meta).filter(|m| !m.stays() && within(m));
            let (bytes, most) = (word.gap.unwrap().bytes, metas.map(|m| m.size).sum::<u64>());
            assert!(bytes <= most, "{what}: {bytes} of {most} bytes: {word:?}");
        }
        let mut keys: Vec<_> = pending.iter().map(|o| o.meta.key()).collect();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), pending.len(), "{what}: something waits twice");
        let counted = |uses: &BTreeMap<u64, SegmentUse>| {
            let uses = uses.values().filter(|u| u.objects > 0).map(|u| SegmentUse { bytes: 0, ..*u });
            uses.collect::<Vec<_>>()
        };
        assert_eq!(counted(&open.writer.indexing.uses), counted(&index.uses().unwrap()), "{what}: counts of segments");
        // What a start writes again waits for no room, but it adds nothing else; and where a disk would not remove what it was
        // carried over from, that is there twice.
        let used: u64 = open.writer.indexing.uses.values().map(|u| u.bytes).sum();
        let twice = if self.refused { self.carried.iter().sum() } else { 0 };
        let most = open.found.max(settings().quota + 24_000 + twice);
        assert!(used <= most, "{what}: {used} bytes, at most {most}");
    }

    /// After a crash: nobody waits any more, and what was under way goes again.
    fn crashed(&mut self) {
        self.under_way.clear();
        self.carried = [0, self.carried[0]];
        (self.making, self.ending) = (None, None);
    }

    fn reopen(&mut self, disk: &SimDisk, dir: &Path, what: &str) -> Option<Open> {
        self.crashed();
        let open = open(disk, dir).inspect_err(|e| assert!(disk.is_cut() || disk.faults() > 0, "{what}: {e}")).ok()?;
        disk.fail(0);
        // What a disk refused to write and then refused to cut off looks like damage.
        assert!(open.sound || disk.faults() > 0 || self.refused, "{what}");
        self.check(&open, what);
        Some(open)
    }
}

/// What of the index a crash leaves.
fn index_after(dir: &Path, choice: u64) {
    if choice % 2 == 1 {
        std::fs::remove_dir_all(dir.join("index")).unwrap();
    }
}

#[test]
fn a_power_cut_at_any_operation_while_room_is_made_loses_no_evidence_and_no_word_about_what_went() {
    for seed in 0..2 {
        let (full, steps) = (18, 6);
        let clean = SimDisk::new(seed);
        let mut model = Model::new(seed);
        let dir = scratch();
        let mut log = model.reopen(&clean, dir.path(), "clean").unwrap();
        model.work(&mut log, &clean, full);
        let from = clean.ops();
        model.work(&mut log, &clean, steps);
        model.check(&log, "clean");
        assert!(model.evictions > 1 && model.dropped > 0, "seed {seed}: {} {}", model.evictions, model.dropped);
        drop(log);
        for at in from..=clean.ops() {
            let what = format!("seed {seed}, cut at {at}");
            let (disk, dir) = (SimDisk::new(seed), scratch());
            disk.cut_after(at);
            let mut model = Model::new(seed);
            if let Some(mut log) = model.reopen(&disk, dir.path(), &what) {
                model.work(&mut log, &disk, full + steps);
            }
            index_after(dir.path(), at);
            let disk = disk.after_power_cut();
            let mut log = model.reopen(&disk, dir.path(), &what).expect(&what);
            model.work(&mut log, &disk, 4);
            model.check(&log, &what);
        }
    }
}

#[test]
fn kills_and_power_cuts_in_a_row_while_room_is_made_lose_no_evidence_and_no_word_about_what_went() {
    let (mut evictions, mut dropped) = (0, 0);
    for seed in 0..SEEDS {
        let (mut disk, dir) = (SimDisk::new(seed), scratch());
        let mut model = Model::new(seed);
        for round in 0..6 {
            let what = format!("seed {seed}, round {round}");
            disk.cut_after(model.rng.u64(10..140));
            if let Some(mut log) = model.reopen(&disk, dir.path(), &what) {
                model.work(&mut log, &disk, 40);
            }
            index_after(dir.path(), model.rng.u64(..));
            disk = if model.rng.bool() { disk.after_kill() } else { disk.after_power_cut() };
        }
        let what = format!("seed {seed}, the end");
        model.reopen(&disk.after_power_cut(), dir.path(), &what).unwrap();
        (evictions, dropped) = (evictions + model.evictions, dropped + model.dropped);
    }
    assert!(evictions > SEEDS && dropped > 0);
}

#[test]
fn a_disk_that_refuses_now_and_then_while_room_is_made_loses_no_evidence_and_no_word_about_what_went() {
    let (mut faults, mut evictions) = (0, 0);
    for seed in 0..SEEDS {
        let (mut disk, dir) = (SimDisk::new(seed), scratch());
        let mut model = Model::new(seed);
        for round in 0..4 {
            let what = format!("seed {seed}, round {round}");
            disk.cut_after(model.rng.u64(60..400));
            // Every other start finds it so already.
            if model.rng.bool() {
                disk.fail(model.rng.u8(1..20));
                model.refused = true;
            }
            if let Some(mut log) = model.reopen(&disk, dir.path(), &what) {
                disk.fail(model.rng.u8(1..30));
                model.work(&mut log, &disk, 40);
                if !disk.is_cut() {
                    model.check(&log, &what);
                }
            }
            faults += disk.faults();
            model.refused |= disk.faults() > 0;
            disk.fail(0);
            index_after(dir.path(), model.rng.u64(..));
            disk = if model.rng.bool() { disk.after_kill() } else { disk.after_power_cut() };
        }
        model.reopen(&disk.after_power_cut(), dir.path(), &format!("seed {seed}, the end")).unwrap();
        evictions += model.evictions;
    }
    assert!(faults > 100 && evictions > 0, "{faults} {evictions}");
}

#[test]
fn starts_that_power_cuts_interrupt_one_after_the_other_lose_nothing_that_was_durable() {
    for seed in 0..30 {
        let (mut disk, dir) = (SimDisk::new(seed), scratch());
        let mut model = Model::new(seed);
        let mut log = model.reopen(&disk, dir.path(), "new").unwrap();
        model.work(&mut log, &disk, 6);
        drop(log);
        for start in 0..6 {
            let what = format!("seed {seed}, start {start}");
            disk = if model.rng.bool() { disk.after_kill() } else { disk.after_power_cut() };
            index_after(dir.path(), model.rng.u64(..));
            disk.cut_after(model.rng.u64(1..8));
            if let Some(mut log) = model.reopen(&disk, dir.path(), &what) {
                model.work(&mut log, &disk, 1);
            }
        }
        model.reopen(&disk.after_power_cut(), dir.path(), &format!("seed {seed}, the end")).unwrap();
    }
}

/// Stores one object at once.
fn stored(open: &mut Open, model: &mut Model, meta: ObjectMeta, payload: Bytes) -> ObjectRef {
    model.next = meta.number;
    let ticket = open.store.append(meta, payload).unwrap();
    open.writer.step();
    ticket.now_or_never().unwrap().unwrap()
}

#[test]
fn a_word_about_a_gap_that_grew_while_headquarters_was_told_of_it_is_told_again() {
    let (disk, dir) = (SimDisk::new(1), scratch());
    let mut model = Model::new(1);
    let mut log = model.reopen(&disk, dir.path(), "new").unwrap();
    let outage = Kept::Buffer { buffer: Buffer::Outage };
    let words = |log: &Open| {
        let pending = log.writer.shared.index().unwrap().pending(None, usize::MAX).unwrap();
        pending.into_iter().filter(|o| o.meta.gap.is_some()).collect::<Vec<_>>()
    };
    let (mut first, mut n) = (None, 0_u32);
    let told = loop {
        n += 1;
        let (meta, _) = model.object();
        let (from, payload) = (Utc::from_micros(i64::from(n) * 1_000_000), Bytes::from(vec![n as u8; 2_000]));
        let camera = "c1".parse().unwrap();
        let meta =
            ObjectMeta { kept: outage, camera, from, to: from.shifted(1_000_000), number: n, size: 2_000, ..meta };
        stored(&mut log, &mut model, meta, payload);
        match (&first, words(&log).pop()) {
            (None, Some(word)) => first = Some(word),
            (Some(told), Some(word)) if told.meta != word.meta => break told.clone(),
            _ => assert!(n < 200),
        }
    };
    let ticket = log.store.delivered(&told).unwrap();
    log.writer.step();
    ticket.now_or_never().unwrap().unwrap();
    let waits = words(&log);
    assert_eq!(waits.len(), 1, "what headquarters heard was shorter");
    assert!(waits[0].meta.to > told.meta.to && waits[0].meta.from == told.meta.from);
    drop(log);
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let log = open(&disk.after_kill(), dir.path()).unwrap();
    assert_eq!(words(&log), waits, "nor does an index that is built anew believe it");
}
