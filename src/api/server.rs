//! The listener: HTTP, or HTTPS where a certificate is configured.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{Router, serve::Listener};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::host::scope::Scope;

/// A TLS handshake that takes longer is given up.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Handshakes under way at a time; further connections wait in the kernel's queue.
const HANDSHAKES: usize = 64;

/// Serves `router` on `listener` in `scope`, until the scope stops.
pub fn serve(listener: TcpListener, tls: Option<Arc<rustls::ServerConfig>>, router: Router, scope: &Scope) {
    let stopping = scope.stopping();
    match tls {
        None => {
            let serving = axum::serve(listener, router).with_graceful_shutdown(stopping);
            scope.spawn("http", async move { serving.await });
        }
        Some(config) => {
            let listener = TlsListener::new(listener, TlsAcceptor::from(config), scope);
            let serving = axum::serve(listener, router).with_graceful_shutdown(stopping);
            scope.spawn("https", async move { serving.await });
        }
    }
}

/// Accepts TLS connections; each handshake runs in a task of its own, so that a silent one delays nobody.
struct TlsListener {
    ready: tokio::sync::mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    local: io::Result<SocketAddr>,
}

impl TlsListener {
    fn new(listener: TcpListener, acceptor: TlsAcceptor, scope: &Scope) -> Self {
        // When full, finished handshakes wait here and new ones are not begun.
        let (done, ready) = tokio::sync::mpsc::channel(HANDSHAKES);
        let local = listener.local_addr();
        let slots = Arc::new(tokio::sync::Semaphore::new(HANDSHAKES));
        let (tasks, stopping) = (scope.clone(), scope.stopping());
        let accept = async move {
            loop {
                let Ok(slot) = slots.clone().acquire_owned().await else { return };
                let Ok((stream, peer)) = listener.accept().await else {
                    tokio::time::sleep(Duration::from_millis(100)).await;
                    continue;
                };
                let (acceptor, done) = (acceptor.clone(), done.clone());
                tasks.spawn("tls-handshake", async move {
                    let _slot = slot;
                    match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                        Ok(Ok(stream)) => drop(done.send((stream, peer)).await),
                        Ok(Err(e)) => tracing::debug!(%peer, error = %e, "TLS handshake failed"),
                        Err(_) => tracing::debug!(%peer, "TLS handshake took too long"),
                    }
                });
            }
        };
        scope.spawn("https-accept", async move {
            tokio::select! { () = accept => {}, () = stopping => {} }
        });
        Self { ready, local }
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(connection) => connection,
            // The scope is stopping; axum ends by the same signal.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        match &self.local {
            Ok(address) => Ok(*address),
            Err(e) => Err(io::Error::new(e.kind(), e.to_string())),
        }
    }
}
