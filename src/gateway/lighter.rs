//! Cameras' lighter streams: read while somebody with a thin link watches, and a moment longer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::{
    call::Lighter,
    camera,
    district::{
        ids::CameraId,
        inventory::{Inventory, Source, Stream},
    },
    host::{scope::Scope, thread::Thread},
    media::ring::{Limits, Ring},
};

/// What a viewer that comes needs: the last key frame, and what came since.
const KEPT: Limits = Limits { span: Duration::from_secs(1), bytes: 8 << 20 };

/// How often it is looked whether anybody watches. Who comes back before nobody did at two looks finds it going on.
const LOOK: Duration = Duration::from_secs(5);

/// Who has a ring that nobody watches: the list of them, its session, and the task that ends it.
const OURS: usize = 3;

/// How long a session has to say good-bye.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lighter streams of a district; cheap to clone.
#[derive(Clone, Default)]
pub struct LighterStreams(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sources: HashMap<CameraId, Source>,
    rings: Mutex<HashMap<CameraId, Arc<Ring>>>,
    scope: Option<Scope>,
    thread: Option<Arc<Thread>>,
}

impl LighterStreams {
    /// Those of these cameras that have one; none is read yet. `thread` is what sessions to cameras run on.
    pub fn new(inventory: &Inventory, thread: Option<Arc<Thread>>, scope: &Scope) -> Self {
        let light = |Stream { id, source, .. }: Stream<'_>| {
            let url = source.sub_url.clone()?;
            Some((id, Source { url, sub_url: None, ..source.clone() }))
        };
        let sources = inventory.streams().filter_map(light).collect();
        Self(Arc::new(Shared { sources, rings: Mutex::default(), scope: Some(scope.clone()), thread }))
    }

    /// The way to a camera's lighter stream. None: it has none.
    pub fn of(&self, camera: &CameraId) -> Option<Lighter> {
        let (source, scope) = (self.0.sources.get(camera)?.clone(), self.0.scope.clone()?);
        let (streams, camera) = (self.clone(), camera.clone());
        Some(Lighter::new(move || streams.begin(&camera, &source, &scope)))
    }

    fn begin(&self, camera: &CameraId, source: &Source, scope: &Scope) -> Arc<Ring> {
        let mut rings = self.lock();
        if let Some(ring) = rings.get(camera) {
            return ring.clone();
        }
        let ring = Ring::new(KEPT);
        rings.insert(camera.clone(), ring.clone());
        let _inside = self.0.thread.as_ref().map(|thread| thread.enter());
        let task = self.clone().keep(camera.clone(), source.clone(), ring.clone(), scope.clone());
        scope.spawn("lighter stream", task);
        ring
    }

    async fn keep(self, camera: CameraId, source: Source, ring: Arc<Ring>, scope: Scope) {
        info!(%camera, "a link is thin: reading the lighter stream");
        let (stopping, inside) = (scope.stopping(), scope.child("lighter stream"));
        tokio::pin!(stopping);
        let (reports, mut told) = mpsc::channel(4);
        camera::start(camera.clone(), source, ring.clone(), reports, camera::Settings::default(), &inside);
        let mut alone = false;
        loop {
            tokio::select! {
                () = &mut stopping => break,
                Some(report) = told.recv() => debug!(%camera, state = ?report.state, "the lighter stream"),
                () = tokio::time::sleep(LOOK) => {
                    if self.ends(&camera, &ring, &mut alone) {
                        break;
                    }
                }
            }
        }
        ring.end();
        inside.shutdown(PATIENCE).await;
    }

    /// Whether nobody watched at two looks: then it is forgotten, and whoever comes begins it anew.
    fn ends(&self, camera: &CameraId, ring: &Arc<Ring>, alone: &mut bool) -> bool {
        let mut rings = self.lock();
        let nobody = Arc::strong_count(ring) <= OURS;
        let ends = nobody && std::mem::replace(alone, nobody);
        *alone = nobody;
        if ends {
            rings.remove(camera);
        }
        ends
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<CameraId, Arc<Ring>>> {
        self.0.rings.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
