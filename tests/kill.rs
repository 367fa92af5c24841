//! `kill -9` under load, again and again: every press that got its PUBACK is in exactly one incident, here and at
//! headquarters, and headquarters never sees a revision go back; what is left on the disk is sound each time.
//!
//! `CHOWKI_KILLS=500` kills that often, however long it takes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};

use chowki::district::{incident::Incident, press::Progress};
use gateway::{SOON, Site, quiet_port};
use mqtt::{Button, Down, Headquarters};
use support::{eventually, mosquitto};

/// How often it is killed; fewer when the machine is so busy that it would take longer than [`ENOUGH`].
const KILLS: usize = 200;
const ENOUGH: Duration = Duration::from_secs(75);
/// Fewer than this prove too little.
const AT_LEAST: usize = 30;

const BUTTONS: usize = 8;

/// A button that presses as fast as it is acknowledged, and sends again what was not, as a device does.
struct Presser {
    id: String,
    acknowledged: Vec<String>,
    /// Sent and not acknowledged, oldest first.
    open: Vec<String>,
    next: u64,
}

impl Presser {
    fn run(mut self, port: u16, stop: &AtomicBool, all: &AtomicU64) -> Self {
        while !stop.load(SeqCst) {
            if let Ok(mut button) = Button::connect_with(port, &self.id, 60, "") {
                self.press(&mut button, stop, all);
            } else {
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        self
    }

    /// Until the connection ends: two presses in flight at a time.
    fn press(&mut self, button: &mut Button, stop: &AtomicBool, all: &AtomicU64) {
        let mut flying: BTreeMap<u16, String> = BTreeMap::new();
        for press in self.open.clone() {
            let Ok(pid) = button.send_press(&press, "panic") else { return };
            flying.insert(pid, press);
        }
        let mut read = 0;
        while !stop.load(SeqCst) || !flying.is_empty() {
            while flying.len() < 2 && !stop.load(SeqCst) {
                let press = format!("{}-{}", self.id, self.next);
                self.next += 1;
                self.open.push(press.clone());
                let Ok(pid) = button.send_press(&press, "panic") else { return };
                flying.insert(pid, press);
            }
            for down in button.next(&mut read, Duration::from_secs(5)) {
                match down {
                    Down::Ack(pid) => {
                        let press = flying.remove(&pid).expect("an acknowledgement of what was sent");
                        self.open.retain(|p| *p != press);
                        self.acknowledged.push(press);
                        all.fetch_add(1, SeqCst);
                    }
                    Down::End => return,
                    _ => {}
                }
            }
        }
    }
}

#[test]
fn every_acknowledged_press_survives_kill_9_in_exactly_one_incident() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "max_queued_messages 0\nmax_inflight_messages 0\n");
    let hq = Headquarters::subscribe(broker.port);
    let site = Site::new().headquarters(broker.port).buttons(BUTTONS);
    let (stop, all) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let pressers: Vec<_> = (1..=BUTTONS)
        .map(|n| {
            let presser = Presser { id: format!("b{n}"), acknowledged: Vec::new(), open: Vec::new(), next: 0 };
            let (port, stop, all) = (site.mqtt, stop.clone(), all.clone());
            std::thread::spawn(move || presser.run(port, &stop, &all))
        })
        .collect();

    let mut closer = Closer::default();
    let (mut kills, mut seed, began) = (0, 42u64, Instant::now());
    let mut slowest = Duration::ZERO;
    let wanted = std::env::var("CHOWKI_KILLS").ok().map(|n| n.parse::<usize>().unwrap());
    while kills < wanted.unwrap_or(KILLS) && (wanted.is_some() || began.elapsed() < ENOUGH) {
        let started = Instant::now();
        let before = all.load(SeqCst);
        let gateway = site.spawn(&[("RUST_LOG", "warn")]);
        // Under load from the first moment on: it is killed at a random time after its first acknowledgement, and now
        // and then before it.
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let random = seed >> 33;
        if random % 8 > 0 {
            eventually(SOON, "a press is acknowledged", || (all.load(SeqCst) > before).then_some(()));
            slowest = slowest.max(started.elapsed());
            std::thread::sleep(Duration::from_micros(random % 60_000));
            closer.close_some(&gateway, random % 2 == 1);
        } else {
            std::thread::sleep(Duration::from_millis(random % 150));
        }
        gateway.kill();
        kills += 1;
        // (The first may have died before it had a spool.)
        if site.has_spool() && (wanted.is_some() || kills % 4 == 0) {
            site.assert_clean();
        }
    }
    eprintln!("{kills} kills in {:?}, the slowest start took {slowest:?}", began.elapsed());
    assert!(kills >= AT_LEAST, "only {kills} kills");

