//! What is looked up: the only file that names sled. Everything in here can be made again from the log.
//!
//! sled keeps a prefix of what was written to it, so rows written later never outlive rows written earlier. All changes
//! are idempotent: applying a segment's records again gives the same rows.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{File, TryLockError},
    path::Path,
    thread,
    time::Duration,
};

use serde::{Deserialize, Serialize};
use sled::{Db, Tree};

use super::{
    error::Error,
    object::{
        At, BUFFERS, DeliveredMark, MediaLane, ObjectRef, buffer_prefix, camera_prefix, incident_prefix, sortable,
    },
    place::Place,
    retention::SegmentUse,
};
use crate::district::{
    clock::Utc,
    ids::{CameraId, IncidentId},
};

/// How long an index that was just closed may be locked still, and how often it is looked.
const LOCKED: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(10);

/// Between the beginning of a word about a gap and its end other words may begin, but no more than this.
const BACK: usize = 256;

/// A change to the index, always after it is durable in the log.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// An object is stored.
    Stored(ObjectRef),
    /// This object is at headquarters.
    Delivered(DeliveredMark),
}

/// A segment that will not change any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Sealed {
    pub bytes: u64,
    pub objects: u64,
}

pub(super) struct Index {
    db: Db,
    /// Object key -> object; what is delivered is said in `by_segment`, so that this is written once.
    objects: Tree,
    /// Delivery order -> object key.
    pending: Tree,
    /// Segment, offset -> [`Place`].
    by_segment: Tree,
    /// Segment -> [`Sealed`].
    sealed: Tree,
}

/// Counts up when rows change their meaning. An index of another version is built anew.
const VERSION: &[u8] = b"4";

fn failed(doing: &'static str) -> impl FnOnce(sled::Error) -> Error {
    move |e| Error::Index { doing, error: e.to_string() }
}

fn unreadable(e: serde_json::Error) -> Error {
    Error::Index { doing: "read a row", error: e.to_string() }
}

/// sled's threads hold the lock on its file a little longer than whoever closed it. An index that is merely locked is no
/// broken one, and nothing is to be built anew for it.
fn wait_for_the_last(dir: &Path) {
    let Ok(file) = File::open(dir.join("db")) else { return };
    for _ in 0..LOCKED.as_millis() / LOOK.as_millis() {
        match file.try_lock() {
            Err(TryLockError::WouldBlock) => thread::sleep(LOOK),
            // Free, or to be told by sled; closing the file lets it go.
            _ => return,
        }
    }
}

impl Index {
    pub fn open(dir: &Path) -> Result<Self, Error> {
        wait_for_the_last(dir);
        let config =
            sled::Config::new().path(dir).cache_capacity(16 << 20).flush_every_ms(None).mode(sled::Mode::LowSpace);
        let db = config.open().map_err(failed("open"))?;
        let tree = |name: &str| db.open_tree(name).map_err(failed("open a tree"));
        let (objects, pending) = (tree("objects")?, tree("pending")?);
        let (by_segment, sealed) = (tree("by_segment")?, tree("sealed")?);
        match db.get("version").map_err(failed("read the version of"))? {
            Some(version) if version == VERSION => {}
            None if objects.is_empty() => drop(db.insert("version", VERSION).map_err(failed("write the version of"))?),
            _ => return Err(Error::Index { doing: "open", error: "it is of another version".into() }),
        }
        Ok(Self { db, objects, pending, by_segment, sealed })
    }

    pub fn flush(&self) -> Result<(), Error> {
        self.db.flush().map(drop).map_err(failed("flush"))
    }

    /// Applies changes in order; says how the use of segments changes.
    pub fn apply(&self, changes: &[Change], uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        for change in changes {
            match change {
                Change::Stored(object) => self.store(object, uses)?,
                Change::Delivered(mark) => self.deliver(mark, uses)?,
            }
        }
        Ok(())
    }

