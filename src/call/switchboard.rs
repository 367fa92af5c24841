//! Whose datagram it is. A session is found by the address that its datagrams come from; an address nobody knows yet must
//! first ask for one by name: the user name of an ICE check (RFC 8445 section 7.3) begins with the name that our answer
//! gave the session. Everything else is nobody's.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Instant,
};

use str0m::ice::StunMessage;
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
    pub from: SocketAddr,
    pub to: SocketAddr,
    pub bytes: Box<[u8]>,
}

/// Every session's inbox.
#[derive(Debug, Default)]
pub(super) struct Switchboard {
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    by_name: HashMap<String, Inbox>,
    by_address: HashMap<SocketAddr, mpsc::Sender<Datagram>>,
}

#[derive(Debug)]
struct Inbox {
    sender: mpsc::Sender<Datagram>,
    addresses: Vec<SocketAddr>,
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

    /// Brings a datagram to its session.
    pub fn pass(&self, at: Instant, received: Received<'_>) {
        let Received { from, to, bytes } = received;
        let mut inner = self.lock();
        let Some(sender) = inner.by_address.get(&from).cloned().or_else(|| inner.introduce(from, bytes)) else {
            return;
        };
        drop(inner);
        let _ = sender.try_send(Datagram { at, from, to, bytes: bytes.into() });
    }
}

impl Inner {
    /// An address that was not heard of before.
    fn introduce(&mut self, from: SocketAddr, bytes: &[u8]) -> Option<mpsc::Sender<Datagram>> {
        // Nothing but a STUN message begins with these bits (RFC 7983 section 7).
        if bytes.first().is_none_or(|b| *b > 3) {
            return None;
        }
        let message = StunMessage::parse(bytes).ok().filter(StunMessage::is_binding_request)?;
        let (name, _) = message.split_username()?;
        let inbox = self.by_name.get_mut(name).filter(|i| i.addresses.len() < ADDRESSES)?;
        inbox.addresses.push(from);
        self.by_address.insert(from, inbox.sender.clone());
        Some(inbox.sender.clone())
    }
}

impl Drop for Plugged {
    fn drop(&mut self) {
        let mut inner = self.board.lock();
        if let Some(inbox) = inner.by_name.remove(&self.name) {
            inbox.addresses.iter().for_each(|address| drop(inner.by_address.remove(address)));
        }
    }
}
