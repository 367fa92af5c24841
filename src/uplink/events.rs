//! Events to headquarters' broker, commands from it.
//!
//! One task owns the connection. What is offered is sent at once, at most [`Settings::window`] documents ahead of the
//! broker's acknowledgements; [`Event::Delivered`] follows a PUBACK and nothing else. When a connection fails,
//! everything without a PUBACK goes again in its order, to the next address. Headquarters so sees every latest
//! revision at least once, and never an older one after a newer one within a connection.

use std::{
    collections::VecDeque,
    fmt,
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use tokio::sync::{Notify, mpsc};

use super::{
    Error,
    lanes::{Held, Lanes, Offer, Refused},
    link::Backhaul,
    paced::Pacer,
    session,
};
use crate::{
    district::{
        clock::{Mono, Now},
        ids::DistrictId,
        secret::Secret,
    },
    host::{clock, scope::Scope},
};

pub use super::lanes::{Document, Lane, Tag};

/// Largest command, in bytes. A larger one is ignored.
pub const MAX_COMMAND: usize = 16 * 1024;

/// Refusals that wait to be told, at most.
const MAX_REFUSED: usize = 1024;

/// Where a broker listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Address {
    /// Name or IP address, the latter without brackets.
    pub host: String,
    /// TCP port.
    pub port: u16,
    /// Whether TLS is spoken there.
    pub tls: bool,
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.tls { "mqtts" } else { "mqtt" };
        if self.host.contains(':') {
            write!(f, "{scheme}://[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{scheme}://{}:{}", self.host, self.port)
        }
    }
}

impl FromStr for Address {
    type Err = Error;

    /// `mqtt://host[:1883]` or `mqtts://host[:8883]`.
    fn from_str(text: &str) -> Result<Self, Error> {
        let Ok(url) = url::Url::parse(text) else {
            return Err(Error::Address { url: "(unreadable)".into(), why: "it is not a URL" });
        };
        let fault = |why| Error::Address { url: bare(&url), why };
        let tls = match url.scheme() {
            "mqtt" => false,
            "mqtts" => true,
            _ => return Err(fault("its scheme is neither mqtt nor mqtts")),
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(fault("the login belongs into username and password_file"));
        }
        let host = match url.host() {
            Some(url::Host::Domain(name)) if !name.is_empty() => name.to_owned(),
            Some(url::Host::Ipv4(ip)) => ip.to_string(),
            Some(url::Host::Ipv6(ip)) => ip.to_string(),
            _ => return Err(fault("it names no host")),
        };
        Ok(Self { host, port: url.port().unwrap_or(if tls { 8883 } else { 1883 }), tls })
    }
}

/// The URL without its login.
pub(super) fn bare(url: &url::Url) -> String {
    let mut url = url.clone();
    let _ = url.set_username("");
    let _ = url.set_password(None);
    url.into()
}

/// How headquarters' broker is reached.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where; tried in turn. At least one.
    pub addresses: Vec<Address>,
    /// User name and password.
    pub login: Option<(String, Secret)>,
    /// The MQTT client id: one gateway, one id, for ever.
    pub client_id: String,
    /// Whom we trust, see [`super::tls::client_config`]. None: the system's certificates.
    pub tls_roots: Option<Arc<rustls::ClientConfig>>,
    /// Whose events these are.
    pub district: DistrictId,
    /// Most documents in flight.
    pub window: u16,
    /// MQTT keep-alive, whole seconds, at least one. The broker publishes our will after one and a half of it.
    pub keep_alive: Duration,
    /// A connection on which something is outstanding and nothing comes back for so long is dead. What is in flight
    /// adds a second for each 8 KiB, so that a slow line is not taken for a dead one.
    pub patience: Duration,
    /// An attempt that is not answered with CONNACK within this has failed.
    pub connect_timeout: Duration,
    /// Whom to tell what is sent and how long the broker takes to answer, so that media leave the line free.
    pub pacer: Option<Pacer>,
}

impl Settings {
    /// The defaults: no login, client id `chowki-{district}`, 64 in flight, keep-alive 5 s (an idle line's failure is found out by it), patience 10 s, connect
    /// timeout 5 s.
    pub fn new(district: DistrictId, addresses: Vec<Address>) -> Self {
        Self {
            addresses,
            login: None,
            client_id: format!("chowki-{district}"),
            tls_roots: None,
            district,
            window: 64,
            keep_alive: Duration::from_secs(5),
            patience: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(5),
            pacer: None,
        }
    }

    /// `chowki/{district}/status`: the gateway's own state, and the will.
    pub fn status_topic(&self) -> String {
        format!("chowki/{}/status", self.district)
    }

    /// `chowki/{district}/commands`.
    pub fn commands_topic(&self) -> String {
        format!("chowki/{}/commands", self.district)
    }

    /// The status of a gateway that is not there.
    pub(super) fn offline(&self, reason: &str) -> Vec<u8> {
        serde_json::json!({ "online": false, "district": self.district, "reason": reason }).to_string().into_bytes()
    }
}

