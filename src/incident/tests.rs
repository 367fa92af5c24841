//! The engine's behaviour, in sentences, and as properties of random histories.

use std::collections::HashMap;

use proptest::prelude::*;

use super::{
    engine::{Effect, Engine, Outputs},
    fixtures::{at, command, engine, engine_of, only, press, pressed, rebooted, restarted},
    record::{Command, Record, Verb},
};
use crate::district::{
    camera::{CameraReport, CameraState},
    evidence::EvidenceObject,
    ids::{IncidentId, PressId},
    press::{PressKind, Progress},
};

fn tells(out: &Outputs) -> Vec<Progress> {
    let tell = |e: &Effect| match e {
        Effect::Tell(_, m) => Some(m.state),
        Effect::Condition(_) => None,
    };
    out.effects.iter().filter_map(tell).collect()
}

#[test]
fn a_press_makes_one_incident_with_the_unit_first_and_the_near_camera_after_it() {
    let mut e = engine(2, 2);
    e.camera(CameraReport { camera: "c1".parse().unwrap(), state: CameraState::Live, detail: String::new() });
    let out = pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let doc = e.document(only(&e)).unwrap();
    let cameras: Vec<_> = doc.cameras.iter().map(|c| (c.id.as_str(), c.sees_button, c.healthy)).collect();
    assert_eq!(cameras, [("unit-b1", true, false), ("c1", true, true)]);
    assert_eq!(out.orders.len(), 2);
    assert_eq!(out.orders[0].until.since(out.orders[0].from).as_secs(), 90);
    assert_eq!(tells(&out), [Progress::Recorded]);
    assert!(matches!(out.records[..], [Record::Opened(_)]));
}

#[test]
fn a_press_that_is_sent_again_is_told_again_and_changes_nothing() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let out = pressed(&mut e, 1, "p1", PressKind::Panic, 60_000);
    assert!(out.records.is_empty() && out.changed.is_empty() && out.orders.is_empty());
    assert_eq!(tells(&out), [Progress::Recorded]);
    assert_eq!(e.document(only(&e)).unwrap().press_count, 1);
}

#[test]
fn presses_without_an_id_within_the_debounce_are_one_press() {
    let mut e = engine(1, 0);
    let mut out = Outputs::default();
    e.press(press(1, None, PressKind::Panic, 0), &mut out);
    e.press(press(1, None, PressKind::Panic, 1_900), &mut out);
    e.press(press(1, None, PressKind::Panic, 4_500), &mut out);
    assert_eq!(e.document(only(&e)).unwrap().press_count, 2);
}

#[test]
fn another_press_joins_the_open_incident_and_extends_its_evidence() {
    let mut e = engine(1, 0);
    let before = pressed(&mut e, 1, "p1", PressKind::Medical, 0).orders[0].until;
    let out = pressed(&mut e, 1, "p2", PressKind::Panic, 40_000);
    let doc = e.document(only(&e)).unwrap();
    assert_eq!((doc.press_count, doc.kind, doc.revision), (2, PressKind::Panic, 2));
    assert_eq!(out.orders[0].until.since(before).as_secs(), 40);
    assert_eq!(doc.evidence[0].to.since(doc.pressed_at.at).as_secs(), 100);
}

#[test]
fn presses_that_come_faster_than_headquarters_answers_are_put_out_together() {
    let mut e = engine(1, 0);
    let put_out = |out: &Outputs| out.changed.len();
    assert_eq!(put_out(&pressed(&mut e, 1, "p1", PressKind::Panic, 0)), 1);
    let id = only(&e);
    assert_eq!(put_out(&pressed(&mut e, 1, "p2", PressKind::Panic, 1)), 0);
    assert_eq!(put_out(&pressed(&mut e, 1, "p3", PressKind::Panic, 2)), 0);
    let mut out = Outputs::default();
    e.delivered(id, 1, at(3), &mut out);
    assert!(out.changed.contains(&id), "as soon as it answers");
    assert_eq!(e.document(id).unwrap().press_count, 3);
    assert_eq!(put_out(&pressed(&mut e, 1, "p4", PressKind::Panic, 4)), 0);
    let mut out = Outputs::default();
    assert!(e.next_timeout().is_some_and(|due| due <= at(260).mono));
    e.timeout(at(260), &mut out);
    assert!(out.changed.contains(&id), "and without an answer soon");
    e.delivered(id, 4, at(270), &mut Outputs::default());
    assert_eq!(put_out(&pressed(&mut e, 1, "p5", PressKind::Panic, 271)), 1, "nothing is on its way");
}

