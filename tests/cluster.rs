//! Headquarters with a cluster for its broker: NATS JetStream speaking MQTT, three nodes, of which some are killed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/gateway.rs"]
mod gateway;
#[path = "support/mqtt.rs"]
mod mqtt;
#[path = "support/nats.rs"]
mod nats;
mod support;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use chowki::district::{incident::Incident, press::Progress};
use gateway::{Gateway, SOON, Site};
use mqtt::{Button, Headquarters};
use nats::Cluster;
use support::eventually;

const LONG: Duration = Duration::from_secs(60);

/// A gateway that knows all three nodes, the first being its favourite.
fn site(cluster: &Cluster, buttons: usize) -> Site {
    let addresses: Vec<_> = (0..3).map(|n| format!("\"mqtt://127.0.0.1:{}\"", cluster.mqtt(n))).collect();
    let site = Site::new();
    let objects = site.objects();
    std::fs::create_dir_all(&objects).unwrap();
    let toml =
        format!("[headquarters]\nmqtt = [{}]\nobjects = \"file://{}\"\n", addresses.join(", "), objects.display());
    site.with(&toml).buttons(buttons)
}

/// What the gateway says of the way to headquarters: its name, and to which node.
fn backhaul(gateway: &Gateway<'_>) -> (String, String) {
    let status = gateway.get("/v1/status").json();
    let text = |key: &str| status[key].as_str().unwrap_or_default().to_owned();
    (text("backhaul"), text("backhaul_detail"))
}

/// Waits until the backhaul is up; gives the node.
fn up(gateway: &Gateway<'_>, cluster: &Cluster) -> usize {
    eventually(LONG, "the backhaul is up", || {
        let (state, detail) = backhaul(gateway);
        (state == "up" && detail.starts_with("connected")).then(|| cluster.named(&detail))?
    })
}

/// Whether the gateway is connected to another node than this one.
fn elsewhere(gateway: &Gateway<'_>, cluster: &Cluster, node: usize) -> bool {
    let detail = backhaul(gateway).1;
    detail.starts_with("connected") && cluster.named(&detail) != Some(node)
}

fn connect(gateway: &Gateway<'_>, n: usize) -> Vec<Button> {
    (1..=n).map(|b| Button::connect(gateway.mqtt, &format!("b{b}")).unwrap()).collect()
}

/// Every press of `rounds` on every button is at headquarters once, and what its button was told is true.
fn assert_all_there(hq: &Headquarters, buttons: &[Button], rounds: &[usize]) {
    let wanted: BTreeSet<String> =
        rounds.iter().flat_map(|r| (1..=buttons.len()).map(move |b| format!("b{b} p-{b}-{r}"))).collect();
    let latest = eventually(LONG, "every press is at headquarters", || {
        let latest: Vec<Incident> = hq.latest().into_values().collect();
        let there: BTreeSet<String> = mqtt::presses(&latest).into_keys().collect();
        (there == wanted).then_some(latest)
    });
    let mut of_button: BTreeMap<String, usize> = BTreeMap::new();
    latest.iter().for_each(|i| *of_button.entry(i.button.id.to_string()).or_default() += 1);
    assert_eq!(of_button.len(), buttons.len());
    assert!(of_button.values().all(|n| *n == 1), "a button has two incidents: {of_button:?}");
    for incident in &latest {
        assert_eq!((incident.press_count, incident.presses.len()), (rounds.len() as u64, rounds.len()));
    }
}

/// Presses every button once; `between` is told how many were pressed.
fn press(buttons: &mut [Button], round: usize, mut between: impl FnMut(usize)) {
    for (button, b) in buttons.iter_mut().zip(1..) {
        button.press(&format!("p-{b}-{round}"), "panic");
        between(b);
    }
}

fn until_delivered(buttons: &[Button], round: usize) {
    buttons.iter().zip(1..).for_each(|(button, b)| button.until(&format!("p-{b}-{round}"), "delivered"));
}

