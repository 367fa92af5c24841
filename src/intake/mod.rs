//! Floor 1. Where buttons come in: the MQTT listener, what a session may do, the router behind it.
//!
//! MQTT 3.1.1 over TCP and TLS. A press is handed on as [`Event::Press`] with a proof to complete ([`Accepted`]); only a
//! proof that was completed becomes a PUBACK, in the order in which the presses came ([MQTT-4.6.0-2]). When a proof fails or
//! takes longer than 30 s the connection is closed without PUBACK: a standard client then connects again and resends, which
//! it would not do on a connection that stays open ([MQTT-4.4.0-1]).
//!
//! The client id is the identity: it must be the id of a configured button or integration, and the user name or the
//! certificate's common name must say the same. See [`rules`] for what a session may do.
//!
//! Sessions live in memory and are bounded by what is configured. A session that is not clean keeps its subscriptions and
//! the latest messages for it (16 for a button, where a newer state replaces an older one in meaning); after a restart of
//! the gateway a client is told truthfully that no session is present.

mod connection;
mod dispatch;
pub mod end;
pub mod filter;
mod greeting;
mod listener;
pub mod login;
pub mod mailbox;
pub mod packet;
pub mod payload;
mod replies;
mod router;
pub mod rules;
mod seats;
mod stats;
mod stream;

use std::{
    collections::{HashMap, hash_map::Entry},
    io,
    net::SocketAddr,
    sync::Arc,
};

use tokio::sync::{mpsc, oneshot, watch};

pub use stats::Stats;

use crate::{
    district::{
        button::ButtonStatus,
        clock::Now,
        ids::{ButtonId, ClientId},
        incident::PRESSES_SHOWN,
        inventory::{ButtonCredential, Inventory},
        press::{Press, StateMessage},
        secret::Secret,
    },
    host::{doors::Doors, scope::Scope},
};
use listener::Shared;
use login::Salted;
use mailbox::{Fate, Message};
use router::Fanout;
use rules::{Proof, Role};
use seats::{Seat, Seats};
use stats::{Counters, Seldom};

/// Messages that wait for one button at most: after an outage every press of an incident that is remembered is told at once
/// that headquarters has it, behind words that wait already. When full the oldest goes: the newest state counts.
const BUTTON_MAILBOX: usize = 2 * PRESSES_SHOWN;
/// Messages that wait for one integration at most, beside one retained status for each button. When full the oldest goes.
const INTEGRATION_MAILBOX: usize = 1024;

/// What the listener is told by the config.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where to listen for plain MQTT.
    pub plain: Option<SocketAddr>,
    /// Where to listen for MQTT over TLS.
    pub tls: Option<Tls>,
    /// Most TCP connections at a time. See [`Settings::connections_for`].
    pub max_connections: usize,
    /// Most TCP connections at a time from one address (IPv6: from one /64).
    pub max_per_address: usize,
    /// Local integrations.
    pub clients: Vec<LocalClient>,
}

impl Settings {
    /// A limit that lets all of these come back at once while their dead connections still count: two each, and some.
    pub fn connections_for(buttons: usize, clients: usize) -> usize {
        2 * (buttons + clients) + 64
    }
}

/// MQTT over TLS.
#[derive(Debug, Clone)]
pub struct Tls {
    /// Where to listen.
    pub listen: SocketAddr,
    /// Certificate, key, and how client certificates are verified.
    pub config: watch::Receiver<Arc<rustls::ServerConfig>>,
    /// Whether a connection without a client certificate is refused, whatever `config` lets through.
    pub requires_certificate: bool,
}

/// A local integration: it reads, it does not publish.
#[derive(Debug, Clone)]
pub struct LocalClient {
    /// Its client id and user name.
    pub id: ClientId,
    /// Its password.
    pub password: Secret,
    /// Topic filters; it may subscribe to whatever one of them covers.
    pub may_read: Vec<String>,
}

