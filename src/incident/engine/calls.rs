//! The call of an incident: what happens to it, when the next group rings, and how long evidence goes on for it. Pure.

use std::time::Duration;

use super::{super::record::Record, Engine, Outputs};
use crate::{
    call::state::{self, Denied, Input},
    district::{
        call::{Call, CallEvent, CallState},
        clock::{Now, Utc},
        ids::IncidentId,
        inventory::Button,
        press::Progress,
    },
};

/// How calls ring.
#[derive(Debug, Clone)]
pub struct Calls {
    /// Who rings, one group after another; never empty.
    pub groups: Vec<String>,
    /// Unanswered for so long, the next group rings too.
    pub escalate_after: Duration,
    /// While nobody answers, evidence goes on for so long at most.
    pub ringing: Duration,
}

/// Why a call does not do what it is asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// No such incident here, or it is closed, or it is a test.
    #[error("incident {0} has no call: it is closed, a test, or not of this gateway")]
    NoCall(IncidentId),
    /// It may not.
    #[error(transparent)]
    Denied(#[from] Denied),
}

impl Engine {
    /// The call that a press makes.
    pub(super) fn rings(&self, button: &Button, incident: IncidentId, at: Utc) -> Call {
        let group = self.settings.calls.groups.first().cloned().unwrap_or_default();
        Call::new(incident, button.kind(), group, at)
    }

    /// Whether that would be possible now; changes nothing.
    ///
    /// # Errors
    /// Why not.
    pub fn may_call(&self, incident: IncidentId, input: Input) -> Result<(), CallError> {
        let call = self.call_of(incident).ok_or(CallError::NoCall(incident))?;
        Ok(state::decide(call, input, &self.settings.calls.groups).map(drop)?)
    }

    /// Something happened to an incident's call.
    ///
    /// # Errors
    /// Why it changes nothing.
    pub fn call(&mut self, incident: IncidentId, input: Input, now: Now, out: &mut Outputs) -> Result<(), CallError> {
        let call = self.call_of(incident).ok_or(CallError::NoCall(incident))?;
        let changes = state::decide(call, input, &self.settings.calls.groups)?;
        if changes.is_empty() {
            return Ok(());
        }
        for change in changes {
            if !matches!(change, state::Change::Spoke(_)) {
                out.changed.insert(incident);
            }
            self.record(Record::Call { incident, at: now.wall, change }, out);
        }
        self.call_changed(incident, now, out);
        Ok(())
    }

    /// The calls that are not over, for whoever carries them after a start.
    pub fn calls(&self) -> impl Iterator<Item = (IncidentId, &Call)> {
        self.cases.iter().filter(|(_, c)| c.open()).filter_map(|(id, c)| Some((*id, c.document.call.as_ref()?)))
    }

    /// An incident's call as it is told at once.
    pub fn call_event(&self, incident: IncidentId) -> Option<CallEvent> {
        let mut event = CallEvent::of(&self.cases.get(incident)?.document)?;
        state::shorten(&mut event.call);
        Some(event)
    }

    fn call_of(&self, incident: IncidentId) -> Option<&Call> {
        self.cases.get(incident).filter(|c| c.open())?.document.call.as_ref()
    }

    /// What follows from a call that changed, whatever it was.
    pub(super) fn call_changed(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get_mut(incident) else { return };
        let Some(call) = &case.document.call else { return };
        out.calls.insert(incident);
        let more = self.settings.calls.groups.last().is_some_and(|last| *last != call.group);
        let due = case.escalates.unwrap_or(now.mono + self.settings.calls.escalate_after);
        case.escalates = (call.state == CallState::Ringing && more).then_some(due);
        let by = call.speaker.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        let proven = match call.state {
            CallState::Answered if call.unit.voice => Progress::Answered,
            _ if call.speaker.is_some() => Progress::Seen,
            _ => Progress::Received,
        };
        if proven > case.document.state.max(Progress::Delivered) {
            self.step(incident, proven, by, None, now, out);
        }
        self.call_goes_on(incident, now, out);
    }

    /// Evidence goes on while the call does; arranges to be asked again.
    fn call_goes_on(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident).filter(|c| c.open()) else { return };
        let Some(call) = &case.document.call else { return };
        let ahead = self.settings.after / 2;
        let goes_on = match call.state {
            CallState::Ended => false,
            CallState::Ringing => now.wall.since(call.since) < self.settings.calls.ringing,
            CallState::Answered | CallState::Held | CallState::Lost => true,
        };
        if goes_on && case.until <= now.mono + ahead {
            let until = now.mono + self.settings.after;
            self.record(Record::Lengthened { incident, until }, out);
            self.schedule_evidence(incident);
        }
        let Some(case) = self.cases.get(incident) else { return };
        if goes_on {
            // A voice that is recorded from now on, or an end that was moved.
            out.orders.extend(case.orders().filter(|(_, ended)| !ended).map(|(order, _)| order));
        }
        let again = goes_on.then(|| case.until.before(ahead));
        if let Some(at) = [again, case.escalates].into_iter().flatten().min() {
            self.calls_due.insert((at, incident));
        }
    }

    pub(super) fn calls_timeout(&mut self, now: Now, out: &mut Outputs) {
        while let Some(&(at, incident)) = self.calls_due.first().filter(|(at, _)| *at <= now.mono) {
            self.calls_due.remove(&(at, incident));
            let due = self.cases.get_mut(incident).and_then(|case| case.escalates.take_if(|at| *at <= now.mono));
            if due.is_some() {
                // An incident that was closed meanwhile wakes nobody.
                let _ = self.call(incident, Input::Unanswered, now, out);
            }
            self.call_goes_on(incident, now, out);
        }
    }

    pub(super) fn pressed_again(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        // A test has no call.
        let _ = self.call(incident, Input::Pressed, now, out);
    }

    pub(super) fn close_call(&mut self, incident: IncidentId, by: &str, now: Now, out: &mut Outputs) {
        let _ = self.call(incident, Input::Closed { by: by.to_owned() }, now, out);
    }

    /// Every call that was under way rings again.
    pub(super) fn calls_restarted(&mut self, now: Now, out: &mut Outputs) {
        let under_way: Vec<_> = self.calls().map(|(id, _)| id).collect();
        for incident in under_way {
            let _ = self.call(incident, Input::Restarted, now, out);
            self.call_changed(incident, now, out);
        }
    }
}
