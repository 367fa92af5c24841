//! Objects on their way to headquarters, against real peers: how evenly they leave, and that what arrived is what was
//! sent.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on should say so and end")]
#![allow(clippy::disallowed_methods, reason = "real peers live in real time")]

#[path = "support/s3.rs"]
mod s3;
mod support;

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

use bytes::Bytes;
use chowki::uplink::{
    held::Held,
    objects::{self, PutError, Store},
};
use futures::{StreamExt, TryStreamExt, future::try_join_all, stream};
use md5::{Digest, Md5};
use s3::{make_bucket, moto, s3};
use support::free_port;

/// A request as it came: its head, and its body.
struct Request {
    head: String,
    body: Vec<u8>,
}

/// The next request of a connection; `arrived` is told of each read.
fn request(socket: &mut TcpStream, mut arrived: impl FnMut(usize)) -> Option<Request> {
    let (mut bytes, mut part) = (Vec::new(), [0; 16 * 1024]);
    loop {
        let n = socket.read(&mut part).ok().filter(|n| *n > 0)?;
        arrived(n);
        bytes.extend_from_slice(&part[..n]);
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else { continue };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        let length =
            head.lines().find_map(|l| l.to_ascii_lowercase().strip_prefix("content-length:")?.trim().parse().ok());
        let size: usize = length.unwrap_or(0);
        if bytes.len() >= end + 4 + size {
            return Some(Request { head, body: bytes.split_off(end + 4) });
        }
    }
}

/// Bytes that arrived after the first time and not after the second one.
type Arrival = (Instant, Instant, usize);

/// An S3 that takes every object, and notes when its bytes arrive.
fn sink() -> (u16, Arc<Mutex<Vec<Arrival>>>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let arrivals = Arc::new(Mutex::new(Vec::new()));
    let all = arrivals.clone();
    std::thread::spawn(move || {
        for mut socket in listener.incoming().map_while(Result::ok) {
            let all = all.clone();
            std::thread::spawn(move || {
                let mut before = Instant::now();
                let mut note = |n| {
                    let now = Instant::now();
                    all.lock().unwrap().push((before, now, n));
                    before = now;
                };
                while let Some(request) = request(&mut socket, &mut note) {
                    let md5: String = Md5::digest(&request.body).iter().map(|b| format!("{b:02x}")).collect();
                    write!(socket, "HTTP/1.1 200 OK\r\nETag: \"{md5}\"\r\nContent-Length: 0\r\n\r\n").unwrap();
                }
            });
        }
    });
    (port, arrivals)
}

/// Puts objects of these sizes at once under a ceiling of 4 Mbit/s. How long it took, and the most bytes that came for
/// sure within 250 ms: a read that was late counts only where all of it belongs.
async fn put_at_4_mbit(sizes: &[usize]) -> (Duration, usize) {
    let (port, arrivals) = sink();
    let mut settings = s3("evidence", format!("http://127.0.0.1:{port}"));
    settings.bandwidth = Some(4_000_000);
    let store = objects::open(&settings).unwrap();
    let begin = Instant::now();
    let puts = sizes.iter().enumerate().map(|(n, size)| {
        let store = store.clone();
        async move { store.put(&format!("{n}.m4s"), Bytes::from(vec![n as u8; *size])).await }
    });
    try_join_all(puts).await.unwrap();
    let took = begin.elapsed();
    let arrivals = arrivals.lock().unwrap();
    assert!(arrivals.iter().map(|a| a.2).sum::<usize>() >= sizes.iter().sum());
    let most = arrivals.iter().map(|(from, ..)| {
        let inside = |(begin, end, _): &&Arrival| begin >= from && end.duration_since(*from) <= WINDOW;
        arrivals.iter().filter(inside).map(|a| a.2).sum()
    });
    let most = most.max().unwrap();
    eprintln!("{sizes:?}: {took:?}, at most {most} bytes within {WINDOW:?}");
    (took, most)
}

const WINDOW: Duration = Duration::from_millis(250);

/// What 4 Mbit/s are in that time, and a fifth more.
const MOST: usize = 150_000;