/// What the events task tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The broker has acknowledged this revision. The same one may be told again. Revisions that were replaced before
    /// they were acknowledged are not told: a delivery covers all older revisions of its tag.
    Delivered {
        /// The document's tag.
        tag: Tag,
        /// Which revision.
        revision: u64,
        /// When the PUBACK was read.
        now: Now,
    },
    /// A document that stands in the way of others.
    SetAside {
        /// The document's tag.
        tag: Tag,
        /// Which revision.
        revision: u64,
        /// What is wrong with it.
        reason: Aside,
        /// When it was found out.
        now: Now,
    },
    /// Connected, and the broker has acknowledged something.
    Up {
        /// Which broker.
        address: Address,
        /// When.
        now: Now,
    },
    /// The connection, or the attempt at one, failed. A reason is told once for each address until one is up again.
    Down {
        /// Which broker, what happened, what to do.
        reason: String,
        /// When.
        now: Now,
    },
    /// The backhaul's name has changed, see [`Backhaul`].
    Backhaul {
        /// What it is called from now on.
        state: Backhaul,
        /// When something last came back.
        worked: Option<Mono>,
        /// When.
        now: Now,
    },
    /// Headquarters commands something. It was acknowledged when it was read, and may be repeated.
    Command {
        /// As it came, at most [`MAX_COMMAND`] bytes.
        payload: Bytes,
        /// Whether the broker had kept it from earlier; such a command may be stale.
        retained: bool,
        /// When it came.
        now: Now,
    },
}

/// Why a document was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Aside {
    /// It cannot be sent, and was not kept.
    #[error("not sent: {0}")]
    Refused(#[from] Refused),
    /// Connections broke over it again and again. It is kept, and sent alone, after everything else.
    #[error("connections break over it; it is sent last from now on. Does the broker limit sizes or topics?")]
    Suspect,
}

/// Counts since the start, and what is held now.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stats {
    /// What is held.
    pub held: Held,
    /// PUBACKs.
    pub delivered: u64,
    /// Documents that were in flight when a connection broke.
    pub resent: u64,
    /// Connections that the broker accepted.
    pub connections: u64,
    /// Connections and attempts that failed.
    pub failures: u64,
    /// Commands received.
    pub commands: u64,
    /// Documents that could not be sent.
    pub refused: u64,
    /// What the backhaul is called.
    pub backhaul: Option<Backhaul>,
    /// The broker we are connected to.
    pub address: Option<Address>,
}

/// The way in: cheap to clone, callable from any thread.
#[derive(Clone)]
pub struct Events {
    shared: Arc<Shared>,
}

/// Starts the events task in `scope`. It ends with the scope: what is in flight then has a second to be acknowledged,
/// and headquarters is told that the gateway is offline.
///
/// When `events` is full, the task waits: it then reads no acknowledgements, and sends nothing new. Keep reading.
pub fn start(settings: Settings, events: mpsc::Sender<Event>, scope: &Scope) -> Events {
    let shared = Arc::new(Shared::default());
    let stopping = scope.stopping();
    scope.spawn("hq-events", session::run(settings, shared.clone(), events, stopping));
    Events { shared }
}

impl Events {
    /// Without a connection: a test takes what is offered.
    #[cfg(test)]
    pub fn detached() -> Self {
        Self { shared: Arc::default() }
    }

    /// What a connection does with what is offered.
    #[cfg(test)]
    pub fn lanes<T>(&self, act: impl FnOnce(&mut Lanes) -> T) -> T {
        act(&mut self.shared.lock().lanes)
    }

    /// Sends a document as soon as the window allows. Never blocks, never fails: what cannot be sent at all comes back
    /// as [`Event::SetAside`], a revision that is not newer than the one held is ignored.
    ///
    /// Memory: at most two revisions of each topic (see [`Lanes`]); incidents until they are delivered.
    pub fn offer(&self, document: Document) {
        let (tag, revision) = (document.tag.clone(), document.revision);
        let mut inner = self.shared.lock();
        match inner.lanes.offer(document) {
            Ok(Offer::Taken) => {}
            Ok(Offer::Stale) => return,
            Err(refused) => {
                inner.stats.refused += 1;
                // When full: the oldest refusal is forgotten. Each one is logged when it is told.
                if inner.refused.len() == MAX_REFUSED {
                    inner.refused.pop_front();
                }
                let reason = Aside::Refused(refused);
                inner.refused.push_back(Event::SetAside { tag, revision, reason, now: clock::now() });
            }
        }
        drop(inner);
        self.shared.wake.notify_one();
    }

    /// Counts, and what is held now.
    pub fn stats(&self) -> Stats {
        let inner = self.shared.lock();
        Stats { held: inner.lanes.held(), ..inner.stats.clone() }
    }
}

/// What the task and the way in share. Locked for microseconds, never across an await.
#[derive(Default)]
pub(super) struct Shared {
    inner: Mutex<Inner>,
    /// Something was offered.
    pub(super) wake: Notify,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) lanes: Lanes,
    pub(super) refused: VecDeque<Event>,
    pub(super) stats: Stats,
}

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_is_written() {
        for (text, host, port, tls) in [
            ("mqtt://hq.example", "hq.example", 1883, false),
            ("mqtts://hq.example:8884", "hq.example", 8884, true),
            ("mqtts://[2001:db8::1]", "2001:db8::1", 8883, true),
            ("mqtt://192.0.2.1:1", "192.0.2.1", 1, false),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address, Address { host: host.into(), port, tls }, "{text}");
            assert_eq!(address.to_string().parse::<Address>().unwrap(), address);
        }
    }

    #[test]
    fn a_password_in_an_address_is_a_fault_and_is_not_repeated() {
        let error = "mqtt://me:hunter2@hq.example".parse::<Address>().unwrap_err().to_string();
        assert!(error.contains("password_file") && !error.contains("hunter2"), "{error}");
        for bad in ["hq.example", "http://hq.example", "mqtt://", "mqtt:hq"] {
            assert!(bad.parse::<Address>().is_err(), "{bad}");
        }
    }
}
