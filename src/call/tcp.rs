//! The TCP port for browsers behind firewalls that let no UDP through: a candidate that they connect to (RFC 6544,
//! passive). A connection carries the datagrams of one session, framed; it names the session first, as an address does.
//!
//! Whoever connects is counted, and every wait on a peer has a deadline. A line that is slower than the camera is told apart
//! from a burst: it is late when its queue was not near empty for a while. Its session then leaves pictures out.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use str0m::net::Protocol;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpSocket, TcpStream,
        tcp::{ReadHalf, WriteHalf},
    },
    sync::Notify,
    time::{sleep, timeout, timeout_at},
};

use super::{
    framing::{TooLong, Unframed, frame, framed},
    socket::Received,
    switchboard::Switchboard,
};
use crate::host::{
    clock,
    doors::{Doors, Pass},
    scope::Scope,
};

/// Asked of the kernel for each connection. What lies there cannot be left out any more: enough for 20 Mbit/s over 100 ms.
const KERNEL: u32 = 256 * 1024;
/// Connections that may wait until they are accepted.
const BACKLOG: u32 = 128;
/// A queue of no more than this is as good as empty. So much of its memory is kept, too.
const NEXT_TO_NOTHING: usize = 64 * 1024;
/// A line whose queue was longer than that for so long is late. A key frame, and all that a viewer begins with, is through
/// sooner where the line is fast enough.
const LATE: Duration = Duration::from_secs(1);

/// Where patience with a peer ends.
#[derive(Debug, Clone)]
pub(super) struct Limits {
    /// Connections at a time. Further ones are closed at once.
    pub connections: usize,
    /// Connections at a time from one address (IPv6: from one /64). Further ones are closed at once.
    pub per_address: usize,
    /// A connection has to name its session within this.
    pub greeting: Duration,
    /// One that says nothing for so long is closed. A browser says something every 25 s even where it has a better way.
    pub idle: Duration,
    /// What is sent has to be taken, bit by bit, within this.
    pub write: Duration,
    /// Bytes that wait for a connection. When full, the newest datagram is lost and counted.
    pub waiting: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let (greeting, idle, write) = (Duration::from_secs(5), Duration::from_secs(30), Duration::from_secs(5));
        Self { connections: 256, per_address: 32, greeting, idle, write, waiting: 1 << 20 }
    }
}

/// Our end of a connection and the peer's.
pub(super) type Ends = (SocketAddr, SocketAddr);

/// Every connection, for what goes out.
#[derive(Debug)]
pub(super) struct Wires {
    limits: Limits,
    doors: Arc<Doors>,
    wires: Mutex<HashMap<Ends, Arc<Wire>>>,
    dropped: AtomicU64,
}

/// What waits to go out of a connection.
#[derive(Debug, Default)]
struct Wire {
    waiting: Mutex<Waiting>,
    bell: Notify,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    /// Bytes that the kernel is given just now, and has not taken.
    flying: usize,
    /// Since when more than next to nothing is here.
    since: Option<Instant>,
}

/// Why a connection is closed by us.
#[derive(Debug, PartialEq, Eq)]
enum End {
    /// The peer closed it, or it broke.
    Gone,
    /// It named no session in time, or fell silent.
    Silent,
    /// It named a session that is not there, or something else came first; or its session is over.
    Stranger,
    /// It announced what is no datagram of WebRTC.
    TooLong,
    /// It does not take what it is sent.
    Stuck,
}

/// Binds the port. Call it in a runtime.
pub(super) fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    // As much as the kernel lets us; accepted connections inherit it.
    let _ = socket.set_send_buffer_size(KERNEL);
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// Takes connections until the scope stops.
pub(super) async fn accept(listener: TcpListener, wires: Arc<Wires>, board: Arc<Switchboard>, scope: Scope) {
    let stopping = scope.stopping();
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer, &wires, &board, &scope),
            // Out of file descriptors, most likely; or the peer has gone already.
            Err(_) => sleep(Duration::from_millis(50)).await,
        }
    }
}

fn admit(stream: TcpStream, peer: SocketAddr, wires: &Arc<Wires>, board: &Arc<Switchboard>, scope: &Scope) {
    let Ok(pass) = wires.doors.enter(peer.ip()) else {
        tracing::debug!(%peer, "too many connections for WebRTC");
        return;
    };
    let Ok(local) = stream.local_addr() else { return };
    // A datagram must not wait for the next; without it they only come later.
    let _ = stream.set_nodelay(true);
    let held = Held::new((canonical(local), canonical(peer)), wires, board, pass);
    let stopping = scope.stopping();
    scope.spawn("webrtc connection", async move {
        tokio::select! {
            () = stopping => {}
            end = held.converse(stream) => tracing::debug!(%peer, ?end, "a WebRTC connection ended"),
        }
    });
}

fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Wires {
    pub fn new(limits: Limits) -> Self {
        let doors = Doors::new(limits.connections, limits.per_address);
        Self { limits, doors, wires: Mutex::default(), dropped: AtomicU64::new(0) }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, Arc<Wire>>> {
        self.wires.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, ends: Ends) -> Option<Arc<Wire>> {
        self.lock().get(&ends).cloned()
    }

    /// Whether the line between these two is slower than what is sent.
    pub fn is_late(&self, ends: Ends) -> bool {
        let since = self.get(ends).and_then(|wire| wire.lock().since);
        since.is_some_and(|since| clock::instant() >= since + LATE)
    }

    /// Datagrams that a connection had no room for.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }

    /// Sends a datagram by the connection between these two. Where there is none it goes nowhere: it is for the browser to
    /// connect.
    pub fn send(&self, from: SocketAddr, to: SocketAddr, datagram: &[u8]) {
        let Some(wire) = self.get((from, to)) else { return };
        if !wire.push(datagram, self.limits.waiting) {
            self.dropped.fetch_add(1, Relaxed);
        }
    }
}

impl Waiting {
    fn held(&self) -> usize {
        self.bytes.len() + self.flying
    }
}

impl Wire {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether there was room for it.
    fn push(&self, datagram: &[u8], most: usize) -> bool {
        let mut waiting = self.lock();
        if waiting.held() + framed(datagram) > most {
            return false;
        }
        frame(datagram, &mut waiting.bytes);
        if waiting.held() > NEXT_TO_NOTHING {
            waiting.since.get_or_insert_with(clock::instant);
        }
        drop(waiting);
        self.bell.notify_one();
        true
    }

    /// So many bytes of what was taken have gone.
    fn gone(&self, count: usize) {
        let mut waiting = self.lock();
        waiting.flying = waiting.flying.saturating_sub(count);
        if waiting.held() <= NEXT_TO_NOTHING {
            waiting.since = None;
        }
    }

    /// Waits until there is something; takes it all. What was taken before has gone.
    async fn take(&self, into: &mut Vec<u8>) {
        into.clear();
        into.shrink_to(NEXT_TO_NOTHING);
        loop {
            {
                let mut waiting = self.lock();
                std::mem::swap(&mut waiting.bytes, into);
                waiting.flying = into.len();
                if waiting.flying > 0 {
                    return;
                }
            }
            self.bell.notified().await;
        }
    }
}

/// A connection's place among the others; given back when dropped.
struct Held {
    ends: Ends,
    wire: Arc<Wire>,
    wires: Arc<Wires>,
    board: Arc<Switchboard>,
    _pass: Pass,
}

impl Held {
    fn new(ends: Ends, wires: &Arc<Wires>, board: &Arc<Switchboard>, pass: Pass) -> Self {
        let wire = Arc::new(Wire::default());
        wires.lock().insert(ends, wire.clone());
        Self { ends, wire, wires: wires.clone(), board: board.clone(), _pass: pass }
    }

    async fn converse(&self, mut stream: TcpStream) -> End {
        let (mut reading, mut writing) = stream.split();
        tokio::select! {
            end = self.hear(&mut reading) => end,
            end = self.say(&mut writing) => end,
        }
    }

    /// Brings what comes in to its session.
    async fn hear(&self, stream: &mut ReadHalf<'_>) -> End {
        let limits = &self.wires.limits;
        let (to, from) = self.ends;
        let mut unframed = Unframed::default();
        let mut until = clock::instant() + limits.greeting;
        loop {
            match timeout_at(until.into(), stream.read(unframed.room())).await {
                Err(_) => return End::Silent,
                Ok(Err(_) | Ok(0)) => return End::Gone,
                Ok(Ok(count)) => unframed.filled(count),
            }
            let at = clock::instant();
            loop {
                let bytes = match unframed.take() {
                    Ok(Some(bytes)) => bytes,
                    Ok(None) => break,
                    Err(TooLong) => return End::TooLong,
                };
                if !self.board.pass(at, Received { protocol: Protocol::Tcp, from, to, bytes }) {
                    return End::Stranger;
                }
                until = at + limits.idle;
            }
        }
    }

    /// Sends what waits.
    async fn say(&self, stream: &mut WriteHalf<'_>) -> End {
        let mut flying = Vec::new();
        loop {
            self.wire.take(&mut flying).await;
            let mut rest = flying.as_slice();
            while !rest.is_empty() {
                match timeout(self.wires.limits.write, stream.write(rest)).await {
                    Err(_) => return End::Stuck,
                    Ok(Err(_) | Ok(0)) => return End::Gone,
                    Ok(Ok(count)) => {
                        self.wire.gone(count);
                        rest = rest.get(count..).unwrap_or_default();
                    }
                }
            }
        }
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut wires = self.wires.lock();
        // The same two ends may have met again already.
        if wires.get(&self.ends).is_some_and(|wire| Arc::ptr_eq(wire, &self.wire)) {
            wires.remove(&self.ends);
            self.board.forget(Protocol::Tcp, self.ends.1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::call::{fixtures::check, switchboard::Plugged};

    /// A port on loopback with a session `aaaa` behind it.
    struct Port {
        at: SocketAddr,
        wires: Arc<Wires>,
        board: Arc<Switchboard>,
        session: Plugged,
        scope: Scope,
    }

    impl Port {
        fn open(limits: Limits) -> Self {
            let listener = bind("127.0.0.1:0".parse().unwrap()).unwrap();
            let at = listener.local_addr().unwrap();
            let (wires, board) = (Arc::new(Wires::new(limits)), Arc::new(Switchboard::default()));
            let (session, scope) = (board.plug("aaaa".into()), Scope::new("test"));
            scope.spawn("accept", accept(listener, wires.clone(), board.clone(), scope.clone()));
            Self { at, wires, board, session, scope }
        }

        async fn connect(&self) -> TcpStream {
            TcpStream::connect(self.at).await.unwrap()
        }

        /// A connection that has named its session.
        async fn welcome(&mut self) -> TcpStream {
            let mut stream = self.connect().await;
            stream.write_all(&stream_of(&[&check("aaaa")])).await.unwrap();
            let datagram = timeout(SOON, self.session.inbox.recv()).await.unwrap().unwrap();
            assert_eq!((datagram.protocol, datagram.to), (Protocol::Tcp, self.at));
            assert_eq!(datagram.from, stream.local_addr().unwrap());
            stream
        }

        async fn empties(&self) {
            let gone = async {
                while self.wires.doors.inside() > 0 || !self.wires.lock().is_empty() {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, gone).await.expect("all connections are closed");
        }
    }

    const SOON: Duration = Duration::from_secs(20);

    /// No wait ends by itself.
    fn patient() -> Limits {
        let hour = Duration::from_secs(3600);
        Limits { greeting: hour, idle: hour, write: hour, ..Limits::default() }
    }

    fn stream_of(datagrams: &[&[u8]]) -> Vec<u8> {
        let mut stream = Vec::new();
        datagrams.iter().for_each(|datagram| frame(datagram, &mut stream));
        stream
    }

    /// Waits until the other end closes it.
    async fn closed(mut stream: TcpStream) {
        let end = timeout(SOON, stream.read(&mut [0; 16])).await.expect("it is closed");
        assert!(matches!(end, Ok(0) | Err(_)), "{end:?}");
    }

    #[tokio::test]
    async fn datagrams_go_both_ways_until_the_session_is_over() {
        let mut port = Port::open(patient());
        let mut stream = port.welcome().await;
        let from = stream.local_addr().unwrap();
        stream.write_all(&stream_of(&[&[], &[0x80, 0, 1], &[0x80, 0, 2]])).await.unwrap();
        let mut lengths = Vec::new();
        for _ in 0..3 {
            lengths.push(timeout(SOON, port.session.inbox.recv()).await.unwrap().unwrap().bytes.len());
        }
        assert_eq!(lengths, [0, 3, 3]);
        port.wires.send(port.at, from, b"first");
        port.wires.send("10.0.0.9:1".parse().unwrap(), from, b"to nobody");
        port.wires.send(port.at, from, b"second");
        let mut heard = vec![0; stream_of(&[b"first", b"second"]).len()];
        timeout(SOON, stream.read_exact(&mut heard)).await.unwrap().unwrap();
        assert_eq!(heard, stream_of(&[b"first", b"second"]));
        port.session = port.board.plug("bbbb".into());
        stream.write_all(&stream_of(&[&[0x80, 0, 3]])).await.unwrap();
        closed(stream).await;
        port.empties().await;
        assert_eq!(port.wires.dropped(), 0);
        assert!(port.scope.shutdown(SOON).await.is_empty());
    }

    #[tokio::test]
    async fn whoever_says_nothing_or_names_no_session_is_closed() {
        let brief = Duration::from_millis(50);
        let mut port = Port::open(Limits { greeting: brief, ..patient() });
        let silent = port.connect().await;
        let mut slow = port.connect().await;
        slow.write_all(&[0]).await.unwrap();
        tokio::join!(closed(silent), closed(slow));
        port.empties().await;

        port = Port::open(patient());
        let (stranger, media, empty) = (stream_of(&[&check("cccc")]), stream_of(&[&[0x80, 0, 1]]), stream_of(&[&[]]));
        let http = b"GET / HTTP/1.1\r\n\r\n".to_vec();
        for said in [stranger, media, empty, http, vec![8, 1]] {
            let mut stream = port.connect().await;
            stream.write_all(&said).await.unwrap();
            closed(stream).await;
        }
        port.empties().await;
        assert!(port.session.inbox.try_recv().is_err(), "nobody named it");
    }

    #[tokio::test]
    async fn a_session_that_falls_silent_is_closed_and_so_is_one_that_says_too_much_at_once() {
        let mut port = Port::open(Limits { idle: Duration::from_millis(50), ..patient() });
        let silent = port.welcome().await;
        closed(silent).await;
        port = Port::open(patient());
        let mut long = port.welcome().await;
        long.write_all(&[8, 1]).await.unwrap();
        closed(long).await;
        port.empties().await;
    }

    #[tokio::test]
    async fn more_connections_than_there_may_be_are_closed_and_the_others_stay() {
        let limits = Limits::default();
        assert_eq!((limits.connections, limits.per_address), (256, 32));
        for limits in [Limits { per_address: 3, ..patient() }, Limits { connections: 3, ..patient() }] {
            let mut port = Port::open(limits);
            let [first, _second, _third] = [port.welcome().await, port.welcome().await, port.welcome().await];
            closed(port.connect().await).await;
            assert_eq!(port.wires.doors.inside(), 3);
            drop(first);
            let again = async {
                while port.wires.doors.inside() > 2 {
                    sleep(Duration::from_millis(5)).await;
                }
            };
            timeout(SOON, again).await.unwrap();
            port.welcome().await;
        }
    }

    #[tokio::test]
    async fn what_a_slow_browser_does_not_take_is_lost_and_one_that_takes_nothing_is_closed() {
        let mut port = Port::open(Limits { write: Duration::from_millis(500), ..patient() });
        let stream = port.welcome().await;
        let from = stream.local_addr().unwrap();
        let stuffed = async {
            while port.wires.dropped() == 0 {
                for _ in 0..100 {
                    port.wires.send(port.at, from, &[0x80; 1200]);
                }
                tokio::task::yield_now().await;
            }
        };
        timeout(SOON, stuffed).await.expect("the queue has a bound");
        port.empties().await;
        drop(stream);
        let before = port.wires.dropped();
        port.wires.send(port.at, from, &[0x80; 1200]);
        assert_eq!(port.wires.dropped(), before, "nobody is there who could miss it");
    }

    #[tokio::test]
    async fn a_queue_counts_what_the_kernel_has_not_taken_yet() {
        let (wire, most, mut flying) = (Wire::default(), framed(&[0; 10]) * 3, Vec::new());
        assert!((0..3).all(|_| wire.push(&[0; 10], most)) && !wire.push(&[0; 10], most));
        wire.take(&mut flying).await;
        assert!(flying.len() == most && !wire.push(&[], most));
        wire.gone(most);
        let next = async {
            wire.take(&mut flying).await;
            flying.len()
        };
        let (taken, ()) = tokio::join!(next, async { assert!(wire.push(&[0; 10], most)) });
        assert_eq!(taken, framed(&[0; 10]));
    }

    #[tokio::test]
    async fn a_line_is_late_once_its_queue_was_long_for_a_while_and_until_it_is_short() {
        let (wire, mut flying) = (Wire::default(), Vec::new());
        let push = |count: usize| (0..count).for_each(|_| assert!(wire.push(&[0; 1022], usize::MAX)));
        push(64);
        assert_eq!(wire.lock().since, None);
        push(1);
        let since = wire.lock().since;
        assert!(since.is_some());
        wire.take(&mut flying).await;
        push(64);
        wire.gone(64 * 1024);
        assert_eq!(wire.lock().since, since, "as long as before, though it moves");
        wire.gone(1024);
        assert_eq!(wire.lock().since, None);
    }
}
