//! Why media bytes are not values in sled, measured; and what the journal costs.
//!
//! `cargo bench --bench store` takes a minute and little space; `-- --full` keeps a gigabyte of live media, as a gateway
//! does. `-- --dir DIR` measures another disk. Each row runs in a process of its own, so that memory and bytes written
//! (`/proc/self/io`) are its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a benchmark measures")]

use std::{
    collections::VecDeque,
    fs,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use bytes::Bytes;
use chowki::{
    district::{clock::Utc, ids::IncidentId},
    host::scope::Scope,
    spool::{Entry, JournalSettings, MediaSettings, MediaStore, ObjectMeta, journal},
};

/// How much media is written, and how much of it is live at a time.
#[derive(Clone, Copy)]
struct Load {
    total: u64,
    live: u64,
    /// Size of a file.
    segment: u64,
    value: usize,
}

const SYNC_EVERY: u64 = 8 << 20;

fn main() {
    let args: Vec<String> = std::env::args().collect();
    let after = |name: &str| args.iter().position(|a| a == name).and_then(|i| args.get(i + 1)).cloned();
    let full = args.iter().any(|a| a == "--full");
    let (live, total, segment) = if full { (1 << 30, 4 << 30, 64 << 20) } else { (64 << 20, 256 << 20, 16 << 20) };
    if let Some(row) = after("--row") {
        let dir = PathBuf::from(after("--in").unwrap());
        let value = after("--value").and_then(|v| v.parse().ok()).unwrap_or(256 << 10);
        return run(&row, &dir, Load { total, live, segment, value });
    }
    let base = after("--dir").map_or_else(std::env::temp_dir, PathBuf::from);
    println!("{} MiB written, the newest {} MiB live, synced every {} MiB", total >> 20, live >> 20, SYNC_EVERY >> 20);
    println!(
        "| where the bytes lie | write MB/s | written per byte kept | memory MB | disk per live byte | sync p99 |"
    );
    println!("|---|---|---|---|---|---|");
    for (row, kib) in [("files", 256), ("store", 256), ("sled", 256), ("sled", 64)] {
        child(&base, row, kib << 10, full);
    }
    println!("\n| one small append made durable | p50 | p99 |\n|---|---|---|");
    child(&base, "bare", 0, full);
    child(&base, "journal", 0, full);
    println!("\n| many callers, one entry each at a time | appends/s |\n|---|---|");
    child(&base, "group", 0, full);
}

fn child(base: &Path, row: &str, value: usize, full: bool) {
    let dir = tempfile::tempdir_in(base).unwrap();
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--row", row, "--value", &value.to_string(), "--in"]).arg(dir.path());
    if full {
        command.arg("--full");
    }
    assert!(command.status().unwrap().success());
}

fn run(row: &str, dir: &Path, load: Load) {
    match row {
        "files" => media_row("append-only files + fdatasync, 256 KiB", dir, load, files),
        "store" => media_row("the media store (files, index, checks), 256 KiB", dir, load, store),
        "sled" => media_row(&format!("sled 0.34.7, {} KiB values", load.value >> 10), dir, load, in_sled),
        "bare" => latency("bare write + fdatasync", bare(dir)),
        "journal" => latency("the journal", through_journal(dir)),
        _ => group(dir),
    }
}

fn media_row(name: &str, dir: &Path, load: Load, work: fn(&Path, Load) -> Vec<Duration>) {
    let (begun, before) = (Instant::now(), written());
    let mut syncs = work(dir, load);
    let seconds = begun.elapsed().as_secs_f64();
    syncs.sort();
    println!(
        "| {name} | {:.0} | {:.2} | {} | {:.2} | {:.0} ms |",
        load.total as f64 / 1e6 / seconds,
        (written() - before) as f64 / load.total as f64,
        peak_memory() / 1_000_000,
        disk(dir) as f64 / load.live as f64,
        percentile(&syncs, 99).as_secs_f64() * 1e3,
    );
}

/// Bytes like media's: nothing compresses.
fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let mut bytes = vec![0; len];
    rng.fill(&mut bytes);
    bytes
}

fn timed(work: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    work();
    begun.elapsed()
}

fn files(dir: &Path, load: Load) -> Vec<Duration> {
    let segment = load.segment;
    let value = noise(load.value, 1);
    let mut syncs = Vec::new();
    let mut live: VecDeque<PathBuf> = VecDeque::new();
    for number in 0..load.total / segment {
        let path = dir.join(format!("{number:08}"));
        let file = fs::File::create(&path).unwrap();
        let mut at = 0;
        while at < segment {
            file.write_all_at(&value, at).unwrap();
            at += value.len() as u64;
            if at % SYNC_EVERY == 0 {
                syncs.push(timed(|| file.sync_data().unwrap()));
            }
        }
        fs::File::open(dir).unwrap().sync_all().unwrap();
        live.push_back(path);
        if live.len() as u64 * segment > load.live {
            fs::remove_file(live.pop_front().unwrap()).unwrap();
        }
    }
    syncs
}

