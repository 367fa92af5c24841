//! The way to headquarters against real peers: mosquitto, mosquitto_sub, openssl's certificates, a directory, moto's S3.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say so and end")]
#![allow(clippy::disallowed_methods, reason = "real peers live in real time")]

#[path = "support/s3.rs"]
mod s3;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    time::Duration,
};

use bytes::Bytes;
use chowki::{
    district::{ids::IncidentId, secret::Secret},
    host::scope::Scope,
    uplink::{
        events::{self, Address, Aside, Document, Event, Events, Lane, Settings, Tag},
        link::Backhaul,
        objects::{self, PutError},
        tls,
    },
};
use s3::{make_bucket, moto, s3};
use support::{free_port, mosquitto, which};
use tokio::{sync::mpsc, time::timeout};

const LONG: Duration = Duration::from_secs(20);

/// The uplink under test, with short deadlines.
struct Uplink {
    events: Events,
    told: mpsc::Receiver<Event>,
    scope: Scope,
}

fn address(port: u16) -> Address {
    Address { host: "127.0.0.1".into(), port, tls: false }
}

fn settings(ports: &[u16]) -> Settings {
    let mut settings = Settings::new("saddar".parse().unwrap(), ports.iter().copied().map(address).collect());
    settings.keep_alive = Duration::from_secs(2);
    settings.patience = Duration::from_secs(1);
    settings.connect_timeout = Duration::from_millis(500);
    settings
}

fn start(settings: Settings) -> Uplink {
    start_with(settings, 64)
}

fn start_with(settings: Settings, room: usize) -> Uplink {
    let (tx, told) = mpsc::channel(room);
    let scope = Scope::new("test");
    Uplink { events: events::start(settings, tx, &scope), told, scope }
}

