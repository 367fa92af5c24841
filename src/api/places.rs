//! How many callers there may be: in all, and from one address. Each costs a file descriptor, and those are needed for
//! the buttons' connections and the journal's segments.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// The places, shared by all connections.
#[derive(Debug)]
pub(super) struct Places {
    taken: Mutex<HashMap<IpAddr, usize>>,
    all: usize,
    each: usize,
}

/// One caller's place; given back when dropped.
#[derive(Debug)]
pub(super) struct Place {
    places: Arc<Places>,
    address: IpAddr,
}

impl Places {
    /// `all` places, at most `each` of them for one address (IPv6: for one /64).
    pub(super) fn new(all: usize, each: usize) -> Arc<Self> {
        Arc::new(Self { taken: Mutex::default(), all, each })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<IpAddr, usize>> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, if there is one.
    pub(super) fn take(self: &Arc<Self>, address: IpAddr) -> Option<Place> {
        let address = network(address);
        let mut taken = self.lock();
        let here = taken.get(&address).copied().unwrap_or(0);
        if here >= self.each || taken.values().sum::<usize>() >= self.all {
            return None;
        }
        taken.insert(address, here + 1);
        Some(Place { places: self.clone(), address })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut taken = self.places.lock();
        if let Some(here) = taken.get_mut(&self.address) {
            *here -= 1;
            if *here == 0 {
                taken.remove(&self.address);
            }
        }
    }
}

fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_take_every_place() {
        let places = Places::new(3, 2);
        let (a, b): (IpAddr, IpAddr) = ("10.0.0.1".parse().unwrap(), "::ffff:10.0.0.2".parse().unwrap());
        let first = places.take(a).unwrap();
        let _second = places.take(a).unwrap();
        assert!(places.take(a).is_none());
        let _third = places.take(b).unwrap();
        assert!(places.take(b).is_none(), "all are taken");
        drop(first);
        assert!(places.take(b).is_some());
    }
}
