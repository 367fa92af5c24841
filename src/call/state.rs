//! What becomes of a call: who has the floor, when it rings again, when it is over. Pure.
//!
//! [`decide`] says what an input changes, or why it may not; a [`Change`] is written down and then applied by
//! [`apply`], live and at replay alike. A call's state is never set: it follows from who has the floor, whether the unit is
//! held, whether the way to it stands, and whether the call was ended.

use serde::{Deserialize, Serialize};

use crate::district::{
    call::{Again, Call, CallState, EndReason, Ended, LISTENERS_SHOWN, Party, SPOKE_SHOWN, Spoke},
    clock::Utc,
};

/// Most parties of one call. Further ones are refused.
pub const PARTIES: usize = 64;

/// How the floor was taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum How {
    /// It rang.
    Answered,
    /// It had ended.
    CalledBack,
    /// From who had it.
    HandedOver,
    /// By a supervisor, from who had it.
    BargedIn,
    /// The same operator's browser came back.
    Returned,
}

/// What happens to a call.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Input {
    /// The button was pressed again.
    Pressed,
    /// The gateway was started again.
    Restarted,
    /// A browser is connected.
    Arrived {
        /// Whose.
        party: Party,
        /// It asks for the floor.
        speak: bool,
        /// The earlier party of the same browser.
        replaces: Option<u32>,
    },
    /// A browser is there no more.
    Gone {
        /// Whose.
        party: u32,
        /// It hung up; else it was lost.
        hung_up: bool,
    },
    /// A party does something.
    Asked {
        /// Who.
        party: u32,
        /// It may take the floor from another.
        supervisor: bool,
        /// What.
        what: Ask,
    },
    /// The way to the unit's speaker or screen came to stand, or fell.
    Unit(bool),
    /// The next group is to be woken.
    Unanswered,
    /// The incident was closed.
    Closed {
        /// By whom.
        by: String,
    },
    /// Somebody spoke.
    Spoke(Spoke),
}

/// What a party asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// The floor.
    Speak,
    /// That the unit waits.
    Hold,
    /// That it goes on.
    Resume,
    /// That another party has the floor.
    HandOverTo(u32),
    /// That a group answers in its place.
    HandOverToGroup(String),
}

/// What became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "change", rename_all = "kebab-case")]
pub enum Change {
    /// It rings anew.
    Rang {
        /// Why.
        again: Again,
    },
    /// One more group rings.
    Escalated {
        /// Which.
        group: String,
    },
    /// A party sees and hears.
    Listens {
        /// Who.
        party: Party,
    },
    /// A party is there no more.
    Left {
        /// Which.
        party: u32,
    },
    /// A party has the floor.
    Took {
        /// Who.
        party: Party,
        /// How.
        how: How,
    },
    /// The unit waits.
    Held,
    /// It goes on.
    Resumed,
    /// A group is asked to take over.
    HandingOver {
        /// Which.
        group: String,
    },
    /// The way to the unit came to stand, or fell.
    Unit {
        /// Whether it stands.
        voice: bool,
    },
    /// It is over.
    Ended {
        /// Why.
        reason: EndReason,
        /// By whom.
        by: String,
    },
    /// Somebody spoke.
    Spoke(Spoke),
}

/// Why an input changes nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// One operator speaks.
    #[error("{0} has the floor; listen, or ask for it to be handed over")]
    Taken(String),
    /// Only who has the floor may.
    #[error("only who has the floor can do that")]
    NotTheFloor,
    /// Nobody of that number is in the call.
    #[error("no party {0} is in this call")]
    NoParty(u32),
    /// No such group is in the config.
    #[error("no group {0:?}; the groups of [call] are: {1}")]
    NoGroup(String, String),
    /// Too many.
    #[error("{PARTIES} parties are in this call already")]
    Full,
    /// Nothing of the kind is under way.
    #[error("the call is {0:?}, where that means nothing")]
    Pointless(CallState),
}

