//! What becomes of a call, in sentences and as properties of random histories.

use proptest::prelude::*;

use super::state::{Ask, Change, Denied, Input, apply, decide};
use crate::district::{
    call::{Again, Call, CallState, EndReason, Party, UnitKind},
    clock::Utc,
    ids::IncidentId,
};

fn groups() -> Vec<String> {
    ["operators", "shift-leaders", "duty"].map(String::from).to_vec()
}

fn at(second: i64) -> Utc {
    Utc::from_micros(second * 1_000_000)
}

fn call(kind: UnitKind) -> Call {
    Call::new(IncidentId::derive(1, b"x"), kind, "operators".into(), at(0))
}

fn party(number: u32) -> Party {
    Party { party: number, name: format!("op{number}") }
}

fn arrives(number: u32, speak: bool) -> Input {
    Input::Arrived { party: party(number), speak, replaces: None }
}

fn asks(number: u32, what: Ask) -> Input {
    Input::Asked { party: number, supervisor: false, what }
}

/// Lets something happen; gives what it changed.
fn happens(call: &mut Call, input: Input) -> Result<Vec<Change>, Denied> {
    let changes = decide(call, input, &groups())?;
    for change in &changes {
        apply(call, change.clone(), at(1));
    }
    Ok(changes)
}

/// A call whose unit is there and that operator 1 has answered.
fn answered() -> Call {
    let mut call = call(UnitKind::Speaker);
    happens(&mut call, Input::Unit(true)).unwrap();
    happens(&mut call, arrives(1, true)).unwrap();
    assert_eq!(call.state, CallState::Answered);
    call
}

fn who(call: &Call) -> (Option<u32>, Vec<u32>) {
    (call.speaker.as_ref().map(|s| s.party), call.listeners.iter().map(|l| l.party).collect())
}

#[test]
fn one_operator_speaks_and_the_others_listen() {
    let mut call = answered();
    assert_eq!(happens(&mut call, arrives(2, true)), Err(Denied::Taken("op1".into())));
    happens(&mut call, arrives(2, false)).unwrap();
    assert_eq!(who(&call), (Some(1), vec![2]));
    assert_eq!(happens(&mut call, asks(2, Ask::Speak)), Err(Denied::Taken("op1".into())));
    for what in [Ask::Hold, Ask::Resume, Ask::HandOverTo(1)] {
        assert_eq!(happens(&mut call, asks(2, what)), Err(Denied::NotTheFloor));
    }
    assert_eq!(happens(&mut call, asks(9, Ask::Speak)), Err(Denied::NoParty(9)));
}

#[test]
fn a_supervisor_takes_the_floor_and_who_had_it_listens() {
    let mut call = answered();
    happens(&mut call, asks(1, Ask::Hold)).unwrap();
    happens(&mut call, arrives(2, false)).unwrap();
    happens(&mut call, Input::Asked { party: 2, supervisor: true, what: Ask::Speak }).unwrap();
    assert_eq!((who(&call), call.state), ((Some(2), vec![1]), CallState::Answered), "and the unit no longer waits");
}

#[test]
fn the_floor_is_handed_to_a_party_or_to_a_group_that_rings_until_one_of_it_answers() {
    let mut call = answered();
    happens(&mut call, arrives(2, false)).unwrap();
    happens(&mut call, asks(1, Ask::HandOverTo(2))).unwrap();
    assert_eq!(who(&call), (Some(2), vec![1]));
    assert!(matches!(happens(&mut call, asks(2, Ask::HandOverToGroup("nobody".into()))), Err(Denied::NoGroup(..))));
    happens(&mut call, asks(2, Ask::HandOverToGroup("duty".into()))).unwrap();
    assert_eq!((call.state, call.handing_over.as_deref()), (CallState::Answered, Some("duty")));
    happens(&mut call, arrives(3, true)).unwrap();
    assert_eq!((who(&call), call.handing_over.clone()), ((Some(3), vec![1, 2]), None));
    happens(&mut call, asks(3, Ask::HandOverToGroup("duty".into()))).unwrap();
    happens(&mut call, Input::Gone { party: 3, hung_up: true }).unwrap();
    assert_eq!((call.state, call.again), (CallState::Ringing, Some(Again::HandedOver)), "nobody is forgotten");
}

