//! Accepting connections, and TLS. Nothing a client does ends the accept loop, and every
//! handshake runs in the connection's own task.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpListener, TcpStream},
    sync::mpsc,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;

use super::{
    Event, Tls,
    end::End,
    greeting,
    login::Salted,
    router::Fanout,
    seats::Seats,
    stats::{Counters, Seldom},
    stream::Stream,
};
use crate::{
    district::ids::MAX_ID,
    host::{
        clock,
        doors::{Doors, Full, Pass},
        scope::Scope,
    },
};

/// How long TLS may take, and then CONNECT, in seconds.
pub(super) const GREETING_S: u64 = 10;

/// What all connections share.
pub(super) struct Shared {
    pub(super) seats: Seats,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) fanout: Fanout,
    pub(super) counters: Arc<Counters>,
    pub(super) doors: Arc<Doors>,
    /// What the password of an unknown id is checked against.
    pub(super) decoy: Salted,
    pub(super) scope: Scope,
    pub(super) refusals: Seldom,
    pub(super) oddities: Seldom,
}

impl Shared {
    /// Counts and logs the end of a connection that never became a session.
    pub(super) fn turned_away(&self, peer: SocketAddr, client_id: &str, end: &End) {
        self.counters.ended(end);
        if let Some(held_back) = self.refusals.allow(clock::mono()) {
            // From outside: shortened and escaped.
            let client_id: String = client_id.chars().take(MAX_ID).collect();
            tracing::warn!(%peer, ?client_id, reason = %end, held_back, "MQTT connection turned away");
        }
    }
}

/// Accepts until the scope stops.
pub(super) async fn listen(listener: TcpListener, tls: Option<Tls>, shared: Arc<Shared>) {
    let stopping = shared.scope.stopping();
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((tcp, peer)) => admit(tcp, peer, tls.as_ref().map(Door::now), &shared),
            Err(error) if is_the_clients(&error) => {}
            Err(error) => {
                // Out of file descriptors, most likely: the next connection that ends gives one back.
                if let Some(held_back) = shared.refusals.allow(clock::mono()) {
                    tracing::error!(%error, held_back, "cannot accept MQTT connections");
                }
                sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// How a connection by TLS begins: with the certificate of that moment.
struct Door {
    acceptor: TlsAcceptor,
    requires_certificate: bool,
}

impl Door {
    fn now(tls: &Tls) -> Self {
        let config = tls.config.borrow().clone();
        Self { acceptor: TlsAcceptor::from(config), requires_certificate: tls.requires_certificate }
    }
}

fn is_the_clients(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset)
}

fn admit(tcp: TcpStream, peer: SocketAddr, door: Option<Door>, shared: &Arc<Shared>) {
    shared.counters.accepted.add();
    let pass = match shared.doors.enter(peer.ip()) {
        Ok(pass) => pass,
        Err(Full::All) => return shared.counters.over_limit.add(),
        Err(Full::Address) => return shared.counters.over_limit_address.add(),
    };
    // Acknowledgements are small and must not wait for more; without it they only come later.
    let _ = tcp.set_nodelay(true);
    shared.scope.spawn("connection", welcome(tcp, peer, door, shared.clone(), pass));
}

async fn welcome(tcp: TcpStream, peer: SocketAddr, door: Option<Door>, shared: Arc<Shared>, pass: Pass) {
    // Boxed, so that the tens of kilobytes that a greeting needs are gone while the connection idles.
    let greeting = Box::pin(async {
        let stream = secure(tcp, door).await.map_err(|end| (String::new(), end))?;
        greeting::greet(stream, peer, &shared).await
    });
    let greeted = tokio::select! {
        () = shared.scope.stopping() => return,
        greeted = greeting => greeted,
    };
    match greeted {
        Ok(connection) => connection.run().await,
        Err((client_id, end)) => shared.turned_away(peer, &client_id, &end),
    }
    drop(pass);
}

async fn secure(tcp: TcpStream, door: Option<Door>) -> Result<Stream, End> {
    let Some(Door { acceptor, requires_certificate }) = door else { return Ok(Stream::Plain(tcp)) };
    let stream = match timeout(Duration::from_secs(GREETING_S), acceptor.accept(tcp)).await {
        Ok(Ok(tls)) => Stream::Tls(Box::new(tls)),
        Ok(Err(error)) => return Err(End::Handshake(error.to_string())),
        Err(_) => return Err(End::NoConnect(GREETING_S)),
    };
    if requires_certificate && !stream.has_certificate() {
        return Err(End::Handshake("no client certificate".to_owned()));
    }
    Ok(stream)
}