#[test]
fn a_node_that_dies_in_mid_stream_loses_no_press_and_doubles_none() {
    const BUTTONS: usize = 24;
    let mut cluster = Cluster::start();
    let site = site(&cluster, BUTTONS);
    // Headquarters' session is there before the gateway is; its reader is at a node that lives.
    cluster.session(2, "hq");
    let hq = Headquarters::subscribe(cluster.mqtt(2));
    let gateway = site.start();
    assert_eq!(up(&gateway, &cluster), 0, "the first address comes first");
    let mut buttons = connect(&gateway, BUTTONS);
    press(&mut buttons, 0, |_| ());
    press(&mut buttons, 1, |b| {
        if b == BUTTONS / 2 {
            cluster.kill(0)
        }
    });
    // It goes on while the survivors elect, and for as long as the gateway has not found them.
    let (mut round, died) = (2, Instant::now());
    while !elsewhere(&gateway, &cluster, 0) {
        assert!(round < 25, "no other node serves");
        std::thread::sleep(Duration::from_millis(700));
        press(&mut buttons, round, |_| ());
        round += 1;
    }
    eprintln!("connected to a survivor after {:?}", died.elapsed());
    press(&mut buttons, round, |_| ());
    until_delivered(&buttons, round);
    cluster.start_node(0);
    press(&mut buttons, round + 1, |_| ());
    until_delivered(&buttons, round + 1);
    let rounds: Vec<usize> = (0..round + 2).collect();
    assert_all_there(&hq, &buttons, &rounds);
    rounds.iter().for_each(|round| until_delivered(&buttons, *round));
    mqtt::assert_revisions_never_go_back(&hq.documents());

    // The node that was away knows what was retained meanwhile.
    cluster.wait_for(0);
    let late = Headquarters::subscribe_as("late", cluster.mqtt(0));
    eventually(SOON, "the status is retained", || {
        late.heard().iter().any(|h| h.retained && h.topic == "chowki/saddar/status").then_some(())
    });
    assert!(late.documents().is_empty(), "incidents are not retained");

    // The reader is away, and its node dies: at another one its session has what came meanwhile.
    drop(hq);
    press(&mut buttons, round + 2, |_| ());
    until_delivered(&buttons, round + 2);
    cluster.kill(2);
    cluster.wait_for(1);
    let hq = Headquarters::subscribe(cluster.mqtt(1));
    press(&mut buttons, round + 3, |_| ());
    until_delivered(&buttons, round + 3);
    assert_all_there(&hq, &buttons, &(0..round + 4).collect::<Vec<_>>());
    let missed = |i: &Incident| i.press_count as usize == round + 3;
    assert!(hq.documents().iter().any(missed), "what came while it was away");
    assert!(gateway.stop().success());
    eventually(SOON, "the farewell", || {
        hq.on("chowki/saddar/status").last().filter(|s| s.contains("\"online\":false")).cloned()
    });
}

#[test]
fn without_a_quorum_nothing_is_called_delivered_and_all_arrives_when_it_is_back() {
    const BUTTONS: usize = 12;
    let mut cluster = Cluster::start();
    let site = site(&cluster, BUTTONS);
    cluster.session(0, "hq");
    let hq = Headquarters::subscribe(cluster.mqtt(0));
    let gateway = site.start();
    up(&gateway, &cluster);
    let mut buttons = connect(&gateway, BUTTONS);
    press(&mut buttons, 0, |_| ());
    until_delivered(&buttons, 0);

    cluster.kill(1);
    cluster.kill(2);
    // Acknowledged here at once all the same: the button's promise is this disk, not headquarters.
    press(&mut buttons, 1, |_| ());
    eventually(LONG, "the gateway says that the backhaul is not up", || (backhaul(&gateway).0 == "down").then_some(()));
    press(&mut buttons, 2, |_| ());
    for (button, b) in buttons.iter().zip(1..) {
        for round in [1, 2] {
            button.until(&format!("p-{b}-{round}"), "recorded");
            assert_eq!(button.told(&format!("p-{b}-{round}")), ["recorded"]);
        }
    }
    assert!(gateway.incidents().iter().all(|i| i.press_count == 3));

    cluster.start_node(1);
    cluster.start_node(2);
    let started = Instant::now();
    assert_all_there(&hq, &buttons, &[0, 1, 2]);
    until_delivered(&buttons, 2);
    eprintln!("everything at headquarters after {:?}", started.elapsed());
    up(&gateway, &cluster);
    eventually(SOON, "nothing is owed", || (gateway.get("/v1/status").json()["pending_documents"] == 0).then_some(()));
    assert!(gateway.incidents().iter().all(|i| i.state == Progress::Delivered));
    assert!(gateway.stop().success());
}
