//! The media store on a real file system: delivery order, recovery, eviction.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{path::Path, time::Duration};

use bytes::Bytes;
use chowki::{
    district::{
        clock::Utc,
        evidence::GapReason,
        ids::{CameraId, IncidentId},
    },
    host::scope::Scope,
    spool::{
        Buffer, Error, Evicted, Health, Kept, MediaLane, MediaSettings, MediaStore, ObjectMeta, ObjectRef,
        recovery::Report,
    },
};
use tokio::sync::mpsc;

const SIZE: usize = 20_000;

fn settings() -> MediaSettings {
    MediaSettings {
        segment_bytes: 256 << 10,
        quota: 1 << 30,
        keep_free: 0,
        queue_bytes: 4 << 20,
        sync_every: Duration::from_millis(5),
        recent_bytes: 0,
    }
}

fn incident(n: u64) -> IncidentId {
    IncidentId::derive(1_700_000_000_000 + n * 1_000, b"test")
}

fn camera(name: &str) -> CameraId {
    name.parse().unwrap()
}

fn meta(incident: IncidentId, cam: &str, rank: u16, number: u32) -> ObjectMeta {
    let from = Utc::from_micros(1_700_000_000_000_000 + i64::from(number) * 1_000_000);
    ObjectMeta {
        kept: chowki::spool::Kept::Evidence { incident },
        urgent: false,
        gap: None,
        chunk: 0,
        camera: camera(cam),
        rank,
        name: if number == 0 { "init.mp4".into() } else { format!("{number:05}.m4s") },
        number,
        from,
        to: if number == 0 { from } else { from.shifted(1_000_000) },
        duration_us: 1_000_000,
        key: true,
        sha256: [number as u8; 32],
        size: SIZE as u64,
        extra: serde_json::Value::Null,
    }
}

fn payload(number: u32) -> Bytes {
    (0..SIZE).map(|i| (i as u32 ^ number) as u8).collect::<Vec<_>>().into()
}

type Opened = (MediaStore, mpsc::Receiver<Vec<Evicted>>, Report);

fn open(dir: &Path, settings: MediaSettings) -> Opened {
    MediaStore::open(dir, settings, &Scope::new("test")).unwrap()
}

/// Eight times as large, to fill a quota with fewer.
fn large(number: u32) -> Bytes {
    payload(number).repeat(8).into()
}

async fn put(store: &MediaStore, incident: IncidentId, cam: &str, rank: u16, number: u32) -> ObjectRef {
    store.append(meta(incident, cam, rank, number), payload(number)).unwrap().await.unwrap()
}

fn names(objects: &[ObjectRef]) -> Vec<String> {
    objects.iter().map(|o| format!("{}/{}", o.meta.camera, o.meta.name)).collect()
}

#[tokio::test]
async fn the_newest_incident_is_delivered_first_then_the_best_camera_then_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.is_sound() && report.rebuilt.is_none());
    for number in [1, 0] {
        put(&store, incident(1), "old", 0, number).await;
        put(&store, incident(2), "second", 1, number).await;
        put(&store, incident(2), "zfirst", 0, number).await;
    }
    let pending = store.pending(10).await.unwrap();
    let expected =
        ["zfirst/init.mp4", "zfirst/00001.m4s", "second/init.mp4", "second/00001.m4s", "old/init.mp4", "old/00001.m4s"];
    assert_eq!(names(&pending), expected);
    store.delivered(&pending[0]).unwrap().await.unwrap();
    assert_eq!(names(&store.pending(2).await.unwrap()), expected[1..3]);
    let held = store.evidence(incident(2), &camera("zfirst")).await.unwrap();
    assert_eq!((held.len(), held[0].delivered, held[1].delivered), (2, true, false));
    assert_eq!(held[1].meta, meta(incident(2), "zfirst", 0, 1));
    assert_eq!(store.read(&held[1]).await.unwrap(), payload(1));
    assert_eq!(store.incidents().await.unwrap(), [incident(1), incident(2)]);
    let again = MediaStore::open(dir.path(), settings(), &Scope::new("test"));
    assert!(matches!(again, Err(Error::InUse(_))));
    store.close().await;
}