#[tokio::test(flavor = "multi_thread")]
async fn an_object_leaves_evenly_under_the_ceiling_of_its_line() {
    let (took, most) = put_at_4_mbit(&[2_000_000]).await;
    assert!((4.0..8.0).contains(&took.as_secs_f64()), "{took:?}");
    assert!(most <= MOST, "{most} bytes within {WINDOW:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn objects_that_leave_at_once_share_the_ceiling() {
    let (took, most) = put_at_4_mbit(&[250_000; 4]).await;
    assert!((2.0..4.0).contains(&took.as_secs_f64()), "{took:?}");
    assert!(most <= MOST, "{most} bytes within {WINDOW:?}");
}

/// What is done to what passes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Meddling {
    None,
    /// A byte of each object is another one.
    Flips,
    /// ETags are no MD5s, but look like it.
    ETags,
    /// The same, because a key service encrypts.
    KeyService,
}

/// A box between here and headquarters, and the lines of the requests that passed.
#[derive(Clone)]
struct Between {
    port: u16,
    meddling: Arc<Mutex<Meddling>>,
    seen: Arc<Mutex<Vec<String>>>,
}

impl Between {
    fn before(server: u16) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let between = Self { port, meddling: Arc::new(Mutex::new(Meddling::None)), seen: Arc::default() };
        let this = between.clone();
        std::thread::spawn(move || {
            for near in listener.incoming().map_while(Result::ok) {
                let this = this.clone();
                std::thread::spawn(move || this.pass(near, server));
            }
        });
        between
    }

    fn pass(&self, mut near: TcpStream, server: u16) {
        let Some(Request { head, mut body }) = request(&mut near, |_| {}) else { return };
        self.seen.lock().unwrap().push(head.lines().next().unwrap().to_owned());
        let meddling = *self.meddling.lock().unwrap();
        let put = head.starts_with("PUT ");
        if let (true, Meddling::Flips, Some(byte)) = (put, meddling, body.last_mut()) {
            *byte ^= 1;
        }
        let mut far = TcpStream::connect((Ipv4Addr::LOCALHOST, server)).unwrap();
        write!(far, "{head}\r\nConnection: close\r\n\r\n").unwrap();
        far.write_all(&body).unwrap();
        let mut answer = Vec::new();
        far.read_to_end(&mut answer).unwrap();
        let own = matches!(meddling, Meddling::ETags | Meddling::KeyService);
        if put && own {
            let at = answer.to_ascii_lowercase().windows(7).position(|w| w == b"etag: \"").unwrap();
            answer[at + 7] = if answer[at + 7] == b'0' { b'1' } else { b'0' };
            if meddling == Meddling::KeyService {
                let header = b"x-amz-server-side-encryption: aws:kms\r\n";
                answer.splice(at..at, header.iter().copied());
            }
        }
        near.write_all(&answer).unwrap();
    }

    fn meddle(&self, how: Meddling) {
        *self.meddling.lock().unwrap() = how;
    }

    fn store(&self) -> Store {
        objects::open(&s3("evidence", format!("http://127.0.0.1:{}", self.port))).unwrap()
    }

    /// How many objects were read since the last time.
    fn gets(&self) -> usize {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap());
        seen.iter().filter(|line| line.starts_with("GET ")).count()
    }
}

fn md5(bytes: &[u8]) -> Option<[u8; 16]> {
    Some(Md5::digest(bytes).into())
}

