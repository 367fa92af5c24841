//! Headquarters' object store by S3, with the real program: many objects, large ones, and a store that dies, refuses, is
//! full, slow or mute. Against moto where it can be had so, else against `rig/s3.py`, which misbehaves when told to.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chowki::{
    district::{clock::Utc, ids::IncidentId, secret::Secret},
    host::scope::Scope,
    media::manifest::sha256,
    spool::{MediaSettings, MediaStore, ObjectMeta},
    uplink::objects,
};
use futures::{StreamExt, stream};
use gateway::{Gateway, Site, quiet_port};
use mqtt::Button;
use support::{Peer, eventually, rig, wait_for_port};
use tempfile::TempDir;

const LONG: Duration = Duration::from_secs(90);

/// The largest object that the media log takes, but for what it says about it.
const LARGEST: usize = (64 << 20) - 4096;

/// A district whose disk holds evidence that headquarters does not have: objects of so many bytes.
struct Owed {
    site: Site,
    /// SHA-256 of each object by its name in the bucket.
    objects: BTreeMap<String, String>,
    dir: TempDir,
}

impl Owed {
    fn new(store: u16, count: u32, size: usize) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let objects = seed(&dir.path().join("media"), count, size);
        let site = Site::new().data(dir.path(), "keep_free = \"0MiB\"").with(&headquarters(store, "chowki"));
        Self { site: site.secret("s3.secret", "wJalrXUtnFEMI"), objects, dir }
    }

    fn len(&self) -> u64 {
        self.objects.len() as u64
    }
}

/// Headquarters whose broker is away, and whose store is on this port.
fn headquarters(store: u16, key: &str) -> String {
    format!(
        "[headquarters]\nmqtt = \"mqtt://127.0.0.1:{}\"\nobjects = \"s3://evidence/gateways\"\n\
         [headquarters.s3]\nendpoint = \"http://127.0.0.1:{store}\"\npath_style = true\nregion = \"us-east-1\"\n\
         access_key_id = \"{key}\"\nsecret_key_file = \"s3.secret\"\n",
        quiet_port()
    )
}

/// Fills a media log as recorders do.
fn seed(dir: &Path, count: u32, size: usize) -> BTreeMap<String, String> {
    let incident = IncidentId::derive(1_700_000_000_000, b"stores");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let settings = MediaSettings { keep_free: 0, recent_bytes: 0, ..MediaSettings::default() };
        let (media, _gone, _) = MediaStore::open(dir, settings, &Scope::new("seed")).unwrap();
        let (mut names, mut tickets) = (BTreeMap::new(), Vec::new());
        for number in 0..count {
            let payload: Bytes =
                (0..size).map(|i| (i as u32 ^ (i as u32 >> 8) ^ number) as u8).collect::<Vec<_>>().into();
            let sha = sha256(&payload);
            let from = Utc::from_micros(1_700_000_000_000_000 + i64::from(number) * 1_000_000);
            let meta = ObjectMeta {
                kept: chowki::spool::Kept::Evidence { incident },
                urgent: false,
                gap: None,
                chunk: 0,
                camera: "c1".parse().unwrap(),
                rank: 0,
                name: format!("{number:05}.m4s"),
                number,
                from,
                to: from.shifted(1_000_000),
                duration_us: 1_000_000,
                key: true,
                sha256: sha,
                size: size as u64,
                extra: serde_json::Value::Null,
            };
            names.insert(format!("gateways/saddar/incidents/{incident}/c1/{}", meta.name), meta.sha256_hex());
            tickets.push(media.append(meta, payload).unwrap());
        }
        for ticket in tickets {
            ticket.await.unwrap();
        }
        media.close().await;
        names
    })
}

/// A gauge or counter of the gateway.
fn metric(gateway: &Gateway<'_>, name: &str) -> u64 {
    let page = gateway.get("/metrics").text();
    let line = page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')).expect(name);
    line.parse().unwrap()
}

/// Waits until headquarters has confirmed everything.
fn all_confirmed(gateway: &Gateway<'_>) {
    eventually(LONG, "headquarters has it all", || {
        (metric(gateway, "chowki_media_objects_undelivered") == 0).then_some(())
    });
}

