//! The bundled clips as cameras on loopback: real time, for ever, by the gateway's own RTSP server, with digest login, over the
//! RTSP connection or by datagrams.

mod show;

use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};

use self::show::{Began, Show};
use super::clip::Clip;
use crate::{
    district::inventory::Login,
    host::{
        clock::{mono, wall},
        scope::Scope,
    },
    media::ring::{Limits as Span, Ring},
    rtsp::{Limits, Offer, Refused, Stage, serve as serve_rtsp},
    wire::digest::{Key, Proof},
};

/// The realm that the cameras' login is of.
const REALM: &str = "chowki demo";
/// Connections at one time; one more is closed at once.
const MAX_CONNECTIONS: usize = 128;
/// From one look at what is due to the next: a piece of sound.
const LOOK: Duration = Duration::from_millis(20);
/// What a camera keeps: viewers begin at the last key picture, a second ago at most.
const SPAN: Span = Span { span: Duration::from_secs(2), bytes: 4 << 20 };

/// A camera of the demo: where it is mounted, and what it shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DemoCamera {
    /// First segment of its path, without slash: `gate-1` is served as `rtsp://address/gate-1`.
    pub path: String,
    /// What it shows.
    pub clip: Clip,
}

/// Why the demo's cameras cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum DemoCameraError {
    /// The loopback address cannot be bound.
    #[error("the demo's cameras found no port on 127.0.0.1 ({0}); is the loopback interface up?")]
    Bind(#[from] io::Error),
    /// A clip is damaged; the build is wrong.
    #[error("the clip {0:?} holds no film; draw the clips anew with scripts/make-clips and build again")]
    Clip(Clip),
    /// Two cameras with one path.
    #[error("two demo cameras have the path {0:?}; give each its own")]
    Twin(String),
}

/// The running cameras. Dropping it does not stop them: their scope does.
#[derive(Clone)]
pub struct DemoCameras {
    address: SocketAddr,
    mounts: Arc<Mounts>,
}

impl DemoCameras {
    /// Where they listen.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The URL of a camera, without login.
    pub fn url(&self, path: &str) -> String {
        format!("rtsp://{}/{path}", self.address)
    }

    /// Takes a camera down, as if its power failed: its connections are reset, and so is each that asks for it; or
    /// up again. `false` when there is no such camera.
    pub fn set_up(&self, path: &str, up: bool) -> bool {
        let Some(mount) = self.mounts.by_path.get(path) else { return false };
        let mut ring = mount.lock();
        if !up && let Some(ring) = ring.take() {
            ring.end();
        } else if up && ring.is_none() {
            *ring = Some(Ring::new(SPAN));
        }
        true
    }

    /// Whether a camera is up; `None` when there is no such camera.
    pub fn is_up(&self, path: &str) -> Option<bool> {
        self.mounts.by_path.get(path).map(|mount| mount.lock().is_some())
    }
}

/// All cameras.
struct Mounts {
    by_path: HashMap<String, Mount>,
    user: Arc<str>,
    key: Key,
}

/// One camera: its ring, while it has power.
struct Mount(Mutex<Option<Arc<Ring>>>);

impl Mount {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Arc<Ring>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Stage for Mounts {
    fn realm(&self) -> &'static str {
        REALM
    }

    fn is_open(&self) -> bool {
        false
    }

    fn admit(&self, proof: &Proof, method: &str) -> Result<Arc<str>, Refused> {
        let proven = proof.username == *self.user && proof.is_by(&self.key, method);
        proven.then(|| self.user.clone()).ok_or(Refused::Unproven)
    }

    fn watched(&self, _who: &str, _from: IpAddr, _camera: &str) {}

    fn offer(&self, camera: &str) -> Offer {
        let Some(mount) = self.by_path.get(camera) else { return Offer::Unknown };
        mount.lock().clone().map_or(Offer::Down, Offer::Live)
    }
}

/// Serves cameras on a free port of 127.0.0.1 until `scope` stops.
///
/// # Errors
/// No port, two cameras with one path, or a damaged clip.
pub async fn serve(cameras: Vec<DemoCamera>, login: Login, scope: &Scope) -> Result<DemoCameras, DemoCameraError> {
    let began = Began { mono: mono(), wall: wall() };
    let (mut by_path, mut shows) = (HashMap::new(), Vec::new());
    for DemoCamera { path, clip } in cameras {
        shows.push((path.clone(), Show::new(clip, began).ok_or(DemoCameraError::Clip(clip))?));
        if by_path.insert(path.clone(), Mount(Mutex::new(Some(Ring::new(SPAN))))).is_some() {
            return Err(DemoCameraError::Twin(path));
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let key = Key::new(&login.username, REALM, login.password.reveal());
    let mounts = Arc::new(Mounts { by_path, user: login.username.into(), key });
    let limits = Limits { connections: MAX_CONNECTIONS, per_address: MAX_CONNECTIONS, ..Limits::default() };
    serve_rtsp(listener, mounts.clone(), Arc::default(), limits, scope);
    scope.spawn("demo-cameras", run(shows, mounts.clone(), scope.clone()));
    Ok(DemoCameras { address, mounts })
}

/// Shows what is due, of all of them.
async fn run(mut shows: Vec<(String, Show)>, mounts: Arc<Mounts>, scope: Scope) {
    let stopping = scope.stopping();
    tokio::pin!(stopping);
    let mut looks = interval(LOOK);
    looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = looks.tick() => {}
            () = &mut stopping => return,
        }
        for (path, show) in &mut shows {
            let ring = mounts.by_path.get(path).and_then(|mount| mount.lock().clone());
            show.run(mono(), ring.as_deref());
        }
    }
}
