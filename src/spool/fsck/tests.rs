//! Each kind of damage, one at a time, and what is said and done about it.

mod of_index;
mod of_journal;
mod of_media;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    sync::OnceLock,
    time::Duration,
};

use super::*;
use crate::{
    district::{
        clock::Utc,
        ids::{CameraId, IncidentId},
    },
    host::scope::Scope,
    media::manifest::sha256,
    spool::{
        Entry, JournalSettings, Kept, MediaSettings, MediaStore, ObjectMeta, ObjectRef, journal,
        scan::{Depth, scan},
        segment::{Located, SEGMENT_HEADER, file_name, number_of},
        sim::SimDisk,
    },
};
use bytes::Bytes;

/// Objects of a store; `DELIVERED` of them at headquarters.
const OBJECTS: u32 = 24;
const DELIVERED: u32 = 10;

fn media_settings() -> MediaSettings {
    MediaSettings {
        segment_bytes: 16 << 10,
        quota: 1 << 30,
        keep_free: 0,
        queue_bytes: 4 << 20,
        sync_every: Duration::ZERO,
        recent_bytes: 0,
    }
}

fn payload(number: u32) -> Bytes {
    (0..1_500 + number * 13).map(|i| (i ^ number.wrapping_mul(31)) as u8).collect::<Vec<_>>().into()
}

fn meta(number: u32) -> ObjectMeta {
    let from = Utc::from_micros(1_700_000_000_000_000 + i64::from(number) * 4_000_000);
    let bytes = payload(number);
    ObjectMeta {
        kept: Kept::Evidence { incident: IncidentId::derive(1_700_000_000_000, b"test") },
        urgent: false,
        gap: None,
        chunk: 0,
        camera: "cam-1".parse::<CameraId>().unwrap(),
        rank: 0,
        name: if number == 0 { "init.mp4".into() } else { format!("{number:05}.m4s") },
        number,
        from,
        to: if number == 0 { from } else { from.shifted(4_000_000) },
        duration_us: 4_000_000,
        key: true,
        sha256: sha256(&bytes),
        size: bytes.len() as u64,
        extra: serde_json::Value::Null,
    }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn open(dir: &Path) -> (MediaStore, Vec<crate::spool::Evicted>) {
    let (store, mut gone, _) = MediaStore::open(&dir.join(MEDIA), media_settings(), &Scope::new("test")).unwrap();
    let gone = std::iter::from_fn(|| gone.try_recv().ok()).flatten().collect();
    (store, gone)
}

fn held(store: &MediaStore) -> Vec<ObjectRef> {
    let incident = meta(0).kept.incident().unwrap();
    runtime().block_on(store.evidence(incident, &"cam-1".parse().unwrap())).unwrap()
}

fn entry(n: u32) -> Entry {
    Entry { kind: 1, payload: format!("{{\"entry\":{n},\"is\":\"{}\"}}", "x".repeat(n as usize % 90)).into() }
}

fn journal_settings() -> JournalSettings {
    JournalSettings { segment_bytes: 1 << 10, reserve_bytes: 4 << 10, ..JournalSettings::default() }
}

fn fill_journal(dir: &Path) {
    let (journal, ..) = journal::open(&dir.join(JOURNAL), journal_settings()).unwrap();
    for n in 0..30 {
        journal.try_append(vec![entry(n)]).unwrap().wait().unwrap();
    }
    journal.close();
}

async fn append_in_chunks(store: &MediaStore, number: u32) -> ObjectRef {
    let (all, bytes) = (meta(number), payload(number));
    let mut last = None;
    for (chunk, to) in (0..).zip([700, 1_400, bytes.len()]) {
        let from = usize::from(chunk) * 700;
        let until = all.from.shifted(1_000_000 * i64::from(chunk) + 1_000_000 + i64::from(chunk / 2) * 1_000_000);
        let meta = ObjectMeta { chunk, size: to as u64, sha256: sha256(&bytes[..to]), to: until, ..all.clone() };
        last = Some(store.append_chunk(meta, bytes.slice(from..to), to < bytes.len()).unwrap().await.unwrap());
    }
    last.unwrap()
}

fn fill_media(dir: &Path) {
    let (store, _) = open(dir);
    runtime().block_on(async {
        for number in 0..OBJECTS {
            let object = if number % 3 == 2 {
                append_in_chunks(&store, number).await
            } else {
                store.append(meta(number), payload(number)).unwrap().await.unwrap()
            };
            if number < DELIVERED {
                store.delivered(&object).unwrap().await.unwrap();
            }
        }
        store.close().await;
    });
}

/// A spool that was closed in order. Made once; every test has a copy of its own.
fn spool() -> tempfile::TempDir {
    static MADE: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = MADE.get_or_init(|| {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join(MEDIA)).unwrap();
        fill_journal(dir.path());
        fill_media(dir.path());
        dir
    });
    let dir = tempfile::tempdir().unwrap();
    copy(made.path(), dir.path());
    dir
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[derive(Default)]
struct Seen {
    entries: Vec<Vec<u8>>,
    last: Option<Progress>,
}

impl Watch for Seen {
    fn progress(&mut self, progress: Progress) {
        self.last = Some(progress);
    }

    fn entry(&mut self, _kind: u8, payload: &[u8]) -> bool {
        self.entries.push(payload.to_vec());
        true
    }

    fn again(&mut self) {
        self.entries.clear();
    }
}

fn options(repair: bool) -> Options {
    Options { quick: false, repair, segment_bytes: 16 << 10 }
}

fn look(dir: &Path) -> Report {
    run(dir, options(false), &mut Seen::default()).unwrap().found
}

/// What is more than a note; notes of spares and of what was set aside are not looked at.
fn faults(report: &Report) -> Vec<(Severity, Kind)> {
    report.findings.iter().filter(|f| f.severity > Severity::Note).map(|f| (f.severity, f.kind)).collect()
}

fn notes(report: &Report) -> Vec<Kind> {
    let ours = |f: &&Finding| f.severity == Severity::Note && f.kind != Kind::Spares;
    report.findings.iter().filter(ours).map(|f| f.kind).collect()
}

/// Repairs, and checks that a second run finds nothing more and changes nothing.
fn repair(dir: &Path) -> Repaired {
    let repaired = run(dir, options(true), &mut Seen::default()).unwrap().repaired.expect("something to repair");
    assert_eq!(repaired.failed, None);
    assert_eq!(faults(&repaired.after), [], "{:#?}", repaired.after.findings);
    let before = contents(dir);
    let again = run(dir, options(true), &mut Seen::default()).unwrap();
    assert!(again.is_clean() && again.repaired.is_none(), "{again:#?}");
    assert!(before == contents(dir), "a second run changed something");
    repaired
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut all = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            match entry.file_type().unwrap().is_dir() {
                true => dirs.push(entry.path()),
                false => drop(all.insert(entry.path(), fs::read(entry.path()).unwrap())),
            }
        }
    }
    all
}