#[test]
fn who_is_lost_with_the_floor_makes_it_ring_again_and_who_hangs_up_ends_it() {
    let mut call = answered();
    happens(&mut call, arrives(2, false)).unwrap();
    happens(&mut call, Input::Gone { party: 2, hung_up: false }).unwrap();
    assert_eq!((call.state, who(&call)), (CallState::Answered, (Some(1), vec![])), "a listener is nobody's loss");
    happens(&mut call, Input::Gone { party: 1, hung_up: false }).unwrap();
    assert_eq!((call.state, call.again, call.rings), (CallState::Ringing, Some(Again::OperatorLost), 2));
    happens(&mut call, arrives(3, true)).unwrap();
    happens(&mut call, Input::Gone { party: 3, hung_up: true }).unwrap();
    assert_eq!((call.state, who(&call)), (CallState::Ended, (None, vec![])));
    assert_eq!(call.ended.as_ref().map(|e| (e.reason, e.by.as_str())), Some((EndReason::HungUp, "op3")));
    happens(&mut call, Input::Pressed).unwrap();
    assert_eq!((call.state, call.again), (CallState::Ringing, Some(Again::PressedAgain)));
}

#[test]
fn a_browser_that_comes_back_has_the_floor_that_it_had() {
    let mut call = answered();
    happens(&mut call, asks(1, Ask::Hold)).unwrap();
    happens(&mut call, Input::Arrived { party: party(2), speak: true, replaces: Some(1) }).unwrap();
    assert_eq!((who(&call), call.state), ((Some(2), vec![]), CallState::Held));
    assert_eq!(
        happens(&mut call, Input::Gone { party: 1, hung_up: false }),
        Ok(vec![]),
        "its old session ends unnoticed"
    );
    happens(&mut call, arrives(3, false)).unwrap();
    happens(&mut call, Input::Arrived { party: party(4), speak: false, replaces: Some(3) }).unwrap();
    assert_eq!(who(&call), (Some(2), vec![4]));
}

#[test]
fn a_unit_that_does_not_answer_is_lost_until_it_is_back() {
    let mut call = call(UnitKind::Screen);
    happens(&mut call, arrives(1, true)).unwrap();
    assert_eq!(call.state, CallState::Lost, "nothing that she says arrives");
    happens(&mut call, Input::Unit(true)).unwrap();
    happens(&mut call, asks(1, Ask::Hold)).unwrap();
    happens(&mut call, Input::Unit(false)).unwrap();
    assert_eq!(call.state, CallState::Lost);
    happens(&mut call, Input::Unit(true)).unwrap();
    assert_eq!(call.state, CallState::Held);
    let mut seen = super::state_tests::call(UnitKind::Camera);
    happens(&mut seen, arrives(1, true)).unwrap();
    assert_eq!(seen.state, CallState::Answered, "there is nothing to be lost");
}

#[test]
fn groups_ring_one_after_another_while_nobody_answers() {
    let mut call = call(UnitKind::Speaker);
    for group in ["shift-leaders", "duty", "duty"] {
        happens(&mut call, Input::Unanswered).unwrap();
        assert_eq!(call.group, group);
    }
    let mut call = answered();
    assert_eq!(happens(&mut call, Input::Unanswered), Ok(vec![]));
}

#[test]
fn after_a_restart_it_rings_again_and_what_had_ended_stays_ended() {
    let mut call = answered();
    happens(&mut call, arrives(2, false)).unwrap();
    happens(&mut call, Input::Restarted).unwrap();
    assert_eq!((call.state, who(&call), call.unit.voice), (CallState::Ringing, (None, vec![]), false));
    happens(&mut call, Input::Closed { by: "op".into() }).unwrap();
    assert_eq!(happens(&mut call, Input::Restarted), Ok(vec![]));
    happens(&mut call, arrives(3, true)).unwrap();
    assert_ne!(call.state, CallState::Ended, "an operator calls back");
}

