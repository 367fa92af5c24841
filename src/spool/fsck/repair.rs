//! What a repair does. Nothing sound is lost by it, and nothing is thrown away that might be read by hand: a segment with
//! damage is kept as `*.damaged` after everything sound in it has been copied and synced.
//!
//! **The journal** is opened as at a start. With damage, every entry that counts is first written into one new segment,
//! as a snapshot, so that replay begins there and the hole is not met again.
//!
//! **The media log** is opened as at a start, the index built anew where it disagreed. Then the sound records of each
//! segment with damage are copied, as new records; what is left of it in the index is moved to [`LOST`], a segment that
//! does not exist: the gateway's next start hears of those objects as gone, and writes gaps. Until then an interrupted
//! repair can be begun again: a copy is the newer record of the same object.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::Arc,
};

use super::{
    JOURNAL, MEDIA, Options,
    read::{Folder, Segment},
};
use crate::{
    media::manifest::sha256,
    spool::{
        batch::Outgoing,
        chunks::Chunks,
        disk::{Disk, DiskFile},
        error::Error,
        index::{Change, Index},
        journal::JournalSettings,
        journal_writer::{open_log, snapshot_records},
        log::{Log, LogSettings, Placed},
        media_recovery::{self, DELIVERED, LOST, OBJECT, change},
        media_shared::read_object,
        object::{At, DeliveredMark, ObjectMeta, ObjectRef},
        recovery::{Found, weigh},
        retention::SegmentUse,
        scan::{Depth, read_header, read_record, scan},
        segment::{FIRST, LAST, Located, Purpose, file_name},
    },
};

/// What the rest of an object is called of which the beginning is there.
const REST: &str = ".rest";

/// Bytes of records that are copied with one sync.
const BATCH: u64 = 8 << 20;

/// What is to be done with the journal.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum JournalRepair {
    #[default]
    Nothing,
    /// What a start does.
    Open,
    /// All that counts goes into a new segment.
    Rewrite,
}

/// What a check leaves to a repair.
#[derive(Default)]
pub(super) struct Plan {
    pub journal: JournalRepair,
    /// Segments of the journal to be kept as `*.damaged`.
    pub journal_aside: BTreeSet<u64>,
    /// Why the index is to be built anew.
    pub rebuild: Option<String>,
    /// A copy of the index as it was.
    pub index: Option<(Index, Box<dyn Send>)>,
    /// Objects that the index knew and the log does not have.
    pub gone: Vec<ObjectRef>,
    /// Segments of evidence to be kept as `*.damaged`.
    pub aside: BTreeSet<u64>,
    /// Segments of evidence that never began.
    pub never_begun: Vec<u64>,
    /// Unfinished writes: segment, from where on, and the length of the file that is meant.
    pub cut: Vec<(u64, u64, u64)>,
}

impl Plan {
    pub fn open_journal(&mut self) {
        if self.journal == JournalRepair::Nothing {
            self.journal = JournalRepair::Open;
        }
    }

    pub fn rewrite_journal(&mut self, aside: u64) {
        self.journal = JournalRepair::Rewrite;
        self.journal_aside.insert(aside);
    }
}

/// Carries a plan out; `done` says what was done, also when it ends with an error.
pub(super) fn carry_out(
    disk: &Arc<dyn Disk>,
    data: &Path,
    options: Options,
    plan: Plan,
    done: &mut Vec<String>,
) -> Result<(), Error> {
    let (journal, media) = (Folder::list(disk, data, JOURNAL)?, Folder::list(disk, data, MEDIA)?);
    if let Some(folder) = journal {
        match plan.journal {
            JournalRepair::Nothing => {}
            JournalRepair::Open => open_journal(disk, &folder.dir, done)?,
            JournalRepair::Rewrite => rewrite_journal(&folder, &plan.journal_aside, done)?,
        }
    }
    match media {
        Some(folder) => Media::open(&folder, options, &plan, done)?.carry_out(&plan),
        None => Ok(()),
    }
}

fn open_journal(disk: &Arc<dyn Disk>, dir: &Path, done: &mut Vec<String>) -> Result<(), Error> {
    let opened = open_log(disk.clone(), dir, JournalSettings::default())?;
    disk.sync_dir(dir).map_err(Error::io("sync", dir))?;
    done.push(format!(
        "{JOURNAL}: opened as by a start: {} records written again, {} bytes of unfinished writes dropped",
        opened.report.rewritten, opened.report.dropped_bytes
    ));
    Ok(())
}

