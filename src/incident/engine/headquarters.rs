//! What headquarters acknowledges and commands: the steps of an incident until it is closed. Pure.

use super::{
    super::record::{COMMAND_ID, COMMANDER, Command, Record, Verb},
    Effect, Engine, Outputs,
};
use crate::district::{
    clock::Now,
    ids::IncidentId,
    press::{Press, PressKind, Progress, StateMessage},
};

/// Why a command was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// The command names no incident, or none that this gateway knows.
    #[error("no incident {0} here")]
    NoIncident(String),
    /// The command names no button of this district.
    #[error("no button {0} in this district")]
    NoButton(String),
    /// The command's id is longer than can be remembered.
    #[error("a command's id has at most {COMMAND_ID} bytes, this one has {0}")]
    LongId(usize),
}

impl Engine {
    /// Headquarters' broker acknowledged a revision of an incident's document.
    pub fn delivered(&mut self, incident: IncidentId, revision: u64, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        if revision <= case.delivered {
            return;
        }
        let button = case.document.button.id.clone();
        let state = case.document.state.max(Progress::Delivered);
        let told = case.untold.iter().filter(|(_, r)| *r <= revision).map(|(press, _)| StateMessage {
            press: press.clone(),
            incident,
            state,
        });
        out.effects.extend(told.map(|message| Effect::Tell(button.clone(), message)));
        if case.document.state < Progress::Delivered {
            out.shown.insert(incident);
        }
        if case.open() && case.rings_untold(revision) {
            out.calls.insert(incident);
        }
        self.record(Record::Delivered { incident, revision, at: now.wall }, out);
        if self.cases.get(incident).is_some_and(|c| c.behind && c.sent.0 <= revision) {
            self.put_out_presses(incident, now.mono, out);
        }
        self.close_finished_test(incident, now, out);
    }

    /// A step that headquarters commands, by MQTT or by HTTP.
    pub fn command(&mut self, command: Command, now: Now, out: &mut Outputs) -> Result<(), CommandError> {
        // From outside, and on its way into documents and logs.
        let plain = |text: &str| text.chars().filter(|c| !c.is_control()).collect::<String>();
        let by = plain(&command.by).chars().take(COMMANDER).collect();
        let command = Command { by, id: command.id.as_deref().map(plain), ..command };
        if command.id.as_ref().is_some_and(|id| self.cases.knows_command(id)) {
            return Ok(());
        }
        if let Some(id) = command.id.as_ref().filter(|id| id.len() > COMMAND_ID) {
            return Err(CommandError::LongId(id.len()));
        }
        if command.command == Verb::TestPress {
            return self.test_press(command, now, out);
        }
        let known = command.incident.filter(|i| self.cases.get(*i).is_some());
        let Some(incident) = known else {
            return Err(CommandError::NoIncident(command.incident.map(|i| i.to_string()).unwrap_or_default()));
        };
        let step = match command.command {
            Verb::Seen => Progress::Seen,
            Verb::Dispatched => Progress::Dispatched,
            Verb::Close => Progress::Closed,
            Verb::Record | Verb::TestPress => {
                let until = now.mono + self.settings.after;
                let Command { by, id, .. } = command;
                self.record(Record::Extended { incident, until, at: now.wall, by, command: id }, out);
                self.schedule_evidence(incident);
                self.order(incident, out);
                return Ok(());
            }
        };
        self.step(incident, step, command.by, command.id, now, out);
        Ok(())
    }

    pub(super) fn step(
        &mut self,
        incident: IncidentId,
        step: Progress,
        by: String,
        command: Option<String>,
        now: Now,
        out: &mut Outputs,
    ) {
        let Some(case) = self.cases.get(incident) else { return };
        if case.document.state == Progress::Closed {
            return;
        }
        let further = step > case.document.state;
        let button = case.document.button.id.clone();
        let press = case.document.presses.last().and_then(|p| p.press.clone());
        if step == Progress::Closed {
            self.close_call(incident, &by, now, out);
        }
        self.record(Record::Step { incident, step, at: now.wall, by, command }, out);
        out.changed.insert(incident);
        if further {
            out.effects.push(Effect::Tell(button, StateMessage { press, incident, state: step }));
        }
    }

    fn test_press(&mut self, command: Command, now: Now, out: &mut Outputs) -> Result<(), CommandError> {
        let known = command.button.filter(|b| self.inventory.button(b).is_some());
        let Some(button) = known else {
            return Err(CommandError::NoButton("(field `button`)".into()));
        };
        // A command with an id is one press, whenever and how often it comes.
        let payload = match &command.id {
            Some(id) => IncidentId::derive(0, id.as_bytes()),
            None => IncidentId::derive(now.wall.unix_ms(), b"command"),
        };
        let payload = payload.to_string();
        let press = Press {
            button,
            press: payload.parse().ok(),
            claimed_at: None,
            kind: PressKind::Test,
            payload_hash: [0; 16],
            received: now,
        };
        self.press(press, out);
        if let Some(id) = command.id {
            self.record(Record::Commands { ids: vec![id] }, out);
        }
        Ok(())
    }

    /// A test needs no operator to end it: it closes when it has travelled the whole way.
    pub(super) fn close_finished_test(&mut self, incident: IncidentId, now: Now, out: &mut Outputs) {
        let Some(case) = self.cases.get(incident) else { return };
        let travelled = case.delivered > 0 || self.settings.alone;
        if case.document.test && case.open() && travelled && case.all_ended() {
            self.step(incident, Progress::Closed, "chowki: the test is over".into(), None, now, out);
        }
    }
}
