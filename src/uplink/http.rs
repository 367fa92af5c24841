//! HTTP/1.1 to the object store and to gateways, over connections whose writes are paced. TLS is above the pacing: what is counted is
//! what goes out.

use std::{
    fmt,
    future::Future,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Request, Response, Uri,
    body::Incoming,
    header::{HeaderValue, USER_AGENT},
    rt::{Read, ReadBufCursor, Write},
};
use hyper_util::{
    client::legacy::{
        self,
        connect::{Connected, Connection, HttpConnector},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use object_store::client::{
    HttpError, HttpErrorKind, HttpRequest, HttpRequestBody, HttpResponse, HttpResponseBody, HttpService,
};
use rustls::ClientConfig;
use rustls_pki_types::ServerName;
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::either::Either;
use tower_service::Service;

use super::paced::{Paced, Pacer};

const AGENT: HeaderValue = HeaderValue::from_static(concat!("chowki/", env!("CARGO_PKG_VERSION")));

/// A connection that nobody used for this long is closed.
const IDLE: Duration = Duration::from_secs(90);

/// A peer that is gone is noticed by questions this far apart, three of them,
const ALIVE: Duration = Duration::from_secs(15);

/// or because it acknowledged nothing for this long.
const UNACKNOWLEDGED: Duration = Duration::from_secs(30);

/// How the store is reached.
#[derive(Clone)]
pub struct Way {
    /// Whom to trust. None: plain HTTP, and nothing else.
    pub tls: Option<Arc<ClientConfig>>,
    /// A connection, with its handshake, takes at most this.
    pub connect_timeout: Duration,
    /// The budget for what is sent.
    pub pacer: Option<Pacer>,
}

impl fmt::Debug for Way {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Way").field("tls", &self.tls.is_some()).field("paced", &self.pacer.is_some()).finish()
    }
}

/// A client with its connections.
#[derive(Debug)]
pub struct Client(legacy::Client<Dial, HttpRequestBody>);

impl Client {
    /// Without a connection yet.
    pub fn new(way: &Way) -> Self {
        let mut tcp = HttpConnector::new();
        tcp.enforce_http(false);
        tcp.set_nodelay(true);
        tcp.set_connect_timeout(Some(way.connect_timeout));
        tcp.set_keepalive(Some(ALIVE));
        tcp.set_keepalive_interval(Some(ALIVE));
        tcp.set_keepalive_retries(Some(3));
        tcp.set_tcp_user_timeout(Some(UNACKNOWLEDGED));
        let mut client = legacy::Client::builder(TokioExecutor::new());
        client.pool_idle_timeout(IDLE).pool_timer(TokioTimer::new()).timer(TokioTimer::new());
        Self(client.build(Dial { tcp, way: way.clone() }))
    }

    /// Asks for something; the body is the caller's to read, and to be patient with.
    ///
    /// # Errors
    /// When there is no answer.
    pub async fn get(&self, uri: Uri, headers: HeaderMap) -> Result<Response<Incoming>, legacy::Error> {
        let mut request = Request::new(HttpRequestBody::empty());
        *request.uri_mut() = uri;
        *request.headers_mut() = headers;
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        self.0.request(request).await
    }
}

impl HttpService for Client {
    fn call<'a, 'b>(
        &'a self,
        mut request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        request.headers_mut().entry(USER_AGENT).or_insert(AGENT);
        Box::pin(async move {
            let answer = self.0.request(request).await.map_err(|error| {
                let kind = if error.is_connect() { HttpErrorKind::Connect } else { HttpErrorKind::Request };
                HttpError::new(kind, error)
            })?;
            let (parts, body) = answer.into_parts();
            let body = HttpResponseBody::new(body.map_err(|error| HttpError::new(HttpErrorKind::Interrupted, error)));
            Ok(HttpResponse::from_parts(parts, body))
        })
    }
}

/// Makes connections.
#[derive(Debug, Clone)]
struct Dial {
    tcp: HttpConnector,
    way: Way,
}

impl Service<Uri> for Dial {
    type Response = Line;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Line>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.tcp.poll_ready(cx).map_err(io::Error::other)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let way = self.way.clone();
        let tcp = self.tcp.call(uri.clone());
        Box::pin(async move {
            let dial = async {
                if uri.scheme_str() != Some(if way.tls.is_some() { "https" } else { "http" }) {
                    return Err(io::Error::other("plain HTTP and TLS are never mixed"));
                }
                let socket = Paced::new(tcp.await.map_err(io::Error::other)?.into_inner(), way.pacer)?;
                let line = match way.tls {
                    None => Either::Left(socket),
                    Some(tls) => {
                        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
                        let name = ServerName::try_from(host.to_owned()).map_err(io::Error::other)?;
                        Either::Right(TlsConnector::from(tls).connect(name, socket).await?)
                    }
                };
                Ok(Line(TokioIo::new(line)))
            };
            let limit = way.connect_timeout;
            tokio::time::timeout(limit, dial).await.unwrap_or_else(|_| {
                Err(io::Error::new(io::ErrorKind::TimedOut, format!("no connection within {limit:?}")))
            })
        })
    }
}

/// A connection, with TLS or without.
struct Line(TokioIo<Either<Paced, TlsStream<Paced>>>);

impl Connection for Line {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Line {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Line {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }
}
