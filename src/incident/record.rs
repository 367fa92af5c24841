//! What the journal holds of incidents and buttons. State changes only by applying one of these, live and at replay
//! alike, so that what is replayed is what was. Pure.

use serde::{Deserialize, Serialize};

use crate::{
    call::state::Change,
    district::{
        button::ButtonCondition,
        clock::{Mono, Utc},
        correction::ClockCorrection,
        evidence::Gap,
        ids::{ButtonId, CameraId, IncidentId, PressId},
        incident::{Incident, PressEntry},
        press::{PressKind, Progress},
    },
    media::fragment::{fragment_number, init_number},
};

/// One entry of the journal.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "record", rename_all = "kebab-case")]
pub enum Record {
    /// A press made an incident. Also what a checkpoint holds of an incident.
    Opened(Box<Opened>),
    /// A press joined an open incident.
    Joined {
        /// Which.
        incident: IncidentId,
        /// The press.
        entry: PressEntry,
        /// What it is recognised by when it comes again.
        key: PressKey,
        /// The evidence window's new end.
        until: Mono,
    },
    /// Headquarters' broker acknowledged a revision.
    Delivered {
        /// Which.
        incident: IncidentId,
        /// Revision.
        revision: u64,
        /// When.
        at: Utc,
    },
    /// Headquarters took a step.
    Step {
        /// Which.
        incident: IncidentId,
        /// The step.
        step: Progress,
        /// When.
        at: Utc,
        /// Who.
        by: String,
        /// The command's id; a repeat of it changes nothing.
        command: Option<String>,
    },
    /// The evidence window was extended by the operator.
    Extended {
        /// Which.
        incident: IncidentId,
        /// New end.
        until: Mono,
        /// When.
        at: Utc,
        /// Who.
        by: String,
        /// The command's id.
        command: Option<String>,
    },
    /// Nobody holds an interval of a camera's evidence.
    Gap {
        /// Which.
        incident: IncidentId,
        /// Whose.
        camera: CameraId,
        /// What is missing and why.
        gap: Gap,
    },
    /// The evidence window goes on because the call does.
    Lengthened {
        /// Which.
        incident: IncidentId,
        /// New end.
        until: Mono,
    },
    /// Recording of a camera for an incident has ended.
    EvidenceEnded {
        /// Which.
        incident: IncidentId,
        /// Whose.
        camera: CameraId,
    },
    /// Evidence changed: a new revision of the document was put out.
    Revised {
        /// Which.
        incident: IncidentId,
        /// Revision.
        revision: u64,
        /// How much evidence it tells of.
        #[serde(default)]
        told: Told,
    },
    /// Objects of evidence that headquarters has were removed here to make room.
    Evicted {
        /// Which.
        incident: IncidentId,
        /// Whose.
        camera: CameraId,
        /// What was removed.
        gone: Gone,
    },
    /// The gateway was started again, and the incident goes on.
    Resumed {
        /// Which.
        incident: IncidentId,
        /// Revision: far beyond any that an earlier run may have put out and not written down.
        revision: u64,
        /// After a reboot: what monotonic times mean from here on.
        reboot: Option<Reboot>,
    },
    /// The disk holds again what was only in memory.
    Stored {
        /// Which.
        incident: IncidentId,
    },
    /// Commands that were carried out: those of a checkpoint, and those that no other record names.
    Commands {
        /// Their ids, oldest first.
        ids: Vec<String>,
    },
    /// Something happened to an incident's call.
    Call {
        /// Which.
        incident: IncidentId,
        /// When.
        at: Utc,
        /// What.
        change: Change,
    },
    /// The clock was synchronised: what was dated before is corrected.
    ClockCorrected {
        /// Which.
        incident: IncidentId,
        /// How.
        correction: ClockCorrection,
    },
    /// A button's condition changed.
    Condition(ButtonCondition),
}

