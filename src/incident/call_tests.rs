//! The call of an incident, in sentences.

use super::{
    engine::{CallError, Effect, Engine, Outputs},
    fixtures::{at, engine, engine_of, press},
    record::{Command, Record, Verb},
};
use crate::{
    call::state::Input,
    district::{
        call::{Again, Call, CallState, Party},
        ids::{CameraId, IncidentId},
        press::{PressKind, Progress},
    },
};

fn pressed(e: &mut Engine) -> (IncidentId, Outputs) {
    let mut out = Outputs::default();
    e.press(press(1, Some("p1"), PressKind::Panic, 0), &mut out);
    (e.incidents().next().unwrap(), out)
}

fn call(e: &Engine, id: IncidentId) -> Call {
    e.document(id).unwrap().call.unwrap()
}

fn happens(e: &mut Engine, id: IncidentId, input: Input, ms: u64) -> Outputs {
    let mut out = Outputs::default();
    e.call(id, input, at(ms), &mut out).unwrap();
    out
}

fn answers(name: &str) -> Input {
    Input::Arrived { party: Party { party: 1, name: name.into() }, speak: true, replaces: None }
}

fn told(out: &Outputs) -> Vec<Progress> {
    let tell = |e: &Effect| match e {
        Effect::Tell(_, m) => Some(m.state),
        Effect::Condition(_) => None,
    };
    out.effects.iter().filter_map(tell).collect()
}

#[test]
fn a_press_rings_at_once_and_a_test_never() {
    let mut e = engine(2, 1);
    let (id, out) = pressed(&mut e);
    assert!(out.calls.contains(&id) && out.records.len() == 1, "one record makes both");
    assert_eq!((call(&e, id).state, call(&e, id).group.as_str()), (CallState::Ringing, "operators"));
    let mut out = Outputs::default();
    e.press(press(2, Some("t1"), PressKind::Test, 10), &mut out);
    assert!(out.calls.is_empty());
    let test = e.incidents().find(|i| *i != id).unwrap();
    assert_eq!(e.call(test, answers("A"), at(20), &mut out), Err(CallError::NoCall(test)));
}

#[test]
fn a_button_hears_answered_when_the_way_to_its_speaker_stands_and_not_before() {
    let mut e = engine(1, 0);
    let (id, _) = pressed(&mut e);
    let out = happens(&mut e, id, answers("Ayesha"), 1_000);
    assert_eq!((told(&out), e.document(id).unwrap().state), (vec![Progress::Seen], Progress::Seen));
    let out = happens(&mut e, id, Input::Unit(true), 1_100);
    assert_eq!((told(&out), e.document(id).unwrap().state), (vec![Progress::Answered], Progress::Answered));
    let lines: Vec<_> = e.document(id).unwrap().timeline.into_iter().map(|t| t.what).collect();
    assert!(lines.iter().any(|l| l == "answered by Ayesha"), "{lines:?}");
}

#[test]
fn that_headquarters_knows_is_said_of_each_ring_when_it_is_proven_of_that_one() {
    let mut e = engine(1, 0);
    let (id, _) = pressed(&mut e);
    let delivered = |e: &mut Engine, revision: u64| {
        let mut out = Outputs::default();
        e.delivered(id, revision, at(500), &mut out);
        (call(e, id).reached, out.calls.contains(&id))
    };
    let first = e.document(id).unwrap().revision;
    assert!(!call(&e, id).reached);
    assert_eq!(delivered(&mut e, first), (true, true), "and the unit is told at once");
    happens(&mut e, id, answers("Ayesha"), 1_000);
    happens(&mut e, id, Input::Gone { party: 1, hung_up: true }, 2_000);
    let ended = e.document(id).unwrap().revision;
    happens(&mut e, id, Input::Pressed, 3_000);
    assert!(!call(&e, id).reached, "of the second press nobody knows yet");
    assert_eq!(delivered(&mut e, ended), (false, false), "nor by what was put out before it");
    let again = e.document(id).unwrap().revision;
    assert_eq!(delivered(&mut e, again), (true, true));
    happens(&mut e, id, answers("Ayesha"), 4_000);
    happens(&mut e, id, Input::Gone { party: 1, hung_up: false }, 5_000);
    assert!(!call(&e, id).reached);
    happens(
        &mut e,
        id,
        Input::Arrived { party: Party { party: 2, name: "B".into() }, speak: false, replaces: None },
        6_000,
    );
    assert!(call(&e, id).reached, "one who listens knows");
}