#[test]
fn who_listened_to_an_ended_call_is_gone_after_a_restart_and_nobody_hands_the_floor_to_them() {
    let mut call = answered();
    happens(&mut call, arrives(2, false)).unwrap();
    happens(&mut call, Input::Gone { party: 1, hung_up: true }).unwrap();
    assert_eq!((call.state, who(&call)), (CallState::Ended, (None, vec![2])));
    happens(&mut call, Input::Restarted).unwrap();
    assert_eq!((call.state, who(&call)), (CallState::Ended, (None, vec![])));
}

#[test]
fn a_call_that_is_called_back_is_answered_when_the_unit_is_there_again_and_not_before() {
    let mut call = answered();
    happens(&mut call, Input::Gone { party: 1, hung_up: true }).unwrap();
    happens(&mut call, arrives(2, true)).unwrap();
    assert_eq!(call.state, CallState::Lost);
    happens(&mut call, Input::Unit(true)).unwrap();
    assert_eq!(call.state, CallState::Answered);
}

#[test]
fn a_call_that_is_left_to_a_group_rings_there() {
    let mut call = answered();
    happens(&mut call, asks(1, Ask::HandOverToGroup("duty".into()))).unwrap();
    happens(&mut call, Input::Gone { party: 1, hung_up: true }).unwrap();
    let rings = (call.state, call.group.as_str(), call.again);
    assert_eq!(rings, (CallState::Ringing, "duty", Some(Again::HandedOver)));
}

#[test]
fn a_unit_that_was_held_and_lost_goes_on_when_it_is_told_so_and_back() {
    let mut call = answered();
    happens(&mut call, asks(1, Ask::Hold)).unwrap();
    happens(&mut call, Input::Unit(false)).unwrap();
    happens(&mut call, asks(1, Ask::Resume)).unwrap();
    happens(&mut call, Input::Unit(true)).unwrap();
    assert_eq!(call.state, CallState::Answered);
}

fn input() -> impl Strategy<Value = Input> {
    let number = 1u32..5;
    let ask = prop_oneof![
        Just(Ask::Speak),
        Just(Ask::Hold),
        Just(Ask::Resume),
        (1u32..5).prop_map(Ask::HandOverTo),
        prop_oneof![Just("duty"), Just("x")].prop_map(|g| Ask::HandOverToGroup(g.into())),
    ];
    prop_oneof![
        Just(Input::Pressed),
        Just(Input::Restarted),
        Just(Input::Unanswered),
        Just(Input::Closed { by: "x".into() }),
        any::<bool>().prop_map(Input::Unit),
        (number.clone(), any::<bool>()).prop_map(|(n, speak)| arrives(n, speak)),
        (number.clone(), any::<bool>()).prop_map(|(party, hung_up)| Input::Gone { party, hung_up }),
        (number, any::<bool>(), ask).prop_map(|(party, supervisor, what)| Input::Asked { party, supervisor, what }),
    ]
}

proptest! {
    /// Each number arrives once, as the gateway gives them.
    #[test]
    fn nobody_is_in_a_call_twice_and_somebody_is_always_rung_for(inputs in prop::collection::vec(input(), 0..60)) {
        let mut call = call(UnitKind::Speaker);
        for input in inputs {
            let known = who(&call);
            if let Input::Arrived { party, .. } = &input
                && (known.0 == Some(party.party) || known.1.contains(&party.party))
            {
                continue;
            }
            let (before, closed) = (call.state, matches!(input, Input::Closed { .. }));
            let hung_up = matches!(input, Input::Gone { hung_up: true, .. });
            let _ = happens(&mut call, input);
            let (speaker, mut all) = who(&call);
            all.extend(speaker);
            all.sort_unstable();
            let count = all.len();
            all.dedup();
            prop_assert_eq!(count, all.len());
            prop_assert_eq!(speaker.is_none(), matches!(call.state, CallState::Ringing | CallState::Ended));
            prop_assert_eq!(call.ended.is_some(), call.state == CallState::Ended);
            prop_assert!(call.state != CallState::Ended || before == CallState::Ended || closed || hung_up);
            prop_assert!(call.state != CallState::Answered || call.unit.voice);
        }
    }
}