fn status_says_pending(gateway: &Gateway<'_>, objects: u64) {
    eventually(LONG, "the status counts what is owed", || {
        (gateway.get("/v1/status").json()["pending_objects"] == objects).then_some(())
    });
}

// ---- moto

/// moto's S3 on loopback with the bucket `evidence`.
fn moto(environment: &[(&str, &str)]) -> Option<Peer> {
    let port = quiet_port();
    let mut command = Command::new("moto_server");
    command.args(["-H", "127.0.0.1", "-p", &port.to_string()]).stdout(Stdio::null()).stderr(Stdio::null());
    let Ok(child) = command.envs(environment.iter().copied()).spawn() else {
        eprintln!("SKIPPED: moto_server is not installed (pip install 'moto[server]')");
        return None;
    };
    let peer = Peer { child, port };
    wait_for_port(port, "moto_server");
    boto(port, "s3.create_bucket(Bucket='evidence')");
    Some(peer)
}

/// Does something with moto as its administrator; gives what is printed.
fn boto(port: u16, lines: &str) -> String {
    let script = format!(
        "import boto3, json, sys\n\
         at = dict(endpoint_url='http://127.0.0.1:{port}', region_name='us-east-1',\n\
         \x20         aws_access_key_id='admin', aws_secret_access_key='admin')\n\
         s3, iam = boto3.client('s3', **at), boto3.client('iam', **at)\n{lines}\n"
    );
    let out = Command::new("python3").args(["-c", &script]).output().expect("python3");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    String::from_utf8(out.stdout).unwrap()
}

/// The same store as the gateway's, asked by a test.
fn settings(port: u16, id: &str, secret: &str) -> objects::Settings {
    let mut settings = objects::Settings::new("s3://evidence/gateways");
    settings.s3.endpoint = Some(format!("http://127.0.0.1:{port}"));
    settings.s3.access_key = Some((id.to_owned(), Secret::new(secret)));
    settings
}

/// The gateway's own key, which it puts beside what a test asks for.
const IDENTITY: &str = "/identity/";

/// The SHA-256 of everything in the bucket but the gateway's key, by name.
fn bucket(port: u16) -> BTreeMap<String, String> {
    let listed = boto(
        port,
        "import hashlib\n\
         for page in s3.get_paginator('list_objects_v2').paginate(Bucket='evidence'):\n\
         \x20   for o in page.get('Contents', []):\n\
         \x20       body = s3.get_object(Bucket='evidence', Key=o['Key'])['Body'].read()\n\
         \x20       print(o['Key'], hashlib.sha256(body).hexdigest())",
    );
    let listed = listed.lines().filter(|l| !l.contains(IDENTITY));
    listed.filter_map(|l| l.split_once(' ')).map(|(k, v)| (k.to_owned(), v.to_owned())).collect()
}

#[test]
fn thousands_of_small_objects_arrive_each_as_it_was() {
    const N: u32 = 2_000;
    let Some(s3) = moto(&[]) else { return };
    let store = objects::open(&settings(s3.port, "chowki", "wJalrXUtnFEMI")).unwrap();
    let object = |n: u32| Bytes::from(format!("object {n} ").repeat(n as usize % 97));
    let sent: BTreeMap<String, String> =
        (0..N).map(|n| (format!("gateways/saddar/{n:05}.m4s"), hex(&sha256(&object(n))))).collect();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        let put = |n| {
            let (store, bytes) = (store.clone(), object(n));
            async move { store.put(&format!("saddar/{n:05}.m4s"), bytes).await.unwrap() }
        };
        stream::iter((0..N).map(put)).buffer_unordered(16).collect::<Vec<_>>().await
    });
    assert_eq!(bucket(s3.port), sent);
}

#[test]
fn presses_are_taken_while_an_index_that_is_lost_is_built_anew_and_then_everything_is_there() {
    const OBJECTS: u32 = 40_000;
    let owed = Owed::new(quiet_port(), OBJECTS, 64);
    let site = owed.site.buttons(1);
    std::fs::remove_dir_all(owed.dir.path().join("media/index")).unwrap();
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    assert_eq!(metric(&gateway, "chowki_media_objects_undelivered"), 0, "the index is not there yet");
    eventually(LONG, "the index is there", || {
        (metric(&gateway, "chowki_media_objects_undelivered") == u64::from(OBJECTS)).then_some(())
    });
    assert!(gateway.stop().success());
}

