//! The journal on a disk that crashes at every operation, and on one that refuses.

use std::time::Duration;

use super::*;
use crate::spool::{
    journal_writer::{records, snapshot_records},
    log::Log,
    sim::SimDisk,
};

const DIR: &str = "/journal";
/// Kinds of entries: an item, and the beginning of a snapshot, which forgets the items before it.
const ITEM: u8 = 1;
const RESET: u8 = 2;

/// How many histories to try; more by hand.
const SEEDS: u64 = 60;

fn settings() -> JournalSettings {
    JournalSettings { segment_bytes: 4 << 10, queue_bytes: 1 << 20, reserve_bytes: 8 << 10 }
}

/// What a journal is expected to hold: items 0, 1, 2, ... in order.
struct Model {
    rng: fastrand::Rng,
    /// Items below this were acknowledged.
    acknowledged: u64,
    /// Where groups that were submitted end.
    ends: Vec<u64>,
}

impl Model {
    fn new(seed: u64) -> Self {
        Self { rng: fastrand::Rng::with_seed(seed), acknowledged: 0, ends: vec![0] }
    }

    fn item(&mut self, number: u64) -> Entry {
        let mut payload = number.to_le_bytes().to_vec();
        let len = if self.rng.u8(0..8) == 0 { self.rng.usize(0..6_000) } else { self.rng.usize(0..300) };
        payload.resize(8 + len, number as u8);
        Entry { kind: ITEM, payload: payload.into() }
    }

    /// Groups for one commit.
    fn batch(&mut self) -> Vec<Vec<Entry>> {
        let mut next = *self.ends.last().unwrap();
        let mut groups = Vec::new();
        for _ in 0..self.rng.usize(1..4) {
            let n = self.rng.u64(1..4);
            groups.push((next..next + n).map(|i| self.item(i)).collect());
            next += n;
            self.ends.push(next);
        }
        groups
    }

    fn snapshot(&mut self) -> Vec<Entry> {
        let mut entries = vec![Entry { kind: RESET, payload: Bytes::new() }];
        entries.extend((0..self.acknowledged).map(|i| Entry { kind: ITEM, payload: i.to_le_bytes().to_vec().into() }));
        entries
    }

    /// Everything acknowledged is there once, in order; beyond that only whole groups.
    fn check(&self, entries: &[Entry], what: &str) -> u64 {
        let mut items = Vec::new();
        for entry in entries {
            match entry.kind {
                RESET => items.clear(),
                _ => items.push(u64::from_le_bytes(entry.payload[..8].try_into().unwrap())),
            }
        }
        assert!(items.iter().copied().eq(0..items.len() as u64), "{what}: order {items:?}");
        let n = items.len() as u64;
        assert!(n >= self.acknowledged, "{what}: {n} items of {} acknowledged", self.acknowledged);
        assert!(self.ends.contains(&n), "{what}: half a group, {n} items, groups end at {:?}", self.ends);
        n
    }

    /// Opens and checks; `None` when the disk went away meanwhile.
    fn open(&mut self, disk: &SimDisk, what: &str) -> Option<Log> {
        let mut opened = open_log(Arc::new(disk.clone()), Path::new(DIR), settings()).ok()?;
        let found = self.check(&opened.entries, what);
        assert!(opened.report.is_sound(), "{what}: {:?}", opened.report);
        if let Some(unfinished) = opened.unfinished.take() {
            (0..100).find(|_| disk.is_cut() || unfinished.finish(&mut opened.log).is_ok()).expect("finished");
        }
        if disk.is_cut() {
            return None;
        }
        // What was found has been written again: it is as good as acknowledged, and nothing else can come back.
        self.acknowledged = found;
        self.ends.retain(|e| *e <= found);
        Some(opened.log)
    }

    fn first_segment(&self, disk: &SimDisk) -> u64 {
        let listed = disk.list(Path::new(DIR)).unwrap();
        listed.iter().filter_map(|l| crate::spool::segment::number_of(&l.name)).min().unwrap()
    }