fn store(dir: &Path, load: Load) -> Vec<Duration> {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let settings = MediaSettings {
            segment_bytes: load.segment,
            quota: load.live,
            keep_free: 0,
            queue_bytes: 2 * SYNC_EVERY as u32,
            sync_every: Duration::from_millis(200),
            recent_bytes: 0,
        };
        let (store, mut gone, _) = MediaStore::open(dir, settings, &Scope::new("bench")).unwrap();
        let incident = IncidentId::derive(1, b"bench");
        let camera: chowki::district::ids::CameraId = "c".parse().unwrap();
        let value = Bytes::from(noise(load.value, 1));
        let (mut pending, mut syncs) = (VecDeque::new(), Vec::new());
        for number in 0..(load.total / load.value as u64) as u32 {
            let at = Utc::from_micros(i64::from(number) * 1_000_000);
            let meta = ObjectMeta {
                kept: chowki::spool::Kept::Evidence { incident },
                urgent: false,
                gap: None,
                chunk: 0,
                camera: camera.clone(),
                rank: 0,
                name: format!("{number:05}.m4s"),
                number,
                from: at,
                to: at.shifted(1_000_000),
                duration_us: 1_000_000,
                key: true,
                sha256: [0; 32],
                size: load.value as u64,
                extra: serde_json::Value::Null,
            };
            // As much again as is being written waits, as where cameras do not wait for each other.
            while pending.len() as u64 * load.value as u64 >= 2 * SYNC_EVERY - (1 << 20) {
                let (begun, ticket): (Instant, chowki::spool::Ticket<_>) = pending.pop_front().unwrap();
                drop(store.delivered(&ticket.await.unwrap()).unwrap());
                syncs.push(begun.elapsed());
            }
            pending.push_back((Instant::now(), store.append(meta, value.clone()).unwrap()));
            while gone.try_recv().is_ok() {}
        }
        store.close().await;
        syncs
    })
}

fn in_sled(dir: &Path, load: Load) -> Vec<Duration> {
    let db = sled::Config::new().path(dir.join("db")).cache_capacity(32 << 20).flush_every_ms(None).open().unwrap();
    let value = noise(load.value, 1);
    let (size, live) = (load.value as u64, load.live / load.value as u64);
    let mut syncs = Vec::new();
    for number in 0..load.total / size {
        let mut value = value.clone();
        value[..8].copy_from_slice(&number.to_le_bytes());
        db.insert(number.to_be_bytes(), value).unwrap();
        if number >= live {
            db.remove((number - live).to_be_bytes()).unwrap();
        }
        if (number * size) % SYNC_EVERY == 0 {
            syncs.push(timed(|| assert!(db.flush().is_ok())));
        }
    }
    db.flush().unwrap();
    syncs
}

const APPENDS: usize = 3_000;

fn bare(dir: &Path) -> Vec<Duration> {
    let file = fs::File::create(dir.join("bare")).unwrap();
    let entry = [7; 244];
    let one = |i: usize| {
        timed(|| {
            file.write_all_at(&entry, (i * entry.len()) as u64).unwrap();
            file.sync_data().unwrap();
        })
    };
    (0..APPENDS).map(one).collect()
}

fn through_journal(dir: &Path) -> Vec<Duration> {
    let (journal, ..) = journal::open(dir, JournalSettings::default()).unwrap();
    let entry = || vec![Entry { kind: 1, payload: Bytes::from_static(&[7; 200]) }];
    (0..APPENDS).map(|_| timed(|| journal.try_append(entry()).unwrap().wait().unwrap())).collect()
}

fn latency(name: &str, mut times: Vec<Duration>) {
    times.sort();
    println!("| {name} | {:?} | {:?} |", percentile(&times, 50), percentile(&times, 99));
}

fn group(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    for callers in [1, 16, 128, 1024] {
        let (journal, ..) = journal::open(&dir.join(callers.to_string()), JournalSettings::default()).unwrap();
        let scope = Scope::new("bench");
        let span = Duration::from_secs(2);
        let appended: usize = runtime.block_on(async {
            let tasks: Vec<_> = (0..callers)
                .map(|_| {
                    let journal = journal.clone();
                    scope.spawn("caller", async move {
                        let (begun, mut n) = (Instant::now(), 0);
                        while begun.elapsed() < span {
                            let entry = Entry { kind: 1, payload: Bytes::from_static(&[7; 200]) };
                            journal.append(vec![entry]).await.unwrap().await.unwrap();
                            n += 1;
                        }
                        n
                    })
                })
                .collect();
            let mut sum = 0;
            for task in tasks {
                sum += task.await.unwrap();
            }
            sum
        });
        let stats = journal.stats();
        let per_sync = stats.entries as f64 / stats.commits as f64;
        println!("| {callers} callers, {per_sync:.1} a sync | {:.0} |", appended as f64 / span.as_secs_f64());
    }
}

fn percentile(sorted: &[Duration], percent: usize) -> Duration {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

/// Bytes this process caused to be written to disks, without what was deleted before it got there.
fn written() -> u64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    let field = |name: &str| -> u64 {
        let line = io.lines().find_map(|l| l.strip_prefix(name)).unwrap();
        line.trim().parse().unwrap()
    };
    field("write_bytes:").saturating_sub(field("cancelled_write_bytes:"))
}

fn peak_memory() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

fn disk(dir: &Path) -> u64 {
    use std::os::unix::fs::MetadataExt;
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => disk(&entry.path()),
        meta => meta.blocks() * 512,
    };
    fs::read_dir(dir).unwrap().map(|e| size(e.unwrap())).sum()
}
