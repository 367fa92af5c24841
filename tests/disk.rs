//! Disks that are full or slow: no press is acknowledged that is not on disk, nothing goes missing in silence, and everything
//! mends itself when there is room. On a small tmpfs, which needs the right to mount.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/evidence.rs"]
mod evidence;
#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{
    collections::BTreeSet,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use chowki::district::{incident::Incident, press::Progress};
use evidence::{Wanted, all_there, assert_whole};
use gateway::{SOON, Site, quiet_port};
use mqtt::{Button, Down, Headquarters};
use support::{cameras, eventually, mosquitto};

const LONG: Duration = Duration::from_secs(60);
const SECOND: Duration = Duration::from_secs(1);

/// A file system of that many MiB, unmounted when dropped.
struct Small(PathBuf);

impl Small {
    fn mount(dir: &Path, mib: u32) -> Option<Self> {
        let at = dir.join("small");
        std::fs::create_dir(&at).unwrap();
        let size = format!("size={mib}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(&at).stderr(Stdio::null());
        if mount.status().is_ok_and(|s| s.success()) {
            return Some(Self(at));
        }
        eprintln!("SKIPPED: a tmpfs cannot be mounted here (it takes root)");
        None
    }

    fn data(&self) -> PathBuf {
        self.0.join("data")
    }

    /// Takes all the room that is left.
    fn fill(&self) {
        let mut ballast = std::fs::File::create(self.0.join("ballast")).unwrap();
        for size in [1 << 20, 1 << 12] {
            while ballast.write_all(&vec![0; size]).is_ok() {}
        }
    }

    fn make_room(&self) {
        std::fs::remove_file(self.0.join("ballast")).unwrap();
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

#[test]
fn a_press_on_a_full_disk_is_told_to_headquarters_but_acknowledged_only_when_there_is_room() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let Some(disk) = Small::mount(dir.path(), 12) else { return };
    let site = Site::new()
        .data(&disk.data(), "media_quota = \"64MiB\"\nkeep_free = \"1MiB\"")
        .headquarters(broker.port)
        .buttons(2);
    let gateway = site.spawn(&[("RUST_LOG", "info,chowki::gateway::desk=error")]);
    gateway.ready();
    disk.fill();
    // This disk is smaller than what the journal keeps for itself: a button that says something new every time uses up
    // what there is.
    let health = || gateway.get("/healthz").status;
    assert_eq!(health(), 200);
    let mut talker = Button::connect_with(gateway.mqtt, "b2", 60, "").unwrap();
    let mut said = 0;
    while health() == 200 {
        assert!(said < 5_000, "the disk is full, and yet it is not");
        said += 1;
        let status = format!(r#"{{"online":true,"tamper":{}}}"#, said % 2 == 0);
        talker.publish("buttons/b2/status", &status, false).unwrap();
        std::thread::sleep(Duration::from_millis(10));
    }
    let ailing = gateway.get("/healthz");
    assert_eq!(ailing.status, 503);
    assert!(ailing.text().contains("the journal's disk fails"), "{}", ailing.text());

    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    let pid = button.send_press("p-1", "panic").unwrap();
    let heard = hq.incident("headquarters is told", SOON, |i| i.button.id.to_string() == "b1");
    assert_eq!(heard.state, Progress::Received, "not on disk, and it says so");
    eventually(SOON, "its own state says so", || {
        let status: serde_json::Value = serde_json::from_str(hq.on("chowki/saddar/status").last()?).unwrap();
        status["journal"].as_str()?.starts_with("failing").then_some(())
    });
    std::thread::sleep(2 * SECOND);
    assert!(!button.has(|d| *d == Down::Ack(pid)), "acknowledged, and it is not on disk");
    assert!(button.states().is_empty(), "told of what is not proven: {:?}", button.states());

    disk.make_room();
    button.wait("PUBACK, by itself", SOON, |d| *d == Down::Ack(pid));
    button.until("p-1", "recorded");
    eventually(SOON, "well again", || (health() == 200).then_some(()));
    hq.incident("on disk now", SOON, |i| i.button.id.to_string() == "b1" && i.state >= Progress::Recorded);
    mqtt::assert_revisions_never_go_back(&hq.documents());
    // It is one incident, for a device that sends it again, and after a restart.
    button.press("p-1", "panic");
    gateway.kill();
    let gateway = site.start();
    let incidents = gateway.incidents();
    assert_eq!((incidents.len(), incidents[0].press_count), (1, 1));
    assert_eq!(incidents[0].id, heard.id);
    assert_eq!(hq.latest().len(), 1);
}

/// A button and two cameras, on a disk of which so much is to be kept free.
fn with_two_cameras(disk: &Small, keep_free: &str, broker: u16, rtsp: u16) -> Site {
    let url = |n: u32| format!("rtsp://127.0.0.1:{rtsp}/cam{n}");
    Site::new()
        .data(&disk.data(), &format!("media_quota = \"64MiB\"\nkeep_free = \"{keep_free}\""))
        .headquarters(broker)
        .buttons(1)
        .camera("near", 10, &url(0))
        .camera("far", 20, &url(1))
}

#[test]
fn evidence_beyond_the_disks_room_goes_through_it_as_headquarters_confirms() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let Some(disk) = Small::mount(dir.path(), 160) else { return };
    let rig = cameras(quiet_port(), 2);
    // The journal takes 80 MiB for itself; what is left for evidence are some 12 MiB, three segments.
    let site = with_two_cameras(&disk, "66MiB", broker.port, rig.port).window(3, 20);
    let gateway = site.start();
    gateway.cameras_settled(2, 3 * SECOND);
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    let incident = hq.incident("all evidence at headquarters", LONG, all_there);
    let evicted = gateway.log().matches("a segment was removed to make room").count();
    assert!(evicted > 0, "there was room for everything");
    for camera in ["near", "far"] {
        let wanted = Wanted { camera, video: "h264", fps: 30.0, audio: "opus", step: 0.02 };
        assert_whole(&site.objects(), &incident, &wanted, 3 * SECOND, 20 * SECOND);
    }

    // After a restart it knows less than headquarters, and takes nothing back.
    let playlist = |camera: &str| {
        std::fs::read_to_string(evidence::folder(&site.objects(), &incident, camera).join("index.m3u8")).unwrap()
    };
    let before = [playlist("near"), playlist("far")];
    let objects: usize = incident.evidence.iter().map(|e| e.delivered_count).sum();
    assert!(gateway.stop().success());
    let _gateway = site.start();
    std::thread::sleep(4 * SECOND);
    assert_eq!([playlist("near"), playlist("far")], before);
    for camera in ["near", "far"] {
        evidence::proven(&evidence::folder(&site.objects(), &incident, camera));
    }
    let latest = hq.latest().remove(&incident.id.to_string()).unwrap();
    assert_eq!(latest.evidence.iter().map(|e| e.delivered_count).sum::<usize>(), objects, "it was all delivered");
}

/// A library that makes every fdatasync of a program wait while a file is there, as a worn flash card does for seconds.
fn slow_disk(dir: &Path) -> (PathBuf, PathBuf) {
    let (source, library, flag) = (dir.join("slow.c"), dir.join("slow.so"), dir.join("slow"));
    let text = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <stdlib.h>
        #include <unistd.h>
        int fdatasync(int fd) {
            int (*real)(int) = (int (*)(int))dlsym(RTLD_NEXT, "fdatasync");
            while (access(getenv("SLOW_DISK"), F_OK) == 0) usleep(10000);
            return real(fd);
        }"#;
    std::fs::write(&source, text).unwrap();
    let built = Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status();
    assert!(built.unwrap().success(), "a C compiler is among what the tests need");
    (library, flag)
}

#[test]
fn a_disk_that_does_not_answer_keeps_no_press_from_headquarters() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let (library, flag) = slow_disk(dir.path());
    let site = Site::new().headquarters(broker.port).buttons(2);
    let gateway = site.spawn(&[("LD_PRELOAD", library.to_str().unwrap()), ("SLOW_DISK", flag.to_str().unwrap())]);
    gateway.ready();
    let mut first = Button::connect(gateway.mqtt, "b1").unwrap();
    first.press("p-1", "panic");
    first.until("p-1", "delivered");

    std::fs::write(&flag, "").unwrap();
    let mut button = Button::connect(gateway.mqtt, "b2").unwrap();
    let pid = button.send_press("p-2", "panic").unwrap();
    let of_b2 = |i: &Incident| i.button.id.to_string() == "b2";
    assert_eq!(hq.incident("headquarters is told", SOON, of_b2).state, Progress::Received, "and no more than is true");
    let health = || gateway.get("/healthz");
    eventually(SOON, "it says that it is ill", || (health().status == 503).then_some(()));
    assert!(health().text().contains("has not answered"), "{}", health().text());
    assert!(!button.has(|d| *d == Down::Ack(pid)), "acknowledged, and it is not on disk");
    assert!(button.states().is_empty(), "told of what is not proven: {:?}", button.states());

    std::fs::remove_file(&flag).unwrap();
    button.wait("PUBACK", SOON, |d| *d == Down::Ack(pid));
    button.until("p-2", "delivered");
    eventually(SOON, "well again", || (health().status == 200).then_some(()));
    hq.incident("on disk now", SOON, |i| of_b2(i) && i.state >= Progress::Recorded);
    mqtt::assert_revisions_never_go_back(&hq.documents());
    assert_eq!((hq.latest().len(), gateway.incidents().len()), (2, 2));
}

/// Asserts that every moment of what was asked for is in a fragment or in a gap; gives the gaps' reasons.
fn assert_accounted_for(objects: &Path, incident: &Incident, camera: &str) -> BTreeSet<String> {
    let kept = evidence::of(incident, camera);
    let index = evidence::folder(objects, incident, camera).join("index.m3u8");
    let playlist = std::fs::read_to_string(index).unwrap_or_default();
    let held =
        evidence::listed(&playlist).into_iter().map(|l| (l.from, l.from.after(Duration::from_secs_f64(l.seconds))));
    let mut spans: Vec<_> = held.chain(kept.gaps.iter().map(|g| (g.from, g.to))).collect();
    spans.sort();
    let mut covered = kept.from;
    for (from, to) in spans {
        assert!(from.since(covered) < Duration::from_millis(700), "{camera}: nothing is said of {covered} to {from}");
        covered = covered.max(to);
    }
    assert!(kept.to.since(covered) < Duration::from_millis(700), "{camera}: nothing is said of {covered} on");
    kept.gaps.iter().map(|g| format!("{:?}", g.reason)).collect()
}

#[test]
fn evidence_that_finds_no_room_anywhere_is_a_gap_and_not_silence() {
    let dir = tempfile::tempdir().unwrap();
    let broker = mosquitto(quiet_port(), dir.path(), "");
    let hq = Headquarters::subscribe(broker.port);
    let Some(disk) = Small::mount(dir.path(), 160) else { return };
    let rig = cameras(quiet_port(), 2);
    let site = with_two_cameras(&disk, "70MiB", broker.port, rig.port).window(2, 12);
    let gateway = site.start();
    gateway.cameras_live(2, 3 * SECOND);
    // Headquarters' store is away, so nothing may be removed; the disk is soon full.
    let away = site.dir.path().join("away");
    std::fs::rename(site.objects(), &away).unwrap();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    eventually(LONG, "the disk is full", || gateway.log().contains("media store").then_some(()));
    // The press path does not care.
    button.press("p-2", "panic");
    button.until("p-2", "delivered");
    std::thread::sleep(14 * SECOND);
    assert!(gateway.incidents()[0].evidence.iter().all(|e| !e.complete));
    // What waited for the disk in memory is lost now.
    assert!(gateway.stop().success());
    std::fs::rename(&away, site.objects()).unwrap();
    let _gateway = site.start();
    let incident = hq.incident("all that there is at headquarters", LONG, all_there);
    let reasons: Vec<_> = ["near", "far"]
        .map(|camera| {
            eventually(SOON, "a manifest", || {
                evidence::folder(&site.objects(), &incident, camera).join("manifest.json").exists().then_some(())
            });
            assert_accounted_for(&site.objects(), &incident, camera)
        })
        .into();
    assert!(reasons.iter().any(|r| !r.is_empty()), "it all found room");
    let known = BTreeSet::from(["DiskFailed".to_owned(), "GatewayDown".to_owned()]);
    assert!(reasons.iter().all(|r| r.is_subset(&known)), "{reasons:?}");
}
