//! What comes to the desk, and what of it is taken in one turn.

use tokio::sync::{mpsc, watch};

use super::work::Work;
use crate::{district::camera::CameraReport, intake, spool::Health, uplink::events};

/// Inputs of one kind taken at a time.
pub(super) const TURN: usize = 256;

/// Everything that comes to the desk.
pub struct Inputs {
    /// Buttons.
    pub intake: mpsc::Receiver<intake::Event>,
    /// Headquarters' broker.
    pub events: mpsc::Receiver<events::Event>,
    /// Cameras.
    pub cameras: mpsc::Receiver<CameraReport>,
    /// Recorders, the forwarder, the API.
    pub work: mpsc::Receiver<Work>,
    /// The journal's disk.
    pub disk: watch::Receiver<Health>,
}

/// What came in one turn.
#[derive(Default)]
pub(super) struct Turn {
    pub buttons: Vec<intake::Event>,
    pub hq: Vec<events::Event>,
    pub cameras: Vec<CameraReport>,
    pub work: Vec<Work>,
}

impl Turn {
    /// Takes whatever is there already; presses only when the ledger has room for them.
    pub fn drain(&mut self, inputs: &mut Inputs, presses: bool) {
        if presses {
            drain(&mut inputs.intake, &mut self.buttons);
        }
        drain(&mut inputs.events, &mut self.hq);
        drain(&mut inputs.work, &mut self.work);
        drain(&mut inputs.cameras, &mut self.cameras);
    }
}

/// Takes what is there already, at most a turn's worth.
fn drain<T>(from: &mut mpsc::Receiver<T>, into: &mut Vec<T>) {
    while into.len() < TURN
        && let Ok(item) = from.try_recv()
    {
        into.push(item);
    }
}