/// A press that made an incident.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Opened {
    /// The document as it stands, without evidence objects (those are in the media log).
    pub document: Incident,
    /// What the presses are recognised by when they come again, oldest first.
    pub keys: Vec<PressKey>,
    /// The evidence window, monotonic.
    pub from: Mono,
    /// Its end.
    pub until: Mono,
    /// The last revision that headquarters acknowledged.
    pub delivered: u64,
    /// What its monotonic times mean, when that is not what the press says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub anchor: Option<Anchor>,
    /// What is no longer in the media log, camera by camera.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub gone: Vec<(CameraId, Gone)>,
    /// How much evidence the last revision for evidence told of.
    #[serde(default)]
    pub told: Told,
    /// Whether there is something about evidence that no revision has told yet.
    #[serde(default)]
    pub evidence_changed: bool,
}

/// How much evidence a revision tells of, all cameras together: a restart that finds as much has nothing new to tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Told {
    /// Objects.
    pub objects: usize,
    /// Of these, at headquarters.
    pub delivered: usize,
}

/// What headquarters has of a camera's evidence and this gateway has no longer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Gone {
    /// How many objects.
    pub objects: usize,
    /// Their bytes.
    pub bytes: u64,
    /// The number after that of the last fragment: a lower one would overwrite it at headquarters.
    pub fragment: u32,
    /// The number after that of the last init segment.
    pub init: u32,
    /// Where the last fragment ended.
    pub to: Utc,
}

impl Gone {
    /// Whether an object of that name may be among them.
    pub fn covers(&self, name: &str) -> bool {
        let below = |number: Option<u32>, next: u32| number.is_some_and(|number| number < next);
        below(fragment_number(name), self.fragment) || below(init_number(name), self.init)
    }

    /// Both together.
    pub fn and(self, more: Gone) -> Gone {
        Gone {
            objects: self.objects.saturating_add(more.objects),
            bytes: self.bytes.saturating_add(more.bytes),
            fragment: self.fragment.max(more.fragment),
            init: self.init.max(more.init),
            to: self.to.max(more.to),
        }
    }
}

/// What an incident's monotonic times mean: in which boot, and one moment of it on both clocks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Anchor {
    /// The kernel's boot id.
    pub boot: String,
    /// The moment, monotonic.
    pub mono: Mono,
    /// The same moment, wall time.
    pub wall: Utc,
}

/// How an incident goes on in another boot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reboot {
    /// The moment it went on, which is also where the evidence window begins now.
    pub anchor: Anchor,
    /// The window's end in this boot.
    pub until: Mono,
}

/// What a press is recognised by when it comes again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PressKey {
    /// The device's id for it.
    Id(PressId),
    /// A device that sends none: what it said and when it arrived.
    Payload {
        /// First 16 bytes of the payload's SHA-256, hex.
        hash: String,
        /// When it arrived.
        at: Mono,
    },
}

impl PressKey {
    /// The bytes that an incident's id is derived from.
    pub fn derivation(&self, button: &ButtonId) -> Vec<u8> {
        match self {
            PressKey::Id(id) => format!("{button}\0id\0{id}").into_bytes(),
            PressKey::Payload { hash, at } => format!("{button}\0payload\0{hash}\0{:?}", at.since_boot()).into_bytes(),
        }
    }
}

/// Longest id of a command, in bytes: ids are remembered.
pub const COMMAND_ID: usize = 128;

/// So much of who commands is written down, in characters: it stands in documents that travel over thin links.
pub const COMMANDER: usize = 64;

/// A command of headquarters, `chowki/{district}/commands`.
#[derive(Debug, Clone, PartialEq, Deserialize, schemars::JsonSchema)]
pub struct Command {
    /// What to do.
    pub command: Verb,
    /// On which incident.
    #[serde(default)]
    pub incident: Option<IncidentId>,
    /// On which button (`test-press`).
    #[serde(default)]
    pub button: Option<ButtonId>,
    /// Who says so.
    #[serde(default)]
    pub by: String,
    /// Repeats of one id are one command.
    #[serde(default)]
    pub id: Option<String>,
}

/// What headquarters can command.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, schemars::JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Verb {
    /// An operator opened the incident.
    Seen,
    /// Help has been sent.
    Dispatched,
    /// It is over.
    Close,
    /// Press a button as a test.
    TestPress,
    /// Keep recording for another `after`.
    Record,
}

/// Urgency: the smaller, the more urgent; a test never outranks anything.
pub fn more_urgent(a: PressKind, b: PressKind) -> PressKind {
    a.min(b)
}
