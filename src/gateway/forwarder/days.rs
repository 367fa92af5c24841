//! Recordings beside evidence at headquarters: for each camera and day a playlist, and a list of what is there and what is
//! not. An object counts as delivered when it stands in them.
//!
//! The lists at headquarters are the only ones: they are read back, added to and put again. So nothing of them is kept
//! here, and a crash at any moment only makes the latest objects go once more.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use bytes::Bytes;
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use tracing::{error, warn};

use super::{Fate, Forwarder, Shared};
use crate::{
    district::{
        clock::{Mono, Utc},
        evidence::{Gap, GapReason, JITTER},
        ids::CameraId,
    },
    gateway::{
        intervals::{Interval, Intervals},
        shelf::{self, Extra},
    },
    host::clock,
    media::playlist::{Entry, Playlist},
    spool::{Buffer, Kept, ObjectRef},
    uplink::objects::PutError,
};

/// Lists are put at most this often, and not before this many times their bytes of objects went: they take a fiftieth of the
/// line at most.
const EVERY: Duration = Duration::from_secs(1);
/// See [`EVERY`].
const SHARE: u64 = 50;
/// But at least this often.
const LATEST: Duration = Duration::from_secs(60);

/// What is at headquarters, or will never be, and does not stand in the lists there yet.
#[derive(Default)]
pub(super) struct Days {
    days: BTreeMap<(CameraId, String), Day>,
    names: HashSet<String>,
}

#[derive(Default)]
struct Day {
    objects: Vec<(ObjectRef, Fate)>,
    bytes: u64,
    since: Mono,
    /// Bytes of its lists when they were last put.
    listed: u64,
}

impl Days {
    /// An object is in the store, or lost; or a word about a gap is to be said.
    pub fn add(&mut self, object: ObjectRef, fate: Fate) {
        if !self.names.insert(object.to_string()) {
            return;
        }
        let day = self.days.entry((object.meta.camera.clone(), day_of(&object))).or_default();
        if day.objects.is_empty() {
            (day.since, day.bytes) = (clock::mono(), 0);
        }
        day.bytes += object.meta.size;
        day.objects.push((object, fate));
    }

    /// Whether an object waits for its lists.
    pub fn has(&self, name: &str) -> bool {
        self.names.contains(name)
    }

    /// How many do.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The day that has waited longest of those that are due; `idle` says that nothing else is on its way.
    fn due(&self, now: Mono, idle: bool) -> Option<(CameraId, String)> {
        let due = |day: &Day| {
            let age = now.since(day.since);
            let outage = || day.objects.iter().any(|(o, _)| o.meta.kept == Kept::Buffer { buffer: Buffer::Outage });
            let enough = day.bytes >= SHARE * day.listed || (idle && outage());
            !day.objects.is_empty() && (age >= LATEST || (age >= EVERY && enough))
        };
        let days = self.days.iter().filter(|(_, day)| due(day));
        days.min_by_key(|(_, day)| day.since).map(|(key, _)| key.clone())
    }
}

fn day_of(object: &ObjectRef) -> String {
    match object.meta.name.split_once('/') {
        Some((day, _)) => day.to_owned(),
        None => shelf::day_of(object.meta.from, clock::boot_id()),
    }
}

