//! A small RTSP server (RFC 2326) on loopback that plays the bundled clips as cameras: real time, for ever, with digest
//! login, over the RTSP connection or by datagrams.

mod auth;
mod connection;
mod message;
mod sdp;
mod track;

use std::{
    collections::HashMap,
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use tokio::{
    net::TcpListener,
    sync::{Semaphore, watch},
};

use super::clip::{Clip, Film};
use crate::{
    district::{clock::Mono, inventory::Login},
    host::{clock::mono, scope::Scope},
};

/// Connections at one time; one more is closed at once.
const MAX_CONNECTIONS: usize = 128;
/// Rest after the system refused to accept (no file descriptors).
const ACCEPT_REST: Duration = Duration::from_millis(200);

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
        mount.up.send_replace(up);
        true
    }

    /// Whether a camera is up; `None` when there is no such camera.
    pub fn is_up(&self, path: &str) -> Option<bool> {
        self.mounts.by_path.get(path).map(|mount| *mount.up.borrow())
    }
}

/// What the connections share.
struct Mounts {
    by_path: HashMap<String, Mount>,
    login: Login,
    /// When the films began.
    began: Mono,
}

/// One camera.
struct Mount {
    film: Arc<Film>,
    sound: &'static [u8],
    up: watch::Sender<bool>,
}

/// Serves cameras on a free port of 127.0.0.1 until `scope` stops.
///
/// # Errors
/// No port, two cameras with one path, or a damaged clip.
pub async fn serve(cameras: Vec<DemoCamera>, login: Login, scope: &Scope) -> Result<DemoCameras, DemoCameraError> {
    let mut by_path = HashMap::new();
    for camera in cameras {
        let film = Film::cut(camera.clip.h264()).ok_or(DemoCameraError::Clip(camera.clip))?;
        let mount = Mount { film: Arc::new(film), sound: camera.clip.ulaw(), up: watch::Sender::new(true) };
        if by_path.insert(camera.path.clone(), mount).is_some() {
            return Err(DemoCameraError::Twin(camera.path));
        }
    }
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let address = listener.local_addr()?;
    let mounts = Arc::new(Mounts { by_path, login, began: mono() });
    scope.spawn("demo-cameras", accept(listener, mounts.clone(), scope.clone()));
    Ok(DemoCameras { address, mounts })
}

async fn accept(listener: TcpListener, mounts: Arc<Mounts>, scope: Scope) {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = scope.stopping() => return,
        };
        match accepted {
            Ok((socket, peer)) => {
                let Ok(place) = places.clone().try_acquire_owned() else {
                    tracing::warn!(%peer, limit = MAX_CONNECTIONS, "too many connections to the demo's cameras");
                    continue;
                };
                let served = connection::serve(socket, mounts.clone(), scope.stopping());
                scope.spawn("demo-camera-connection", async move {
                    let _place = place;
                    if let Err(why) = served.await {
                        tracing::debug!(%peer, %why, "a connection to a demo camera ended");
                    }
                });
            }
            Err(why) => {
                tracing::warn!(%why, "the demo's cameras cannot accept a connection");
                tokio::time::sleep(ACCEPT_REST).await;
            }
        }
    }
}