    /// Commits or checkpoints `steps` times, each tried until it works; ends when the disk is gone.
    fn work(&mut self, log: &mut Log, disk: &SimDisk, steps: usize) {
        for _ in 0..steps {
            if self.rng.u8(0..6) == 0 {
                let snapshot = self.snapshot();
                let _ = log.checkpoint(&snapshot_records(&snapshot));
            } else {
                let groups = self.batch();
                let batch: Vec<_> = groups.iter().flat_map(|g| records(g)).collect();
                while log.commit(&batch).is_err() {
                    if disk.is_cut() {
                        return;
                    }
                }
                self.acknowledged = *self.ends.last().unwrap();
            }
            if self.rng.u8(0..4) == 0 {
                log.top_up();
            }
        }
    }
}

#[test]
fn a_power_cut_at_any_operation_loses_nothing_acknowledged_and_repeats_nothing() {
    for seed in 0..4 {
        let clean = SimDisk::new(seed);
        let mut model = Model::new(seed);
        let mut log = model.open(&clean, "clean").unwrap();
        model.work(&mut log, &clean, 12);
        for at in 1..=clean.ops() {
            let what = format!("seed {seed}, cut at {at}");
            let disk = SimDisk::new(seed);
            disk.cut_after(at);
            let mut model = Model::new(seed);
            if let Some(mut log) = model.open(&disk, &what) {
                model.work(&mut log, &disk, 12);
            }
            let disk = disk.after_power_cut();
            let mut log = model.open(&disk, &what).expect(&what);
            model.work(&mut log, &disk, 3);
            model.open(&disk.after_power_cut(), &what).expect(&what);
        }
    }
}

#[test]
fn kills_and_power_cuts_in_a_row_lose_nothing_acknowledged() {
    for seed in 0..SEEDS {
        let mut disk = SimDisk::new(seed);
        let mut model = Model::new(seed);
        for round in 0..8 {
            let what = format!("seed {seed}, round {round}");
            disk.cut_after(model.rng.u64(1..60));
            if let Some(mut log) = model.open(&disk, &what) {
                model.work(&mut log, &disk, 20);
            }
            disk = if model.rng.bool() { disk.after_kill() } else { disk.after_power_cut() };
        }
        model.open(&disk.after_power_cut(), &format!("seed {seed}, the end")).unwrap();
    }
}

#[test]
fn a_disk_that_refuses_now_and_then_and_forgets_dirty_pages_loses_nothing_acknowledged() {
    let mut faults = 0;
    for seed in 0..SEEDS {
        let mut disk = SimDisk::new(seed);
        let mut model = Model::new(seed);
        for round in 0..5 {
            let what = format!("seed {seed}, round {round}");
            disk.fail(model.rng.u8(1..30));
            disk.cut_after(model.rng.u64(20..200));
            if let Some(mut log) = model.open(&disk, &what) {
                model.work(&mut log, &disk, 20);
            }
            faults += disk.faults();
            disk = if model.rng.bool() { disk.after_kill() } else { disk.after_power_cut() };
        }
        model.open(&disk.after_power_cut(), &format!("seed {seed}, the end")).unwrap();
    }
    assert!(faults > 500);
}

#[test]
fn damage_to_what_had_been_promised_is_reported_and_the_rest_is_there() {
    let mut seen = 0;
    for seed in 0..100 {
        let disk = SimDisk::new(seed);
        let mut model = Model::new(seed);
        let mut log = model.open(&disk, "clean").unwrap();
        let groups: Vec<Vec<Entry>> = (0..10).flat_map(|_| model.batch()).collect();
        for group in &groups {
            log.commit(&records(group).collect::<Vec<_>>()).unwrap();
        }
        let number = model.first_segment(&disk);
        let first = Path::new(DIR).join(crate::spool::segment::file_name(number));
        let bytes = disk.open(&first).unwrap().size().unwrap();
        disk.flip(&first, model.rng.u64(0..bytes * 8));
        let opened = open_log(Arc::new(disk), Path::new(DIR), settings()).unwrap();
        let all: Vec<&Entry> = groups.iter().flatten().collect();
        let mut expected = all.iter();
        // What is replayed is what was written, in order, with something missing.
        assert!(opened.entries.iter().all(|e| expected.any(|x| *x == e)), "seed {seed}");
        let missing = all.len() - opened.entries.len();
        let lost: u64 = opened.report.lost.iter().map(|r| r.end - r.start).sum();
        let last_group = groups.last().unwrap().len();
        assert!(lost as usize == missing || (lost == 0 && missing <= last_group), "seed {seed}: {:?}", opened.report);
        seen += usize::from(lost > 0);
    }
    assert!(seen > 60, "{seen}");
}

