//! How many connections a listener takes: in all, and from one address. Each costs a file descriptor, and those are
//! needed for the journal's segments too.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{
    net::{TcpListener, TcpStream},
    time::sleep,
};

use super::scope::Scope;

/// How many connections there are, in all and by address; shared by all of them.
#[derive(Debug)]
pub struct Doors {
    inside: AtomicUsize,
    by_address: Mutex<HashMap<IpAddr, usize>>,
    max: usize,
    max_per_address: usize,
}

/// Which limit was reached.
#[derive(Debug, PartialEq, Eq)]
pub enum Full {
    /// There are as many as there may be.
    All,
    /// This address has as many as one may have.
    Address,
}

impl Doors {
    /// `max` in all, at most `max_per_address` of them for one address.
    pub fn new(max: usize, max_per_address: usize) -> Arc<Self> {
        Arc::new(Self { inside: AtomicUsize::new(0), by_address: Mutex::default(), max, max_per_address })
    }

    /// How many are inside.
    pub fn inside(&self) -> u64 {
        self.inside.load(Relaxed) as u64
    }

    /// Lets one in from `address` (an IPv6 address counts for its /64).
    ///
    /// # Errors
    /// [`Full`], when there is no place.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Result<Pass, Full> {
        let address = network(address);
        let mut by_address = self.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if self.inside.load(Relaxed) >= self.max {
            return Err(Full::All);
        }
        let here = by_address.entry(address).or_default();
        if *here >= self.max_per_address {
            return Err(Full::Address);
        }
        *here += 1;
        self.inside.fetch_add(1, Relaxed);
        Ok(Pass { doors: self.clone(), address })
    }
}

/// Whom an address counts for: itself, or its /64, which one household or device has to itself (RFC 6177).
pub fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

/// One connection's place among those allowed; given back when dropped.
#[derive(Debug)]
pub struct Pass {
    doors: Arc<Doors>,
    address: IpAddr,
}

impl Drop for Pass {
    fn drop(&mut self) {
        let mut by_address = self.doors.by_address.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(here) = by_address.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                by_address.remove(&self.address);
            }
        }
        self.doors.inside.fetch_sub(1, Relaxed);
    }
}

/// From one refusal of the system to take a connection to the next try.
const REFUSED: Duration = Duration::from_millis(50);

/// Takes connections and hands them to `admit`, until the scope stops.
pub async fn accept(listener: TcpListener, scope: &Scope, mut admit: impl FnMut(TcpStream, SocketAddr)) {
    let stopping = scope.stopping();
    tokio::pin!(stopping);
    loop {
        let accepted = tokio::select! {
            () = &mut stopping => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, peer)) => admit(stream, peer),
            // Out of file descriptors, most likely; or the caller has gone already.
            Err(_) => sleep(REFUSED).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_limits_hold_and_places_are_given_back() {
        let doors = Doors::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "10.0.0.2".parse().unwrap());
        let first = doors.enter(a).ok().unwrap();
        let _second = doors.enter(a).ok().unwrap();
        assert_eq!(doors.enter(a).err(), Some(Full::Address));
        let _third = doors.enter(b).ok().unwrap();
        assert_eq!(doors.enter(b).err(), Some(Full::All));
        drop(first);
        assert!(doors.enter(a).is_ok());
        assert_eq!(doors.inside(), 2);
    }

    #[test]
    fn an_ipv6_network_counts_as_one_address() {
        assert_eq!(network("2001:db8:1:2:3::9".parse().unwrap()), network("2001:db8:1:2::1".parse().unwrap()));
        assert_eq!(network("::ffff:10.0.0.1".parse().unwrap()), "10.0.0.1".parse::<IpAddr>().unwrap());
    }
}
