//! The listener: HTTP, or HTTPS where a certificate is configured. Every wait on a caller has a deadline, and callers are
//! counted: whoever is slow, silent or many keeps nobody else out for long, and never a button.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::Request,
    http::StatusCode,
    middleware::{self, Next},
    response::{IntoResponse, Response},
};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::watch,
    time::timeout,
};
use tokio_rustls::TlsAcceptor;
use tower_service::Service;

use super::{Problem, limits::Peer, stream::Patient};
use crate::host::{
    certificate::common_name,
    doors::{Doors, Pass, accept},
    scope::Scope,
};

/// Where callers' patience with us, and ours with them, ends.
#[derive(Debug, Clone)]
pub struct Limits {
    /// Connections at a time. Further ones are closed at once.
    pub connections: usize,
    /// Connections at a time from one address (IPv6: from one /64). Further ones are closed at once.
    pub per_address: usize,
    /// A TLS handshake, and then each request's head, has to be here within this; so long a connection may idle.
    pub head: Duration,
    /// A request's body has to be here, and be answered, within this. Streams of events go on for as long as they like.
    pub answer: Duration,
    /// What is sent has to be taken, bit by bit, within this.
    pub write: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let (head, answer, write) = (Duration::from_secs(15), Duration::from_secs(30), Duration::from_secs(30));
        Self { connections: 2_048, per_address: 1_280, head, answer, write }
    }
}

/// Largest head of a request, in bytes.
const MAX_HEAD: usize = 32 * 1024;

/// Serves `router` on `listener` in `scope`, until the scope stops.
pub fn serve(
    listener: TcpListener,
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    router: Router,
    limits: Limits,
    scope: &Scope,
) {
    let answer = limits.answer;
    let timed = move |request: Request, next: Next| in_time(answer, request, next);
    let server = Server {
        tls,
        router: router.layer(middleware::from_fn(timed)),
        doors: Doors::new(limits.connections, limits.per_address),
        limits: Arc::new(limits),
        scope: scope.clone(),
    };
    let inner = scope.clone();
    scope.spawn("http", async move { accept(listener, &inner, |stream, peer| server.admit(stream, peer)).await });
}

async fn in_time(limit: Duration, request: Request, next: Next) -> Response {
    let late = || Problem::new(StatusCode::REQUEST_TIMEOUT, "the request took too long to arrive or to be answered");
    timeout(limit, next.run(request)).await.unwrap_or_else(|_| late().into_response())
}

#[derive(Clone)]
struct Server {
    tls: Option<watch::Receiver<Arc<rustls::ServerConfig>>>,
    router: Router,
    doors: Arc<Doors>,
    limits: Arc<Limits>,
    scope: Scope,
}

impl Server {
    fn admit(&self, stream: TcpStream, peer: SocketAddr) {
        let Ok(pass) = self.doors.enter(peer.ip()) else {
            tracing::debug!(%peer, "too many connections to the API");
            return;
        };
        // Answers are small and must not wait for more; without it they only come later.
        let _ = stream.set_nodelay(true);
        self.scope.spawn("http-connection", self.clone().connection(stream, peer, pass));
    }

    async fn connection(self, stream: TcpStream, peer: SocketAddr, _pass: Pass) {
        let from = Peer { address: peer.ip(), certificate: None, secure: self.tls.is_some() };
        let Some(tls) = &self.tls else { return self.converse(stream, from).await };
        let acceptor = TlsAcceptor::from(tls.borrow().clone());
        let handshake = tokio::select! {
            () = self.scope.stopping() => return,
            handshake = timeout(self.limits.head, acceptor.accept(stream)) => handshake,
        };
        match handshake {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates().and_then(|chain| common_name(chain.first()?));
                self.converse(stream, Peer { certificate: shown.map(Arc::from), ..from }).await;
            }
            Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
            Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
        }
    }

    /// Requests and answers until one side has had enough.
    async fn converse(&self, stream: impl AsyncRead + AsyncWrite + Unpin, from: Peer) {
        let stream = TokioIo::new(Patient::new(stream, self.limits.write));
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(self.limits.head).max_buf_size(MAX_HEAD);
        let router = self.router.clone();
        let answer = service_fn(move |mut request: hyper::Request<Incoming>| {
            request.extensions_mut().insert(from.clone());
            // A router is always ready.
            router.clone().call(request)
        });
        let connection = http.serve_connection(stream, answer);
        tokio::pin!(connection);
        // A caller that breaks off or breaks the protocol is no news.
        let ended = tokio::select! {
            ended = connection.as_mut() => ended,
            () = self.scope.stopping() => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        drop(ended);
    }
}
