//! Cameras' lighter streams: read while somebody with a thin link watches, and a moment longer.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use tokio::sync::mpsc;
use tracing::{debug, info};

use crate::{
    call::Lighter,
    camera,
    district::{ids::CameraId, inventory::Source},
    host::{scope::Scope, thread::Thread},
    media::ring::{Limits, Ring},
};

/// What a viewer that comes needs: the last key frame, and what came since.
const KEPT: Limits = Limits { span: Duration::from_secs(1), bytes: 8 << 20 };

/// A stream that nobody watches is read for so long still: who leaves often comes back.
const LINGERS: Duration = Duration::from_secs(10);

/// How often it is looked whether anybody watches.
const LOOK: Duration = Duration::from_secs(1);

/// How long a session has to say good-bye.
const PATIENCE: Duration = Duration::from_secs(5);

/// The lighter streams of a district; cheap to clone.
#[derive(Clone, Default)]
pub struct LighterStreams(Arc<Shared>);

#[derive(Default)]
struct Shared {
    sources: HashMap<CameraId, Source>,
    running: Mutex<HashMap<CameraId, Weak<Stream>>>,
    scope: Option<Scope>,
    thread: Option<Arc<Thread>>,
}

/// A stream that is read as long as anybody holds it.
struct Stream {
    ring: Arc<Ring>,
}

impl LighterStreams {
    /// Those of these cameras that have one; none is read yet. `thread` is what sessions to cameras run on.
    pub fn new(
        cameras: impl IntoIterator<Item = (CameraId, Source)>,
        thread: Option<Arc<Thread>>,
        scope: &Scope,
    ) -> Self {
        let light = |(id, source): (CameraId, Source)| {
            let url = source.sub_url.clone()?;
            Some((id, Source { url, sub_url: None, ..source }))
        };
        let sources = cameras.into_iter().filter_map(light).collect();
        Self(Arc::new(Shared { sources, running: Mutex::default(), scope: Some(scope.clone()), thread }))
    }

    /// The way to a camera's lighter stream. None: it has none.
    pub fn of(&self, camera: &CameraId) -> Option<Lighter> {
        self.0.sources.contains_key(camera).then(|| {
            let (streams, camera) = (self.clone(), camera.clone());
            Box::new(move || {
                let stream = streams.begin(&camera)?;
                Some((stream.ring.clone(), Box::new(stream) as Box<dyn Send>))
            }) as Lighter
        })
    }

    fn begin(&self, camera: &CameraId) -> Option<Arc<Stream>> {
        let (source, scope) = (self.0.sources.get(camera)?, self.0.scope.as_ref()?);
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(stream) = running.get(camera).and_then(Weak::upgrade) {
            return Some(stream);
        }
        let stream = Arc::new(Stream { ring: Ring::new(KEPT) });
        running.insert(camera.clone(), Arc::downgrade(&stream));
        let (camera, source, stopping) = (camera.clone(), source.clone(), scope.stopping());
        let (streams, kept, inside) = (self.clone(), stream.clone(), scope.child("lighter stream"));
        let _thread = self.0.thread.as_ref().map(|thread| thread.enter());
        scope.spawn("lighter stream", async move {
            info!(%camera, "a link is thin: reading the lighter stream");
            let (reports, mut told) = mpsc::channel(4);
            camera::start(camera.clone(), source, kept.ring.clone(), reports, camera::Settings::default(), &inside);
            tokio::pin!(stopping);
            let mut alone = Duration::ZERO;
            while alone < LINGERS || !streams.forget(&camera, &kept) {
                tokio::select! {
                    () = &mut stopping => break,
                    Some(report) = told.recv() => debug!(%camera, state = ?report.state, "the lighter stream"),
                    () = tokio::time::sleep(LOOK) => {
                        // We hold it too.
                        alone = if Arc::strong_count(&kept) > 1 { Duration::ZERO } else { alone + LOOK };
                    }
                }
            }
            kept.ring.end();
            inside.shutdown(PATIENCE).await;
        });
        Some(stream)
    }

    /// Lets go of a stream, unless somebody has taken it up again meanwhile.
    fn forget(&self, camera: &CameraId, stream: &Arc<Stream>) -> bool {
        let mut running = self.0.running.lock().unwrap_or_else(PoisonError::into_inner);
        let nobody = Arc::strong_count(stream) == 1;
        if nobody {
            running.remove(camera);
        }
        nobody
    }
}