    // Now it may live: everything that is open is sent again and acknowledged.
    let gateway = site.start();
    let before = all.load(SeqCst);
    eventually(SOON, "presses go on", || (all.load(SeqCst) > before).then_some(()));
    stop.store(true, SeqCst);
    let pressers: Vec<_> = pressers.into_iter().map(|p| p.join().unwrap()).collect();
    let acknowledged: BTreeSet<_> =
        pressers.iter().flat_map(|p| p.acknowledged.iter().map(|a| format!("{} {a}", p.id))).collect();
    let count: usize = pressers.iter().map(|p| p.acknowledged.len()).sum();
    assert_eq!(count, acknowledged.len(), "acknowledged twice");
    assert!(pressers.iter().all(|p| p.open.is_empty()), "left open");
    eventually(Duration::from_secs(60), "everything is at headquarters", || {
        let metrics = gateway.get("/metrics").text();
        let is = |line: &str| metrics.lines().any(|l| l == line);
        (is("chowki_documents_waiting 0") && is("chowki_documents_flying 0")).then_some(())
    });

    let documents = hq.documents();
    mqtt::assert_revisions_never_go_back(&documents);
    let mut home: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut visible: BTreeMap<String, u64> = BTreeMap::new();
    for document in &documents {
        for press in document.presses.iter().filter_map(|p| p.press.as_ref()) {
            let incident = document.id.to_string();
            if home.entry(format!("{} {press}", document.button.id)).or_default().insert(incident.clone()) {
                *visible.entry(incident).or_default() += 1;
            }
        }
    }
    let twice: Vec<_> = home.iter().filter(|(_, incidents)| incidents.len() > 1).collect();
    assert!(twice.is_empty(), "presses in more than one incident: {twice:?}");
    // Every press is counted, and once: the counts of all incidents are the number of presses.
    let latest = hq.latest();
    let counted: u64 = latest.values().map(|i| i.press_count).sum();
    assert_eq!(counted, acknowledged.len() as u64, "presses counted twice or never");
    // And every press is named, by its incident's first document that has it. A document names its first press and the
    // latest 31, so of an incident that was pressed more often than that between two documents some are only counted: as
    // many as it counts more than were named, and no other press.
    let mut only_counted = 0;
    for (id, incident) in &latest {
        let named = visible[id];
        assert!(
            named == incident.press_count || incident.press_count > 32,
            "{id}: {named} of {}",
            incident.press_count
        );
        only_counted += incident.press_count - named;
    }
    let unnamed: Vec<_> = acknowledged.iter().filter(|press| !home.contains_key(*press)).collect();
    assert_eq!(
        unnamed.len() as u64,
        only_counted,
        "of {count} acknowledged presses these are neither named nor counted"
    );

    // What the gateway holds is what headquarters has.
    for incident in gateway.incidents() {
        let known = &latest[&incident.id.to_string()];
        assert_eq!((known.revision, known.press_count), (incident.revision, incident.press_count), "{}", incident.id);
    }
    let is_closed = |(id, i): (&String, &Incident)| (i.state == Progress::Closed).then(|| id.clone());
    let closed: BTreeSet<_> = latest.iter().filter_map(is_closed).collect();
    eprintln!(
        "{count} presses in {} incidents ({} closed), {} documents, {} presses only counted",
        latest.len(),
        closed.len(),
        documents.len(),
        unnamed.len()
    );
    assert!(!closed.is_empty() && count > kills);
    assert!(closer.answered.is_subset(&closed), "steps that were answered are kept");
    assert!(closed.is_subset(&closer.asked), "nothing is closed that nobody closed");
    assert!(gateway.stop().success());
}

/// Closes incidents over HTTP, so that there are many, and remembers which steps were answered.
#[derive(Default)]
struct Closer {
    answered: BTreeSet<String>,
    asked: BTreeSet<String>,
}

impl Closer {
    fn close_some(&mut self, gateway: &gateway::Gateway<'_>, now: bool) {
        if !now {
            return;
        }
        let Some(page) = gateway.try_http("GET", "/v1/incidents?limit=8", &[], "") else { return };
        for incident in page.json()["incidents"].as_array().unwrap() {
            if incident["state"] == "closed" {
                continue;
            }
            let id = incident["id"].as_str().unwrap().to_owned();
            self.asked.insert(id.clone());
            if gateway.try_http("POST", &format!("/v1/incidents/{id}/close"), &[], "").is_some_and(|a| a.status == 204)
            {
                self.answered.insert(id);
            }
        }
    }
}