#[test]
fn an_outages_backlog_of_objects_is_drained_by_the_gateway() {
    let Some(s3) = moto(&[]) else { return };
    let count = std::env::var("CHOWKI_OBJECTS").map_or(120, |n| n.parse().unwrap());
    let owed = Owed::new(s3.port, count, 1_500);
    let began = Instant::now();
    let gateway = owed.site.start();
    all_confirmed(&gateway);
    let seconds = began.elapsed().as_secs_f64();
    eprintln!(
        "{count} objects put and confirmed in {seconds:.1} s, the start included: {:.0} a second",
        f64::from(count) / seconds
    );
    assert_eq!(bucket(s3.port), owed.objects);
    assert_eq!(metric(&gateway, "chowki_objects_failures_total"), 0);
    assert!(gateway.stop().success());
}

#[test]
fn the_largest_object_goes_in_one_put() {
    let Some(s3) = moto(&[]) else { return };
    let owed = Owed::new(s3.port, 1, LARGEST);
    let gateway = owed.site.start();
    all_confirmed(&gateway);
    assert_eq!(bucket(s3.port), owed.objects);
    assert!(gateway.stop().success());
}

#[test]
fn a_wrong_key_is_an_alarm_with_its_remedy_and_the_right_one_delivers_everything() {
    // moto asks for keys after what sets it up: a bucket, a user, its policy, its key.
    let Some(s3) = moto(&[("INITIAL_NO_AUTH_ACTION_COUNT", "4")]) else { return };
    let policy = std::fs::read_to_string(rig().join("s3-policy.json")).unwrap();
    let key = boto(
        s3.port,
        &format!(
            "iam.create_user(UserName='saddar')\n\
             iam.put_user_policy(UserName='saddar', PolicyName='gateway', PolicyDocument='''{policy}''')\n\
             key = iam.create_access_key(UserName='saddar')['AccessKey']\n\
             print(key['AccessKeyId'], key['SecretAccessKey'])"
        ),
    );
    let (id, secret) = key.trim().split_once(' ').unwrap();
    let dir = tempfile::tempdir().unwrap();
    let objects = seed(&dir.path().join("media"), 40, 5_000);
    let site = Site::new().data(dir.path(), "keep_free = \"0MiB\"").with(&headquarters(s3.port, id));
    let site = site.secret("s3.secret", "not-the-secret");
    let gateway = site.start();
    eventually(LONG, "the alarm", || gateway.log().contains("headquarters' store takes nothing").then_some(()));
    let log = gateway.log();
    let alarm = log.lines().find(|l| l.contains("takes nothing")).unwrap();
    assert!(alarm.contains("ERROR") && alarm.contains("check objects and [headquarters.s3]"), "{alarm}");
    assert!(!log.contains("not-the-secret"));
    status_says_pending(&gateway, 40);
    eventually(LONG, "the status says it", || {
        let status = gateway.get("/v1/status").json();
        let is_told = status["store"].as_str()?.starts_with("takes nothing: ");
        (is_told && status["alarms"][0].as_str()?.contains("check objects and [headquarters.s3]")).then_some(())
    });
    assert!(gateway.stop().success());

    // The key of the policy in docs/headquarters.md: what it allows is enough, and it can neither delete nor write elsewhere.
    let site = site.secret("s3.secret", secret);
    let gateway = site.start();
    all_confirmed(&gateway);
    status_says_pending(&gateway, 0);
    eventually(LONG, "the status is well", || {
        let status = gateway.get("/v1/status").json();
        (status["store"] == "ok" && status["alarms"].as_array()?.is_empty()).then_some(())
    });
    let store = objects::open(&settings(s3.port, id, secret)).unwrap();
    tokio::runtime::Runtime::new().unwrap().block_on(async {
        for (name, sha) in &objects {
            let bytes = store.get(name.strip_prefix("gateways/").unwrap()).await.unwrap().expect("it is there");
            assert_eq!(hex(&sha256(&bytes)), *sha);
        }
        assert_eq!(store.head("saddar/incidents/none/manifest.json").await, Ok(None));
        assert!(store.put("cantt/1.m4s", Bytes::new()).await.is_err(), "another district's place");
    });
    assert!(gateway.stop().success());
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

#[test]
fn the_policy_in_the_manual_is_the_one_that_is_tested() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manual = std::fs::read_to_string(root.join("docs/headquarters.md")).unwrap();
    let words = |text: &str| text.split_whitespace().collect::<String>();
    let policy = std::fs::read_to_string(rig().join("s3-policy.json")).unwrap();
    assert!(words(&manual).contains(&words(&policy)));
}