fn segments(dir: &Path, log: &str) -> Vec<PathBuf> {
    let mut all: Vec<_> = fs::read_dir(dir.join(log))
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    all.sort();
    all
}

fn records(path: &Path) -> Vec<Located> {
    let file = RealDisk.open_to_read(path).unwrap();
    let number = number_of(path.file_name().unwrap().to_str().unwrap()).unwrap();
    scan(&*file, number, Depth::Payloads).unwrap().records
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 0x40], at).unwrap();
}

fn truncate(path: &Path, len: u64) {
    OpenOptions::new().write(true).open(path).unwrap().set_len(len).unwrap();
}

/// The number of the object in a record.
fn number(record: &Located) -> Option<u32> {
    (record.header.kind == 1).then(|| serde_json::from_slice::<ObjectMeta>(&record.meta).unwrap().number)
}

/// A segment and a record of an object in it that others follow.
fn some_object(dir: &Path) -> (PathBuf, Located) {
    let path = segments(dir, MEDIA).swap_remove(1);
    let record = records(&path).into_iter().find(|r| number(r).is_some()).unwrap();
    (path, record)
}

/// Everything but `lost` is there and can be read; what is lost the gateway hears of. Of one that was written in chunks its
/// beginning may be left: then it hears of the rest.
fn all_but(dir: &Path, lost: &[u32]) {
    let (store, gone) = open(dir);
    let mut expected_gone: Vec<String> = Vec::new();
    let mut there = held(&store).into_iter().peekable();
    for n in 0..OBJECTS {
        let Some(object) = there.next_if(|object| object.meta.number == n) else {
            assert!(lost.contains(&n), "{n} is not there");
            expected_gone.push(meta(n).name);
            continue;
        };
        let bytes = runtime().block_on(store.read(&object)).unwrap();
        if lost.contains(&n) {
            assert!(n % 3 == 2 && bytes.len() < payload(n).len() && payload(n).starts_with(&bytes), "{object}");
            expected_gone.push(format!("{}.rest", meta(n).name));
        } else {
            assert!(bytes == payload(n), "{object}");
            assert_eq!(object.delivered, n < DELIVERED, "{object}");
        }
    }
    assert!(there.next().is_none());
    let mut heard: Vec<String> = gone.into_iter().flat_map(|g| g.names).collect();
    heard.sort();
    assert_eq!(heard, expected_gone);
    runtime().block_on(store.close());
}

