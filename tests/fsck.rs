//! `chowki fsck`, the real program, on the spool of a real gateway.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::BTreeMap,
    fs::{self, OpenOptions},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

use bytes::Bytes;
use chowki::{
    district::{clock::Utc, ids::IncidentId},
    host::scope::Scope,
    media::manifest::sha256,
    spool::{Kept, MediaSettings, MediaStore, ObjectMeta},
};
use gateway::Site;
use mqtt::Button;
use serde_json::Value;

fn fsck(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_chowki")).arg("fsck").args(args).output().unwrap()
}

fn json(args: &[&str]) -> (Option<i32>, Value) {
    let out = fsck(&[args, &["--json"]].concat());
    assert!(out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    (out.status.code(), serde_json::from_slice(&out.stdout).unwrap())
}

fn contents(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, std::time::SystemTime)> {
    let (mut all, mut dirs) = (BTreeMap::new(), vec![dir.to_owned()]);
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(dir).unwrap().map(Result::unwrap) {
            let (path, meta) = (entry.path(), entry.metadata().unwrap());
            if meta.is_dir() {
                dirs.push(path);
            } else {
                let bytes = fs::read(&path).unwrap();
                all.insert(path, (bytes, meta.modified().unwrap()));
            }
        }
    }
    all
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let paths = fs::read_dir(dir).unwrap().map(|e| e.unwrap().path());
    let mut all: Vec<_> = paths.filter(|p| p.extension().is_some_and(|e| e == "seg")).collect();
    all.sort();
    all
}

fn flip(path: &Path, at: u64) {
    let file = OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ 1], at).unwrap();
}

/// Evidence as a recorder would have stored it.
fn store(media: &Path) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (store, _gone, _) = MediaStore::open(media, MediaSettings::default(), &Scope::new("test")).unwrap();
    runtime.block_on(async {
        for number in 1..6 {
            let bytes = Bytes::from(vec![number as u8; 50_000]);
            let from = Utc::from_micros(1_700_000_000_000_000 + i64::from(number) * 4_000_000);
            let meta = ObjectMeta {
                kept: Kept::Evidence { incident: IncidentId::derive(1_700_000_000_000, b"test") },
                urgent: false,
                gap: None,
                chunk: 0,
                camera: "cam-1".parse().unwrap(),
                rank: 0,
                name: format!("{number:05}.m4s"),
                number,
                from,
                to: from.shifted(4_000_000),
                duration_us: 4_000_000,
                key: true,
                sha256: sha256(&bytes),
                size: bytes.len() as u64,
                extra: Value::Null,
            };
            store.append(meta, bytes).unwrap().await.unwrap();
        }
        store.close().await;
    });
}

#[test]
fn a_spool_is_checked_and_repaired_and_the_gateway_goes_on_with_it() {
    let site = Site::new().buttons(1);
    let data = site.dir.path().join("data");
    let dir = data.to_str().unwrap();
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    support::eventually(gateway::SOON, "the press is recorded", || (gateway.incidents().len() == 1).then_some(()));

    // While it runs.
    let out = fsck(&["--repair", dir]);
    assert_eq!(out.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&out.stderr).contains("in use by another process; stop it first"));
    drop(button);
    assert!(gateway.stop().success());

    let (code, said) = json(&[dir]);
    assert_eq!((code, &said["clean"]), (Some(0), &Value::Bool(true)), "{said:#}");
    assert_eq!(
        (&said["version"], &said["replayed"]["incidents"], &said["replayed"]["presses"]),
        (&1.into(), &1.into(), &1.into())
    );
    // A config names the same directory.
    let config = site.dir.path().join("district.toml");
    let out = fsck(&["--config", config.to_str().unwrap()]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(out.status.success() && text.contains("1 incident, 1 press") && text.ends_with("clean\n"), "{text}");

    store(&data.join("media"));
    let damaged = segments(&data.join("media")).into_iter().find(|p| fs::metadata(p).unwrap().len() > 50_000).unwrap();
    flip(&damaged, 25_000);
    let before = contents(&data);
    let (code, said) = json(&[dir]);
    assert_eq!((code, &said["found"]["tally"]["damage"]), (Some(1), &1.into()));
    let found = &said["found"]["findings"][0];
    assert_eq!((&found["severity"], &found["kind"]), (&"damage".into(), &"payload-damaged".into()), "{said:#}");
    assert_eq!((&found["object"]["camera"], &found["object"]["name"]), (&"cam-1".into(), &"00001.m4s".into()));
    let out = fsck(&[dir]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert!(text.contains("fragment 00001.m4s of camera cam-1") && text.contains("--repair would copy"), "{text}");
    assert_eq!(json(&["--quick", dir]).0, Some(0));
    assert!(before == contents(&data), "a check wrote something");

    let out = fsck(&["--repair", dir]);
    let text = String::from_utf8_lossy(&out.stdout).into_owned();
    assert_eq!(out.status.code(), Some(0), "{text}");
    assert!(text.contains("repaired media/") && text.contains("checked again:"), "{text}");
    assert_eq!(fs::read(damaged.with_extension("seg.damaged")).unwrap(), before[&damaged].0);
    let repaired = contents(&data);
    let (code, said) = json(&["--repair", dir]);
    assert_eq!((code, &said["repaired"]), (Some(0), &Value::Null), "{said:#}");
    let same = |a: &BTreeMap<PathBuf, (Vec<u8>, _)>, b: &BTreeMap<PathBuf, (Vec<u8>, _)>| {
        a.iter().map(|(path, (bytes, _))| (path, bytes)).eq(b.iter().map(|(path, (bytes, _))| (path, bytes)))
    };
    assert!(same(&repaired, &contents(&data)), "a second repair changed something");

    let gateway = site.start();
    assert_eq!(gateway.incidents().len(), 1);
    assert!(gateway.stop().success());
    assert_eq!(json(&[dir]).0, Some(0));
}

#[test]
fn a_gateway_that_was_killed_leaves_a_clean_spool() {
    let site = Site::new().buttons(1);
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    for n in 0..5 {
        button.press(&format!("p-{n}"), "panic");
    }
    support::eventually(gateway::SOON, "the presses are recorded", || (!gateway.incidents().is_empty()).then_some(()));
    std::thread::sleep(Duration::from_millis(200));
    gateway.kill();
    let data = site.dir.path().join("data");
    let (code, said) = json(&[data.to_str().unwrap()]);
    assert_eq!((code, &said["replayed"]["presses"]), (Some(0), &5.into()), "{said:#}");
}

#[test]
fn what_is_no_spool_and_what_is_no_config_are_told_apart() {
    let dir = tempfile::tempdir().unwrap();
    let none = dir.path().join("none");
    for place in [dir.path(), &none] {
        let out = fsck(&[place.to_str().unwrap()]);
        assert_eq!(out.status.code(), Some(66));
        assert!(String::from_utf8_lossy(&out.stderr).contains("there is no spool in"));
    }
    assert_eq!(fsck(&["--config", none.to_str().unwrap()]).status.code(), Some(66));
    assert_eq!(fsck(&["--config", "x.toml", "y"]).status.code(), Some(2));
    let help = String::from_utf8(fsck(&["--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("Exit status: 0 nothing but notes"), "{help}");
}