/// `coverage.json`: what headquarters has of a camera's day.
#[derive(Debug, Default, PartialEq, Serialize, Deserialize)]
struct Listed {
    /// What is there, without holes of more than half a second.
    intervals: Vec<Interval>,
    /// What nobody has.
    gaps: Vec<Hole>,
    /// Every object, in order.
    objects: BTreeMap<String, Object>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Hole {
    #[serde(flatten)]
    gap: Gap,
    /// Bytes that the gateway held once.
    bytes: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Object {
    size: u64,
    sha256: String,
    /// None: an init segment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    stretch: Option<Stretch>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Stretch {
    from: Utc,
    to: Utc,
    duration_us: u64,
    init: String,
    key: bool,
    discontinuity: bool,
    /// Whether packets were lost in it.
    lost: bool,
}

/// Holes of one reason that overlap are one: a word that grew is told again, one from before that too when an index was
/// built anew, and what was cut out of it is known.
fn united(mut holes: Vec<Hole>) -> Vec<Hole> {
    holes.sort_by_key(|hole| (hole.gap.reason as u8, hole.gap.from, hole.gap.to));
    let mut found: Vec<Hole> = Vec::new();
    for hole in holes {
        match found.last_mut() {
            Some(last) if last.gap.reason == hole.gap.reason && hole.gap.from < last.gap.to => {
                last.gap.to = last.gap.to.max(hole.gap.to);
                last.bytes = last.bytes.max(hole.bytes);
            }
            _ => found.push(hole),
        }
    }
    found
}

impl Hole {
    /// What of it is not there. An object may have gone from the disk as soon as headquarters had it, before its mark did.
    fn without(self, intervals: &[Interval]) -> Vec<Hole> {
        if self.gap.reason == GapReason::PacketsLost {
            return vec![self];
        }
        let (mut rest, mut from) = (Vec::new(), self.gap.from);
        let whole = Interval { from: self.gap.to, to: self.gap.to };
        let inside = intervals.iter().filter(|i| i.from < self.gap.to && self.gap.from < i.to);
        for held in inside.chain([&whole]) {
            // What was told is told, however short; of what is cut out, what is shorter is jitter.
            let least = if from == self.gap.from && held.from >= self.gap.to { Duration::ZERO } else { JITTER };
            if held.from.since(from) > least {
                let gap = Gap { from, to: held.from, reason: self.gap.reason };
                rest.push(Hole { gap, bytes: self.bytes });
            }
            from = from.max(held.to);
        }
        rest
    }
}

impl Listed {
    fn add(&mut self, object: &ObjectRef, fate: Fate) {
        let meta = &object.meta;
        let gap = |reason, bytes| Hole { gap: Gap { from: meta.from, to: meta.to, reason }, bytes };
        if let Some(missing) = meta.gap {
            return self.gaps.push(gap(missing.reason, missing.bytes));
        }
        if fate == Fate::Lost {
            if meta.from < meta.to {
                self.gaps.push(gap(GapReason::DiskFailed, meta.size));
            }
            return;
        }
        let stretch = match shelf::extra(meta) {
            Some(Extra::Stretch { init, discontinuity, lost, .. }) => {
                let (from, to, duration_us, key) = (meta.from, meta.to, meta.duration_us, meta.key);
                Some(Stretch { from, to, duration_us, init, key, discontinuity, lost })
            }
            _ => None,
        };
        let file = meta.name.rsplit('/').next().unwrap_or_default().to_owned();
        self.objects.insert(file, Object { size: meta.size, sha256: meta.sha256_hex(), stretch });
    }

    /// Fragments in the order of their time.
    fn stretches(&self) -> Vec<(&String, &Stretch)> {
        let mut found: Vec<_> = self.objects.iter().filter_map(|(name, o)| Some((name, o.stretch.as_ref()?))).collect();
        found.sort_by_key(|(_, s)| (s.from, s.to));
        found
    }

    /// Works out the intervals, and leaves of the gaps only what nobody has after all.
    fn settle(&mut self) {
        let mut intervals = Intervals::default();
        self.stretches().iter().for_each(|(_, s)| intervals.add(s.from, s.to));
        let intervals: Vec<Interval> = intervals.iter().collect();
        let gaps = united(std::mem::take(&mut self.gaps));
        self.gaps = gaps.into_iter().flat_map(|hole| hole.without(&intervals)).collect();
        self.gaps.sort_by_key(|hole| (hole.gap.from, hole.gap.to));
        self.intervals = intervals;
    }

    fn playlist(&self) -> String {
        let mut list = Playlist::new(shelf::fragments().longest);
        let mut gaps = self.gaps.iter().map(|hole| &hole.gap).peekable();
        let mut end: Option<Utc> = None;
        for (name, s) in self.stretches() {
            while let Some(gap) = gaps.next_if(|gap| gap.from < s.from) {
                list.gap(gap);
            }
            list.push(&Entry {
                init: s.init.clone(),
                name: name.clone(),
                duration: Duration::from_micros(s.duration_us),
                from: s.from,
                key: s.key,
                discontinuity: s.discontinuity || end.is_some_and(|end| s.from.since(end) > JITTER),
            });
            end = Some(s.to);
        }
        gaps.for_each(|gap| list.gap(gap));
        // What is there now; players that follow a list that grows are for live pictures.
        list.end();
        list.text()
    }
}

impl Forwarder {
    /// Puts the lists of a day that are due. Whether there were any.
    pub(super) async fn put_due_day(&self, shared: &Shared) -> Result<bool, PutError> {
        let idle = self.media.stats().undelivered <= shared.days().len() as u64;
        let Some(key) = shared.days().due(clock::mono(), idle) else { return Ok(false) };
        let batch = shared.days().days.get_mut(&key).map(|day| std::mem::take(&mut day.objects)).unwrap_or_default();
        let (camera, day) = &key;
        let put = self.put_day(camera, day, &batch).await;
        if put.is_ok() {
            // All at once: they share a sync.
            join_all(batch.iter().map(|(object, _)| self.mark(object))).await;
        }
        let mut days = shared.days();
        if matches!(put, Ok(_) | Err(PutError::Refused { .. })) {
            for (object, _) in &batch {
                days.names.remove(&object.to_string());
            }
        }
        let waiting = days.days.entry(key.clone()).or_default();
        match put {
            Ok(bytes) => {
                waiting.listed = bytes;
                (waiting.since, waiting.bytes) =
                    (clock::mono(), waiting.objects.iter().map(|(o, _)| o.meta.size).sum());
                Ok(true)
            }
            Err(e @ PutError::Refused { .. }) => {
                error!(error = %e, "the lists of a day are left out; its objects go again later");
                Ok(true)
            }
            Err(e) => {
                waiting.objects.splice(0..0, batch);
                Err(e)
            }
        }
    }

    /// Adds to a day's lists; gives their bytes.
    async fn put_day(&self, camera: &CameraId, day: &str, batch: &[(ObjectRef, Fate)]) -> Result<u64, PutError> {
        let folder =
            format!("{}/{day}", shelf::folder(&self.district, Kept::Buffer { buffer: Buffer::Outage }, camera));
        let name = format!("{folder}/coverage.json");
        let mut listed = match self.store.get(&name).await? {
            Some(bytes) => serde_json::from_slice(&bytes).unwrap_or_else(|e| {
                warn!(error = %e, name, "headquarters' list of a day cannot be read; it is begun anew");
                Listed::default()
            }),
            None => Listed::default(),
        };
        batch.iter().for_each(|(object, fate)| listed.add(object, *fate));
        listed.settle();
        let (playlist, json) = (listed.playlist(), serde_json::to_vec(&listed).unwrap_or_default());
        let bytes = (playlist.len() + json.len()) as u64;
        self.store.put(&format!("{folder}/index.m3u8"), Bytes::from(playlist)).await?;
        self.store.put(&name, Bytes::from(json)).await?;
        Ok(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> Utc {
        Utc::from_micros((1_800_000_000 + second) * 1_000_000)
    }

    fn hole(from: i64, to: i64, bytes: u64) -> Hole {
        Hole { gap: Gap { from: at(from), to: at(to), reason: GapReason::Evicted }, bytes }
    }

    fn held(listed: &mut Listed, from: i64, to: i64) {
        let stretch = Stretch {
            from: at(from),
            to: at(to),
            duration_us: 1,
            init: "init".into(),
            key: true,
            discontinuity: false,
            lost: false,
        };
        let object = Object { size: 1, sha256: String::new(), stretch: Some(stretch) };
        listed.objects.insert(format!("{from}.m4s"), object);
    }

    fn told(listed: &mut Listed) -> Vec<(i64, i64)> {
        listed.settle();
        let second = |t: Utc| t.micros() / 1_000_000 - 1_800_000_000;
        listed.gaps.iter().map(|hole| (second(hole.gap.from), second(hole.gap.to))).collect()
    }

    #[test]
    fn what_headquarters_has_of_a_hole_is_no_part_of_it() {
        let mut listed = Listed { gaps: vec![hole(0, 100, 9)], ..Listed::default() };
        held(&mut listed, 40, 44);
        held(&mut listed, 90, 104);
        assert_eq!(told(&mut listed), [(0, 40), (44, 90)]);
        listed.gaps.push(hole(0, 120, 11));
        assert_eq!(told(&mut listed), [(0, 40), (44, 90), (104, 120)], "the same word, grown");
        held(&mut listed, -1, 200);
        assert!(told(&mut listed).is_empty());
    }

    #[test]
    fn a_word_from_before_it_grew_that_comes_again_takes_nothing_back() {
        let mut listed = Listed { gaps: vec![hole(0, 100, 9), hole(0, 40, 4)], ..Listed::default() };
        assert_eq!(told(&mut listed), [(0, 100)]);
        assert_eq!(listed.gaps[0].bytes, 9);
    }
}
