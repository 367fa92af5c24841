//! The journal in a real process that is killed at random moments, and on a real file system that is full.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "tests")]

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use chowki::spool::{
    Entry, Health, JournalSettings,
    journal::{self, Journal},
};

/// Set in the child: the journal's directory.
const DIR: &str = "CHOWKI_CRASH_DIR";
const KILLS: usize = 250;
/// Callers in the child. Entry kinds are callers; the payload counts up.
const CALLERS: u8 = 4;
/// Kind of a snapshot's first entry: what came before is forgotten.
const RESET: u8 = 255;

fn settings() -> JournalSettings {
    JournalSettings { segment_bytes: 64 << 10, queue_bytes: 1 << 20, reserve_bytes: 128 << 10 }
}

fn entry(caller: u8, number: u64) -> Entry {
    let mut payload = number.to_le_bytes().to_vec();
    payload.resize(8 + (number % 300) as usize, caller);
    Entry { kind: caller, payload: payload.into() }
}

/// What each caller has, and the pairs that had to come together.
fn held(entries: &[Entry]) -> [Vec<u64>; CALLERS as usize] {
    let mut held = [const { Vec::new() }; CALLERS as usize];
    for entry in entries {
        match entry.kind {
            RESET => held.iter_mut().for_each(Vec::clear),
            caller => held[caller as usize].push(u64::from_le_bytes(entry.payload[..8].try_into().unwrap())),
        }
    }
    held
}

/// Not a test of its own: the process that is killed. Each caller appends pairs and prints what was acknowledged.
#[test]
fn child_that_is_killed() {
    let Some(dir) = std::env::var_os(DIR) else { return };
    let (journal, entries, report) = journal::open(Path::new(&dir), settings()).unwrap();
    assert!(report.is_sound(), "{report:?}");
    // All that is there; the engine's part in this play.
    let state = Arc::new(Mutex::new(held(&entries)));
    let callers: Vec<_> = (0..CALLERS)
        .map(|caller| {
            let (journal, state) = (journal.clone(), state.clone());
            std::thread::spawn(move || call(caller, &journal, &state))
        })
        .collect();
    callers.into_iter().for_each(|c| c.join().unwrap());
}

fn call(caller: u8, journal: &Journal, state: &Mutex<[Vec<u64>; CALLERS as usize]>) {
    let mut next = state.lock().unwrap()[caller as usize].last().map_or(0, |n| n + 1);
    loop {
        let pair = vec![entry(caller, next), entry(caller, next + 1)];
        // Appending and the state a checkpoint is made of go together, as in the engine's one task.
        let (ticket, checkpoint) = {
            let mut state = state.lock().unwrap();
            let ticket = journal.try_append(pair).unwrap();
            state[caller as usize].extend([next, next + 1]);
            let checkpoint = (next % 1000 == 500).then(|| {
                let reset = Entry { kind: RESET, payload: Bytes::new() };
                let all = state.iter().enumerate().flat_map(|(c, held)| held.iter().map(move |n| entry(c as u8, *n)));
                journal.checkpoint(std::iter::once(reset).chain(all).collect())
            });
            (ticket, checkpoint)
        };
        ticket.wait().unwrap();
        if let Some(Ok(checkpoint)) = checkpoint {
            checkpoint.wait().unwrap();
        }
        // One write call a line: the pipe takes it whole or not at all.
        std::io::stderr().write_all(format!("ack {caller} {}\n", next + 1).as_bytes()).unwrap();
        next += 2;
    }
}