// ---- a store that misbehaves

/// `rig/s3.py` and its directory, which outlives it.
struct Store {
    dir: TempDir,
    peer: Option<Peer>,
    port: u16,
}

impl Store {
    fn start(mode: &str) -> Self {
        let mut this = Self { dir: tempfile::tempdir().unwrap(), peer: None, port: quiet_port() };
        this.mode(mode);
        this.restart();
        this
    }

    fn restart(&mut self) {
        let child = Command::new("python3")
            .arg(rig().join("s3.py"))
            .arg(self.port.to_string())
            .arg(self.dir.path())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3");
        self.peer = Some(Peer { child, port: self.port });
        wait_for_port(self.port, "s3.py");
    }

    /// How it behaves from the next object on.
    fn mode(&self, mode: &str) {
        let new = self.dir.path().join("mode.new");
        std::fs::write(&new, mode).unwrap();
        std::fs::rename(new, self.dir.path().join("mode")).unwrap();
    }

    /// What it noted of one kind: `begin`, `no`, `done`; the rest of each line in two parts.
    fn noted(&self, kind: &str) -> Vec<(String, String)> {
        let log = std::fs::read_to_string(self.dir.path().join("log")).unwrap_or_default();
        let rest = |line: &str| {
            let (a, b) = line.strip_prefix(kind)?.strip_prefix(' ')?.split_once(' ')?;
            Some((a.to_owned(), b.to_owned()))
        };
        log.lines().filter_map(rest).collect()
    }

    fn wait_for(&self, kind: &str, n: usize) {
        eventually(LONG, &format!("{n} of {kind}"), || (self.noted(kind).len() >= n).then_some(()));
    }

    /// The SHA-256 of everything it holds but the gateway's key, by name.
    fn bucket(&self) -> BTreeMap<String, String> {
        let (root, mut found) = (self.dir.path().join("objects/evidence"), BTreeMap::new());
        let mut open: Vec<PathBuf> = vec![root.clone()];
        while let Some(path) = open.pop() {
            for entry in std::fs::read_dir(path).unwrap().map(|e| e.unwrap().path()) {
                if entry.is_dir() {
                    open.push(entry);
                } else {
                    let name = entry.strip_prefix(&root).unwrap().display().to_string();
                    found.insert(name, hex(&sha256(&std::fs::read(&entry).unwrap())));
                }
            }
        }
        found.retain(|name, _| !name.contains(IDENTITY));
        found
    }

    /// Whatever was put twice was put with the same bytes.
    fn assert_repeats_are_the_same(&self) {
        let mut known = BTreeMap::new();
        for (sha, name) in self.noted("done") {
            assert_eq!(*known.entry(name.clone()).or_insert(sha.clone()), sha, "{name} was put with other bytes");
        }
    }
}

#[test]
fn a_store_that_is_killed_in_mid_upload_has_everything_when_it_is_back() {
    let mut store = Store::start("slow 0.1");
    let owed = Owed::new(store.port, 60, 300_000);
    let gateway = owed.site.start();
    // The key is one of them.
    store.wait_for("done", 11);
    store.peer.as_ref().unwrap().signal("KILL");
    store.peer = None;
    eventually(LONG, "it is tried again", || (metric(&gateway, "chowki_objects_failures_total") > 1).then_some(()));
    let confirmed = metric(&gateway, "chowki_objects_delivered_total");
    assert!(confirmed >= 8 && confirmed < owed.len(), "{confirmed} confirmed");
    assert!(confirmed <= store.noted("done").len() as u64, "confirmed is only what the store said it has");
    status_says_pending(&gateway, owed.len() - confirmed);
    store.restart();
    all_confirmed(&gateway);
    assert_eq!(store.bucket(), owed.objects);
    store.assert_repeats_are_the_same();
    assert!(gateway.stop().success());
}