/// Writes every entry that counts into one new segment, as the snapshot that replay begins with.
fn rewrite_journal(folder: &Folder, aside: &BTreeSet<u64>, done: &mut Vec<String>) -> Result<(), Error> {
    let (mut found, mut headless) = (Vec::new(), Vec::new());
    for &number in folder.segments.keys() {
        let segment = journal_segment(folder, number)?;
        let header = match segment.header {
            Err(_) if segment.had_begun() => segment.likely_header(Purpose::Journal, found.is_empty()),
            header => header.ok(),
        };
        match header {
            Some(header) => found.push(Found { number, header, scanned: segment.scanned }),
            None => headless.push(number),
        }
    }
    let weighed = weigh(found, &headless);
    let JournalSettings { segment_bytes, reserve_bytes, .. } = JournalSettings::default();
    let settings = LogSettings {
        purpose: Purpose::Journal,
        segment_bytes,
        spares: reserve_bytes.div_ceil(segment_bytes) as usize,
    };
    let aside: BTreeSet<u64> = aside.union(&weighed.damaged).copied().collect();
    let next = (weighed.next_sequence, weighed.skipped);
    let mut log = Log::new(folder.disk.clone(), &folder.dir, settings, next, aside.clone())?;
    let records = snapshot_records(&weighed.entries);
    log.rewrite_snapshot(&records)?;
    log.top_up();
    log.roll();
    folder.disk.sync_dir(&folder.dir).map_err(Error::io("sync", &folder.dir))?;
    let kept: Vec<String> = aside.into_iter().map(|n| format!("{}.damaged", file_name(n))).collect();
    done.push(format!(
        "{JOURNAL}: {} entries written into a new segment, with which replay begins; kept: {}",
        records.len(),
        kept.join(", ")
    ));
    Ok(())
}

fn journal_segment(folder: &Folder, number: u64) -> Result<Segment, Error> {
    let path = folder.dir.join(file_name(number));
    let file = folder.disk.open_to_read(&path).map_err(Error::io("open", &path))?;
    let header = read_header(&*file).ok().flatten();
    let header = header.filter(|h| h.number == number && h.purpose == Purpose::Journal);
    let scanned = scan(&*file, number, Depth::Payloads).map_err(Error::io("read", &path))?;
    Ok(Segment { number, file: String::new(), header: header.ok_or(""), scanned, refused: None })
}

/// A media log that is being repaired.
struct Media<'a> {
    folder: &'a Folder,
    log: Log,
    index: Index,
    uses: BTreeMap<u64, SegmentUse>,
    /// Objects that are nowhere any more.
    lost: Vec<ObjectRef>,
    done: &'a mut Vec<String>,
}

impl<'a> Media<'a> {
    fn open(folder: &'a Folder, options: Options, plan: &Plan, done: &'a mut Vec<String>) -> Result<Self, Error> {
        let settings = LogSettings { purpose: Purpose::Media, segment_bytes: options.segment_bytes, spares: 0 };
        let (disk, dir) = (folder.disk.clone(), &folder.dir);
        let (rebuild, aside) = (plan.rebuild.as_deref(), plan.aside.clone());
        let media_recovery::Opened { log, index, uses, unwritten, gone, report } =
            media_recovery::open_to_repair(disk, dir, settings, rebuild, aside)?;
        if !unwritten.records.is_empty() {
            return Err(Error::io("write to", dir)(std::io::Error::other("the disk refuses; the log says why")));
        }
        done.push(format!(
            "{MEDIA}: opened as by a start: {} records written again, {} bytes of unfinished writes left out",
            report.rewritten, report.dropped_bytes
        ));
        if let Some(why) = report.rebuilt {
            done.push(format!("{MEDIA}/index: built anew from the log: {why}"));
        }
        Ok(Self { folder, log, index, uses, lost: gone.into_iter().flatten().collect(), done })
    }

    fn carry_out(mut self, plan: &Plan) -> Result<(), Error> {
        if let Some((before, _)) = &plan.index {
            self.remember_delivered(before)?;
        }
        for &number in &plan.aside {
            self.set_aside(number)?;
        }
        for &number in &plan.never_begun {
            self.log.remove(number)?;
            self.index.forget(number, &mut self.uses)?;
            self.done.push(format!("{MEDIA}/{}: it never began, removed", file_name(number)));
        }
        for &(number, from, bytes) in plan.cut.iter().filter(|(n, ..)| !plan.aside.contains(n)) {
            self.cut(number, from, bytes);
        }
        self.lost.extend(plan.gone.iter().cloned());
        self.note_lost()?;
        self.log.roll();
        self.index.flush()?;
        let dir = &self.folder.dir;
        self.folder.disk.sync_dir(dir).map_err(Error::io("sync", dir))
    }