/// What an input changes, one after another. `groups` are those that may ring, in order.
///
/// # Errors
/// [`Denied`], when it may not.
pub fn decide(call: &Call, input: Input, groups: &[String]) -> Result<Vec<Change>, Denied> {
    match input {
        Input::Pressed if call.state == CallState::Ended => Ok(vec![Change::Rang { again: Again::PressedAgain }]),
        Input::Restarted if call.state != CallState::Ended => Ok(vec![Change::Rang { again: Again::GatewayRestarted }]),
        // Who listened after its end is gone.
        Input::Restarted => Ok(call.listeners.iter().map(|l| Change::Left { party: l.party }).collect()),
        Input::Pressed => Ok(Vec::new()),
        Input::Arrived { party, speak, replaces } => arrived(call, party, speak, replaces),
        Input::Gone { party, hung_up } => Ok(gone(call, party, hung_up)),
        Input::Asked { party, supervisor, what } => asked(call, party, supervisor, what, groups),
        Input::Unit(voice) if call.unit.voice != voice => Ok(vec![Change::Unit { voice }]),
        Input::Unit(_) => Ok(Vec::new()),
        Input::Unanswered => {
            let next = groups.iter().position(|g| *g == call.group).and_then(|at| groups.get(at + 1));
            let next = next.filter(|_| call.state == CallState::Ringing);
            Ok(next.map(|group| Change::Escalated { group: group.clone() }).into_iter().collect())
        }
        Input::Closed { by } if call.state != CallState::Ended => {
            Ok(vec![Change::Ended { reason: EndReason::Closed, by }])
        }
        Input::Closed { .. } => Ok(Vec::new()),
        Input::Spoke(spoke) => Ok(vec![Change::Spoke(spoke)]),
    }
}

fn arrived(call: &Call, party: Party, speak: bool, replaces: Option<u32>) -> Result<Vec<Change>, Denied> {
    let had = |call: &Call| call.speaker.as_ref().is_some_and(|s| Some(s.party) == replaces);
    let returns = had(call);
    let mut changes: Vec<_> = replaces
        .filter(|old| !returns && call.listeners.iter().any(|l| l.party == *old))
        .map(|party| Change::Left { party })
        .into_iter()
        .collect();
    if changes.is_empty() && !returns && call.listeners.len() + 1 >= PARTIES {
        return Err(Denied::Full);
    }
    if returns {
        changes.push(Change::Took { party, how: How::Returned });
        return Ok(changes);
    }
    if !speak {
        changes.push(Change::Listens { party });
        return Ok(changes);
    }
    let how = match (&call.speaker, &call.handing_over, call.state) {
        (Some(_), Some(_), _) => How::HandedOver,
        (Some(speaker), None, _) => return Err(Denied::Taken(speaker.name.clone())),
        (None, _, CallState::Ended) => How::CalledBack,
        (None, ..) => How::Answered,
    };
    changes.push(Change::Took { party, how });
    Ok(changes)
}

fn gone(call: &Call, party: u32, hung_up: bool) -> Vec<Change> {
    let Some(speaker) = call.speaker.as_ref().filter(|s| s.party == party) else {
        let here = call.listeners.iter().any(|l| l.party == party);
        return here.then_some(Change::Left { party }).into_iter().collect();
    };
    let after = match (hung_up, &call.handing_over) {
        (true, None) => Change::Ended { reason: EndReason::HungUp, by: speaker.name.clone() },
        (true, Some(_)) => Change::Rang { again: Again::HandedOver },
        (false, _) => Change::Rang { again: Again::OperatorLost },
    };
    vec![after, Change::Left { party }]
}

fn asked(call: &Call, party: u32, supervisor: bool, what: Ask, groups: &[String]) -> Result<Vec<Change>, Denied> {
    let floor = call.speaker.as_ref().is_some_and(|s| s.party == party);
    let listener = |party| call.listeners.iter().find(|l| l.party == party).cloned().ok_or(Denied::NoParty(party));
    match what {
        Ask::Speak if floor => Ok(Vec::new()),
        Ask::Speak => {
            let party = listener(party)?;
            let how = match &call.speaker {
                None if call.state == CallState::Ended => How::CalledBack,
                None => How::Answered,
                Some(_) if call.handing_over.is_some() => How::HandedOver,
                Some(_) if supervisor => How::BargedIn,
                Some(speaker) => return Err(Denied::Taken(speaker.name.clone())),
            };
            Ok(vec![Change::Took { party, how }])
        }
        _ if !floor => Err(Denied::NotTheFloor),
        Ask::Hold => match call.state {
            CallState::Held => Ok(Vec::new()),
            CallState::Answered => Ok(vec![Change::Held]),
            state => Err(Denied::Pointless(state)),
        },
        Ask::Resume if call.held => Ok(vec![Change::Resumed]),
        Ask::Resume => Ok(Vec::new()),
        Ask::HandOverTo(to) if to == party => Ok(Vec::new()),
        Ask::HandOverTo(to) => Ok(vec![Change::Took { party: listener(to)?, how: How::HandedOver }]),
        Ask::HandOverToGroup(group) if groups.contains(&group) => Ok(vec![Change::HandingOver { group }]),
        Ask::HandOverToGroup(group) => Err(Denied::NoGroup(group, groups.join(", "))),
    }
}

