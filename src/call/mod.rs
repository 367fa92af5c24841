//! Floor 1. Pictures and sound to a browser by WebRTC, from a camera's ring.
//!
//! ```text
//! offer ──> Calls ──> answer                     ring ──> session ──> payloads, dated and numbered ──┐
//!                        └──> session (one task)                                                     v
//! datagrams ──> socket ──> switchboard ──> session                                  socket ──> browser
//! ```
//!
//! The socket is one for all, by UDP. Where a firewall lets no UDP through, browsers connect by TCP: see `tcp.rs`.
//!
//! Nothing is transcoded here. A viewer begins with the ring's last key frame, and is with the camera from then on: see
//! [`mod@line`]. One that is slow misses frames until the next key frame; the ring, and everybody else, never notices.

pub mod announce;
mod codecs;
mod feed;
#[cfg(test)]
mod fixtures;
mod framing;
mod inlet;
pub mod line;
pub mod link;
mod session;
mod socket;
pub mod state;
#[cfg(test)]
mod state_tests;
mod switchboard;
pub mod talkback;
mod tcp;

use std::{
    collections::HashMap,
    fmt, io,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicBool},
};

use str0m::{Candidate, net::TcpType};
use tokio::{
    runtime::EnterGuard,
    sync::{oneshot, watch},
};

pub use self::{
    feed::Lighter,
    inlet::Inlet,
    session::{Progress, Why},
};
use self::{
    feed::Tap,
    session::{Session, Terms, Ways},
    socket::{Buffer, Socket},
    switchboard::Switchboard,
    tcp::{Limits, Wires},
};
use crate::{
    host::{bulkhead, clock, scope::Scope, thread::Thread},
    media::{
        frame::{Codec, Track},
        parcels::Sets,
        ring::Ring,
    },
};

/// How browsers reach us.
#[derive(Debug, Clone)]
pub struct Settings {
    /// The UDP port of all sessions.
    pub listen: SocketAddr,
    /// Addresses that a router forwards to that port.
    pub public: Vec<SocketAddr>,
    /// The TCP port, for browsers that UDP does not reach.
    pub tcp: Option<Tcp>,
    /// Most sessions at a time. Further ones are refused.
    pub sessions: usize,
}

/// How browsers reach us that UDP does not.
#[derive(Debug, Clone)]
pub struct Tcp {
    /// The TCP port of all sessions.
    pub listen: SocketAddr,
    /// Addresses that a router forwards to that port.
    pub public: Vec<SocketAddr>,
}

/// Why the port cannot be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen for WebRTC on UDP {address}: {source}; free the port, or change `listen` under [webrtc]")]
pub struct Error {
    address: SocketAddr,
    source: io::Error,
}

/// Why an offer is not taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The offer is not what a browser says.
    #[error("the SDP offer cannot be answered: {0}")]
    Offer(String),
    /// The camera sends what this browser does not take.
    #[error("the camera sends {0:?}, which this browser does not take live; set the camera to H.264")]
    Codec(Codec),
    /// Too many are served already.
    #[error("{0} sessions are served already, and no more can be; close one")]
    Full(usize),
    /// No address can be told to the browser.
    #[error("this gateway has no network address that a browser could reach")]
    NoAddress,
}

/// Names a session to whoever began it, and to nobody else.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct SessionId(String);

impl SessionId {
    fn random() -> Option<Self> {
        let mut bytes = [0; 16];
        aws_lc_rs::rand::fill(&mut bytes).ok()?;
        Some(Self(bytes.iter().map(|b| format!("{b:02x}")).collect()))
    }

    /// The name as its begin was answered with it.
    pub fn of(text: &str) -> Self {
        Self(text.to_owned())
    }
}

impl fmt::Display for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for SessionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SessionId(..)")
    }
}

/// What an offer is answered with.
#[derive(Debug)]
pub struct Answered {
    /// The session.
    pub session: SessionId,
    /// The SDP answer.
    pub answer: String,
    /// How far the session has come.
    pub progress: watch::Receiver<Progress>,
}

/// A ring that a browser is shown.
#[derive(Debug, Clone)]
pub struct Shown {
    /// The ring.
    pub ring: Arc<Ring>,
    /// The one track of it that is shown. None: both.
    pub only: Option<Track>,
    /// While this is set its sound is kept back.
    pub hushed: Option<Arc<AtomicBool>>,
    /// Its lighter stream, for a thin link.
    pub lighter: Option<Lighter>,
}

impl Shown {
    /// All of a ring.
    pub fn of(ring: Arc<Ring>) -> Self {
        Self { ring, only: None, hushed: None, lighter: None }
    }
}

