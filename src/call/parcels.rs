//! A camera's frames as RTP payloads, made once for all who watch it.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};

use crate::media::{
    frame::Frame,
    packets::{self, Payloads},
};

/// Frames kept: viewers are some frames apart at most. When full, the oldest is forgotten, and made again if need be.
const KEPT: usize = 64;
/// Largest payload: with headers, extensions and SRTP's tag, and a tunnel's, it fits into what every line carries.
const MOST: usize = 1_140;

/// The payloads of the latest frames.
#[derive(Debug, Default)]
pub(super) struct Parcels(Mutex<VecDeque<(Arc<Frame>, Arc<Payloads>)>>);

impl Parcels {
    /// A frame's payloads. None: browsers take none of its kind.
    pub fn of(&self, frame: &Arc<Frame>) -> Option<Arc<Payloads>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, payloads)) = kept.iter().rev().find(|(known, _)| Arc::ptr_eq(known, frame)) {
            return Some(payloads.clone());
        }
        let payloads = Arc::new(packets::payloads(frame, MOST)?);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back((frame.clone(), payloads.clone()));
        Some(payloads)
    }
}