    /// A mark of delivery may have made room before its object did; then only the old index knows of it.
    fn remember_delivered(&mut self, before: &Index) -> Result<(), Error> {
        for row in before.objects() {
            let Ok((key, old)) = row else { return Ok(()) };
            let now = if old.delivered { self.index.get(&key)? } else { None };
            if now.is_some_and(|now| !now.delivered && now.meta.sha256 == old.meta.sha256) {
                self.index.apply(&[Change::Delivered(DeliveredMark::of(&old.meta))], &mut self.uses)?;
            }
        }
        Ok(())
    }

    /// Copies what is sound in a segment, then keeps it as `*.damaged`.
    fn set_aside(&mut self, number: u64) -> Result<(), Error> {
        let path = self.folder.dir.join(file_name(number));
        let file = self.folder.disk.open_to_read(&path).map_err(Error::io("open", &path))?;
        let found = scan(&*file, number, Depth::Headers).map_err(Error::io("read", &path))?;
        let (mut copied, mut batch, mut bytes) = (Copied::default(), Vec::new(), 0);
        for record in &found.records {
            for copy in self.worth_copying(&*file, number, record, &mut copied)? {
                bytes += copy.record_len();
                batch.push(copy);
            }
            if bytes > BATCH {
                self.copy(std::mem::take(&mut batch))?;
                bytes = 0;
            }
        }
        for object in self.in_chunks(number, &found.records)? {
            batch.extend(self.in_one(&object)?);
            copied.records += 1;
        }
        self.copy(batch)?;
        self.index.flush()?;
        for left in self.index.objects_in(number)? {
            self.lost.push(left);
        }
        self.index.forget(number, &mut self.uses)?;
        self.note_lost()?;
        self.index.flush()?;
        self.log.remove(number)?;
        let name = file_name(number);
        self.done.push(format!("{MEDIA}/{name}: {} sound records copied, kept as {name}.damaged", copied.records));
        Ok(())
    }

    /// Objects that were written in chunks, with some of them in a segment. The index does not know them where the segment's
    /// header is no good.
    fn in_chunks(&self, number: u64, records: &[Located]) -> Result<Vec<ObjectRef>, Error> {
        let known = self.index.objects_in(number)?.into_iter().filter(|o| !o.before.is_empty());
        let mut found: BTreeMap<Vec<u8>, ObjectRef> = known.map(|object| (object.meta.key(), object)).collect();
        let mut chunks = Chunks::default();
        let mut made = media_recovery::changes(number, records.iter(), &mut chunks);
        for (&next, _) in self.folder.segments.range(number + 1..) {
            if chunks.all().next().is_none() {
                break;
            }
            let path = self.folder.dir.join(file_name(next));
            let Ok(file) = self.folder.disk.open_to_read(&path) else { continue };
            let after = scan(&*file, next, Depth::Headers).map_err(Error::io("read", &path))?;
            let goes_on = after.records.iter().filter(|r| r.header.kind == OBJECT && r.header.flags & FIRST == 0);
            made.extend(media_recovery::changes(next, goes_on, &mut chunks));
        }
        let whole =
            made.into_iter().filter_map(|change| if let Change::Stored(object) = change { Some(object) } else { None });
        let in_chunks = whole.filter(|object| !object.before.is_empty());
        for object in in_chunks.chain(chunks.all().cloned()) {
            let key = object.meta.key();
            if self.index.get(&key)?.is_none() {
                found.entry(key).or_insert(object);
            }
        }
        Ok(found.into_values().collect())
    }

    /// An object that was written in chunks, in one record, with a mark beside it where headquarters has it; nothing, when
    /// one of them is no good.
    fn in_one(&self, object: &ObjectRef) -> Result<Vec<Copy>, Error> {
        let bytes = match read_object(&self.folder.disk, &self.folder.dir, object) {
            Ok(bytes) if sha256(&bytes) == object.meta.sha256 => bytes,
            _ => return Ok(Vec::new()),
        };
        let meta = ObjectMeta { chunk: 0, ..object.meta.clone() };
        let mark = object.delivered.then(|| Copy::mark(&DeliveredMark::of(&meta))).flatten();
        let record = Located::made(OBJECT, meta.encode()?.into());
        Ok([Copy(Located { payload: bytes, ..record })].into_iter().chain(mark).collect())
    }

