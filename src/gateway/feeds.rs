//! Every camera's ring and the session that fills it: masts and units alike.

use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::warn;

use super::{lighter::LighterStreams, sound::Sounds};
use crate::{
    call::{Inlet, Shown},
    camera::{self, CameraHandle},
    district::{
        call::UnitKind,
        camera::{CameraReport, CameraState},
        clock::Mono,
        ids::{ButtonId, CameraId},
        inventory::{Button, Inventory, Stream, Transport},
    },
    host::{
        scope::Scope,
        thread::{Hurry, Thread},
    },
    media::{
        frame::{Codec, Track},
        ring::{Limits, Ring},
    },
};

/// Kept beyond what evidence asks for, so that a press finds its whole window although it takes a moment to arrive.
const MARGIN: Duration = Duration::from_secs(2);

/// Of what operators say: what a reader may be behind at most.
const VOICE: Limits = Limits { span: Duration::from_secs(10), bytes: 8 << 20 };

/// The cameras of a district, running.
#[derive(Clone, Default)]
pub struct Feeds {
    rings: Arc<HashMap<CameraId, Arc<Ring>>>,
    handles: Arc<Vec<CameraHandle>>,
    lighter: LighterStreams,
    /// What operators say at each button.
    voices: Arc<HashMap<ButtonId, Arc<Inlet>>>,
    /// What units with a screen send.
    screens: Arc<HashMap<ButtonId, Arc<Inlet>>>,
    /// What is heard of cameras whose sound browsers do not take.
    sounds: Option<Sounds>,
    /// What the sessions run on; their scope ends before it.
    thread: Option<Arc<Thread>>,
}

impl Feeds {
    /// Starts a session to every camera and unit. Memory reaches back `before`, and further of cameras that are kept for
    /// outages of the backhaul.
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
        for Stream { id, source, record } in inventory.streams() {
            let ring = Ring::new(Limits { span: record.reach(before) + MARGIN, ..limits });
            rings.insert(id.clone(), ring.clone());
            handles.push(camera::start(id, source.clone(), ring, reports.clone(), settings.clone(), scope));
        }
        drop(inside);
        let mut screens = HashMap::new();
        for button in inventory.buttons().iter().filter(|b| b.kind() == UnitKind::Screen) {
            let ring = Ring::new(limits);
            rings.insert(CameraId::of_unit(&button.id), ring.clone());
            screens.insert(button.id.clone(), Inlet::new(ring));
        }
        let voice = |b: &Arc<Button>| (b.id.clone(), Inlet::new(Ring::new(VOICE)));
        let voices = inventory.buttons().iter().map(voice).collect();
        let thread = thread.map(Arc::new);
        Self {
            lighter: LighterStreams::new(inventory, thread.clone(), scope),
            sounds: Some(Sounds::new(thread.clone(), scope.clone())),
            rings: Arc::new(rings),
            handles: Arc::new(handles),
            voices: Arc::new(voices),
            screens: Arc::new(screens),
            thread,
        }
    }

    /// Rings that a test fills itself.
    #[cfg(test)]
    pub fn of(rings: impl IntoIterator<Item = (CameraId, Arc<Ring>)>) -> Self {
        Self { rings: Arc::new(rings.into_iter().collect()), ..Self::default() }
    }

    /// What operators say at a button.
    pub fn voice(&self, button: &ButtonId) -> Option<&Arc<Inlet>> {
        self.voices.get(button)
    }

    /// What a unit with a screen sends.
    pub fn screen(&self, button: &ButtonId) -> Option<&Arc<Inlet>> {
        self.screens.get(button)
    }

    /// What evidence is kept of under that name, for an incident at that button.
    pub fn recorded(&self, button: &ButtonId, camera: &CameraId) -> Option<&Arc<Ring>> {
        if *camera == CameraId::of_operator() {
            self.voice(button).map(|inlet| inlet.ring())
        } else {
            self.ring(camera)
        }
    }

    /// A camera's ring.
    pub fn ring(&self, camera: &CameraId) -> Option<&Arc<Ring>> {
        self.rings.get(camera)
    }

    /// A camera as a browser is shown it, its sound kept back while `hushed` is set. What the camera sends is looked at now:
    /// one that changes to AAC is heard by who comes after that.
    pub fn shown(&self, camera: &CameraId, hushed: Option<Arc<AtomicBool>>) -> Option<Vec<Shown>> {
        let ring = self.ring(camera)?;
        let all = Shown { hushed, lighter: self.lighter.of(camera), ..Shown::of(ring.clone()) };
        let Some(sounds) = self.sounds.as_ref().filter(|_| may_be_aac(ring)) else { return Some(vec![all]) };
        let sound = Shown { ring: sounds.of(camera, ring), only: Some(Track::Audio), lighter: None, ..all.clone() };
        Some(vec![Shown { only: Some(Track::Video), ..all }, sound])
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

/// Whether a ring's sound is AAC, which browsers do not take, or nothing has come yet to know it by.
fn may_be_aac(ring: &Ring) -> bool {
    match ring.newest_of(Track::Audio) {
        Some(frame) => frame.format.codec == Codec::Aac,
        None => ring.newest().is_none(),
    }
}

/// A key frame of a camera that sends by UDP comes at once, and overflows a socket buffer of the usual size.
const UDP_BUFFER: u64 = 1 << 20;

fn warn_of_small_buffers(inventory: &Inventory) {
    let by_udp = inventory.streams().filter(|s| s.source.transport == Transport::Udp).count();
    let said = std::fs::read_to_string("/proc/sys/net/core/rmem_default");
    let Some(bytes) = said.ok().and_then(|b| b.trim().parse::<u64>().ok()) else { return };
    if by_udp > 0 && bytes < UDP_BUFFER {
        warn!(
            cameras = by_udp,
            bytes, "cameras by UDP will lose packets: sysctl -w net.core.rmem_default=4194304, or use TCP"
        );
    }
}