#[tokio::test(flavor = "multi_thread")]
async fn other_bytes_at_headquarters_are_found_and_may_be_sent_again() {
    let Some(server) = moto(free_port(), None) else { return };
    make_bucket(server.port);
    let between = Between::before(server.port);
    // Before an ETag was ever right, and after.
    for round in 0..2 {
        let (store, bytes) = (between.store(), Bytes::from(vec![3; 300_000]));
        if round == 1 {
            store.put("first.m4s", bytes.clone()).await.unwrap();
        }
        between.meddle(Meddling::Flips);
        let error = store.put("1.m4s", bytes.clone()).await.unwrap_err();
        assert!(matches!(error, PutError::Later { .. }) && error.to_string().contains("other bytes"), "{error}");
        between.meddle(Meddling::None);
        assert_ne!(store.get("1.m4s").await.unwrap(), Some(bytes.clone()), "the peer has not meddled");
        store.put("1.m4s", bytes.clone()).await.unwrap();
        assert_eq!(store.get("1.m4s").await.unwrap(), Some(bytes));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_whose_etags_are_no_md5_takes_objects_and_is_read_back_three_times() {
    let Some(server) = moto(free_port(), None) else { return };
    make_bucket(server.port);
    let between = Between::before(server.port);
    let store = between.store();
    between.meddle(Meddling::ETags);
    for n in 0..5 {
        store.put(&format!("own/{n}.m4s"), Bytes::from(vec![n; 1_000])).await.unwrap();
    }
    assert_eq!(between.gets(), 3);
    assert!(store.holds("own").await.unwrap().values().all(|held| held.md5.is_none()));
    between.meddle(Meddling::None);
    store.put("own/5.m4s", Bytes::new()).await.unwrap();
    assert!(store.holds("own").await.unwrap().values().all(|held| held.md5.is_some()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_key_service_encrypts_is_not_judged_by_its_etag() {
    let Some(server) = moto(free_port(), None) else { return };
    make_bucket(server.port);
    let between = Between::before(server.port);
    let store = between.store();
    store.put("a/1.m4s", Bytes::from_static(b"plain")).await.unwrap();
    between.meddle(Meddling::KeyService);
    store.put("a/2.m4s", Bytes::from_static(b"encrypted")).await.unwrap();
    assert_eq!(between.gets(), 0);
    assert!(store.holds("a").await.unwrap().values().all(|held| held.md5.is_none()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_s3_has_every_object_of_the_folder_with_its_size_and_md5() {
    const N: usize = 1_003;
    let Some(server) = moto(free_port(), None) else { return };
    make_bucket(server.port);
    let endpoint = format!("http://127.0.0.1:{}", server.port);
    let store = objects::open(&s3("evidence", endpoint.clone())).unwrap();
    let folder = "saddar/incidents/1/cam-1";
    assert_eq!(store.holds(folder).await.unwrap().len(), 0);
    let bytes = |n: usize| Bytes::from(format!("object {n}"));
    let name = |n: usize| format!("{folder}/{n:05}.m4s");
    let puts = stream::iter(0..N).map(|n| {
        let store = store.clone();
        async move { store.put(&name(n), bytes(n)).await }
    });
    puts.buffer_unordered(4).try_collect::<Vec<()>>().await.unwrap();
    store.put("saddar/incidents/1/cam-10/00001.m4s", Bytes::new()).await.unwrap();
    let held = store.holds(folder).await.unwrap();
    assert_eq!(held.len(), N);
    for n in 0..N {
        assert_eq!(held[&name(n)], Held { size: bytes(n).len() as u64, md5: md5(&bytes(n)) });
    }
    // A store that has put nothing yet does not know what the ETags are.
    let fresh = objects::open(&s3("evidence", endpoint)).unwrap();
    assert!(fresh.holds(folder).await.unwrap().values().all(|held| held.md5.is_none() && held.size > 0));
    server.signal("STOP");
    let error = store.holds(folder).await.unwrap_err();
    server.signal("CONT");
    assert!(matches!(error, PutError::Later { .. }) && error.to_string().contains("did not answer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listing_of_a_directory_has_every_object_of_the_folder_with_its_size() {
    let dir = tempfile::tempdir().unwrap();
    let mut settings = objects::Settings::new(format!("file://{}", dir.path().display()));
    settings.bandwidth = Some(800_000);
    let store = objects::open(&settings).unwrap();
    assert_eq!(store.holds("a/b").await.unwrap().len(), 0);
    let begin = Instant::now();
    for (name, size) in [("a/b/1.m4s", 50_000), ("a/b/c/2.json", 2), ("a/bc/3.m4s", 3)] {
        store.put(name, Bytes::from(vec![1; size])).await.unwrap();
    }
    assert!(
        begin.elapsed() >= Duration::from_millis(500),
        "the ceiling is kept between objects: {:?}",
        begin.elapsed()
    );
    let held = store.holds("a/b").await.unwrap();
    let found: Vec<_> = held.iter().map(|(name, held)| (name.as_str(), held.size, held.md5)).collect();
    assert_eq!(found, [("a/b/1.m4s", 50_000, None), ("a/b/c/2.json", 2, None)]);
    drop(dir);
    assert!(matches!(store.holds("a/b").await.unwrap_err(), PutError::Misconfigured { .. }));
}
