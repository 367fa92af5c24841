//! Whose datagram it is, by UDP or TCP. An ICE check names its session: its user name (RFC 8445 section 7.3) begins with the name that our
//! answer gave. What else comes from the address of a check belongs to the session of the latest one: a router gives an
//! address that was one browser's to the next. Everything else is nobody's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use str0m::{ice::StunMessage, net::Protocol};
use tokio::sync::mpsc;

use super::socket::Received;

/// Datagrams that wait for a session. When full, the newest is lost, as it may be anywhere on the way.
const WAITING: usize = 256;
/// Addresses that one session is reached from: each network of the other side has some.
const ADDRESSES: usize = 16;

/// A datagram for a session.
#[derive(Debug)]
pub(super) struct Datagram {
    pub at: Instant,
    pub protocol: Protocol,
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Box<[u8]>,
}

/// Who sends: an address is one peer by UDP and another by TCP.
type Peer = (Protocol, SocketAddr);

/// Every session's inbox.
#[derive(Debug, Default)]
pub(super) struct Switchboard {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<String, Inbox>,
    by_address: HashMap<Peer, Whose>,
}

#[derive(Debug)]
struct Whose {
    name: String,
    sender: mpsc::Sender<Datagram>,
}

#[derive(Debug)]
struct Inbox {
    sender: mpsc::Sender<Datagram>,
    addresses: Vec<Peer>,
}

/// A session's place at the switchboard; given back when dropped.
#[derive(Debug)]
pub(super) struct Plugged {
    board: Arc<Switchboard>,
    name: String,
    pub inbox: mpsc::Receiver<Datagram>,
}

impl Switchboard {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for the session of that name, the ICE user name fragment that it gave itself.
    pub fn plug(self: &Arc<Self>, name: String) -> Plugged {
        let (sender, inbox) = mpsc::channel(WAITING);
        self.lock().by_name.insert(name.clone(), Inbox { sender, addresses: Vec::new() });
        Plugged { board: self.clone(), name, inbox }
    }

    /// Brings a datagram to its session. Whether there is one.
    pub fn pass(&self, at: Instant, received: Received<'_>) -> bool {
        let Received { protocol, from, to, bytes } = received;
        let peer = (protocol, from);
        let mut inner = self.lock();
        if let Some(name) = name_in(bytes) {
            inner.introduce(peer, &name);
        }
        let Some(sender) = inner.by_address.get(&peer).map(|whose| whose.sender.clone()) else { return false };
        drop(inner);
        let _ = sender.try_send(Datagram { at, protocol, from, to, bytes: bytes.into() });
        true
    }

    /// From now on this address is nobody's: its connection is closed.
    pub fn forget(&self, protocol: Protocol, from: SocketAddr) {
        let peer = (protocol, from);
        let mut inner = self.lock();
        let Some(whose) = inner.by_address.remove(&peer) else { return };
        if let Some(inbox) = inner.by_name.get_mut(&whose.name) {
            inbox.addresses.retain(|address| *address != peer);
        }
    }
}

/// The session that an ICE check asks for.
fn name_in(bytes: &[u8]) -> Option<String> {
    // Nothing but a STUN message begins with these bits (RFC 7983 section 7).
    if bytes.first().is_none_or(|b| *b > 3) {
        return None;
    }
    let message = StunMessage::parse(bytes).ok().filter(StunMessage::is_binding_request)?;
    message.split_username().map(|(name, _)| name.to_owned())
}

impl Inner {
    /// From now on this address is that session's, if there is one of that name.
    fn introduce(&mut self, from: Peer, name: &str) {
        if self.by_address.get(&from).is_some_and(|whose| whose.name == name) {
            return;
        }
        let Some(inbox) = self.by_name.get_mut(name).filter(|i| i.addresses.len() < ADDRESSES) else { return };
        inbox.addresses.push(from);
        self.by_address.insert(from, Whose { name: name.to_owned(), sender: inbox.sender.clone() });
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        if let Some(inbox) = inner.by_name.remove(&self.name) {
            for address in inbox.addresses {
                if inner.by_address.get(&address).is_some_and(|whose| whose.name == self.name) {
                    inner.by_address.remove(&address);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{call::fixtures::check, host::clock};

    struct Line {
        board: Arc<Switchboard>,
        protocol: Protocol,
        from: SocketAddr,
    }

    impl Line {
        fn says(&self, bytes: &[u8]) -> bool {
            let to = "10.0.0.1:8443".parse().unwrap();
            self.board.pass(clock::instant(), Received { protocol: self.protocol, from: self.from, to, bytes })
        }
    }

    fn heard(session: &mut Plugged) -> usize {
        std::iter::from_fn(|| session.inbox.try_recv().ok()).count()
    }

    #[test]
    fn an_address_is_the_sessions_that_it_last_asked_for() {
        let board = Arc::new(Switchboard::default());
        let (mut a, mut b) = (board.plug("aaaa".into()), board.plug("bbbb".into()));
        let line = Line { board: board.clone(), protocol: Protocol::Udp, from: "192.0.2.7:5000".parse().unwrap() };
        line.says(&[0x80, 0, 1]);
        line.says(&check("cccc"));
        assert_eq!((heard(&mut a), heard(&mut b)), (0, 0), "nobody is asked for yet");
        line.says(&check("aaaa"));
        line.says(&[0x80, 0, 1]);
        assert_eq!((heard(&mut a), heard(&mut b)), (2, 0));
        line.says(&check("bbbb"));
        line.says(&[0x80, 0, 1]);
        assert_eq!((heard(&mut a), heard(&mut b)), (0, 2), "the router gave the address to another browser");
        drop(a);
        line.says(&[0x80, 0, 1]);
        assert_eq!(heard(&mut b), 1, "what another session leaves behind is not this one's");
        drop(b);
        assert!(board.lock().by_address.is_empty() && board.lock().by_name.is_empty());
    }

    #[test]
    fn a_session_is_reached_from_some_addresses_and_not_from_any_number() {
        let board = Arc::new(Switchboard::default());
        let mut session = board.plug("aaaa".into());
        for port in 1..100 {
            let from = SocketAddr::from(([192, 0, 2, 7], port));
            Line { board: board.clone(), protocol: Protocol::Udp, from }.says(&check("aaaa"));
        }
        assert_eq!(heard(&mut session), ADDRESSES);
    }

    #[test]
    fn an_address_is_one_peer_by_udp_and_another_by_tcp_and_a_closed_connection_makes_room() {
        let board = Arc::new(Switchboard::default());
        let (mut a, mut b) = (board.plug("aaaa".into()), board.plug("bbbb".into()));
        let from = "192.0.2.7:5000".parse().unwrap();
        let [udp, tcp] = [Protocol::Udp, Protocol::Tcp].map(|protocol| Line { board: board.clone(), protocol, from });
        assert!(udp.says(&check("aaaa")) && !tcp.says(&[0x80, 0, 1]));
        assert!(tcp.says(&check("bbbb")) && udp.says(&[0x80, 0, 1]));
        assert_eq!((heard(&mut a), heard(&mut b)), (2, 1));
        for _ in 0..100 {
            board.forget(Protocol::Tcp, from);
            assert!(!tcp.says(&[0x80, 0, 1]) && tcp.says(&check("bbbb")));
        }
        assert!(udp.says(&[0x80, 0, 1]));
        assert_eq!((heard(&mut a), heard(&mut b)), (1, 100));
    }
}