/// Everything that a store of `n` objects, the first `delivered` of them delivered, must say.
async fn check(store: &MediaStore, n: u32, delivered: u32) {
    let held = store.evidence(incident(1), &camera("c")).await.unwrap();
    assert_eq!(held.iter().map(|o| o.meta.number).collect::<Vec<_>>(), (0..n).collect::<Vec<_>>());
    for object in &held {
        assert_eq!(object.delivered, object.meta.number < delivered, "{object}");
        assert_eq!(store.read(object).await.unwrap(), payload(object.meta.number));
    }
    let pending = store.pending(usize::MAX).await.unwrap();
    assert_eq!(pending.iter().map(|o| o.meta.number).collect::<Vec<_>>(), (delivered..n).collect::<Vec<_>>());
    assert_eq!((store.stats().objects, store.stats().undelivered), (u64::from(n), u64::from(n - delivered)));
}

async fn fill(dir: &Path) {
    let (store, _gone, _) = open(dir, settings());
    for number in 0..60 {
        let object = put(&store, incident(1), "c", 0, number).await;
        if number < 40 {
            store.delivered(&object).unwrap().await.unwrap();
        }
    }
    check(&store, 60, 40).await;
    store.close().await;
}

#[tokio::test]
async fn everything_is_there_after_a_restart_and_an_index_that_is_gone_broken_or_stale_is_built_anew() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let index = dir.path().join("index");
    let old = dir.path().join("old-index");

    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.is_sound() && report.rebuilt.is_none(), "{report:?}");
    check(&store, 60, 40).await;
    store.close().await;
    drop(store);

    // Gone.
    std::fs::rename(&index, &old).unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.is_sound(), "{report:?}");
    check(&store, 60, 40).await;
    for number in 60..70 {
        put(&store, incident(1), "c", 0, number).await;
    }
    store.close().await;
    drop(store);

    // From earlier.
    std::fs::remove_dir_all(&index).unwrap();
    std::fs::rename(&old, &index).unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.is_sound(), "{report:?}");
    check(&store, 70, 40).await;
    store.close().await;
    drop(store);

    // Broken.
    for entry in std::fs::read_dir(&index).unwrap() {
        let path = entry.unwrap().path();
        if path.is_file() {
            std::fs::write(&path, "this is no database").unwrap();
        }
    }
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.rebuilt.is_some() && report.is_sound(), "{report:?}");
    check(&store, 70, 40).await;
    store.close().await;
    drop(store);

    // The process died while opening it.
    std::fs::write(dir.path().join("index.opening"), "").unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.rebuilt.unwrap().contains("died"));
    check(&store, 70, 40).await;
}

#[tokio::test]
async fn an_index_that_knows_more_than_the_log_is_not_believed() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    let last = std::fs::OpenOptions::new().write(true).open(segments.last().unwrap()).unwrap();
    last.set_len(last.metadata().unwrap().len() - 100).unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    // On a busy machine the lock of the index that was just closed may still be held: then that is the reason.
    assert!(report.rebuilt.is_some(), "{report:?}");
    check(&store, 59, 40).await;
}

#[tokio::test]
async fn a_fragment_damaged_on_disk_is_never_handed_out() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _gone, _) = open(dir.path(), settings());
    let object = put(&store, incident(1), "c", 0, 1).await;
    let size = object.meta.size as usize;
    put(&store, incident(1), "c", 1, 2).await;
    store.close().await;
    drop(store);
    let segment = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .find(|p| p.extension().is_some_and(|e| e == "seg"));
    let segment = segment.unwrap();
    let mut bytes = std::fs::read(&segment).unwrap();
    // In the first of the two: what is damaged at the end of a log was never whole.
    bytes[size / 2] ^= 1;
    std::fs::write(&segment, bytes).unwrap();
    let (store, _gone, _) = open(dir.path(), settings());
    assert!(matches!(store.read(&object).await, Err(Error::Damaged { .. })));
}