#[test]
fn many_callers_share_a_sync_and_everything_is_there_after_reopening() {
    let dir = tempfile::tempdir().unwrap();
    let (journal, entries, _) = open(dir.path(), settings()).unwrap();
    assert!(entries.is_empty());
    let callers = (0..8u8).map(|c| {
        let journal = journal.clone();
        std::thread::spawn(move || {
            for i in 0..50u8 {
                let entry = Entry { kind: c, payload: vec![i; 40].into() };
                journal.try_append(vec![entry]).unwrap().wait().unwrap();
            }
        })
    });
    callers.collect::<Vec<_>>().into_iter().for_each(|c| c.join().unwrap());
    let stats = journal.stats();
    assert_eq!(stats.entries, 400);
    assert!(matches!(open(dir.path(), settings()), Err(Error::InUse(_))));
    drop(journal);
    let (_journal, entries, report) = open(dir.path(), settings()).unwrap();
    assert!(report.is_sound());
    for caller in 0..8 {
        let mine = entries.iter().filter(|e| e.kind == caller).map(|e| e.payload[0]);
        assert!(mine.eq(0..50));
    }
}

#[test]
fn after_a_checkpoint_only_the_snapshot_and_what_follows_is_replayed() {
    let dir = tempfile::tempdir().unwrap();
    let entry = |n: u8| Entry { kind: n, payload: Bytes::from(vec![n; 500]) };
    let (journal, ..) = open(dir.path(), settings()).unwrap();
    for n in 0..40 {
        journal.try_append(vec![entry(n)]).unwrap().wait().unwrap();
    }
    assert!(journal.stats().segments > 3);
    journal.checkpoint(vec![entry(100), entry(101)]).unwrap().wait().unwrap();
    assert_eq!(journal.stats().segments, 1);
    journal.try_append(vec![entry(102)]).unwrap().wait().unwrap();
    journal.close();
    assert!(matches!(journal.try_append(vec![entry(1)]), Err(Error::Stopped)));
    let (_, entries, _) = open(dir.path(), settings()).map(|o| (drop(o.0), o.1, o.2)).unwrap();
    assert_eq!(entries.iter().map(|e| e.kind).collect::<Vec<_>>(), [100, 101, 102]);
    // Once more, after a start that wrote nothing new.
    let (_journal, entries, _) = open(dir.path(), settings()).unwrap();
    assert_eq!(entries.iter().map(|e| e.kind).collect::<Vec<_>>(), [100, 101, 102]);
}

#[test]
fn a_disk_that_fails_holds_tickets_back_until_it_recovers() {
    let disk = SimDisk::new(1);
    let (journal, ..) = open_on(Arc::new(disk.clone()), Path::new(DIR), settings()).unwrap();
    let mut health = journal.health();
    disk.fail(100);
    let ticket = journal.try_append(vec![Entry { kind: 1, payload: Bytes::from_static(b"help") }]).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    runtime.block_on(async {
        health.wait_for(|h| matches!(h, Health::Failing { .. })).await.unwrap();
        let ticket = async { ticket.await.unwrap() };
        tokio::pin!(ticket);
        assert!(tokio::time::timeout(Duration::from_millis(200), &mut ticket).await.is_err());
        disk.fail(0);
        tokio::time::timeout(Duration::from_secs(10), ticket).await.unwrap();
        health.wait_for(|h| !matches!(h, Health::Failing { .. })).await.unwrap();
    });
}