/// What happens at the door. One button's events are in order.
#[derive(Debug)]
pub enum Event {
    /// A press. It must be answered by `accepted`; the device gets its PUBACK only then.
    Press {
        /// The press.
        press: Press,
        /// The proof to complete when it is on disk.
        accepted: Accepted,
    },
    /// A button said how it is.
    Status {
        /// The button.
        button: ButtonId,
        /// What it said.
        status: ButtonStatus,
        /// When it came.
        now: Now,
    },
    /// A button's session began, or a new connection took it over.
    Connected {
        /// The button.
        button: ButtonId,
        /// When.
        now: Now,
    },
    /// A button's connection ended. Not sent when another connection took over, nor when the gateway stops.
    Disconnected {
        /// The button.
        button: ButtonId,
        /// When.
        now: Now,
        /// Why, in words.
        reason: String,
        /// What it had left to be said, unless it said goodbye itself.
        will: Option<ButtonStatus>,
    },
    /// Any other sign of life, at most one in five seconds for each connection. Left out when the queue is full.
    Heard {
        /// The button.
        button: ButtonId,
        /// When.
        now: Now,
    },
}

/// The proof that a press is recorded, to be completed once. Dropped without it, the press counts as not recorded.
#[derive(Debug)]
pub struct Accepted(oneshot::Sender<bool>);

impl Accepted {
    /// A proof to be given, and where it will be heard; dropped without it, nothing is.
    pub fn pair() -> (Self, oneshot::Receiver<bool>) {
        let (sender, receiver) = oneshot::channel();
        (Self(sender), receiver)
    }

    /// The press is on disk, synced: the device may have its PUBACK.
    pub fn recorded(self) {
        // The connection may be gone; then the device resends, and the press is known already.
        let _ = self.0.send(true);
    }

    /// The press could not be recorded: no PUBACK; the connection is closed so that the device resends.
    pub fn failed(self) {
        let _ = self.0.send(false);
    }
}

/// Why the listener cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address is taken, not ours, or not allowed.
    #[error("cannot listen for MQTT on {address}: {source}; free the port, or change `listen` under [broker]")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Two buttons or integrations have one id, and an id is an identity.
    #[error("{0:?} is the id of two MQTT clients; give the button or the [[broker.client]] another one")]
    TwoOfOneId(String),
    /// A filter that is not one.
    #[error(
        "{filter:?} in may_read of {client} is not a topic filter that may be read (MQTT 3.1.1 section 4.7); write for example \"buttons/+/state\""
    )]
    Filter {
        /// The integration.
        client: ClientId,
        /// What it says.
        filter: String,
    },
    /// No random numbers for salts.
    #[error("the system gives no random numbers")]
    Random,
    /// rumqttd's router did not take our links.
    #[error("the router for local integrations did not start: {0}")]
    Router(String),
}

/// Binds the listeners and starts serving in `scope`. When `events` is full, connections wait and are read no further; when
/// its receiver is gone they end.
///
/// # Errors
/// [`Error`]; nothing listens then.
pub async fn start(
    settings: Settings,
    inventory: Arc<Inventory>,
    events: mpsc::Sender<Event>,
    scope: &Scope,
) -> Result<Intake, Error> {
    let seats = seats(&settings, &inventory)?;
    let plain = bind(settings.plain).await?;
    let tls = bind(settings.tls.as_ref().map(|t| t.listen)).await?;
    let addresses = (local(&plain), local(&tls));
    let counters = Arc::new(Counters::default());
    let integrations: Vec<_> =
        settings.clients.iter().filter_map(|c| seats.get(c.id.as_str())).map(Arc::clone).collect();
    let fanout = Fanout::start(&integrations, counters.clone(), scope)?;
    let shared = Arc::new(Shared {
        seats: Seats::new(seats),
        events,
        fanout,
        counters,
        doors: Doors::new(settings.max_connections, settings.max_per_address),
        decoy: Salted::new(&Secret::new(""), salt()?),
        scope: scope.clone(),
        refusals: Seldom::default(),
        oddities: Seldom::default(),
    });
    if let Some(plain) = plain {
        scope.spawn("listener", listener::listen(plain, None, shared.clone()));
    }
    if let (Some(listener), Some(tls)) = (tls, settings.tls) {
        scope.spawn("tls listener", listener::listen(listener, Some(tls), shared.clone()));
    }
    Ok(Intake { shared, addresses })
}