    fn store(&self, object: &ObjectRef, uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        let key = object.meta.key();
        let mut row = object.clone();
        let mut known = false;
        if let Some(old) = self.get(&key)? {
            if old.at == object.at {
                // Known already; what may be missing after a crash are the rows that follow.
                row.delivered = old.delivered;
                known = old == row;
            } else if (old.at.sequence, old.at.segment) > (object.at.sequence, object.at.segment) {
                // Of two with one sequence the older was an unfinished write.
                return Ok(());
            } else {
                // The same bytes written again elsewhere are as delivered as before.
                row.delivered = old.delivered && old.meta.sha256 == object.meta.sha256;
                self.leave(&old, uses)?;
            }
        }
        if !known {
            let bytes = serde_json::to_vec(&row).map_err(unreadable)?;
            self.objects.insert(&key, bytes).map_err(failed("write an object"))?;
        }
        if row.delivered {
            self.pending.remove(row.meta.pending_key()).map_err(failed("remove a row"))?;
        } else {
            self.pending.insert(row.meta.pending_key(), key.as_slice()).map_err(failed("write a row"))?;
        }
        self.place(&row, &key, uses)
    }

    /// Says where an object lies and whether it is delivered: its end last, which speaks for the object.
    fn place(&self, object: &ObjectRef, key: &[u8], uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        for at in object.places() {
            let place = Place::of(object, at);
            let before = self.by_segment.insert(segment_key(at), place.encode(key)).map_err(failed("write a row"))?;
            if let Some((before, _)) = before.as_deref().map(Place::decode).transpose()? {
                before.count(uses, at.segment, -1);
            }
            place.count(uses, at.segment, 1);
        }
        Ok(())
    }

    /// Of an object that lies elsewhere from now on, or nowhere.
    fn leave(&self, object: &ObjectRef, uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        for at in object.places() {
            let known = self.by_segment.remove(segment_key(at)).map_err(failed("remove a row"))?;
            if let Some((place, _)) = known.as_deref().map(Place::decode).transpose()? {
                place.count(uses, at.segment, -1);
            }
        }
        Ok(())
    }

    fn deliver(&self, mark: &DeliveredMark, uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        let key = mark.key();
        let Some(mut row) = self.get(&key)?.filter(|row| mark.is_about(&row.meta)) else { return Ok(()) };
        if !row.delivered {
            row.delivered = true;
            self.place(&row, &key, uses)?;
        }
        self.pending.remove(row.meta.pending_key()).map(drop).map_err(failed("remove a row"))
    }

    pub fn get(&self, key: &[u8]) -> Result<Option<ObjectRef>, Error> {
        let row = self.objects.get(key).map_err(failed("read an object"))?;
        row.map(|bytes| self.object(&bytes)).transpose()
    }

    /// An object from its row, and whether it is delivered.
    fn object(&self, row: &[u8]) -> Result<ObjectRef, Error> {
        let object: ObjectRef = serde_json::from_slice(row).map_err(unreadable)?;
        let place = self.by_segment.get(segment_key(object.at)).map_err(failed("read a segment"))?;
        let place = place.as_deref().map(Place::decode).transpose()?;
        let delivered = place.is_some_and(|(place, key)| place.delivered && key == object.meta.key());
        Ok(ObjectRef { delivered, ..object })
    }

    /// The first `limit` objects to deliver, of one lane or of all.
    pub fn pending(&self, lane: Option<MediaLane>, limit: usize) -> Result<Vec<ObjectRef>, Error> {
        let mut found = Vec::new();
        let prefix = lane.map(|lane| vec![lane as u8]).unwrap_or_default();
        for key in self.pending.scan_prefix(prefix).values() {
            if found.len() == limit {
                break;
            }
            let object = self.get(&key.map_err(failed("read what is pending"))?)?;
            found.extend(object.filter(|o| !o.delivered));
        }
        Ok(found)
    }

    /// A camera's objects in an incident, in order.
    pub fn evidence(&self, incident: IncidentId, camera: &CameraId) -> Result<Vec<ObjectRef>, Error> {
        self.objects
            .scan_prefix(camera_prefix(incident, camera))
            .values()
            .map(|row| self.object(&row.map_err(failed("read evidence"))?))
            .collect()
    }

