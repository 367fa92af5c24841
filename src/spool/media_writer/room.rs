//! Making room: which segments go is decided by [`retention`](super::super::retention); what of them may not go is written
//! again first, and so is the word about what goes.

use std::sync::atomic::Ordering::Relaxed;

use bytes::Bytes;

use super::Writer;
use crate::{
    district::evidence::{Gap, GapReason},
    spool::{
        error::Error,
        gone::{Evicted, evicted, gaps},
        media_log::MediaSettings,
        object::{ObjectMeta, ObjectRef},
        retention::{Pressure, SegmentUse, decide},
    },
};

/// Bytes that are read and written again at a time.
const CARRIED_AT_ONCE: usize = 8 << 20;

impl Writer {
    /// Evicts until `need` bytes fit; the reason when they do not.
    pub(super) fn make_room(&mut self, need: u64) -> Option<Error> {
        let (current, uncut) = (self.log.current_segment(), self.log.first_uncut().unwrap_or(u64::MAX));
        let free = match self.shared.disk.free(&self.shared.dir) {
            Ok(free) => free,
            Err(e) => return Some(Error::io("ask for the free space of", &self.shared.dir)(e)),
        };
        let MediaSettings { quota, keep_free, .. } = self.settings;
        let uses = &self.indexing.uses;
        let used = uses.values().map(|u| u.bytes).sum();
        let pressure = Pressure { used, quota, free, keep_free, need };
        let mut decision = decide(&self.may_go(current, uncut), pressure);
        let unknown = |number: &u64| uses.get(number).is_some_and(|u| u.undelivered > 0);
        if decision.short > 0 || self.indexing.has_refused() || decision.evict.iter().any(unknown) {
            // What is due may be that headquarters has it.
            if let Err(error) = self.indexing.settle() {
                return Some(error);
            }
            decision = decide(&self.may_go(current, uncut), pressure);
        }
        for number in decision.evict {
            if let Err(error) = self.evict(number) {
                return Some(error);
            }
        }
        if decision.short == 0 {
            return None;
        }
        // What is in the segment that is being written may go: then it goes next time.
        if self.indexing.uses.values().any(|u| Some(u.number) == current && u.can_go()) {
            self.log.roll();
        }
        Some(Error::Full { queued: used + need, limit: quota.min(used.saturating_add(free.saturating_sub(keep_free))) })
    }

    /// What a decision is about: nothing that still grows, nothing of which the index does not know all, and nothing after
    /// what is not cut off.
    fn may_go(&self, current: Option<u64>, uncut: u64) -> Vec<SegmentUse> {
        let growing = self.chunks.first_segment().min(self.indexing.first_segment());
        let may_go = |u: &&SegmentUse| Some(u.number) != current && u.number < growing && u.number <= uncut;
        self.indexing.uses.values().filter(may_go).copied().collect()
    }

    /// Removes a segment. What of it may not go is written again first, and so is the word about what goes: a crash in
    /// between leaves both, and the segment goes another time.
    fn evict(&mut self, number: u64) -> Result<(), Error> {
        // An eviction that nobody would hear of does not happen.
        let waiting = self.evictions.max_capacity() as u64;
        let permit = self.evictions.clone().try_reserve_owned();
        let permit = permit.map_err(|_| Error::Full { queued: waiting, limit: waiting })?;
        let index = self.shared.index()?;
        let objects = index.objects_in(number)?.into_iter().filter(|o| !self.indexing.is_gone(o));
        let (known, unknown): (Vec<_>, Vec<_>) = objects.partition(|o| o.delivered);
        let (stay, go): (Vec<_>, Vec<_>) = unknown.into_iter().partition(|o| o.meta.stays());
        let damaged = self.carry_over(&stay)?;
        let mut parts = evicted(&known);
        let lost = |part: Evicted| Evicted { gap: Gap { reason: GapReason::DiskFailed, ..part.gap }, ..part };
        parts.extend(evicted(&damaged).into_iter().map(lost));
        let gaps = gaps(&index, &go)?;
        if !gaps.is_empty() {
            let bytes: u64 = go.iter().map(|o| o.meta.size).sum();
            tracing::warn!(
                segment = number,
                objects = go.len(),
                bytes,
                "the disk is full: the oldest recordings go, and are gaps"
            );
            self.write_again(gaps.into_iter().map(|meta| (meta, Bytes::new())).collect())?;
        }
        if !parts.is_empty() {
            permit.send(parts);
        }
        self.log.remove(number)?;
        self.indexing.gone(number);
        self.shared.counts.evicted.fetch_add(1, Relaxed);
        self.shared.counts.dropped.fetch_add(go.iter().map(|o| o.meta.size).sum(), Relaxed);
        tracing::info!(segment = number, carried_over = stay.len(), "a segment was removed to make room");
        Ok(())
    }

    /// Writes again what stays of a segment that goes; gives what cannot be read any more.
    fn carry_over(&mut self, objects: &[ObjectRef]) -> Result<Vec<ObjectRef>, Error> {
        let (mut batch, mut bytes, mut damaged) = (Vec::new(), 0, Vec::new());
        for object in objects {
            let payload = match self.shared.read(object) {
                Ok(payload) => payload,
                Err(error @ (Error::Damaged { .. } | Error::Gone(_))) => {
                    tracing::error!(%error, %object, "evidence is damaged on this gateway's disk");
                    damaged.push(object.clone());
                    continue;
                }
                Err(error) => return Err(error),
            };
            bytes += payload.len();
            self.carried += payload.len() as u64;
            batch.push((ObjectMeta { chunk: 0, ..object.meta.clone() }, payload));
            if bytes > CARRIED_AT_ONCE {
                self.write_again(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        self.write_again(batch)?;
        Ok(damaged)
    }
}
