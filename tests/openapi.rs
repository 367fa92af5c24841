//! The API against what it says of itself: schemathesis makes requests of all kinds from the served document, right ones and
//! wrong ones, and every answer has to be one that the document tells.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
mod support;

use std::{collections::BTreeSet, process::Command, time::Duration};

use gateway::{SOON, Site, quiet_port};
use mqtt::Button;
use support::{cameras, eventually, which};

#[test]
fn whatever_is_sent_is_answered_as_the_document_says() {
    let rig = cameras(quiet_port(), 1);
    let url = format!("rtsp://127.0.0.1:{}/cam0", rig.port);
    let site = Site::new().buttons(1).camera("c1", 10, &url).with("record = \"always\"\n").window(2, 2);
    let site = site
        .secret("supervisor.token", "token-of-supervisor")
        .with("[[api.client]]\nname = \"the supervisor\"\nrole = \"supervisor\"\ntoken_file = \"supervisor.token\"\n");
    let gateway = site.start();
    let mut button = Button::connect(gateway.mqtt, "b1").unwrap();
    button.press("p-1", "panic");
    button.until("p-1", "recorded");
    eventually(Duration::from_secs(20), "something is recorded", || {
        let held = gateway.get_as("token-of-supervisor", "/v1/cameras/c1/recording.mp4");
        (held.status == 200).then_some(())
    });
    let document = gateway.get("/v1/openapi.json");
    assert_eq!(document.status, 200, "it needs no token: it says nothing of this gateway");
    assert_eq!(document.json()["openapi"], "3.1.0");

    let run = Command::new(which("schemathesis"))
        .args([
            "--config-file",
            concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi.toml"),
            "run",
            &format!("http://127.0.0.1:{}/v1/openapi.json", gateway.api),
            "--no-color",
        ])
        .args(["-H", "Authorization: Bearer token-of-supervisor", "-n", "25", "--seed", "7", "--request-timeout", "20"])
        // Events go on for ever; units have tokens of their own.
        .args(["--exclude-path-regex", "events|units", "--rate-limit", "150/s"])
        .env("SCHEMATHESIS_HOOKS", concat!(env!("CARGO_MANIFEST_DIR"), "/tests/openapi_hooks.py"))
        .current_dir(site.dir.path())
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{said}");
    // It did not pass because nothing was looked at.
    assert!(said.contains("Fuzzing") && !said.contains("Rate limited"), "{said}");
    button.press("p-2", "panic");
    button.until("p-2", "recorded");
}

#[test]
fn the_cursor_of_changes_leaves_none_out_and_gives_none_twice() {
    let site = Site::new().buttons(12);
    let gateway = site.start();
    let mut presses: Vec<_> = (1..=12).map(|n| Button::connect(gateway.mqtt, &format!("b{n}")).unwrap()).collect();
    for (n, button) in presses.iter_mut().enumerate() {
        button.press(&format!("p-{n}"), "panic");
        button.until(&format!("p-{n}"), "recorded");
    }
    let page = |since: u64| {
        let page = gateway.get(&format!("/v1/incidents?since={since}&limit=5")).json();
        let of = |i: &serde_json::Value| (i["id"].as_str().unwrap().to_owned(), i["revision"].as_u64().unwrap());
        let incidents: Vec<_> = page["incidents"].as_array().unwrap().iter().map(of).collect();
        (incidents, page["next"].as_u64().unwrap())
    };
    let read = |mut since: u64| {
        let mut all = Vec::new();
        loop {
            let (incidents, next) = page(since);
            if incidents.is_empty() {
                return (all, next);
            }
            (since, _) = (next, all.extend(incidents));
        }
    };
    let (first, cursor) = eventually(SOON, "all twelve", || Some(read(0)).filter(|(all, _)| all.len() >= 12));
    let ids: BTreeSet<_> = first.iter().map(|(id, _)| id.clone()).collect();
    assert_eq!((ids.len(), first.len()), (12, 12));
    // What changes afterwards comes, and comes once.
    std::thread::sleep(Duration::from_millis(500));
    let (_, cursor) = read(cursor);
    let changed = first[3].0.clone();
    assert_eq!(gateway.post(None, &format!("/v1/incidents/{changed}/seen"), "").status, 204);
    let (later, cursor) = eventually(SOON, "the change", || Some(read(cursor)).filter(|(all, _)| !all.is_empty()));
    assert!(later.iter().all(|(id, _)| *id == changed), "{later:?}");
    assert_eq!(read(cursor).0, []);
    // A cursor of another start, even of a clock that was ahead, leaves nothing out.
    assert_eq!(read((1 << 53) - 1).0.len(), 12);
    drop(gateway);
    let gateway = site.start();
    let again = gateway.get(&format!("/v1/incidents?since={cursor}")).json();
    assert_eq!(again["incidents"].as_array().unwrap().len(), 12);
}