    /// The newest object of a camera's buffer that begins before `before`, words about gaps included.
    pub fn buffer_before(&self, camera: &CameraId, before: Utc) -> Result<Option<ObjectRef>, Error> {
        let first = buffer_prefix(camera);
        let end = [first.as_slice(), &sortable(before)].concat();
        let row = self.objects.range(first..end).next_back().transpose().map_err(failed("read a buffer"))?;
        row.map(|(_, row)| self.object(&row)).transpose()
    }

    /// A camera's buffer, words about gaps included: what begins before `from` and may reach beyond it, the latest first and
    /// no more than [`BACK`]; then what begins between `from` and `to`, in order.
    pub fn buffer(
        &self,
        camera: &CameraId,
        (from, to): (Utc, Utc),
    ) -> impl Iterator<Item = Result<ObjectRef, Error>> + '_ {
        let first = buffer_prefix(camera);
        let begun = [first.as_slice(), &sortable(from)].concat();
        let before = self.objects.range(first..begun).rev().take(BACK);
        let before = before.map(|row| self.object(&row.map_err(failed("read a buffer"))?.1));
        before.chain(self.buffer_begun(camera, (from, to)))
    }

    /// What of a camera's buffer begins between two moments, words about gaps included, in order.
    pub fn buffer_begun(
        &self,
        camera: &CameraId,
        (from, to): (Utc, Utc),
    ) -> impl Iterator<Item = Result<ObjectRef, Error>> + '_ {
        let first = buffer_prefix(camera);
        let key = |at| [first.as_slice(), &sortable(at)].concat();
        self.objects.range(key(from)..key(to)).map(|row| self.object(&row.map_err(failed("read a buffer"))?.1))
    }

    /// Incidents with objects, the oldest first.
    pub fn incidents(&self) -> Result<Vec<IncidentId>, Error> {
        let mut found = Vec::new();
        let mut next = self.objects.first();
        while let Some((key, _)) = next.map_err(failed("read incidents"))? {
            if key.first() == Some(&BUFFERS) {
                break;
            }
            let text = key.split(|b| *b == 0).next().unwrap_or_default();
            let id: IncidentId = std::str::from_utf8(text)
                .ok()
                .and_then(|t| t.parse().ok())
                .ok_or_else(|| Error::Index { doing: "read incidents", error: "a key is no incident's".into() })?;
            found.push(id);
            // The least key after all of this incident's.
            let mut after = incident_prefix(id);
            after.pop();
            after.push(1);
            next = self.objects.range(after..).next().transpose();
        }
        Ok(found)
    }

    /// Every object with its key, in order of the keys.
    pub fn objects(&self) -> impl Iterator<Item = Result<(Vec<u8>, ObjectRef), Error>> {
        self.objects.iter().map(|row| {
            let (key, value) = row.map_err(failed("read an object"))?;
            Ok((key.to_vec(), self.object(&value)?))
        })
    }

    /// Whether the rows beside an object's own are there: that it waits, unless it is delivered, and where it lies. Of one
    /// that is `marked` as delivered, by a mark that the next start applies, some may say so already.
    pub fn is_whole(&self, object: &ObjectRef, marked: bool) -> Result<bool, Error> {
        let key = object.meta.key();
        let waits = self.pending.get(object.meta.pending_key()).map_err(failed("read what is pending"))?;
        for at in object.places() {
            let row = self.by_segment.get(segment_key(at)).map_err(failed("read a segment"))?;
            let place = Place::of(object, at);
            let is = |row: &[u8]| row == place.encode(&key) || marked && row == place.as_delivered().encode(&key);
            if !row.is_some_and(|row| is(&row)) {
                return Ok(false);
            }
        }
        Ok(object.delivered || waits.is_some_and(|waits| waits == key))
    }

    /// How many rows say that something waits that is delivered or not there; but for the objects of `marks`, of which
    /// it may not have been written yet that they wait no more.
    pub fn waiting_in_vain(&self, marks: &BTreeSet<Vec<u8>>) -> Result<u64, Error> {
        let mut found = 0;
        for key in self.pending.iter().values() {
            let key = key.map_err(failed("read what is pending"))?;
            let in_vain = self.get(&key)?.is_none_or(|o| o.delivered && !marks.contains(&*key));
            found += u64::from(in_vain);
        }
        Ok(found)
    }

    /// Leaves of an object what a crash leaves that comes before the last of its rows.
    #[cfg(test)]
    pub fn tear(&self, object: &ObjectRef) {
        self.pending.remove(object.meta.pending_key()).unwrap();
        self.by_segment.remove(segment_key(object.at)).unwrap();
    }

    pub fn seal(&self, segment: u64, sealed: Sealed) -> Result<(), Error> {
        let bytes = serde_json::to_vec(&sealed).map_err(unreadable)?;
        self.sealed.insert(segment.to_be_bytes(), bytes).map(drop).map_err(failed("seal a segment"))
    }

    /// Segments that it knows as complete, of those that are there with so many bytes, given what it holds of each.
    pub fn complete(
        &self,
        there: &BTreeMap<u64, u64>,
        uses: &BTreeMap<u64, SegmentUse>,
    ) -> Result<BTreeSet<u64>, Error> {
        let mut complete = BTreeSet::new();
        for (&number, &bytes) in there {
            let row = self.sealed.get(number.to_be_bytes()).map_err(failed("read sealed segments"))?;
            let sealed: Option<Sealed> = row.map(|row| serde_json::from_slice(&row).map_err(unreadable)).transpose()?;
            let objects = uses.get(&number).map_or(0, |held| held.objects);
            if sealed == Some(Sealed { bytes, objects }) {
                complete.insert(number);
            }
        }
        Ok(complete)
    }

    /// What each segment holds, by the index; sizes of files are not known here. Objects themselves are not read for it.
    pub fn uses(&self) -> Result<BTreeMap<u64, SegmentUse>, Error> {
        let mut uses = BTreeMap::new();
        for row in self.by_segment.iter() {
            let (at, row) = row.map_err(failed("read segments"))?;
            Place::decode(&row)?.0.count(&mut uses, number(&at)?, 1);
        }
        Ok(uses)
    }

    /// The objects with something in a segment, in order.
    pub fn objects_in(&self, segment: u64) -> Result<Vec<ObjectRef>, Error> {
        let (mut found, mut seen) = (Vec::new(), BTreeSet::new());
        for row in self.by_segment.scan_prefix(segment.to_be_bytes()) {
            let (at, row) = row.map_err(failed("read a segment"))?;
            let (_, key) = Place::decode(&row)?;
            if !seen.insert(key.to_vec()) {
                continue;
            }
            match self.get(key)?.filter(|object| object.places().any(|at| at.segment == segment)) {
                Some(object) => found.push(object),
                // It was being forgotten when the process died.
                None => drop(self.by_segment.remove(&at).map_err(failed("remove a row"))?),
            }
        }
        Ok(found)
    }

    /// Forgets a segment and its objects; what else lies of them in others counts there no more.
    pub fn forget(&self, segment: u64, uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        let mut others = BTreeSet::new();
        for object in self.objects_in(segment)? {
            others.extend(object.places().map(|at| at.segment));
            self.forget_object(&object, uses)?;
        }
        self.sealed.remove(segment.to_be_bytes()).map_err(failed("remove a row"))?;
        uses.remove(&segment);
        others.remove(&segment);
        for other in others {
            let sealed = self.sealed.contains_key(other.to_be_bytes()).map_err(failed("read sealed segments"))?;
            if let Some(held) = uses.get(&other).filter(|_| sealed) {
                self.seal(other, Sealed { bytes: held.bytes, objects: held.objects })?;
            }
        }
        Ok(())
    }

    /// Forgets one object.
    pub fn forget_object(&self, object: &ObjectRef, uses: &mut BTreeMap<u64, SegmentUse>) -> Result<(), Error> {
        self.pending.remove(object.meta.pending_key()).map_err(failed("remove a row"))?;
        self.objects.remove(object.meta.key()).map_err(failed("remove a row"))?;
        self.leave(object, uses)
    }
}

