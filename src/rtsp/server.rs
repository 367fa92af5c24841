//! The listener. Connections are counted, in all and from one address; each is a task of its own.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::net::{TcpListener, TcpStream};

use super::{connection::Connection, stage::Stage};
use crate::{
    gateway::spectators::Spectators,
    host::{
        bulkhead,
        doors::{Doors, Pass, accept},
        scope::Scope,
    },
    media::{
        parcels::{Parcels, Sets},
        ring::Ring,
    },
};

/// Largest payload: with the headers of RTP, UDP and IP it is below what an Ethernet frame has room for, a tunnel's headers too.
const MOST: usize = 1_388;

/// Where patience with clients ends.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. Further ones are closed at once.
    pub connections: usize,
    /// Connections at a time from one address (IPv6: from one /64). Further ones are closed at once.
    pub per_address: usize,
    /// Whoever says nothing for so long has gone: the `timeout` of a session.
    pub silence: Duration,
    /// Whoever takes nothing for so long is cut off.
    pub write: Duration,
    /// A camera that has just begun, or says nothing, is waited for so long before it is described.
    pub camera: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let [silence, write, camera] = [60, 10, 4].map(Duration::from_secs);
        Self { connections: 512, per_address: 256, silence, write, camera }
    }
}

/// What all connections share.
pub(super) struct Server {
    pub stage: Arc<dyn Stage>,
    pub spectators: Arc<Spectators>,
    pub limits: Limits,
    parcels: Mutex<Sets>,
    doors: Arc<Doors>,
    scope: Scope,
}

/// Serves `stage` on `listener` in `scope`, until the scope stops.
pub fn serve(listener: TcpListener, stage: Arc<dyn Stage>, spectators: Arc<Spectators>, limits: Limits, scope: &Scope) {
    let doors = Doors::new(limits.connections, limits.per_address);
    let parcels = Mutex::new(Sets::new(MOST));
    let server = Arc::new(Server { stage, spectators, limits, parcels, doors, scope: scope.clone() });
    let inner = scope.clone();
    scope.spawn("rtsp", async move { accept(listener, &inner, |stream, peer| server.admit(stream, peer)).await });
}

impl Server {
    fn admit(self: &Arc<Self>, stream: TcpStream, peer: SocketAddr) {
        match self.doors.enter(peer.ip()) {
            Ok(pass) => drop(self.scope.spawn("rtsp-connection", self.clone().converse(stream, peer, pass))),
            Err(full) => tracing::warn!(%peer, ?full, "too many connections by RTSP"),
        }
    }

    async fn converse(self: Arc<Self>, stream: TcpStream, peer: SocketAddr, _pass: Pass) {
        let stopping = self.scope.stopping();
        match Connection::new(self, stream, peer) {
            // What a camera or a client sends ends no other's session.
            Ok(connection) => match bulkhead::behind_all_of(connection.run(stopping)).await {
                Ok(ended) => tracing::debug!(%peer, %ended, "a connection by RTSP ended"),
                Err(burst) => tracing::error!(%peer, %burst, "a connection by RTSP ended by a fault of ours"),
            },
            Err(error) => tracing::debug!(%peer, %error, "a connection by RTSP ended as it began"),
        }
    }

    /// One set of payloads for all who watch a ring.
    pub fn parcels(&self, ring: &Arc<Ring>) -> Arc<Parcels> {
        self.parcels.lock().unwrap_or_else(PoisonError::into_inner).of(ring)
    }
}