    /// A record as it is copied, with a mark beside it where headquarters has it; nothing, when it is not sound or says
    /// nothing any more.
    fn worth_copying(
        &self,
        file: &dyn DiskFile,
        number: u64,
        record: &Located,
        copied: &mut Copied,
    ) -> Result<Vec<Copy>, Error> {
        let Ok(Ok(record)) = read_record(file, number, record.offset) else { return Ok(Vec::new()) };
        let sequence = record.header.sequence;
        let mut copies = Vec::new();
        match record.header.kind {
            // Of these the object is looked at: see [`Self::in_one`].
            OBJECT if record.header.flags & (FIRST | LAST) != FIRST | LAST => return Ok(copies),
            OBJECT => {
                if let Ok(meta) = serde_json::from_slice::<ObjectMeta>(&record.meta) {
                    let row = self.index.get(&meta.key())?;
                    let newer = row.as_ref().is_some_and(|row| row.at.sequence > sequence);
                    if newer || meta.sha256 != sha256(&record.payload) {
                        return Ok(copies);
                    }
                    copied.keys.insert(meta.key());
                    let mark = DeliveredMark::of(&meta);
                    copies.push(Copy(record));
                    if row.is_some_and(|row| row.delivered) {
                        copies.extend(Copy::mark(&mark));
                    }
                } else {
                    copies.push(Copy(record));
                }
            }
            DELIVERED => {
                let mark = serde_json::from_slice::<DeliveredMark>(&record.meta).ok();
                let row = mark.as_ref().map(|mark| self.index.get(&mark.key())).transpose()?.flatten();
                let says = row.is_none_or(|row| row.delivered || row.at.sequence < sequence);
                if says || mark.is_some_and(|mark| copied.keys.contains(&mark.key())) {
                    copies.push(Copy(record));
                }
            }
            // Of a later version.
            _ => copies.push(Copy(record)),
        }
        copied.records += u64::from(!copies.is_empty());
        Ok(copies)
    }

    fn copy(&mut self, batch: Vec<Copy>) -> Result<(), Error> {
        if batch.is_empty() {
            return Ok(());
        }
        let outgoing: Vec<Outgoing<'_>> = batch.iter().map(Copy::outgoing).collect();
        let Placed { segment, first_sequence, offsets } = self.log.commit(&outgoing)?;
        for (i, (copy, offset)) in batch.iter().zip(offsets).enumerate() {
            let at = At { segment, offset, sequence: first_sequence + i as u64 };
            // What is copied is whole.
            let mut chunks = Chunks::default();
            self.index.apply(&change(at, &copy.0, &mut chunks).into_iter().collect::<Vec<_>>(), &mut self.uses)?;
        }
        Ok(())
    }

    fn cut(&mut self, number: u64, from: u64, bytes: u64) {
        let path = self.folder.dir.join(file_name(number));
        // Opening may have cut it, or removed it.
        let as_it_was = self.folder.disk.open_to_read(&path).and_then(|file| file.size()).is_ok_and(|now| now == bytes);
        if as_it_was {
            self.log.cut(number, from);
            self.done.push(format!(
                "{MEDIA}/{}: {} bytes of an unfinished write cut off",
                file_name(number),
                bytes - from
            ));
        }
    }

    /// Moves what is lost to where the next start finds it.
    fn note_lost(&mut self) -> Result<(), Error> {
        let known = self.index.objects_in(LOST)?;
        let mut place = known.iter().map(|o| o.at.offset + 1).max().unwrap_or(0);
        let mut noted = 0;
        for mut object in std::mem::take(&mut self.lost) {
            match self.index.get(&object.meta.key())? {
                // What is left of it is its beginning alone; the rest is lost.
                Some(left) if left.meta.size < object.meta.size && left.meta.to < object.meta.to => {
                    object.meta.from = left.meta.to;
                    object.meta.size -= left.meta.size;
                    object.meta.name.push_str(REST);
                }
                Some(_) => continue,
                None => {}
            }
            let mark = DeliveredMark::of(&object.meta);
            let delivered = std::mem::take(&mut object.delivered);
            let at = At { segment: LOST, offset: place, sequence: object.at.sequence };
            object = ObjectRef::whole(object.meta, at);
            place += 1;
            noted += 1;
            let mut changes = vec![Change::Stored(object)];
            if delivered {
                changes.push(Change::Delivered(mark));
            }
            self.index.apply(&changes, &mut self.uses)?;
        }
        if noted > 0 {
            self.done
                .push(format!("{MEDIA}/index: {noted} lost objects noted; the next start writes them down as gaps"));
        }
        Ok(())
    }
}

#[derive(Default)]
struct Copied {
    /// Objects.
    keys: BTreeSet<Vec<u8>>,
    records: u64,
}

/// A record to be copied.
struct Copy(Located);

impl Copy {
    fn mark(mark: &DeliveredMark) -> Option<Self> {
        let meta = serde_json::to_vec(mark).ok()?;
        Some(Self(Located::made(DELIVERED, meta.into())))
    }

    fn record_len(&self) -> u64 {
        self.outgoing().record_len()
    }

    fn outgoing(&self) -> Outgoing<'_> {
        Outgoing::new(self.0.header.kind, FIRST | LAST, &self.0.meta, &self.0.payload)
    }
}