#[test]
fn unanswered_it_rings_at_the_next_group_and_the_last_one_is_the_last() {
    let mut e = engine(1, 0);
    let (id, _) = pressed(&mut e);
    let mut out = Outputs::default();
    e.timeout(at(19_999), &mut out);
    assert_eq!(call(&e, id).group, "operators");
    e.timeout(at(20_000), &mut out);
    assert_eq!(call(&e, id).group, "shift-leaders");
    assert!(out.calls.contains(&id) && out.changed.contains(&id));
    e.timeout(at(200_000), &mut out);
    assert_eq!(call(&e, id).group, "shift-leaders");
    let mut e = engine(1, 0);
    let (id, _) = pressed(&mut e);
    happens(&mut e, id, answers("A"), 5_000);
    e.timeout(at(60_000), &mut Outputs::default());
    assert_eq!(call(&e, id).group, "operators", "it was answered");
}

#[test]
fn evidence_goes_on_while_the_call_does_and_has_the_operators_voice() {
    let mut e = engine(1, 0);
    let (id, out) = pressed(&mut e);
    let first = out.orders[0].until;
    happens(&mut e, id, Input::Unit(true), 900);
    let out = happens(&mut e, id, answers("A"), 1_000);
    let voice = CameraId::of_operator();
    assert!(out.orders.iter().any(|o| o.camera == voice));
    let mut until = first;
    for ms in (31_000..300_000).step_by(1_000) {
        let mut out = Outputs::default();
        if e.next_timeout().is_some_and(|due| due <= at(ms).mono) {
            e.timeout(at(ms), &mut out);
        }
        until = out.orders.iter().map(|o| o.until).max().unwrap_or(until).max(until);
        assert!(until > at(ms).mono, "at {ms} ms");
    }
    happens(&mut e, id, Input::Gone { party: 1, hung_up: true }, 300_000);
    let mut out = Outputs::default();
    e.timeout(at(400_000), &mut out);
    assert!(out.orders.is_empty());
}

#[test]
fn closing_ends_the_call_and_a_press_after_hanging_up_rings_again() {
    let mut e = engine(1, 0);
    let (id, _) = pressed(&mut e);
    happens(&mut e, id, answers("A"), 1_000);
    happens(&mut e, id, Input::Gone { party: 1, hung_up: true }, 2_000);
    let mut out = Outputs::default();
    e.press(press(1, Some("p2"), PressKind::Panic, 3_000), &mut out);
    assert_eq!((call(&e, id).state, call(&e, id).again), (CallState::Ringing, Some(Again::PressedAgain)));
    let close = Command { command: Verb::Close, incident: Some(id), button: None, by: "op".into(), id: None };
    e.command(close, at(4_000), &mut out).unwrap();
    assert_eq!(call(&e, id).state, CallState::Ended);
    assert_eq!(e.call(id, answers("A"), at(5_000), &mut out), Err(CallError::NoCall(id)));
}

#[test]
fn a_call_rings_again_after_a_restart_and_its_history_is_what_it_was() {
    let mut e = engine(1, 0);
    let (id, out) = pressed(&mut e);
    let mut records = out.records;
    records.extend(happens(&mut e, id, Input::Unit(true), 500).records);
    records.extend(happens(&mut e, id, answers("A"), 1_000).records);
    for records in [records, e.snapshot()] {
        let records: Vec<Record> = serde_json::from_slice(&serde_json::to_vec(&records).unwrap()).unwrap();
        let mut again = engine_of("boot-1", false, 1, 0);
        records.into_iter().for_each(|r| again.replay(r));
        assert_eq!(call(&again, id), call(&e, id));
        let mut out = Outputs::default();
        again.resume(at(9_000), &mut out);
        assert_eq!(
            (call(&again, id).state, call(&again, id).again),
            (CallState::Ringing, Some(Again::GatewayRestarted))
        );
        assert!(out.calls.contains(&id));
        assert!(again.next_timeout().is_some_and(|due| due <= at(29_000).mono), "and wakes the next group in time");
    }
}