/// What a browser is shown, and where what it sends goes.
#[derive(Default)]
pub struct Wanted {
    /// The rings that it is shown. Of its streams of each kind the first shows the first of them that gives such.
    pub shown: Vec<Shown>,
    /// Where what it sends goes, and as whose.
    pub sends: Option<(Arc<Inlet>, u32)>,
}

/// Counts, for metrics.
#[derive(Debug, Clone, Copy, Default)]
pub struct Stats {
    /// Sessions now.
    pub sessions: usize,
    /// Datagrams that the kernel, or a TCP connection, had no room for.
    pub dropped: u64,
}

/// The way in; cheap to clone.
#[derive(Clone)]
pub struct Calls(Arc<Shared>);

struct Shared {
    settings: Settings,
    /// What everything here runs on: however many watch, presses are taken elsewhere. Its scope ends before it.
    thread: Thread,
    ways: Ways,
    /// Where the TCP port is bound.
    tcp: Option<SocketAddr>,
    board: Arc<Switchboard>,
    scope: Scope,
    inner: Mutex<Inner>,
}

struct Inner {
    sessions: HashMap<SessionId, oneshot::Sender<()>>,
    parcels: Sets,
}

/// Binds the port and serves it in `scope`.
pub fn start(settings: Settings, scope: &Scope) -> Result<Calls, Error> {
    let failed = |source| Error { address: settings.listen, source };
    let thread = Thread::prompt("calls").map_err(failed)?;
    let inside = thread.enter();
    let socket = Arc::new(Socket::bind(settings.listen).map_err(failed)?);
    let board = Arc::new(Switchboard::default());
    let stopping = scope.stopping();
    scope.spawn("webrtc", {
        let (socket, board) = (socket.clone(), board.clone());
        async move {
            tokio::pin!(stopping);
            let mut buffer = Buffer::of(&socket);
            loop {
                let received = tokio::select! {
                    () = &mut stopping => return,
                    received = socket.receive(&mut buffer, |one| _ = board.pass(clock::instant(), one)) => received,
                };
                if let Err(error) = received {
                    tracing::debug!(%error, "the WebRTC port");
                }
            }
        }
    });
    let ways = Ways { udp: socket, tcp: Arc::new(Wires::new(Limits::default())) };
    let tcp = settings.tcp.as_ref().and_then(|tcp| serve_tcp(tcp.listen, &ways.tcp, &board, scope));
    drop(inside);
    Ok(Calls(Arc::new(Shared {
        thread,
        settings,
        ways,
        tcp,
        board,
        scope: scope.clone(),
        inner: Mutex::new(Inner { sessions: HashMap::new(), parcels: Sets::new(feed::MOST) }),
    })))
}

/// Serves the TCP port; where it is bound. Without it browsers are served by UDP all the same.
fn serve_tcp(listen: SocketAddr, wires: &Arc<Wires>, board: &Arc<Switchboard>, scope: &Scope) -> Option<SocketAddr> {
    let bound = tcp::bind(listen).and_then(|listener| Ok((listener.local_addr()?, listener)));
    let remedy = "free the port, or change `tcp` under [webrtc]";
    let failed = |error: &io::Error| tracing::error!(%error, %listen, remedy, "no live pictures by TCP");
    let (at, listener) = bound.inspect_err(failed).ok()?;
    scope.spawn("webrtc tcp", tcp::accept(listener, wires.clone(), board.clone(), scope.clone()));
    Some(at)
}