#[tokio::test]
async fn delivered_evidence_makes_room_oldest_first_and_undelivered_evidence_never_goes() {
    let dir = tempfile::tempdir().unwrap();
    let quota = 16 << 20;
    let settings = MediaSettings { segment_bytes: 1 << 20, quota, ..settings() };
    let (store, mut gone, _) = open(dir.path(), settings);
    let mut health = store.health();
    // Twice the quota, all delivered as it comes.
    for number in 0..200 {
        let ticket = store.append(meta(incident(1), "c", 0, number), large(number)).unwrap();
        let object = ticket.await.unwrap();
        drop(store.delivered(&object).unwrap());
        while let Ok(parts) = gone.try_recv() {
            assert!(parts.iter().all(|p| p.delivered && p.camera == camera("c") && p.gap.from < p.gap.to));
        }
    }
    assert!(store.stats().used_bytes <= quota && store.stats().evicted_segments > 10, "{:?}", store.stats());
    let held = store.evidence(incident(1), &camera("c")).await.unwrap();
    let first = held[0].meta.number;
    assert!(held.iter().map(|o| o.meta.number).eq(first..200), "the oldest went first");

    // Now nothing is delivered: it fills up to the quota, then refuses, and loses nothing.
    let mut stored = Vec::new();
    let full = loop {
        let number = stored.len() as u32;
        let mut ticket = match store.append(meta(incident(2), "d", 0, number), large(number)) {
            Ok(ticket) => ticket,
            Err(e) => break e,
        };
        tokio::select! {
            done = &mut ticket => stored.push(done.unwrap()),
            failing = health.wait_for(|h| matches!(h, Health::Failing { .. })) => {
                drop(failing);
                // Held back; more of it until the queue is full.
                while let Ok(ticket) = store.append(meta(incident(3), "d", 0, 1), large(1)) {
                    drop(ticket);
                }
            }
        }
        while gone.try_recv().is_ok() {}
    };
    assert!(matches!(full, Error::Full { .. }));
    assert!(matches!(&*health.borrow_and_update(), Health::Failing { .. }));
    assert!(store.stats().used_bytes <= quota);
    assert_eq!(store.evidence(incident(2), &camera("d")).await.unwrap(), stored);

    // Deliveries are still taken, and make room by themselves.
    for object in &stored {
        store.delivered(object).unwrap().await.unwrap();
    }
    let recovered = tokio::time::timeout(Duration::from_secs(10), health.wait_for(|h| *h == Health::Ok)).await;
    assert!(recovered.is_ok_and(|h| h.is_ok()), "{:?}", store.stats());
    store.close().await;
}

#[tokio::test]
async fn segments_that_vanished_are_reported_as_gaps() {
    let dir = tempfile::tempdir().unwrap();
    fill(dir.path()).await;
    let mut segments: Vec<_> = std::fs::read_dir(dir.path())
        .unwrap()
        .map(|e| e.unwrap().path())
        .filter(|p| p.extension().is_some_and(|e| e == "seg"))
        .collect();
    segments.sort();
    std::fs::remove_file(&segments[0]).unwrap();
    let (store, mut gone, _) = open(dir.path(), settings());
    let parts = gone.recv().await.unwrap();
    assert_eq!(parts[0].names[0], "init.mp4");
    let held = store.evidence(incident(1), &camera("c")).await.unwrap();
    assert_eq!(held.len() + parts[0].names.len(), 60);
}

/// A piece of a buffer, of a second that is so many after the first.
fn recorded(cam: &str, second: i64, buffer: Buffer) -> ObjectMeta {
    let from = Utc::from_micros(1_700_000_000_000_000 + second * 1_000_000);
    ObjectMeta {
        kept: Kept::Buffer { buffer },
        name: format!("2023-11-14/{second:06}.m4s"),
        from,
        to: from.shifted(1_000_000),
        ..meta(incident(1), cam, 0, 2)
    }
}