#[test]
fn a_closed_incident_is_not_joined() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let first = only(&e);
    e.command(command(Verb::Close, first, "k1"), at(10), &mut Outputs::default()).unwrap();
    pressed(&mut e, 1, "p2", PressKind::Panic, 20);
    assert_eq!(e.incidents().count(), 2);
    pressed(&mut e, 1, "p1", PressKind::Panic, 30);
    assert_eq!(e.incidents().count(), 2, "the old press is still known");
}

#[test]
fn a_test_press_travels_marked_and_never_joins_or_hides_a_real_one() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "t1", PressKind::Test, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 10);
    pressed(&mut e, 1, "t2", PressKind::Test, 20);
    let docs: Vec<_> = e.incidents().map(|i| e.document(i).unwrap()).collect();
    let seen: Vec<_> = docs.iter().map(|d| (d.test, d.press_count)).collect();
    assert_eq!(seen, [(true, 2), (false, 1)]);
    let test = docs[0].id;
    let mut out = Outputs::default();
    e.evidence_ended(test, &"unit-b1".parse().unwrap(), at(30), &mut out);
    e.delivered(test, 2, at(40), &mut out);
    assert_eq!(e.document(test).unwrap().state, Progress::Closed, "a test that travelled the whole way is over");
    assert_ne!(e.document(docs[1].id).unwrap().state, Progress::Closed);
}

#[test]
fn delivered_is_told_for_each_press_once_and_only_when_its_revision_is_acknowledged() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    pressed(&mut e, 1, "p2", PressKind::Panic, 10);
    let id = only(&e);
    let told = |e: &mut Engine, revision| {
        let mut out = Outputs::default();
        e.delivered(id, revision, at(50), &mut out);
        let press = |x: &Effect| match x {
            Effect::Tell(_, m) => m.press.as_ref().map(PressId::to_string),
            Effect::Condition(_) => None,
        };
        out.effects.iter().filter_map(press).collect::<Vec<_>>()
    };
    assert_eq!(told(&mut e, 1), ["p1"]);
    assert!(told(&mut e, 1).is_empty());
    assert_eq!(told(&mut e, 2), ["p2"]);
}

#[test]
fn a_repeated_command_is_one_command_and_a_step_never_goes_back() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let id = only(&e);
    let mut out = Outputs::default();
    e.command(command(Verb::Dispatched, id, "k1"), at(1), &mut out).unwrap();
    e.command(command(Verb::Dispatched, id, "k1"), at(2), &mut out).unwrap();
    e.command(command(Verb::Seen, id, "k2"), at(3), &mut out).unwrap();
    assert_eq!(tells(&out), [Progress::Dispatched]);
    let doc = e.document(id).unwrap();
    assert_eq!((doc.state, doc.revision), (Progress::Dispatched, 3));
    let unknown = IncidentId::derive(0, b"x");
    assert!(e.command(command(Verb::Seen, unknown, "k3"), at(4), &mut out).is_err());
}

#[test]
fn while_the_disk_fails_headquarters_reads_received_and_afterwards_recorded() {
    let mut e = engine(1, 0);
    let mut out = Outputs::default();
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let id = only(&e);
    e.journal_failed([id], &mut out);
    assert!(out.changed.remove(&id), "put out at once");
    let failing = e.document(id).unwrap();
    assert_eq!(failing.state, Progress::Received);
    e.journal_recovered(&mut out);
    let doc = e.document(id).unwrap();
    assert_eq!(doc.state, Progress::Recorded);
    assert!(doc.revision > failing.revision && out.changed.contains(&id));
}

#[test]
fn a_press_that_is_sent_again_is_told_how_far_help_has_come_and_no_further() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let id = only(&e);
    e.delivered(id, 1, at(10), &mut Outputs::default());
    let told = |out: Outputs| -> Vec<Progress> {
        let state = |e: Effect| if let Effect::Tell(_, message) = e { Some(message.state) } else { None };
        out.effects.into_iter().filter_map(state).collect()
    };
    use Progress::{Delivered, Recorded, Seen};
    assert_eq!(told(pressed(&mut e, 1, "p1", PressKind::Panic, 20)), [Recorded, Delivered]);
    assert_eq!(told(pressed(&mut e, 1, "p2", PressKind::Panic, 30)), [Recorded], "headquarters has not this one");
    let mut out = Outputs::default();
    let seen = Command { command: Verb::Seen, incident: Some(id), button: None, by: "x".into(), id: None };
    e.command(seen, at(40), &mut out).unwrap();
    assert_eq!(told(pressed(&mut e, 1, "p1", PressKind::Panic, 50)), [Recorded, Seen]);
}

