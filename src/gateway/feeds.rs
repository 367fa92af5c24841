//! Every camera's ring and the session that fills it: masts and units alike.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::warn;

use crate::{
    camera::{self, CameraHandle},
    district::{
        camera::{CameraReport, CameraState},
        clock::Mono,
        ids::CameraId,
        inventory::{Inventory, Source, Transport},
    },
    host::{
        scope::Scope,
        thread::{Hurry, Thread},
    },
    media::ring::{Limits, Ring},
};

/// Kept beyond what evidence asks for, so that a press finds its whole window although it takes a moment to arrive.
const MARGIN: Duration = Duration::from_secs(2);

/// The cameras of a district, running.
#[derive(Clone, Default)]
pub struct Feeds {
    rings: Arc<HashMap<CameraId, Arc<Ring>>>,
    handles: Arc<Vec<CameraHandle>>,
    /// What the sessions run on; their scope ends before it.
    thread: Option<Arc<Thread>>,
}

impl Feeds {
    /// Starts a session to every camera and unit.
    pub fn start(
        inventory: &Inventory,
        before: Duration,
        ring_bytes: usize,
        reports: &mpsc::Sender<CameraReport>,
        scope: &Scope,
    ) -> Self {
        let limits = Limits { span: before + MARGIN, bytes: ring_bytes };
        warn_of_small_buffers(inventory);
        let settings = camera::Settings::default();
        let thread = Thread::in_beats("cameras").inspect_err(|e| warn!(error = %e, "no thread for cameras alone")).ok();
        let inside = thread.as_ref().map(Thread::enter);
        let mut rings = HashMap::new();
        let mut handles = Vec::new();
        for (id, source) in sources(inventory) {
            let ring = Ring::new(limits);
            rings.insert(id.clone(), ring.clone());
            handles.push(camera::start(id, source, ring, reports.clone(), settings.clone(), scope));
        }
        drop(inside);
        Self { rings: Arc::new(rings), handles: Arc::new(handles), thread: thread.map(Arc::new) }
    }

    /// Rings that a test fills itself.
    #[cfg(test)]
    pub fn of(rings: impl IntoIterator<Item = (CameraId, Arc<Ring>)>) -> Self {
        Self { rings: Arc::new(rings.into_iter().collect()), handles: Arc::default(), thread: None }
    }

    /// A camera's ring.
    pub fn ring(&self, camera: &CameraId) -> Option<&Arc<Ring>> {
        self.rings.get(camera)
    }

    /// Every camera's ring, in no order.
    pub fn rings(&self) -> impl Iterator<Item = (&CameraId, &Arc<Ring>)> {
        self.rings.iter()
    }

    /// Frames come as soon as they can while what this returns lives.
    pub fn hurry(&self) -> Option<Hurry> {
        self.thread.as_ref().map(|thread| thread.hurry())
    }

    /// What was wrong with a camera at some time since then, the latest.
    pub fn fault_since(&self, camera: &CameraId, since: Mono) -> Option<CameraState> {
        self.handles.iter().find(|h| h.camera() == camera)?.stats().fault_since(since)
    }

    /// Every camera's session.
    pub fn handles(&self) -> &[CameraHandle] {
        &self.handles
    }
}

/// A key frame of a camera that sends by UDP comes at once, and overflows a socket buffer of the usual size.
const UDP_BUFFER: u64 = 1 << 20;

fn warn_of_small_buffers(inventory: &Inventory) {
    let by_udp = sources(inventory).filter(|(_, s)| s.transport == Transport::Udp).count();
    let said = std::fs::read_to_string("/proc/sys/net/core/rmem_default");
    let Some(bytes) = said.ok().and_then(|b| b.trim().parse::<u64>().ok()) else { return };
    if by_udp > 0 && bytes < UDP_BUFFER {
        warn!(
            cameras = by_udp,
            bytes, "cameras by UDP will lose packets: sysctl -w net.core.rmem_default=4194304, or use TCP"
        );
    }
}

/// Units first: the person who presses stands before one.
fn sources(inventory: &Inventory) -> impl Iterator<Item = (CameraId, Source)> {
    let unit = |b: &Arc<crate::district::inventory::Button>| Some((CameraId::of_unit(&b.id), b.unit.clone()?));
    let mast = |c: &Arc<crate::district::inventory::Camera>| (c.id.clone(), c.source.clone());
    inventory.buttons().iter().filter_map(unit).chain(inventory.cameras().iter().map(mast))
}
