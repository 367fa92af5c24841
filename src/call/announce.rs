//! What a unit plays when: only what is true by then. Pure.

use std::time::Duration;

use super::talkback::Prompt;
use crate::district::{
    call::{Again, Call, CallState},
    clock::Mono,
};

/// Nobody at headquarters knows of the press for so long: the unit says that it is being tried.
const PATIENCE: Duration = Duration::from_secs(5);
/// What is said while it rings is said again at this pace.
const AGAIN: Duration = Duration::from_secs(30);
/// And while the unit waits.
const HOLD_AGAIN: Duration = Duration::from_secs(15);
/// Tones are not cut by what is said next for so long, and words not for as long as our own take.
const TONES: Duration = Duration::from_millis(1_500);
const WORDS: Duration = Duration::from_secs(9);

/// What a unit is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Order {
    /// Play that, and if wanted again and again at that pace.
    Play(Prompt, Option<Duration>),
    /// Play nothing any more.
    Quiet,
}

/// What has been played of one call.
#[derive(Debug, Default)]
pub struct Announcer {
    /// The state and the number of rings that the unit was told of.
    told: Option<(CallState, u32)>,
    /// Since when it rings, and what is said of that.
    rings: Option<(Mono, Option<Prompt>)>,
}

impl Announcer {
    /// What is to be played now, if anything new. `reached`: somebody at headquarters knows, proven.
    pub fn next(&mut self, call: &Call, reached: bool, now: Mono) -> Option<Order> {
        let is = (call.state, call.rings);
        let was = self.told.replace(is);
        if was != Some(is) {
            self.rings = (call.state == CallState::Ringing).then_some((now, None));
            return changed(call, was.map(|(state, _)| state));
        }
        let (since, said) = self.rings.as_mut()?;
        let waited = now.since(*since);
        let uncut = match call.again {
            None | Some(Again::PressedAgain) => TONES,
            Some(_) => WORDS,
        };
        let says = match reached {
            true if waited >= uncut => Prompt::Reached,
            false if waited >= PATIENCE.max(uncut) => Prompt::Waiting,
            _ => return None,
        };
        (said.replace(says) != Some(says)).then_some(Order::Play(says, Some(AGAIN)))
    }
}

/// What a new state sounds like.
fn changed(call: &Call, was: Option<CallState>) -> Option<Order> {
    let once = |prompt| Some(Order::Play(prompt, None));
    match call.state {
        CallState::Ringing => match call.again {
            None | Some(Again::PressedAgain) => once(Prompt::Pressed),
            Some(Again::OperatorLost | Again::GatewayRestarted) => once(Prompt::Lost),
            Some(Again::HandedOver) => once(Prompt::Waiting),
        },
        CallState::Answered if matches!(was, Some(CallState::Held)) => Some(Order::Quiet),
        CallState::Answered => once(Prompt::Answered),
        CallState::Held => Some(Order::Play(Prompt::Hold, Some(HOLD_AGAIN))),
        // Nobody hears it.
        CallState::Lost => Some(Order::Quiet),
        CallState::Ended if was.is_some() => once(Prompt::Ended),
        CallState::Ended => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        call::state::{Change, How, apply},
        district::{
            call::{EndReason, Party, UnitKind},
            clock::Utc,
            ids::IncidentId,
        },
    };

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    fn ringing() -> Call {
        let mut call = Call::new(IncidentId::derive(1, b"x"), UnitKind::Speaker, "op".into(), Utc::default());
        apply(&mut call, Change::Unit { voice: true }, Utc::default());
        call
    }

    fn happens(call: &mut Call, change: Change) {
        apply(call, change, Utc::default());
    }

    fn play(prompt: Prompt, seconds: u64) -> Option<Order> {
        Some(Order::Play(prompt, (seconds > 0).then_some(Duration::from_secs(seconds))))
    }

    #[test]
    fn nothing_is_said_of_the_police_before_somebody_there_knows() {
        let (call, mut unit) = (ringing(), Announcer::default());
        assert_eq!(unit.next(&call, false, at(0)), play(Prompt::Pressed, 0));
        assert_eq!(unit.next(&call, false, at(4_900)), None);
        assert_eq!(unit.next(&call, false, at(5_000)), play(Prompt::Waiting, 30));
        assert_eq!(unit.next(&call, false, at(40_000)), None, "it is repeated by itself");
        assert_eq!(unit.next(&call, true, at(41_000)), play(Prompt::Reached, 30));
        assert_eq!(unit.next(&call, true, at(42_000)), None);
    }

    #[test]
    fn the_tones_of_the_press_are_heard_before_what_follows() {
        let (call, mut unit) = (ringing(), Announcer::default());
        assert_eq!(unit.next(&call, true, at(0)), play(Prompt::Pressed, 0));
        assert_eq!(unit.next(&call, true, at(1_000)), None);
        assert_eq!(unit.next(&call, true, at(1_500)), play(Prompt::Reached, 30));
    }

    #[test]
    fn an_answered_call_is_quiet_and_one_that_waits_is_told_so() {
        let (mut call, mut unit) = (ringing(), Announcer::default());
        unit.next(&call, true, at(0));
        let party = Party { party: 1, name: "A".into() };
        happens(&mut call, Change::Took { party: party.clone(), how: How::Answered });
        assert_eq!(unit.next(&call, true, at(10)), play(Prompt::Answered, 0));
        assert_eq!(unit.next(&call, true, at(60_000)), None);
        happens(&mut call, Change::Held);
        assert_eq!(unit.next(&call, true, at(61_000)), play(Prompt::Hold, 15));
        happens(&mut call, Change::Resumed);
        assert_eq!(unit.next(&call, true, at(62_000)), Some(Order::Quiet));
        happens(&mut call, Change::Rang { again: Again::OperatorLost });
        assert_eq!(unit.next(&call, true, at(63_000)), play(Prompt::Lost, 0));
        assert_eq!(unit.next(&call, true, at(71_000)), None, "what was said is not cut");
        assert_eq!(unit.next(&call, true, at(72_000)), play(Prompt::Reached, 30));
        happens(&mut call, Change::Took { party, how: How::Answered });
        unit.next(&call, true, at(73_000));
        happens(&mut call, Change::Ended { reason: EndReason::HungUp, by: "A".into() });
        assert_eq!(unit.next(&call, true, at(74_000)), play(Prompt::Ended, 0));
    }
}
