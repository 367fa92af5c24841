//! The call of an incident, as headquarters and the page read it. What each state means stands in `docs/call.md`.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    clock::Utc,
    ids::{CameraId, IncidentId},
    incident::{ButtonSummary, Incident},
    press::PressKind,
};

/// How many stretches of speech a call carries: the latest.
pub const SPOKE_SHOWN: usize = 32;

/// How many listeners a call names; there may be more.
pub const LISTENERS_SHOWN: usize = 16;

/// Where a call stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum CallState {
    /// Nobody has the floor, and somebody should.
    Ringing,
    /// An operator has the floor, and what she says goes to the unit, where it has a way for that.
    Answered,
    /// An operator has the floor and the unit waits.
    Held,
    /// An operator has the floor and the unit does not answer.
    Lost,
    /// Over, until somebody calls back or presses again.
    Ended,
}

/// Why a call rings again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Again {
    /// The browser of who had the floor was lost.
    OperatorLost,
    /// The gateway was started again in the middle of it.
    GatewayRestarted,
    /// Who had the floor left it to a group.
    HandedOver,
    /// It had ended, and the button was pressed again.
    PressedAgain,
}

impl Again {
    /// In words.
    pub fn why(self) -> &'static str {
        match self {
            Self::OperatorLost => "the operator was lost",
            Self::GatewayRestarted => "the gateway was started again",
            Self::HandedOver => "handed over",
            Self::PressedAgain => "pressed again",
        }
    }
}

/// What a unit can do in a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum UnitKind {
    /// A camera, if any, and a speaker.
    Speaker,
    /// A screen that shows the kiosk page.
    Screen,
    /// A camera without a speaker: it is seen, perhaps heard, and nobody can speak there.
    Camera,
    /// Nothing but the button.
    None,
}

impl UnitKind {
    /// Whether an operator can speak there.
    pub fn speaks(self) -> bool {
        matches!(self, Self::Speaker | Self::Screen)
    }
}

/// The unit's end of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct UnitEnd {
    /// What it can do.
    pub kind: UnitKind,
    /// Whether the way to its speaker or screen stands.
    pub voice: bool,
}

/// Who takes part.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Party {
    /// A number, given once in a run of the gateway.
    pub party: u32,
    /// Who, as it goes into the record.
    pub name: String,
}

/// Why a call is over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum EndReason {
    /// Who had the floor hung up.
    HungUp,
    /// The incident was closed.
    Closed,
}

/// How a call ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ended {
    /// When.
    pub at: Utc,
    /// Why.
    pub reason: EndReason,
    /// Who did it.
    pub by: String,
}

/// A stretch of speech.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Spoke {
    /// `unit`, or the operator's name.
    pub who: String,
    /// From when.
    pub from: Utc,
    /// Until when.
    pub to: Utc,
}

/// The call of an incident.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Call {
    /// Its path on the gateway: where an offer is sent.
    pub address: String,
    /// Where it stands.
    pub state: CallState,
    /// Since when.
    pub since: Utc,
    /// How many times it began to ring.
    pub rings: u32,
    /// Why it rings again; none when it rang only once.
    pub again: Option<Again>,
    /// Whether somebody at headquarters knows that it rings, proven: its broker has a document that tells of this ring, or somebody
    /// has taken part since.
    #[serde(default)]
    pub reached: bool,
    /// The furthest group that rings, or rang.
    pub group: String,
    /// The group that it is being handed over to, until one of it answers.
    pub handing_over: Option<String>,
    /// The unit's end.
    pub unit: UnitEnd,
    /// Who has the floor wants the unit to wait.
    pub held: bool,
    /// Who has the floor.
    pub speaker: Option<Party>,
    /// Who else sees and hears, at most [`LISTENERS_SHOWN`].
    pub listeners: Vec<Party>,
    /// When the floor was first taken.
    pub answered_at: Option<Utc>,
    /// How it ended.
    pub ended: Option<Ended>,
    /// Who spoke when, the latest [`SPOKE_SHOWN`].
    pub spoke: Vec<Spoke>,
}

impl Call {
    /// A call of that incident that nobody has heard ring yet.
    pub fn new(incident: IncidentId, kind: UnitKind, group: String, at: Utc) -> Self {
        Self {
            address: format!("/v1/incidents/{incident}/call"),
            state: CallState::Ringing,
            since: at,
            rings: 1,
            again: None,
            reached: false,
            group,
            handing_over: None,
            unit: UnitEnd { kind, voice: false },
            held: false,
            speaker: None,
            listeners: Vec::new(),
            answered_at: None,
            ended: None,
            spoke: Vec::new(),
        }
    }
}

impl Call {
    /// Every time in it.
    pub(super) fn times(&mut self) -> impl Iterator<Item = &mut Utc> {
        let spoke = self.spoke.iter_mut().flat_map(|s| [&mut s.from, &mut s.to]);
        [&mut self.since]
            .into_iter()
            .chain(&mut self.answered_at)
            .chain(self.ended.as_mut().map(|e| &mut e.at))
            .chain(spoke)
    }
}

/// A call as it is told at once, without the rest of its incident: the event `call` and `chowki/{district}/calls/{incident}`.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallEvent {
    /// Of which incident.
    pub incident: IncidentId,
    /// What that is about.
    pub kind: PressKind,
    /// The button.
    pub button: ButtonSummary,
    /// When it was first pressed.
    pub pressed_at: Utc,
    /// The first of its cameras that can be watched: the unit's own, where it has one.
    pub camera: Option<CallCamera>,
    /// The call.
    pub call: Call,
}

/// The camera that shows the scene.
#[derive(Debug, Clone, PartialEq, Serialize, JsonSchema)]
pub struct CallCamera {
    /// Its id.
    pub id: CameraId,
    /// Its name.
    pub name: String,
    /// Path of its live view on the gateway.
    pub live: String,
}

impl CallEvent {
    /// Of an incident that has a call.
    pub fn of(incident: &Incident) -> Option<Self> {
        let call = incident.call.clone()?;
        let camera = incident.cameras.iter().find_map(|camera| {
            let live = camera.live.clone()?;
            Some(CallCamera { id: camera.id.clone(), name: camera.name.clone(), live })
        });
        Some(Self {
            incident: incident.id,
            kind: incident.kind,
            button: incident.button.clone(),
            pressed_at: incident.pressed_at.at,
            camera,
            call,
        })
    }
}