/// Makes a change.
pub fn apply(call: &mut Call, change: Change, at: Utc) {
    match change {
        Change::Rang { again } => {
            if again == Again::GatewayRestarted {
                call.listeners.clear();
                call.unit.voice = false;
            }
            // Whom it was left to, rings.
            call.group = call.handing_over.take().unwrap_or_else(|| std::mem::take(&mut call.group));
            (call.speaker, call.ended, call.held, call.reached) = (None, None, false, false);
            (call.again, call.rings, call.since) = (Some(again), call.rings + 1, at);
        }
        Change::Escalated { group } => call.group = group,
        Change::Listens { party } => {
            call.listeners.push(party);
            call.reached = true;
        }
        Change::Left { party } => call.listeners.retain(|l| l.party != party),
        Change::Took { party, how } => {
            call.listeners.retain(|l| l.party != party.party);
            let last = call.speaker.replace(party);
            if how != How::Returned {
                // Who gives the floor away stays and listens.
                call.listeners.extend(last);
                (call.handing_over, call.ended, call.held) = (None, None, false);
            }
            call.answered_at.get_or_insert(at);
            call.reached = true;
        }
        Change::Held => call.held = true,
        Change::Resumed => call.held = false,
        Change::HandingOver { group } => call.handing_over = Some(group),
        Change::Unit { voice } => call.unit.voice = voice,
        Change::Ended { reason, by } => {
            // Whoever has no floor any more may stay and listen until it is closed.
            call.listeners.extend(call.speaker.take());
            // The line to the unit is given up with it.
            (call.handing_over, call.held, call.unit.voice) = (None, false, false);
            call.ended = Some(Ended { at, reason, by });
        }
        Change::Spoke(spoke) => {
            if call.spoke.len() >= SPOKE_SHOWN {
                call.spoke.remove(0);
            }
            call.spoke.push(spoke);
        }
    }
    let state = state(call);
    if call.state != state {
        (call.state, call.since) = (state, at);
    }
}

/// What the facts make of the call's state.
fn state(call: &Call) -> CallState {
    match &call.speaker {
        _ if call.ended.is_some() => CallState::Ended,
        None => CallState::Ringing,
        Some(_) if call.unit.kind.speaks() && !call.unit.voice => CallState::Lost,
        Some(_) if call.held => CallState::Held,
        Some(_) => CallState::Answered,
    }
}

/// A change as a line of the incident's history; none for what is not worth one.
pub fn line(call: &Call, change: &Change) -> Option<String> {
    Some(match change {
        Change::Rang { again } => format!("rings again: {}", again.why()),
        Change::Escalated { group } => format!("nobody answered; {group} rings too"),
        Change::Listens { party } => format!("{} listens", party.name),
        Change::Took { party, how } => match how {
            How::Answered => format!("answered by {}", party.name),
            How::CalledBack => format!("called back by {}", party.name),
            How::HandedOver => format!("handed over to {}", party.name),
            How::BargedIn => format!("{} took the floor", party.name),
            How::Returned => format!("{} is back", party.name),
        },
        Change::Held => "the unit waits".into(),
        Change::Resumed => "the call goes on".into(),
        Change::HandingOver { group } => format!("being handed over to {group}"),
        Change::Unit { voice } => {
            call.speaker.as_ref()?;
            if *voice { "the unit is heard again".into() } else { "the unit does not answer".into() }
        }
        Change::Ended { reason: EndReason::HungUp, by } => format!("hung up by {by}"),
        Change::Ended { reason: EndReason::Closed, .. } => "the call ended".into(),
        Change::Left { .. } | Change::Spoke(_) => return None,
    })
}

/// A call short enough for any link.
pub fn shorten(call: &mut Call) {
    call.listeners.truncate(LISTENERS_SHOWN);
}