#[test]
fn a_spool_that_was_closed_in_order_is_clean_and_is_counted() {
    let dir = spool();
    let before = contents(dir.path());
    let mut seen = Seen::default();
    let outcome = run(dir.path(), options(false), &mut seen).unwrap();
    assert!(outcome.is_clean() && outcome.found.findings.is_empty(), "{:#?}", outcome.found.findings);
    let (journal, media) = (&outcome.found.journal, &outcome.found.media);
    assert_eq!((journal.entries, seen.entries.len()), (30, 30));
    assert_eq!(seen.entries[7], entry(7).payload);
    assert_eq!((media.objects, media.undelivered), (u64::from(OBJECTS), u64::from(OBJECTS - DELIVERED)));
    assert_eq!((media.cameras, media.intervals), (1, 1));
    assert!(media.compared && media.segments > 2 && journal.segments > 2);
    let total = journal.bytes + media.bytes;
    assert_eq!(seen.last, Some(Progress { done: total, total }));
    assert!(outcome.found.read_bytes > total - 1_000, "{} of {total}", outcome.found.read_bytes);
    assert!(before == contents(dir.path()), "a check changed something");
    all_but(dir.path(), &[]);
}

#[test]
fn a_spool_that_made_room_of_recordings_is_clean() {
    let dir = spool();
    let settings = MediaSettings { quota: 160 << 10, ..media_settings() };
    let (store, _gone, _) = MediaStore::open(&dir.path().join(MEDIA), settings, &Scope::new("test")).unwrap();
    runtime().block_on(async {
        for number in OBJECTS..OBJECTS + 120 {
            let mut meta = meta(number);
            // One in eight is evidence, which is carried over; of the others words about gaps are left.
            if number % 8 > 0 {
                meta.kept = Kept::Buffer { buffer: crate::spool::Buffer::Outage };
            }
            store.append(meta, payload(number)).unwrap().await.unwrap();
        }
        let waiting = store.pending(1_000).await.unwrap();
        assert!(waiting.iter().any(|o| o.meta.gap.is_some()) && waiting.len() < 110, "{}", waiting.len());
        store.close().await;
    });
    let report = look(dir.path());
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(notes(&report), []);
}

#[test]
fn an_unfinished_write_is_a_note_and_is_cut_off() {
    let dir = spool();
    for log in [JOURNAL, MEDIA] {
        let path = segments(dir.path(), log).pop().unwrap();
        let end = fs::metadata(&path).unwrap().len();
        OpenOptions::new().write(true).open(&path).unwrap().write_all_at(b"Rec1 and no more", end).unwrap();
    }
    let report = look(dir.path());
    assert!(report.is_clean());
    assert_eq!(notes(&report), [Kind::UnfinishedWrite, Kind::UnfinishedWrite]);
    assert!(report.findings.iter().all(|f| f.means.contains("never acknowledged") && f.bytes.is_some()));
    repair(dir.path());
    assert_eq!(notes(&look(dir.path())), []);
    all_but(dir.path(), &[]);
    let (_, entries, report) = journal::open(&dir.path().join(JOURNAL), journal_settings()).unwrap();
    assert!(entries.iter().eq((0..30).map(entry).collect::<Vec<_>>().iter()) && report.is_sound());
}

