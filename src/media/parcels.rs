//! A camera's frames as RTP payloads, made once for all who watch it. Pure.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use super::{
    frame::Frame,
    packets::{self, Payloads},
    ring::Ring,
};

/// Frames kept: viewers are some frames apart at most. When full, the oldest is forgotten, and made again if need be.
const KEPT: usize = 64;

/// The payloads of a ring's latest frames.
#[derive(Debug)]
pub struct Parcels {
    most: usize,
    kept: Mutex<VecDeque<(Arc<Frame>, Arc<Payloads>)>>,
}

impl Parcels {
    /// Payloads of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, kept: Mutex::default() }
    }

    /// A frame's payloads. None: there is no RTP for it.
    pub fn of(&self, frame: &Arc<Frame>) -> Option<Arc<Payloads>> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, payloads)) = kept.iter().rev().find(|(known, _)| Arc::ptr_eq(known, frame)) {
            return Some(payloads.clone());
        }
        let payloads = Arc::new(packets::payloads(frame, self.most)?);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((frame.clone(), payloads.clone()));
        Some(payloads)
    }
}

/// One set of payloads for all who are shown a ring, while anybody is.
#[derive(Debug)]
pub struct Sets {
    most: usize,
    known: Vec<(Weak<Ring>, Weak<Parcels>)>,
}

impl Sets {
    /// Sets of payloads of at most `most` bytes.
    pub fn new(most: usize) -> Self {
        Self { most, known: Vec::new() }
    }

    /// That of a ring.
    pub fn of(&mut self, ring: &Arc<Ring>) -> Arc<Parcels> {
        self.known.retain(|(_, parcels)| parcels.strong_count() > 0);
        let known = self.known.iter().find(|(of, _)| std::ptr::eq(of.as_ptr(), Arc::as_ptr(ring)));
        if let Some(known) = known.and_then(|(_, parcels)| parcels.upgrade()) {
            return known;
        }
        let parcels = Arc::new(Parcels::new(self.most));
        self.known.push((Arc::downgrade(ring), Arc::downgrade(&parcels)));
        parcels
    }
}