#[test]
fn a_gateway_that_is_killed_in_mid_upload_puts_again_what_was_not_confirmed_and_has_kept_it() {
    let store = Store::start("slow 0.2");
    let owed = Owed::new(store.port, 40, 200_000);
    let gateway = owed.site.start();
    store.wait_for("done", 8);
    gateway.kill();
    let begun = store.noted("begin").len();
    let gateway = owed.site.start();
    assert_eq!(metric(&gateway, "chowki_media_objects"), owed.len(), "nothing is given up here");
    all_confirmed(&gateway);
    assert_eq!(store.bucket(), owed.objects);
    store.assert_repeats_are_the_same();
    // Of what was under way when it died, and no more: what was confirmed is not put again.
    let repeats = store.noted("begin").len() - owed.objects.len();
    assert!(begun < owed.objects.len() && repeats <= 16, "{begun} begun, {repeats} repeated");
    assert!(owed.dir.path().join("media").exists());
    assert!(gateway.stop().success());
}

#[test]
fn a_full_bucket_loses_nothing_and_is_filled_when_there_is_room() {
    let store = Store::start("full 507 InsufficientStorage");
    let owed = Owed::new(store.port, 30, 10_000);
    let gateway = owed.site.start();
    eventually(LONG, "it is said", || gateway.log().contains("InsufficientStorage").then_some(()));
    let log = gateway.log();
    let line = log.lines().find(|l| l.contains("InsufficientStorage")).unwrap();
    assert!(line.contains("WARN") && line.contains("tried again"), "{line}");
    // Ceph's word for it, with a status of another kind.
    store.mode("full 403 QuotaExceeded");
    eventually(LONG, "it is said", || gateway.log().contains("QuotaExceeded").then_some(()));
    status_says_pending(&gateway, owed.len());
    assert_eq!(metric(&gateway, "chowki_media_objects"), owed.len());
    assert_eq!(metric(&gateway, "chowki_objects_delivered_total"), 0);
    store.mode("ok");
    all_confirmed(&gateway);
    assert_eq!(store.bucket(), owed.objects);
    assert!(gateway.stop().success());
}

#[test]
fn a_slow_store_is_filled_with_several_objects_at_a_time() {
    let store = Store::start("slow 1");
    let owed = Owed::new(store.port, 16, 20_000);
    let gateway = owed.site.start();
    all_confirmed(&gateway);
    assert_eq!(store.bucket(), owed.objects);
    let together = store.noted("begin").iter().map(|(n, _)| n.parse::<u32>().unwrap()).max().unwrap();
    assert!(together > 1, "one after another");
    assert_eq!(metric(&gateway, "chowki_objects_failures_total"), 0);
    assert!(gateway.stop().success());
}

#[test]
fn an_object_that_the_store_never_answers_is_given_up_for_now_and_the_others_go_on() {
    let store = Store::start("hang 00000.m4s");
    let owed = Owed::new(store.port, 20, 20_000);
    let gateway = owed.site.start();
    let mute: BTreeSet<String> = owed.objects.keys().filter(|n| n.contains("00000.m4s")).cloned().collect();
    eventually(LONG, "the others are there", || {
        let there: BTreeSet<String> = store.bucket_if_any().into_keys().collect();
        (there.len() == owed.objects.len() - 1 && there.is_disjoint(&mute)).then_some(())
    });
    eventually(LONG, "it is said", || gateway.log().contains("did not answer within").then_some(()));
    status_says_pending(&gateway, 1);
    store.mode("ok");
    all_confirmed(&gateway);
    assert_eq!(store.bucket(), owed.objects);
    assert!(gateway.stop().success());
}

impl Store {
    fn bucket_if_any(&self) -> BTreeMap<String, String> {
        if self.dir.path().join("objects/evidence").exists() { self.bucket() } else { BTreeMap::new() }
    }
}