fn seats(settings: &Settings, inventory: &Inventory) -> Result<HashMap<String, Arc<Seat>>, Error> {
    let mut seats = HashMap::new();
    let mut add = |id: &str, seat: Seat| match seats.entry(id.to_owned()) {
        Entry::Vacant(free) => {
            free.insert(Arc::new(seat));
            Ok(())
        }
        Entry::Occupied(_) => Err(Error::TwoOfOneId(id.to_owned())),
    };
    for button in inventory.buttons() {
        let proof = match &button.credential {
            ButtonCredential::Password(password) => Proof::Password(Salted::new(password, salt()?)),
            ButtonCredential::Certificate => Proof::Certificate,
        };
        add(button.id.as_str(), Seat::new(Role::Button(button.id.clone()), proof, BUTTON_MAILBOX))?;
    }
    for client in &settings.clients {
        if let Some(bad) = client.may_read.iter().find(|f| !filter::valid(f) || f.starts_with('$')) {
            return Err(Error::Filter { client: client.id.clone(), filter: bad.clone() });
        }
        let proof = Proof::Password(Salted::new(&client.password, salt()?));
        let capacity = INTEGRATION_MAILBOX + inventory.buttons().len();
        add(client.id.as_str(), Seat::new(Role::Integration(client.may_read.clone()), proof, capacity))?;
    }
    Ok(seats)
}

fn salt() -> Result<[u8; 16], Error> {
    let mut salt = [0; 16];
    aws_lc_rs::rand::fill(&mut salt).map_err(|_| Error::Random)?;
    Ok(salt)
}

async fn bind(address: Option<SocketAddr>) -> Result<Option<tokio::net::TcpListener>, Error> {
    let Some(address) = address else { return Ok(None) };
    let bound = tokio::net::TcpListener::bind(address).await;
    bound.map(Some).map_err(|source| Error::Listen { address, source })
}

fn local(listener: &Option<tokio::net::TcpListener>) -> Option<SocketAddr> {
    listener.as_ref()?.local_addr().ok()
}

/// The running listener.
#[derive(Clone)]
pub struct Intake {
    shared: Arc<Shared>,
    addresses: (Option<SocketAddr>, Option<SocketAddr>),
}

impl Intake {
    /// Publishes on `buttons/{id}/state`, quality 1: to the button, and to the integrations that read it. Never waits. A
    /// button that is away gets it when it is back, if it has a session that is not clean.
    pub fn tell(&self, button: &ButtonId, state: &StateMessage) {
        let Some(seat) = self.shared.seats.get(button.as_str()) else { return };
        let Ok(payload) = serde_json::to_vec(state) else { return };
        let message =
            Message { topic: format!("buttons/{button}/state").into(), payload: payload.into(), retain: false };
        self.shared.fanout.send(message.topic.clone(), message.payload.clone());
        match seat.offer(message) {
            Fate::Unwanted => {}
            Fate::Queued => self.shared.counters.queued.add(),
            Fate::QueuedForAnother => {
                self.shared.counters.queued.add();
                self.shared.counters.dropped.add();
            }
        }
    }

    /// Where plain MQTT and MQTT over TLS are listened for: the real ports, where the settings said 0.
    pub fn addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.addresses
    }

    /// What happened so far.
    pub fn stats(&self) -> Stats {
        self.shared.counters.read(self.shared.doors.inside())
    }
}