#[test]
fn a_segment_that_never_began_is_a_note_and_is_removed() {
    let dir = spool();
    for log in [JOURNAL, MEDIA] {
        fs::write(dir.path().join(log).join(file_name(99)), [0; 20]).unwrap();
    }
    assert_eq!(notes(&look(dir.path())), [Kind::NeverBegun, Kind::NeverBegun]);
    repair(dir.path());
    assert_eq!(notes(&look(dir.path())), []);
    all_but(dir.path(), &[]);
}

#[test]
fn what_does_not_belong_is_named_and_left_alone() {
    let dir = spool();
    let stray = dir.path().join("media/holiday.jpg");
    fs::write(&stray, "x").unwrap();
    fs::create_dir(dir.path().join("media/backup")).unwrap();
    let outcome = run(dir.path(), options(true), &mut Seen::default()).unwrap();
    assert!(outcome.is_clean() && outcome.repaired.is_none());
    assert_eq!(notes(&outcome.found), [Kind::Stray, Kind::Stray]);
    assert_eq!(outcome.found.findings[1].file, "media/holiday.jpg");
    assert!(stray.exists());
}

/// What is replayed after a repair: every entry but those.
#[test]
fn a_log_that_is_not_there_is_damage_that_stays() {
    let dir = spool();
    fs::remove_dir_all(dir.path().join(JOURNAL)).unwrap();
    let outcome = run(dir.path(), options(true), &mut Seen::default()).unwrap();
    assert_eq!(faults(&outcome.found), [(Severity::Damage, Kind::LogMissing)]);
    assert!(!outcome.is_clean() && !dir.path().join(JOURNAL).exists());
}

#[test]
fn a_spool_that_is_open_is_left_alone() {
    let dir = spool();
    let (store, _) = open(dir.path());
    for repair in [false, true] {
        assert!(matches!(run(dir.path(), options(repair), &mut Seen::default()), Err(Error::InUse(_))));
    }
    runtime().block_on(store.close());
}

#[test]
fn blocks_that_the_disk_does_not_give_back_are_findings_and_stop_nothing() {
    let disk = SimDisk::new(7);
    let data = Path::new("/data");
    let (journal, ..) = journal::open_on(Arc::new(disk.clone()), &data.join(JOURNAL), journal_settings()).unwrap();
    for n in 0..30 {
        let entry = Entry { kind: 1, payload: vec![n; 3_000].into() };
        journal.try_append(vec![entry]).unwrap().wait().unwrap();
    }
    journal.close();
    let disk_of = || Arc::new(disk.clone()) as Arc<dyn Disk>;
    let numbers: Vec<u64> = disk.list(&data.join(JOURNAL)).unwrap().iter().filter_map(|l| number_of(&l.name)).collect();
    let path = data.join(JOURNAL).join(file_name(numbers[3]));
    disk.wear_out(&path, 512..1_024);
    let ops = disk.ops();
    let outcome = run_on(disk_of(), data, options(false), &mut Seen::default()).unwrap();
    assert_eq!(disk.ops(), ops, "a check changed something");
    let found: Vec<_> = outcome.found.findings.iter().filter(|f| f.kind == Kind::DiskError).collect();
    assert_eq!(found.len(), 1, "{:#?}", outcome.found.findings);
    assert!(found[0].severity == Severity::Damage && found[0].what.contains("Input/output error"), "{found:?}");
    assert!(found[0].bytes.as_ref().is_some_and(|b| b.contains(&512)));
    assert_eq!(outcome.found.journal.entries, 29);
    let repaired = run_on(disk_of(), data, options(true), &mut Seen::default()).unwrap().repaired.unwrap();
    assert_eq!((repaired.failed, repaired.after.journal.entries, faults(&repaired.after)), (None, 29, vec![]));
}

/// Whatever was flipped in a media segment's records.
#[test]
fn segments_begin_behind_their_header() {
    // What the tests above flip is never a segment's header.
    let dir = spool();
    assert!(segments(dir.path(), MEDIA).iter().all(|p| records(p).first().is_none_or(|r| r.offset == SEGMENT_HEADER)));
}