#[test]
fn a_revision_put_out_while_the_disk_failed_is_never_given_again_after_a_restart() {
    let mut e = engine(1, 0);
    let mut out = pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let id = only(&e);
    e.delivered(id, 1, at(10), &mut out);
    let durable = out.records;
    e.journal_failed([id], &mut Outputs::default());
    pressed(&mut e, 1, "p2", PressKind::Panic, 20);
    let put_out = e.document(id).unwrap().revision;
    let (mut e, out) = restarted("boot-1", &durable, at(5_000));
    assert_eq!(out.changed.len(), 1, "its call rings again");
    pressed(&mut e, 1, "p3", PressKind::Panic, 6_000);
    let doc = e.document(id).unwrap();
    assert!(doc.revision > put_out && doc.press_count == 2, "{}", doc.revision);
    // Nor by a start after it, when nothing of this one has come to the disk either.
    let (mut e, _) = restarted("boot-1", &durable, at(7_000));
    pressed(&mut e, 1, "p4", PressKind::Panic, 8_000);
    assert!(e.document(id).unwrap().revision > doc.revision, "{}", e.document(id).unwrap().revision);
}

#[test]
fn an_incident_goes_on_over_a_reboot_as_it_is_replayed_after_another_restart() {
    for uptime in [5_000, 50_000_000] {
        let mut e = engine(2, 2);
        let mut records = pressed(&mut e, 1, "p1", PressKind::Panic, 0).records;
        let id = only(&e);
        let (mut e, out) = restarted("boot-2", &records, rebooted(uptime));
        assert!(out.orders.iter().all(|o| o.from == rebooted(uptime).mono));
        records.extend(out.records);
        let mut out = Outputs::default();
        let mut again = press(1, None, PressKind::Panic, 0);
        again.received = rebooted(uptime + 100_000);
        e.press(again.clone(), &mut out);
        again.received = rebooted(uptime + 101_000);
        e.press(again, &mut out);
        records.extend(out.records);
        let live = e.document(id).unwrap();
        assert_eq!(live.press_count, 2, "the debounce holds in the new boot too");
        assert_eq!(live.evidence[0].to, rebooted(uptime + 160_000).wall, "a minute after the press");
        let (third, out) = restarted("boot-2", &records, rebooted(uptime + 110_000));
        assert_eq!(third.document(id).unwrap().evidence, live.evidence);
        assert_eq!(out.orders[0].until, rebooted(uptime + 160_000).mono);
    }
}

#[test]
fn a_commanded_test_is_one_test_though_the_command_comes_again_after_a_restart() {
    let command = || Command {
        command: Verb::TestPress,
        incident: None,
        button: Some("b1".parse().unwrap()),
        by: "x".repeat(10_000),
        id: Some("k1".into()),
    };
    let mut e = engine(2, 0);
    let mut out = Outputs::default();
    e.command(command(), at(0), &mut out).unwrap();
    let close = Command { command: Verb::Close, incident: Some(only(&e)), id: None, ..command() };
    e.command(close, at(10), &mut out).unwrap();
    assert!(e.document(only(&e)).unwrap().timeline.iter().all(|t| t.what.len() < 200), "who commands is cut short");
    let (mut e, _) = restarted("boot-1", &out.records, at(60_000));
    e.command(command(), at(70_000), &mut Outputs::default()).unwrap();
    assert_eq!(e.incidents().count(), 1);
    let long = Command { id: Some("k".repeat(200)), ..command() };
    assert!(e.command(long, at(80_000), &mut Outputs::default()).is_err(), "ids are remembered: they have a bound");
}

#[test]
fn a_test_closes_on_a_gateway_that_stands_alone() {
    let mut e = engine_of("boot-1", true, 1, 0);
    pressed(&mut e, 1, "t1", PressKind::Test, 0);
    let id = only(&e);
    assert_eq!(e.document(id).unwrap().state, Progress::Recorded);
    e.evidence_ended(id, &"unit-b1".parse().unwrap(), at(60_000), &mut Outputs::default());
    assert_eq!(e.document(id).unwrap().state, Progress::Closed);
}

#[derive(Debug, Clone)]
enum Step {
    Press(usize, Option<u8>, bool),
    Deliver(u8, u64),
    Command(u8, u8, u8),
    Stored(u8),
    Ended(u8),
    Wait(u64),
    Disk(bool),
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        4 => (1usize..4, prop::option::of(0u8..12), any::<bool>()).prop_map(|(b, p, t)| Step::Press(b, p, t)),
        2 => (any::<u8>(), 0u64..6).prop_map(|(i, r)| Step::Deliver(i, r)),
        2 => (0u8..3, any::<u8>(), 0u8..8).prop_map(|(v, i, c)| Step::Command(v, i, c)),
        1 => any::<u8>().prop_map(Step::Stored),
        1 => any::<u8>().prop_map(Step::Ended),
        2 => (1u64..5_000).prop_map(Step::Wait),
        1 => any::<bool>().prop_map(Step::Disk),
    ]
}

