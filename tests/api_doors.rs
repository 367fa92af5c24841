//! The HTTP listener against callers that are slow, silent, many or strange; over real sockets.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    body::{Body, Bytes},
    middleware,
    response::Response,
    routing::{get, post},
};
use chowki::{
    api::{self, Limits, auth},
    gateway::access::{Access, Right},
    host::scope::Scope,
};
use futures::stream;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::timeout,
};

struct Http {
    address: SocketAddr,
    pressed: Arc<AtomicUsize>,
    scope: Scope,
}

fn limits() -> Limits {
    let (head, answer) = (Duration::from_millis(400), Duration::from_millis(400));
    Limits { connections: 6, per_address: 4, head, answer, write: Duration::from_millis(400) }
}

/// A gateway's door without clients: a button to press, a stream that never ends.
async fn http(limits: Limits) -> Http {
    let pressed = Arc::new(AtomicUsize::new(0));
    let count = pressed.clone();
    let press = move |_body: Bytes| async move {
        count.fetch_add(1, Ordering::Relaxed);
    };
    let endless = || async {
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        Response::new(Body::from_stream(stream::repeat_with(move || Ok::<_, Infallible>(chunk.clone()))))
    };
    let access = Arc::new(Access::new(&[]));
    let router = Router::new()
        .route("/press", post(press))
        .route("/endless", get(endless))
        .layer(middleware::from_fn_with_state(auth::Guard::new(access, Arc::default(), Right::Steps), auth::guard))
        .route("/healthz", get(|| async { "ok" }));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let scope = Scope::new("test");
    api::serve(listener, None, router, limits, &scope);
    Http { address, pressed, scope }
}

impl Http {
    async fn open(&self) -> TcpStream {
        TcpStream::connect(self.address).await.unwrap()
    }

    /// Sends bytes as they are, reads until the gateway closes.
    async fn say(&self, text: &str) -> String {
        let mut stream = self.open().await;
        // A refused connection may be closed before anything is written.
        let _ = stream.write_all(text.as_bytes()).await;
        closed(&mut stream).await
    }

    async fn is_well(&self) -> bool {
        let host = self.address;
        self.say(&format!("GET /healthz HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"))
            .await
            .contains("200 OK")
    }
}

/// Reads until the other side closes, which it must within some seconds.
async fn closed(stream: &mut TcpStream) -> String {
    let mut all = Vec::new();
    let read = timeout(Duration::from_secs(10), stream.read_to_end(&mut all)).await;
    let _ = read.expect("the gateway keeps a connection that it should end");
    String::from_utf8_lossy(&all).into_owned()
}

#[tokio::test]
async fn a_caller_that_never_ends_its_head_is_let_go() {
    let http = http(limits()).await;
    let mut silent = http.open().await;
    let mut slow = http.open().await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nx-a: ").await.unwrap();
    let (mut slow_read, mut slow_write) = slow.into_split();
    let dripping = async {
        while slow_write.write_all(b"a").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let mut rest = Vec::new();
    timeout(Duration::from_secs(10), async { tokio::join!(dripping, slow_read.read_to_end(&mut rest)).1 })
        .await
        .expect("a dripping head holds its connection")
        .ok();
    closed(&mut silent).await;
    assert!(http.is_well().await);
}

#[tokio::test]
async fn a_caller_that_never_ends_its_body_is_let_go() {
    let http = http(limits()).await;
    let head = format!("POST /press HTTP/1.1\r\nhost: {}\r\ncontent-length: 100\r\n\r\nabc", http.address);
    assert!(http.say(&head).await.contains("408"), "the body never came");
    assert_eq!(http.pressed.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn a_reader_that_stops_reading_an_endless_answer_is_let_go() {
    let http = http(Limits { connections: 1, ..limits() }).await;
    let mut deaf = http.open().await;
    deaf.write_all(format!("GET /endless HTTP/1.1\r\nhost: {}\r\n\r\n", http.address).as_bytes()).await.unwrap();
    let mut well = false;
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(50)).await;
        well = http.is_well().await;
        if well {
            break;
        }
    }
    assert!(well, "its place is never given back");
    drop(deaf);
}

#[tokio::test]
async fn many_connections_of_one_address_are_not_all_taken() {
    let http = http(Limits { head: Duration::from_secs(60), ..limits() }).await;
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(http.open().await);
    }
    let mut over = http.open().await;
    assert_eq!(closed(&mut over).await, "");
    open.pop();
    let mut well = false;
    for _ in 0..100 {
        well = http.is_well().await;
        if well {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(well, "a place that is given back is taken again");
}

#[tokio::test]
async fn open_connections_do_not_hold_up_the_stop() {
    let http = http(Limits { head: Duration::from_secs(60), write: Duration::from_secs(60), ..limits() }).await;
    let mut idle = http.open().await;
    let address = http.address;
    idle.write_all(format!("GET /healthz HTTP/1.1\r\nhost: {address}\r\n\r\n").as_bytes()).await.unwrap();
    let mut some = [0; 16];
    idle.read_exact(&mut some).await.unwrap();
    assert_eq!(http.scope.shutdown(Duration::from_secs(5)).await, Vec::<String>::new());
}

#[tokio::test]
async fn a_page_from_elsewhere_cannot_press_a_button_of_a_gateway_without_clients() {
    let http = http(limits()).await;
    let post = |host: &str, origin: &str| {
        format!(
            "POST /press HTTP/1.1\r\nhost: {host}\r\norigin: {origin}\r\ncontent-type: text/plain\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
        )
    };
    let own = http.address.to_string();
    assert!(http.say(&post(&own, "http://evil.example")).await.contains("403 Forbidden"));
    assert!(http.say(&post(&own, "null")).await.contains("403 Forbidden"));
    // After DNS rebinding its origin and our name are the same.
    assert!(http.say(&post("evil.example", "http://evil.example")).await.contains("421 Misdirected"));
    assert_eq!(http.pressed.load(Ordering::Relaxed), 0);
    assert!(http.say(&post(&own, &format!("http://{own}"))).await.contains("200 OK"));
    assert_eq!(http.pressed.load(Ordering::Relaxed), 1);
}