#[test]
fn every_acknowledged_entry_survives_hundreds_of_kills_once_and_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let mut acknowledged = [None::<u64>; CALLERS as usize];
    let mut total = 0;
    for kill in 0..KILLS {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "child_that_is_killed", "--nocapture"])
            .env(DIR, dir.path())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let err = BufReader::new(child.stderr.take().unwrap());
        let id = child.id();
        let after = Duration::from_micros(fastrand::u64(15_000..120_000));
        let killer = std::thread::spawn(move || {
            std::thread::sleep(after);
            let pid = rustix::process::Pid::from_raw(id as i32).unwrap();
            rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
        });
        for line in err.lines().map(|l| l.unwrap()) {
            let Some(ack) = line.strip_prefix("ack ") else { panic!("kill {kill}: the child says {line}") };
            let (caller, number) = ack.split_once(' ').unwrap();
            acknowledged[caller.parse::<usize>().unwrap()] = Some(number.parse().unwrap());
            total += 1;
        }
        killer.join().unwrap();
        child.wait().unwrap();
        if kill % 10 == 9 {
            let (journal, entries, report) = journal::open(dir.path(), settings()).unwrap();
            assert!(report.is_sound(), "{report:?}");
            check(&entries, &acknowledged, kill);
            journal.close();
        }
    }
    assert!(total > KILLS, "the children acknowledged only {total} pairs");
    println!("{KILLS} kills, {total} acknowledged pairs, none lost, none repeated");
}

fn check(entries: &[Entry], acknowledged: &[Option<u64>; CALLERS as usize], kill: usize) {
    for (caller, held) in held(entries).iter().enumerate() {
        let n = held.len() as u64;
        assert!(held.iter().copied().eq(0..n), "kill {kill}, caller {caller}: not once and in order: {held:?}");
        assert_eq!(n % 2, 0, "kill {kill}, caller {caller}: half a pair");
        let promised = acknowledged[caller].map_or(0, |last| last + 1);
        assert!(n >= promised, "kill {kill}, caller {caller}: {n} entries of {promised} acknowledged");
    }
}

/// A small file system of its own, unmounted when dropped.
struct Tmpfs(tempfile::TempDir);

impl Tmpfs {
    fn new(size: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", &format!("size={size}"), "tmpfs"])
            .arg(dir.path())
            .stderr(Stdio::null())
            .status();
        mounted.is_ok_and(|s| s.success()).then(|| Self(dir))
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).status();
    }
}

#[tokio::test]
async fn a_full_disk_uses_the_reserve_then_withholds_tickets_and_recovers_by_itself() {
    let Some(disk) = Tmpfs::new("2m") else {
        eprintln!("SKIPPED: cannot mount a tmpfs here (needs root)");
        return;
    };
    let (journal, ..) = journal::open(&disk.0.path().join("journal"), settings()).unwrap();
    let mut health = journal.health();
    assert_eq!((journal.stats().spares, &*health.borrow_and_update()), (2, &Health::Ok));

    let entry = || vec![Entry { kind: 1, payload: vec![7; 1000].into() }];
    journal.append(entry()).await.unwrap().await.unwrap();

    // Something else takes all the space there is.
    let filler = disk.0.path().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while file.write_all(&[0; 4096]).is_ok() {}

    // The journal goes on in its own space, and says so.
    let mut kept = 1;
    let full = loop {
        let mut ticket = journal.append(entry()).await.unwrap();
        match tokio::time::timeout(Duration::from_millis(500), &mut ticket).await {
            Ok(done) => done.unwrap(),
            Err(_) => break ticket,
        }
        kept += 1;
    };
    assert!(kept * 1000 > 128 << 10, "only {kept} entries after the disk was full");
    health.wait_for(|h| matches!(h, Health::Failing { .. })).await.unwrap();
    let (second, mut full) = (journal.append(entry()).await.unwrap(), full);
    assert!(tokio::time::timeout(Duration::from_millis(1500), &mut full).await.is_err(), "acknowledged on a full disk");

    drop(file);
    std::fs::remove_file(&filler).unwrap();
    let limit = Duration::from_secs(10);
    tokio::time::timeout(limit, full).await.expect("recovers").unwrap();
    tokio::time::timeout(limit, second).await.expect("recovers").unwrap();
    tokio::time::timeout(limit, health.wait_for(|h| *h == Health::Ok)).await.expect("reserve is back").unwrap();
    assert_eq!(journal.stats().spares, 2);
    drop(journal);
    let (_journal, entries, report) = journal::open(&disk.0.path().join("journal"), settings()).unwrap();
    assert_eq!(entries.len(), kept + 2);
    assert!(report.is_sound());
}