#[tokio::test]
async fn lanes_are_delivered_evidence_first_the_seconds_around_the_press_before_the_rest_then_outages_then_bulk() {
    let dir = tempfile::tempdir().unwrap();
    let (store, _gone, _) = open(dir.path(), settings());
    let put = async |meta: ObjectMeta| drop(store.append(meta, payload(1)).unwrap().await.unwrap());
    put(recorded("b", 3, Buffer::Bulk)).await;
    put(recorded("o", 5, Buffer::Outage)).await;
    put(recorded("p", 4, Buffer::Outage)).await;
    put(meta(incident(1), "far", 1, 1)).await;
    put(meta(incident(1), "near", 0, 1)).await;
    put(ObjectMeta { urgent: true, ..meta(incident(1), "far", 1, 3) }).await;
    put(ObjectMeta { urgent: true, ..meta(incident(1), "near", 0, 3) }).await;
    let order = ["near/00003.m4s", "far/00003.m4s", "near/00001.m4s", "far/00001.m4s"];
    let buffers = ["p/2023-11-14/000004.m4s", "o/2023-11-14/000005.m4s", "b/2023-11-14/000003.m4s"];
    assert_eq!(names(&store.pending(10).await.unwrap()), [&order[..], &buffers[..]].concat());
    assert_eq!(names(&store.pending_in(MediaLane::Outage, 10).await.unwrap()), buffers[..2]);
    assert_eq!(store.incidents().await.unwrap(), [incident(1)]);
    store.close().await;
}

#[tokio::test]
async fn on_a_full_disk_the_oldest_recordings_go_are_said_to_be_gone_and_evidence_among_them_stays() {
    let dir = tempfile::tempdir().unwrap();
    let settings = || MediaSettings { quota: 16 << 20, ..settings() };
    let (store, _gone, _) = open(dir.path(), settings());
    let mut evidence = 0;
    for second in 0..200 {
        let piece = recorded("c", second, Buffer::Outage);
        store.append(piece, large(second as u32)).unwrap().await.unwrap();
        if second % 20 == 0 {
            evidence += 1;
            store.append(meta(incident(1), "e", 0, evidence), payload(evidence)).unwrap().await.unwrap();
        }
    }
    let check = async |store: &MediaStore| {
        let held = store.evidence(incident(1), &camera("e")).await.unwrap();
        assert_eq!(held.len() as u32, evidence, "no evidence went");
        for object in &held {
            assert_eq!(store.read(object).await.unwrap(), payload(object.meta.number));
        }
        let pending = store.pending_in(MediaLane::Outage, usize::MAX).await.unwrap();
        let (gaps, pieces): (Vec<_>, Vec<_>) = pending.into_iter().partition(|o| o.meta.gap.is_some());
        assert_eq!(gaps.len(), 1, "one gap that grew: {gaps:?}");
        let (gap, first) = (&gaps[0].meta, &pieces[0].meta);
        let bytes = pieces.iter().map(|o| o.meta.size).sum::<u64>() + gap.gap.unwrap().bytes;
        assert_eq!((gap.from, gap.to), (recorded("c", 0, Buffer::Outage).from, first.from), "up to what is held");
        assert_eq!((gap.gap.unwrap().reason, bytes), (GapReason::Evicted, 200 * SIZE as u64));
        assert_eq!(pieces.last().unwrap().meta.from, recorded("c", 199, Buffer::Outage).from, "the newest is there");
        gaps[0].clone()
    };
    let stats = store.stats();
    assert!(stats.evicted_segments > 1 && stats.dropped_bytes > 0 && stats.used_bytes <= settings().quota, "{stats:?}");
    check(&store).await;
    store.close().await;

    // The same after a restart, and with an index that is built anew from the log.
    std::fs::remove_dir_all(dir.path().join("index")).unwrap();
    let (store, _gone, report) = open(dir.path(), settings());
    assert!(report.is_sound(), "{report:?}");
    let gap = check(&store).await;
    store.delivered(&gap).unwrap().await.unwrap();
    assert_eq!(store.pending_in(MediaLane::Outage, 1).await.unwrap()[0].meta.gap, None);
    store.close().await;
}
