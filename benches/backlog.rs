//! A backlog as a long outage leaves it, written through the product's own media log in a minute; and what opening such
//! a log costs. What `scripts/bench/drain` and `scripts/bench/store` measure with.
//!
//! ```text
//! backlog fill --dir DIR --bytes N [--object N] [--cameras N] [--lane outage|bulk] [--crash yes] [--keep N]
//! backlog open --dir DIR
//! ```
//! Each prints one line of JSON. `fill --crash yes` ends as a killed process does; `--keep` writes the first so many
//! bytes as files `DIR/files/N` too, for whoever else is to carry the same bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a benchmark measures")]

use std::{
    collections::{HashMap, VecDeque},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use chowki::{
    district::{clock::Utc, ids::CameraId},
    gateway::shelf::{Extra, day_of},
    host::{clock, scope::Scope},
    media::manifest::sha256,
    spool::{Buffer, Kept, MediaSettings, MediaStore, ObjectMeta},
};

/// How much may wait for the disk.
const QUEUED: u64 = 32 << 20;

/// Fragments of a camera last a second each: of 4 Mbit/s with a key frame a second.
const FRAGMENT: Duration = Duration::from_secs(1);

fn main() {
    let mut words = std::env::args().skip(1);
    let command = words.next().unwrap_or_default();
    let mut options = HashMap::new();
    while let Some(key) = words.next() {
        options.insert(key, words.next().unwrap_or_default());
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    match command.as_str() {
        "fill" => runtime.block_on(fill(&options)),
        "open" => runtime.block_on(open(&options)),
        // `cargo bench` runs every bench; this one needs a directory, which scripts/bench makes.
        _ => println!("backlog fill|open: see scripts/bench"),
    }
}

fn number(options: &HashMap<String, String>, key: &str, default: u64) -> u64 {
    options.get(key).map_or(default, |text| text.parse().unwrap_or_else(|_| panic!("{key} {text} is not understood")))
}

fn dir(options: &HashMap<String, String>) -> PathBuf {
    options.get("--dir").expect("--dir is needed").into()
}

/// As the gateway opens it, but for a quota that nothing here reaches.
fn settings() -> MediaSettings {
    MediaSettings { queue_bytes: 64 << 20, ..MediaSettings::default() }
}

async fn fill(options: &HashMap<String, String>) {
    let (bytes, size) = (number(options, "--bytes", 1 << 30), number(options, "--object", 500_000));
    let cameras = number(options, "--cameras", 8);
    let buffer = if options.get("--lane").is_some_and(|lane| lane == "bulk") { Buffer::Bulk } else { Buffer::Outage };
    let (keep, crash) = (number(options, "--keep", 0), options.get("--crash").is_some_and(|word| word == "yes"));
    let dir = dir(options);
    let (store, _gone, _) = MediaStore::open(&dir, settings(), &Scope::new("backlog")).unwrap();
    let begun = Instant::now();
    let count = bytes.div_ceil(size);
    // The newest is of now, so that days are those that a gateway would have.
    let first = clock::now().wall.before(FRAGMENT * u32::try_from(count.div_ceil(cameras)).unwrap());
    let mut noise = Noise::new(usize::try_from(size).unwrap());
    let mut pending = VecDeque::new();
    for n in 0..count {
        let payload = noise.next();
        if n * size < keep {
            let folder = dir.join("files");
            fs::create_dir_all(&folder).unwrap();
            fs::write(folder.join(n.to_string()), &payload).unwrap();
        }
        let camera = format!("cam-{:04}", n % cameras).parse().unwrap();
        let round = i64::try_from(n / cameras).unwrap();
        let meta = meta(camera, buffer, round, first, &payload);
        while pending.len() as u64 * size >= QUEUED {
            let ticket: chowki::spool::Ticket<_> = pending.pop_front().unwrap();
            ticket.await.unwrap();
        }
        pending.push_back(store.append(meta, payload).unwrap());
    }
    for ticket in pending {
        ticket.await.unwrap();
    }
    let seconds = begun.elapsed().as_secs_f64();
    println!("{{\"objects\":{count},\"bytes\":{},\"seconds\":{seconds:.2}}}", count * size);
    if crash {
        std::process::abort();
    }
    store.close().await;
}

fn meta(camera: CameraId, buffer: Buffer, round: i64, first: Utc, payload: &Bytes) -> ObjectMeta {
    let from = first.shifted(round * 1_000_000);
    let text = from.to_string();
    let time = text.split('T').nth(1).unwrap().trim_end_matches('Z').replace(':', "");
    let extra = Extra::Stretch {
        init: "init-00000000.mp4".into(),
        at_us: round.unsigned_abs() * 1_000_000,
        discontinuity: false,
        lost: false,
    };
    ObjectMeta {
        kept: Kept::Buffer { buffer },
        urgent: false,
        gap: None,
        chunk: 0,
        camera,
        rank: 0,
        name: format!("{}/{time}.m4s", day_of(from, clock::boot_id())),
        number: u32::try_from(round).unwrap() + 1,
        from,
        to: from.shifted(1_000_000),
        duration_us: 1_000_000,
        key: true,
        sha256: sha256(payload),
        size: payload.len() as u64,
        extra: serde_json::to_value(extra).unwrap(),
    }
}

/// Bytes like media's: nothing compresses, and no two objects are the same.
struct Noise {
    pool: Vec<u8>,
    size: usize,
    turn: usize,
}

impl Noise {
    fn new(size: usize) -> Self {
        let mut pool = vec![0; size + (1 << 20)];
        fastrand::Rng::with_seed(7).fill(&mut pool);
        Self { pool, size, turn: 0 }
    }

    fn next(&mut self) -> Bytes {
        self.turn += 1;
        let at = self.turn * 8_191 % (1 << 20);
        let mut bytes = BytesMut::from(&self.pool[at..at + self.size]);
        let stamp = self.turn.to_le_bytes();
        let room = stamp.len().min(bytes.len());
        bytes[..room].copy_from_slice(&stamp[..room]);
        bytes.freeze()
    }
}

async fn open(options: &HashMap<String, String>) {
    let dir = dir(options);
    let before = read_so_far();
    let begun = Instant::now();
    let (store, _gone, report) = MediaStore::open(&dir, settings(), &Scope::new("backlog")).unwrap();
    let opened = begun.elapsed().as_secs_f64();
    let (memory, read) = (resident(), read_so_far() - before);
    let stats = store.stats();
    let begun = Instant::now();
    let first = store.pending(16).await.unwrap();
    let asked = begun.elapsed().as_secs_f64() * 1e3;
    println!(
        "{{\"opened_s\":{opened:.3},\"objects\":{},\"undelivered\":{},\"bytes\":{},\"segments\":{},\"memory_mb\":{:.1},\
         \"peak_mb\":{:.1},\"read_mb\":{:.1},\"first_pending_ms\":{asked:.1},\"pending\":{},\"index_mb\":{:.1},\"segments_read\":{},\"index\":{:?}}}",
        stats.objects,
        stats.undelivered,
        stats.used_bytes,
        stats.segments,
        memory / 1e6,
        status("VmHWM:") / 1e6,
        read / 1e6,
        first.len(),
        size_of_files(&dir.join("index")) / 1e6,
        report.segments,
        report.rebuilt.as_deref().unwrap_or("as it was"),
    );
    store.close().await;
}

fn resident() -> f64 {
    status("VmRSS:")
}

fn status(name: &str) -> f64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<f64>().unwrap() * 1024.0
}

/// Bytes that this process read, from disks or from memory that holds them.
fn read_so_far() -> f64 {
    let io = fs::read_to_string("/proc/self/io").unwrap();
    io.lines().find_map(|l| l.strip_prefix("rchar:")).unwrap().trim().parse().unwrap()
}

fn size_of_files(dir: &Path) -> f64 {
    let size = |entry: fs::DirEntry| match entry.metadata().unwrap() {
        meta if meta.is_dir() => size_of_files(&entry.path()),
        meta => meta.len() as f64,
    };
    fs::read_dir(dir).map_or(0.0, |entries| entries.map(|e| size(e.unwrap())).sum())
}
