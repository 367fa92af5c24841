//! What recorders, the forwarder and the API bring to the desk.

use tokio::sync::oneshot;

use crate::{
    call::state::Input,
    district::{
        clock::Mono,
        evidence::{EvidenceObject, Gap},
        ids::{CameraId, IncidentId},
    },
    incident::{
        engine::{CallError, CommandError},
        record::Command,
    },
    spool::Evicted,
};

/// What recorders, the forwarder and the API bring to the desk.
#[derive(Debug)]
pub enum Work {
    /// An object of evidence is on disk.
    Stored(IncidentId, CameraId, EvidenceObject),
    /// Headquarters has an object of evidence.
    Uploaded(IncidentId, CameraId, EvidenceObject),
    /// Nobody holds an interval.
    Gap(IncidentId, CameraId, Gap),
    /// Objects were removed from the disk that headquarters has.
    Evicted(Evicted),
    /// A recording has ended, having been ordered until then.
    Ended(IncidentId, CameraId, Mono),
    /// Something happened to an incident's call, or is asked of it.
    Call(IncidentId, Input, oneshot::Sender<Result<(), CallError>>),
    /// A step of headquarters, by HTTP.
    Command(Command, oneshot::Sender<Result<(), CommandError>>),
}