fn segment_key(at: At) -> [u8; 16] {
    let mut key = [0; 16];
    key[..8].copy_from_slice(&at.segment.to_be_bytes());
    key[8..].copy_from_slice(&at.offset.to_be_bytes());
    key
}

fn number(key: &[u8]) -> Result<u64, Error> {
    let bytes = key.get(..8).and_then(|b| b.try_into().ok());
    let bytes = bytes.ok_or_else(|| Error::Index { doing: "read a row", error: "a key is too short".into() })?;
    Ok(u64::from_be_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spool::object::{Buffer, Missing, ObjectMeta};

    fn word(n: i64) -> ObjectMeta {
        let (from, to) = (Utc::from_micros(n), Utc::from_micros(n + 1_000_000));
        let missing = Missing { reason: crate::district::evidence::GapReason::Evicted, bytes: 0 };
        ObjectMeta::missing("c1".parse().unwrap(), Buffer::Outage, (from, to), missing)
    }

    /// Without segments of which nothing is left.
    fn held(uses: BTreeMap<u64, SegmentUse>) -> BTreeMap<u64, SegmentUse> {
        uses.into_iter().filter(|(_, held)| held.objects > 0).collect()
    }

    #[test]
    fn an_object_half_marked_is_whole_where_its_mark_is_applied_again_and_is_counted_once() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index")).unwrap();
        let at = |segment, offset, sequence| At { segment, offset, sequence };
        // One in two chunks, and beside each of them another that waits.
        let object = ObjectRef { before: vec![at(1, 40, 1)], ..ObjectRef::whole(word(0), at(2, 40, 3)) };
        let others = [(1, at(1, 80, 2)), (2, at(2, 80, 4))].map(|(n, at)| ObjectRef::whole(word(n), at));
        let stored = [&object, &others[0], &others[1]].map(|o| Change::Stored(o.clone()));
        index.apply(&stored, &mut BTreeMap::new()).unwrap();
        assert!(index.is_whole(&object, false).unwrap());
        // A process that dies in the middle of a mark has written the first of its rows.
        let delivered = Place::of(&object, object.before[0]).as_delivered();
        index.by_segment.insert(segment_key(object.before[0]), delivered.encode(&object.meta.key())).unwrap();
        assert!(!index.get(&object.meta.key()).unwrap().unwrap().delivered);
        assert!(!index.is_whole(&object, false).unwrap() && index.is_whole(&object, true).unwrap());
        let mut uses = index.uses().unwrap();
        let [first, ..] = stored;
        index.apply(&[first, Change::Delivered(DeliveredMark::of(&object.meta))], &mut uses).unwrap();
        assert!(index.get(&object.meta.key()).unwrap().unwrap().delivered);
        assert_eq!(uses, index.uses().unwrap());
        assert_eq!((uses[&1].undelivered, uses[&2].undelivered), (1, 1));
    }

    #[test]
    fn a_mark_is_about_the_bytes_that_were_delivered() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index")).unwrap();
        let at = At { segment: 1, offset: 40, sequence: 1 };
        let again = ObjectMeta { sha256: [7; 32], ..word(0) };
        let changes = [Change::Stored(ObjectRef::whole(again, at)), Change::Delivered(DeliveredMark::of(&word(0)))];
        index.apply(&changes, &mut BTreeMap::new()).unwrap();
        assert!(!index.get(&word(0).key()).unwrap().unwrap().delivered);
    }

    #[test]
    fn an_object_that_moves_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let index = Index::open(&dir.path().join("index")).unwrap();
        let mut uses = BTreeMap::new();
        let place = |segment, sequence| ObjectRef::whole(word(0), At { segment, offset: 40, sequence });
        let mark = Change::Delivered(DeliveredMark::of(&word(0)));
        index.apply(&[Change::Stored(place(1, 1)), mark, Change::Stored(place(2, 2))], &mut uses).unwrap();
        assert!(index.get(&word(0).key()).unwrap().unwrap().delivered, "the same bytes are as delivered as before");
        assert_eq!(held(uses.clone()), index.uses().unwrap());
        // A row of it in a segment that it does not lie in takes it not along.
        let stale = At { segment: 1, offset: 40, sequence: 1 };
        index.by_segment.insert(segment_key(stale), Place::of(&place(1, 1), stale).encode(&word(0).key())).unwrap();
        index.forget(1, &mut uses).unwrap();
        assert!(index.get(&word(0).key()).unwrap().is_some());
        assert_eq!(held(uses), index.uses().unwrap());
    }
}