struct World {
    engine: Engine,
    ms: u64,
    records: Vec<Record>,
    told: HashMap<(IncidentId, Option<PressId>), Progress>,
}

impl World {
    fn pick(&self, n: u8) -> Option<IncidentId> {
        let ids: Vec<_> = self.engine.incidents().collect();
        (!ids.is_empty()).then(|| ids[n as usize % ids.len()])
    }

    fn run(&mut self, step: Step) -> Result<(), TestCaseError> {
        let mut out = Outputs::default();
        let now = at(self.ms);
        let e = &mut self.engine;
        match step {
            Step::Press(b, id, test) => {
                let kind = if test { PressKind::Test } else { PressKind::Panic };
                let id = id.map(|i| format!("{}{i}", if test { "t" } else { "p" }));
                e.press(press(b, id.as_deref(), kind, self.ms), &mut out);
            }
            Step::Deliver(i, back) => {
                if let Some(id) = self.pick(i) {
                    let revision = self.engine.document(id).unwrap().revision.saturating_sub(back);
                    self.engine.delivered(id, revision, now, &mut out);
                }
            }
            Step::Command(verb, i, c) => {
                if let Some(id) = self.pick(i) {
                    let verb = [Verb::Seen, Verb::Dispatched, Verb::Close][verb as usize];
                    self.engine.command(command(verb, id, &format!("k{c}")), now, &mut out).unwrap();
                }
            }
            Step::Stored(i) => {
                if let Some(id) = self.pick(i) {
                    let camera = self.engine.document(id).unwrap().evidence[0].camera.clone();
                    let object = EvidenceObject { name: "x".into(), size: 1, sha256: String::new(), delivered: false };
                    self.engine.evidence_stored(id, &camera, object);
                }
            }
            Step::Ended(i) => {
                if let Some(id) = self.pick(i) {
                    let camera = self.engine.document(id).unwrap().evidence[0].camera.clone();
                    self.engine.evidence_ended(id, &camera, now, &mut out);
                }
            }
            Step::Wait(ms) => {
                self.ms += ms;
                self.engine.timeout(at(self.ms), &mut out);
            }
            Step::Disk(true) => self.engine.journal_failed([], &mut out),
            Step::Disk(false) => self.engine.journal_recovered(&mut out),
        }
        self.ms += 7;
        for effect in &out.effects {
            let Effect::Tell(_, m) = effect else { continue };
            let state = self.engine.document(m.incident).map(|d| d.state);
            prop_assert!(
                state.is_none_or(|s| m.state <= s.max(Progress::Recorded)),
                "a button is told {:?} of an incident that is {:?}",
                m.state,
                state
            );
            self.told.insert((m.incident, m.press.clone()), m.state);
        }
        self.records.append(&mut out.records);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn replaying_the_journal_makes_the_same_incidents_each_exactly_once(steps in prop::collection::vec(step(), 1..120)) {
        let mut w = World { engine: engine(3, 3), ms: 0, records: Vec::new(), told: HashMap::new() };
        let mut revisions: HashMap<IncidentId, u64> = HashMap::new();
        for s in steps {
            w.run(s)?;
            for id in w.engine.incidents() {
                let revision = w.engine.document(id).unwrap().revision;
                let before = revisions.insert(id, revision).unwrap_or(0);
                prop_assert!(revision >= before, "a revision went back");
            }
        }
        let mut again = engine(3, 3);
        for r in &w.records {
            let text = serde_json::to_vec(r).unwrap();
            again.replay(serde_json::from_slice(&text).unwrap());
        }
        let ids: Vec<_> = w.engine.incidents().collect();
        prop_assert_eq!(&ids, &again.incidents().collect::<Vec<_>>());
        for id in ids {
            let (mut a, mut b) = (w.engine.document(id).unwrap(), again.document(id).unwrap());
            // Objects are the media log's to replay; what is only in memory is not `received` after a replay.
            for doc in [&mut a, &mut b] {
                doc.evidence.iter_mut().for_each(|e| { e.objects.clear(); e.settle(); });
                doc.state = doc.state.max(Progress::Recorded);
            }
            // Times pass through milliseconds on disk.
            prop_assert_eq!(serde_json::to_value(&a).unwrap(), serde_json::to_value(&b).unwrap());
        }
        // And a checkpoint makes the same again.
        let mut third = engine(3, 3);
        for r in again.snapshot() {
            third.replay(r);
        }
        for id in again.incidents() {
            prop_assert_eq!(
                serde_json::to_value(again.document(id)).unwrap(), serde_json::to_value(third.document(id)).unwrap()
            );
        }
    }
}