impl Uplink {
    /// The first event that `pick` wants; others are passed over.
    async fn wait<T>(&mut self, what: &str, mut pick: impl FnMut(Event) -> Option<T>) -> T {
        let found = timeout(LONG, async {
            loop {
                if let Some(found) = pick(self.told.recv().await.expect("the events task ended")) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("not told in {LONG:?}: {what}"))
    }

    async fn up(&mut self) -> Address {
        self.wait("up", |event| if let Event::Up { address, .. } = event { Some(address) } else { None }).await
    }

    async fn down(&mut self) -> String {
        self.wait("down", |event| if let Event::Down { reason, .. } = event { Some(reason) } else { None }).await
    }

    async fn delivered(&mut self, tag: &Tag, revision: u64) {
        self.wait("delivered", |event| match event {
            Event::Delivered { tag: t, revision: r, .. } if t == *tag && r >= revision => Some(()),
            _ => None,
        })
        .await;
    }

    /// Waits until all of these have been told as delivered.
    async fn all_delivered(&mut self, mut open: BTreeSet<String>) {
        self.wait("everything delivered", |event| {
            if let Event::Delivered { tag: Tag::Incident(id), .. } = event {
                open.remove(&id.to_string());
            }
            open.is_empty().then_some(())
        })
        .await;
    }

    async fn stop(self) {
        assert_eq!(self.scope.shutdown(Duration::from_secs(5)).await, Vec::<String>::new());
    }
}

fn id(n: u64) -> IncidentId {
    IncidentId::derive(1_700_000_000_000 + n, &n.to_be_bytes())
}

fn incident(n: u64, revision: u64) -> Document {
    Document {
        topic: format!("chowki/saddar/incidents/{}", id(n)),
        lane: Lane::Incident,
        payload: format!("{n} {revision}").into(),
        revision,
        retain: false,
        tag: Tag::Incident(id(n)),
    }
}

fn status(revision: u64) -> Document {
    Document {
        topic: "chowki/saddar/status".into(),
        lane: Lane::Status,
        payload: format!("{{\"online\":true,\"revision\":{revision}}}").into(),
        revision,
        retain: true,
        tag: Tag::Status,
    }
}

/// mosquitto_sub as headquarters, from the moment it is subscribed. It comes back by itself when the broker does.
struct Headquarters {
    child: Child,
    lines: Arc<Mutex<Vec<String>>>,
}

impl Headquarters {
    fn new(port: u16, extra: &[&str]) -> Self {
        // Line by line: into a pipe, it would keep its first words to itself.
        let mut child = Command::new("stdbuf")
            .arg("-oL")
            .arg(which("mosquitto_sub"))
            .args(["-V", "mqttv311", "-d", "-h", "127.0.0.1", "-p", &port.to_string()])
            .args(["-t", "chowki/#", "-F", "GOT %r %t %p"])
            .args(extra)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("mosquitto_sub (apt-get install mosquitto-clients)");
        let lines = Arc::new(Mutex::new(Vec::new()));
        let (out, all) = (BufReader::new(child.stdout.take().unwrap()), lines.clone());
        std::thread::spawn(move || out.lines().map_while(Result::ok).for_each(|line| all.lock().unwrap().push(line)));
        let this = Self { child, lines };
        this.wait("subscribed", |line| line.starts_with("Subscribed"));
        this
    }

    fn wait(&self, what: &str, mut wanted: impl FnMut(&str) -> bool) -> String {
        support::eventually(LONG, what, || self.lines.lock().unwrap().iter().find(|line| wanted(line)).cloned())
    }

    /// The payloads, in the order of their arrival.
    fn payloads(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines.iter().filter_map(|line| line.strip_prefix("GOT ")?.splitn(3, ' ').nth(2).map(str::to_owned)).collect()
    }
}

impl Drop for Headquarters {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Publishes as headquarters does.
fn publish(port: u16, topic: &str, payload: &[u8], extra: &[&str]) {
    let mut child = Command::new(which("mosquitto_pub"))
        .args(["-V", "mqttv311", "-h", "127.0.0.1", "-p", &port.to_string(), "-q", "1", "-t", topic, "-s"])
        .args(extra)
        .stdin(Stdio::piped())
        .spawn()
        .expect("mosquitto_pub");
    child.stdin.take().unwrap().write_all(payload).unwrap();
    assert!(child.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_told_as_delivered_is_at_the_subscriber() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let hq = Headquarters::new(broker.port, &[]);
    let mut uplink = start(settings(&[broker.port]));
    uplink.events.offer(incident(1, 1));
    uplink.delivered(&Tag::Incident(id(1)), 1).await;
    hq.wait("the document", |line| line.ends_with(&format!("{} 1 1", id(1))));
    let stats = uplink.events.stats();
    assert_eq!((stats.delivered, stats.held.topics, stats.backhaul), (1, 0, Some(Backhaul::Up)));
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_acknowledged_is_not_told_as_delivered() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let mut uplink = start(settings(&[broker.port]));
    uplink.up().await;
    broker.signal("STOP");
    uplink.events.offer(incident(1, 1));
    let told = timeout(Duration::from_millis(700), uplink.delivered(&Tag::Incident(id(1)), 1)).await;
    broker.signal("CONT");
    assert!(told.is_err());
    uplink.delivered(&Tag::Incident(id(1)), 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_that_pauses_misses_no_delivery_and_costs_no_connection() {
    const N: u64 = 2_000;
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let mut uplink = start_with(settings(&[broker.port]), 1);
    (0..N).for_each(|n| uplink.events.offer(incident(n, 1)));
    // Longer than the patience, shorter than what the broker bears without a ping.
    tokio::time::sleep(Duration::from_millis(1_500)).await;
    assert!(uplink.events.stats().delivered < N, "the uplink reads on although nobody listens");
    uplink.all_delivered((0..N).map(|n| id(n).to_string()).collect()).await;
    let stats = uplink.events.stats();
    assert_eq!((stats.delivered, stats.connections, stats.failures), (N, 1, 0));
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_lost_when_the_broker_is_killed_in_mid_stream() {
    const N: u64 = 1_000;
    let dir = tempfile::tempdir().unwrap();
    // Retained, so that the subscriber sees after its return what was published while it was away.
    let lines = "max_queued_messages 0";
    let broker = mosquitto(0, dir.path(), lines);
    let port = broker.port;
    let hq = Headquarters::new(port, &[]);
    let mut uplink = start(settings(&[port]));
    uplink.up().await;
    let offer = |n, revision| uplink.events.offer(Document { retain: true, ..incident(n, revision) });
    (0..N).for_each(|n| offer(n, 1));
    support::eventually(LONG, "some delivered", || (uplink.events.stats().delivered > 50).then_some(()));
    broker.signal("KILL");
    (0..N).step_by(3).for_each(|n| offer(n, 2));
    let before = uplink.events.stats();
    assert!(before.held.flying + before.held.waiting > 0, "killed too late to mean anything: {before:?}");
    drop(broker);
    let _broker = mosquitto(port, dir.path(), lines);
    uplink.wait("up again", |event| matches!(event, Event::Up { .. }).then_some(())).await;
    support::eventually(LONG, "everything delivered", || {
        while uplink.told.try_recv().is_ok() {}
        (uplink.events.stats().held.topics == 0).then_some(())
    });
    let latest = support::eventually(LONG, "every document at headquarters", || {
        let mut latest = BTreeMap::<u64, u64>::new();
        for payload in hq.payloads() {
            let (n, revision) = payload.split_once(' ')?;
            latest.insert(n.parse().ok()?, revision.parse().ok()?);
        }
        let complete = (0..N).all(|n| latest.get(&n) == Some(&if n % 3 == 0 { 2 } else { 1 }));
        complete.then_some(latest)
    });
    assert_eq!(latest.len() as u64, N);
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn documents_arrive_in_the_order_of_their_lanes_and_offers() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let hq = Headquarters::new(broker.port, &["-q", "1"]);
    // Everything is offered while the first address does not answer.
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let mut uplink = start(settings(&[mute.local_addr().unwrap().port(), broker.port]));
    uplink.events.offer(status(1));
    (0..200).for_each(|n| uplink.events.offer(incident(n, 1)));
    uplink.all_delivered((0..200).map(|n| id(n).to_string()).collect()).await;
    uplink.delivered(&Tag::Status, 1).await;
    let payloads = support::eventually(LONG, "the status", || {
        let payloads = hq.payloads();
        payloads.last()?.contains("online").then_some(payloads)
    });
    let order: Vec<u64> = payloads.iter().filter_map(|p| p.split_once(' ')?.0.parse().ok()).collect();
    let mut sorted = order.clone();
    sorted.sort_unstable();
    assert_eq!(order, sorted);
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_address_serves_when_one_is_dead_and_one_is_mute() {
    let dir = tempfile::tempdir().unwrap();
    let mute = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let ports = [free_port(), mute.local_addr().unwrap().port(), broker.port];
    let mut uplink = start(settings(&ports));
    uplink.events.offer(incident(1, 1));
    assert!(uplink.down().await.contains("refused"));
    let mute = uplink.down().await;
    assert!(mute.contains(&ports[1].to_string()) && mute.contains("no answer"), "{mute}");
    assert_eq!(uplink.up().await, address(broker.port));
    uplink.delivered(&Tag::Incident(id(1)), 1).await;
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_broker_that_falls_silent_is_found_out_and_everything_arrives_after_all() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let hq = Headquarters::new(broker.port, &[]);
    let mut uplink = start(settings(&[broker.port]));
    uplink.up().await;
    broker.signal("STOP");
    (0..100).for_each(|n| uplink.events.offer(incident(n, 1)));
    let reason = uplink.down().await;
    assert!(reason.contains("no answer"), "{reason}");
    assert_ne!(uplink.events.stats().backhaul, Some(Backhaul::Up));
    broker.signal("CONT");
    uplink.all_delivered((0..100).map(|n| id(n).to_string()).collect()).await;
    // The broker acknowledges before whoever subscribes has read.
    support::eventually(LONG, "headquarters has read all", || {
        let seen: BTreeSet<String> = hq.payloads().into_iter().collect();
        (0..100).all(|n| seen.contains(&format!("{n} 1"))).then_some(())
    });
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_idle_broker_that_falls_silent_is_found_out_too() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let mut uplink = start(settings(&[broker.port]));
    uplink.up().await;
    broker.signal("STOP");
    let reason = uplink.down().await;
    broker.signal("CONT");
    assert!(reason.contains("no answer"), "{reason}");
    uplink.up().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_status_is_published_again_to_a_broker_that_forgot_it() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let port = broker.port;
    let mut uplink = start(settings(&[port]));
    uplink.events.offer(status(1));
    uplink.events.offer(status(2));
    uplink.delivered(&Tag::Status, 2).await;
    drop(broker);
    let _broker = mosquitto(port, dir.path(), "");
    let hq = Headquarters::new(port, &[]);
    hq.wait("the status", |line| line.contains("\"revision\":2"));
    assert!(!hq.payloads().iter().any(|p| p.contains("\"revision\":1")));
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn commands_arrive_and_one_of_absurd_size_does_not_stop_the_events() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let topic = "chowki/saddar/commands";
    let mut uplink = start(settings(&[broker.port]));
    uplink.up().await;
    publish(broker.port, topic, &vec![b'x'; events::MAX_COMMAND + 1], &[]);
    publish(broker.port, topic, b"{\"command\":\"seen\"}", &[]);
    let command =
        |event| if let Event::Command { payload, retained, .. } = event { Some((payload, retained)) } else { None };
    assert_eq!(uplink.wait("a command", command).await, (Bytes::from("{\"command\":\"seen\"}"), false));
    publish(broker.port, topic, &vec![b'x'; 2 * 1024 * 1024], &["-r"]);
    assert!(uplink.down().await.contains("no commands are heard"));
    uplink.events.offer(incident(1, 1));
    uplink.delivered(&Tag::Incident(id(1)), 1).await;
    assert_eq!(uplink.events.stats().commands, 1);
    uplink.stop().await;
}

#[test]
fn headquarters_is_told_by_the_will_when_the_gateway_dies() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let hq = Headquarters::new(broker.port, &[]);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let uplink = runtime.block_on(async {
        let mut uplink = start(settings(&[broker.port]));
        uplink.events.offer(status(1));
        uplink.delivered(&Tag::Status, 1).await;
        uplink
    });
    runtime.shutdown_background();
    hq.wait("the will", |line| line.contains("\"online\":false") && line.contains("connection lost"));
    drop(uplink);
    let late = Headquarters::new(broker.port, &[]);
    late.wait("the will, retained", |line| line.starts_with("GOT 1 ") && line.contains("\"online\":false"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gateway_that_is_stopped_delivers_what_it_has_and_says_that_it_stopped() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let hq = Headquarters::new(broker.port, &[]);
    let mut uplink = start(settings(&[broker.port]));
    uplink.events.offer(status(41));
    uplink.delivered(&Tag::Status, 41).await;
    (0..50).for_each(|n| uplink.events.offer(incident(n, 1)));
    uplink.stop().await;
    hq.wait("the farewell", |line| line.contains("\"online\":false") && line.contains("stopped"));
    assert_eq!(hq.payloads().iter().filter(|p| p.ends_with(" 1")).count(), 50);
    std::thread::sleep(Duration::from_millis(200));
    assert!(!hq.payloads().iter().any(|p| p.contains("connection lost")), "the will was published as well");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_password_is_named_and_tried_again() {
    let dir = tempfile::tempdir().unwrap();
    let passwords = dir.path().join("passwords");
    let mut command = Command::new(which("mosquitto_passwd"));
    command.args(["-b", "-c"]).arg(&passwords).args(["saddar", "right"]);
    assert!(command.status().unwrap().success());
    let lines = format!("password_file {}", passwords.display());
    let broker = mosquitto(0, dir.path(), &lines);
    let mut wrong = settings(&[broker.port]);
    wrong.login = Some(("saddar".into(), Secret::new("hunter2")));
    let mut uplink = start(wrong);
    let reason = uplink.down().await;
    assert!(reason.contains("refused the login") && reason.contains("password_file"), "{reason}");
    assert!(!reason.contains("hunter2"));
    support::eventually(LONG, "a second attempt", || (uplink.events.stats().failures >= 2).then_some(()));
    uplink.stop().await;
    let mut right = settings(&[broker.port]);
    right.login = Some(("saddar".into(), Secret::new("right")));
    let mut uplink = start(right);
    uplink.up().await;
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_that_is_too_large_is_set_aside_and_blocks_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    let mut uplink = start(settings(&[broker.port]));
    uplink.events.offer(Document { payload: vec![b'x'; 300 * 1024].into(), ..incident(1, 1) });
    uplink.events.offer(incident(2, 1));
    let (tag, reason) = uplink
        .wait("set aside", |event| match event {
            Event::SetAside { tag, reason, .. } => Some((tag, reason)),
            _ => None,
        })
        .await;
    assert_eq!(tag, Tag::Incident(id(1)));
    assert!(matches!(reason, Aside::Refused(_)));
    uplink.delivered(&Tag::Incident(id(2)), 1).await;
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_document_over_which_the_broker_hangs_up_does_not_hold_back_the_others() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "max_packet_size 2000");
    let mut uplink = start(settings(&[broker.port]));
    uplink.events.offer(Document { payload: vec![b'x'; 4_000].into(), ..incident(0, 1) });
    (1..100).for_each(|n| uplink.events.offer(incident(n, 1)));
    let mut suspect = None;
    let mut open: BTreeSet<u64> = (1..100).collect();
    let ids: BTreeMap<String, u64> = (0..100).map(|n| (id(n).to_string(), n)).collect();
    uplink
        .wait("the others delivered", |event| {
            match event {
                Event::SetAside { tag, reason, .. } => suspect = Some((tag, reason)),
                Event::Delivered { tag: Tag::Incident(id), .. } => {
                    assert!(open.remove(&ids[&id.to_string()]));
                }
                _ => {}
            }
            open.is_empty().then_some(())
        })
        .await;
    assert_eq!(suspect, Some((Tag::Incident(id(0)), Aside::Suspect)));
    assert_eq!(uplink.events.stats().held.suspects, 1);
    uplink.stop().await;
}

/// A CA and a certificate for 127.0.0.1, made by openssl: `ca.pem`, `server.pem`, `server.key`.
fn certificates(dir: &Path) {
    let openssl = |args: &str| {
        let mut command = Command::new("openssl");
        command.current_dir(dir).args(args.split(' ')).stdout(Stdio::null()).stderr(Stdio::null());
        assert!(command.status().expect("openssl").success(), "openssl {args}");
    };
    std::fs::write(dir.join("san"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let key = "-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2";
    openssl(&format!("req -x509 {key} -keyout ca.key -out ca.pem -subj /CN=test-ca -addext keyUsage=keyCertSign"));
    openssl(&format!("req {key} -keyout server.key -out server.csr -subj /CN=broker"));
    openssl("x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile san -out server.pem");
}

#[tokio::test(flavor = "multi_thread")]
async fn over_tls_only_a_broker_of_the_trusted_ca_is_spoken_to() {
    let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    certificates(dir.path());
    certificates(other.path());
    let file = |name| dir.path().join(name).display().to_string();
    let lines = format!("certfile {}\nkeyfile {}\nuser root", file("server.pem"), file("server.key"));
    let broker = mosquitto(0, dir.path(), &lines);
    let with_ca = |dir: &Path| {
        let ca = std::fs::read(dir.join("ca.pem")).unwrap();
        let mut settings = settings(&[broker.port]);
        settings.addresses[0].tls = true;
        settings.connect_timeout = Duration::from_secs(5);
        settings.tls_roots = Some(tls::client_config(Some(&ca), None).unwrap());
        settings
    };
    let mut stranger = start(with_ca(other.path()));
    let reason = stranger.down().await;
    assert!(reason.contains("TLS") && reason.contains("certificate"), "{reason}");
    stranger.stop().await;
    let mut uplink = start(with_ca(dir.path()));
    uplink.events.offer(incident(1, 1));
    uplink.delivered(&Tag::Incident(id(1)), 1).await;
    uplink.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_object_is_whole_in_the_directory_and_its_repeat_replaces_it() {
    let dir = tempfile::tempdir().unwrap();
    let store = objects::open(&objects::Settings::new(format!("file://{}", dir.path().display()))).unwrap();
    let name = "saddar/incidents/1/cam-1/00001.m4s";
    assert_eq!(store.get(name).await.unwrap(), None);
    for bytes in [Bytes::from_static(b"first"), Bytes::from(vec![7; 2_000_000])] {
        store.put(name, bytes.clone()).await.unwrap();
        assert_eq!(store.head(name).await.unwrap(), Some(bytes.len() as u64));
        assert_eq!(store.get(name).await.unwrap(), Some(bytes.clone()));
        assert_eq!(std::fs::read(dir.path().join(name)).unwrap(), bytes);
    }
    let files = std::fs::read_dir(dir.path().join(name).parent().unwrap()).unwrap().count();
    assert_eq!(files, 1, "something was left beside the object");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_directory_that_is_not_mounted_is_not_made_and_serves_once_it_is_there() {
    let dir = tempfile::tempdir().unwrap();
    let mount = dir.path().join("mount");
    let store = objects::open(&objects::Settings::new(format!("file://{}", mount.display()))).unwrap();
    let put = || store.put("a/b.json", Bytes::from_static(b"{}"));
    let error = put().await.unwrap_err();
    assert!(matches!(error, PutError::Misconfigured { .. }) && error.to_string().contains("mounted"), "{error}");
    assert!(!mount.exists());
    std::fs::create_dir(&mount).unwrap();
    put().await.unwrap();
    let long = "x".repeat(300);
    for bad in ["", "../escape", "a//b", "a/./b", &long] {
        let error = store.put(bad, Bytes::new()).await.unwrap_err();
        assert!(matches!(error, PutError::Refused { .. }), "{bad:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_takes_objects_and_each_failure_says_what_to_do() {
    let Some(server) = moto(free_port(), None) else { return };
    make_bucket(server.port);
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let store = objects::open(&s3("evidence", endpoint.clone())).unwrap();
    let bytes = Bytes::from(vec![3; 300_000]);
    // In a task, as an uploader does it.
    let scope = Scope::new("test");
    let put = scope.spawn("put", {
        let (store, bytes) = (store.clone(), bytes.clone());
        async move { store.put("saddar/1.m4s", bytes).await }
    });
    put.await.unwrap().unwrap();
    assert_eq!(store.head("saddar/1.m4s").await.unwrap(), Some(300_000));
    assert_eq!(store.get("saddar/1.m4s").await.unwrap(), Some(bytes.clone()));
    assert_eq!(store.get("saddar/2.m4s").await.unwrap(), None);

    let elsewhere = objects::open(&s3("nowhere", endpoint)).unwrap();
    let error = elsewhere.put("a", bytes.clone()).await.unwrap_err();
    assert!(matches!(error, PutError::Misconfigured { .. }), "{error}");

    let mut hasty = s3("evidence", format!("http://127.0.0.1:{}", server.port));
    hasty.patience = Duration::from_millis(500);
    server.signal("STOP");
    let error = objects::open(&hasty).unwrap().put("a", Bytes::new()).await.unwrap_err();
    server.signal("CONT");
    assert!(matches!(error, PutError::Later { .. }) && error.to_string().contains("did not answer"), "{error}");

    drop(server);
    let error = store.put("a", bytes).await.unwrap_err();
    assert!(matches!(error, PutError::Later { .. }), "{error}");
}

/// An S3 that gives one answer to everything; moto has few failures of its own.
fn one_answer(status: &'static str, code: &'static str) -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                socket.read_exact(&mut byte).unwrap();
                head.push(byte[0]);
            }
            let body = format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>");
            write!(socket, "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}", body.len())
                .unwrap();
        }
    });
    port
}

#[tokio::test(flavor = "multi_thread")]
async fn the_answers_of_s3_decide_whether_an_object_is_tried_again() {
    for (status, code, class) in [
        ("400 Bad Request", "EntityTooLarge", "refused"),
        ("413 Content Too Large", "", "refused"),
        ("400 Bad Request", "RequestTimeout", "later"),
        ("503 Service Unavailable", "SlowDown", "later"),
        ("500 Internal Server Error", "InternalError", "later"),
        ("400 Bad Request", "AuthorizationHeaderMalformed", "misconfigured"),
        ("301 Moved Permanently", "PermanentRedirect", "misconfigured"),
        ("403 Forbidden", "SignatureDoesNotMatch", "misconfigured"),
        ("404 Not Found", "NoSuchBucket", "misconfigured"),
    ] {
        let port = one_answer(status, code);
        let store = objects::open(&s3("evidence", format!("http://127.0.0.1:{port}"))).unwrap();
        let error = store.put("a.json", Bytes::new()).await.unwrap_err();
        let found = match &error {
            PutError::Later { .. } => "later",
            PutError::Refused { .. } => "refused",
            PutError::Misconfigured { .. } => "misconfigured",
        };
        assert_eq!(found, class, "{error}");
        assert!(error.to_string().contains(&status[..3]), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn s3_over_tls_needs_the_ca_that_signed_it() {
    let dir = tempfile::tempdir().unwrap();
    certificates(dir.path());
    let Some(server) = moto(free_port(), Some(dir.path())) else { return };
    let mut settings = s3("nowhere", format!("https://127.0.0.1:{}", server.port));
    let error = objects::open(&settings).unwrap().put("a", Bytes::new()).await.unwrap_err();
    assert!(matches!(error, PutError::Later { .. }) && error.to_string().contains("certificate"), "{error}");
    settings.s3.ca = Some(std::fs::read(dir.path().join("ca.pem")).unwrap());
    settings.bandwidth = Some(8_000_000);
    let error = objects::open(&settings).unwrap().put("a", Bytes::from(vec![3; 300_000])).await.unwrap_err();
    assert!(matches!(error, PutError::Misconfigured { .. }), "the bucket is not there, but it was asked: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn media_of_a_line_that_nobody_described_go_slowly_at_first_and_faster_while_the_broker_answers_at_once() {
    let Some(server) = moto(free_port(), None) else { return };
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(0, dir.path(), "");
    make_bucket(server.port);
    let store = objects::open(&s3("evidence", format!("http://127.0.0.1:{}", server.port))).unwrap();
    let pacer = store.pacer().unwrap();
    let no_limit = pacer.pace().unwrap();
    let mut uplink = start(Settings { pacer: Some(pacer.clone()), ..settings(&[broker.port]) });
    uplink.up().await;
    uplink.events.offer(status(1));
    uplink.delivered(&Tag::Status, 1).await;
    let put = async {
        for n in 0.. {
            store.put(&format!("{n}.m4s"), Bytes::from(vec![1; 200_000])).await.unwrap();
        }
    };
    let begun = async {
        while pacer.pace() == Some(no_limit) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let first = pacer.pace().unwrap();
        while pacer.pace().unwrap() < first * 2 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = put => {}
        risen = timeout(3 * LONG, begun) => risen.expect("it does not rise"),
    }
    uplink.stop().await;
}