impl Calls {
    /// While what this returns lives, tasks that are spawned here run on the thread of calls.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.0.thread.enter()
    }

    /// Where the port is bound.
    pub fn address(&self) -> SocketAddr {
        self.0.ways.udp.local()
    }

    /// Answers an offer. What is wanted flows until the browser goes or [`Calls::hang_up`]; `meanwhile` is dropped then.
    ///
    /// # Errors
    /// [`Refused`], when the offer cannot be answered.
    pub fn begin(&self, wanted: Wanted, meanwhile: impl Send + 'static, offer: &str) -> Result<Answered, Refused> {
        let shared = &self.0;
        let candidates = self.candidates();
        if candidates.is_empty() {
            return Err(Refused::NoAddress);
        }
        let (hang_up, hung_up) = oneshot::channel();
        let id = SessionId::random().ok_or_else(|| Refused::Offer("no random numbers to be had".into()))?;
        let taps = {
            let mut inner = shared.lock();
            if inner.sessions.len() >= shared.settings.sessions {
                return Err(Refused::Full(shared.settings.sessions));
            }
            inner.sessions.insert(id.clone(), hang_up);
            let tap = |shown: Shown| Tap { parcels: inner.parcels.of(&shown.ring), shown };
            wanted.shown.into_iter().map(tap).collect()
        };
        let terms = Terms { taps, inlet: wanted.sends };
        // Whatever a browser says, it ends no other's session.
        let answer = || Session::answer(offer, &candidates, shared.ways.clone(), &shared.board, terms);
        let answered = bulkhead::behind(answer).unwrap_or_else(|burst| Err(Refused::Offer(burst.to_string())));
        let (answer, session) = answered.inspect_err(|_| drop(shared.lock().sessions.remove(&id)))?;
        let (calls, ended, progress) = (self.clone(), id.clone(), session.progress());
        let stopping = shared.scope.stopping();
        let _inside = shared.thread.enter();
        shared.scope.spawn("webrtc session", async move {
            let _meanwhile = meanwhile;
            if let Err(burst) = bulkhead::behind_all_of(session.run(hung_up, stopping)).await {
                tracing::error!(%burst, "a browser's session broke");
            }
            calls.0.lock().sessions.remove(&ended);
        });
        Ok(Answered { session: id, answer, progress })
    }

    /// Ends a session. Whether there was one of that name.
    pub fn hang_up(&self, session: &SessionId) -> bool {
        self.0.lock().sessions.remove(session).is_some_and(|hang_up| hang_up.send(()).is_ok())
    }

    /// Counts.
    pub fn stats(&self) -> Stats {
        let Ways { udp, tcp } = &self.0.ways;
        Stats { sessions: self.0.lock().sessions.len(), dropped: udp.dropped() + tcp.dropped() }
    }

    /// Our addresses as ICE candidates: those of this machine now, and those that a router forwards.
    fn candidates(&self) -> Vec<Candidate> {
        let Shared { settings, ways, tcp, .. } = &*self.0;
        let mut all = by_udp(&own(ways.udp.local()), &settings.public);
        if let Some((at, tcp)) = tcp.zip(settings.tcp.as_ref()) {
            all.extend(by_tcp(&own(at), &tcp.public));
        }
        all
    }
}

fn by_udp(own: &[SocketAddr], public: &[SocketAddr]) -> Vec<Candidate> {
    let base = own.first().copied();
    let hosts = own.iter().filter_map(|address| Candidate::host(*address, "udp").ok());
    let forwarded = public.iter().filter_map(|public| {
        let base = base.filter(|base| base != public)?;
        Candidate::server_reflexive(*public, base, "udp").ok()
    });
    hosts.chain(forwarded).collect()
}

/// Browsers take the pair of the highest priority that works, so each of these is below every one by UDP. One by TCP that
/// were said to be reflexive would not be: its rank would be that of a forwarded address by UDP.
fn by_tcp(own: &[SocketAddr], public: &[SocketAddr]) -> Vec<Candidate> {
    let passive = |address| Candidate::builder().tcp().host(address).tcptype(TcpType::Passive).build().ok();
    let forwarded = public.iter().filter(|public| !own.contains(public));
    own.iter().chain(forwarded).filter_map(|address| passive(*address)).collect()
}

/// The addresses of this machine that a port is bound to.
fn own(bound: SocketAddr) -> Vec<SocketAddr> {
    match bound.ip().is_unspecified() {
        false => vec![bound],
        true => machine(bound.is_ipv6()).into_iter().map(|ip| SocketAddr::new(ip, bound.port())).collect(),
    }
}

/// The machine's addresses that others can reach.
fn machine(v6_too: bool) -> Vec<IpAddr> {
    let all = if_addrs::get_if_addrs().unwrap_or_default();
    let reachable = all.into_iter().filter(|i| !i.is_loopback() && !i.is_link_local()).map(|i| i.ip());
    reachable.filter(|ip| v6_too || ip.is_ipv4()).collect()
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_browser_is_told_of_tcp_only_as_the_last_resort() {
        let at = |text: &str| text.parse::<SocketAddr>().unwrap();
        let (udp, tcp) = ([at("10.0.0.1:8443"), at("[2001:db8::1]:8443")], [at("10.0.0.1:8444")]);
        let (near, far) = (by_udp(&udp, &[at("203.0.113.7:8443")]), by_tcp(&tcp, &[at("203.0.113.7:443"), tcp[0]]));
        assert_eq!((near.len(), far.len()), (3, 2));
        assert!(near.iter().all(|udp| far.iter().all(|tcp| tcp.prio() < udp.prio())), "{near:?} {far:?}");
        assert!(far.iter().all(|tcp| tcp.to_sdp_string().ends_with(" typ host tcptype passive")), "{far:?}");
    }
}
