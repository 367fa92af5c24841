//! The index against the log. sled writes to whatever it opens, so the index that is there is copied into a temporary
//! directory first; beside it one is built anew from the log, as a start without an index would.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs, io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use super::{
    Check, MediaPart,
    finding::{Finding, Kind, Severity},
    words,
};
use crate::{
    district::{clock::Utc, evidence::JITTER, ids::CameraId},
    host::bulkhead,
    spool::{
        chunks::Chunks, error::Error, index::Index, media_recovery::changes, object::ObjectRef, retention::SegmentUse,
        segment::Located,
    },
};

/// What a repair does about an index that disagrees.
pub(super) const REBUILD: &str = "set the index aside and build it anew from the log";
/// Where it is told.
const INDEX: &str = "media/index";

/// A directory that is gone when it is let go.
struct Scratch(PathBuf);

impl Scratch {
    fn new() -> io::Result<Self> {
        let dir = env::temp_dir().join(format!("chowki-fsck-{}-{:016x}", std::process::id(), fastrand::u64(..)));
        fs::DirBuilder::new().mode(0o700).create(&dir)?;
        Ok(Self(dir))
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The index that the log makes.
pub(super) struct Expected {
    index: Index,
    uses: BTreeMap<u64, SegmentUse>,
    chunks: Chunks,
    scratch: Scratch,
}

impl Expected {
    pub fn new() -> Result<Self, Error> {
        let scratch = Scratch::new().map_err(Error::io("make a directory in", env::temp_dir()))?;
        let index = Index::open(&scratch.0.join("expected"))?;
        Ok(Self { index, uses: BTreeMap::new(), chunks: Chunks::default(), scratch })
    }

    /// Takes the sound records of a segment, segments in order.
    pub fn take<'a>(&mut self, segment: u64, records: impl Iterator<Item = &'a Located>) -> Result<(), Error> {
        self.index.apply(&changes(segment, records, &mut self.chunks), &mut self.uses)
    }
}

/// An index that was held against the log.
pub(super) struct Compared {
    /// Objects that it knows and the log does not have.
    pub gone: Vec<ObjectRef>,
    /// Why it is to be built anew.
    pub rebuild: Option<String>,
    /// A copy of it, and the directory that it lies in.
    pub copy: Option<(Index, Box<dyn Send>)>,
}

/// What only the newest segments say: an index that had not heard of it yet is normal after a crash.
#[derive(Default)]
pub(super) struct Fresh {
    pub segments: BTreeSet<u64>,
    /// Keys of objects that are marked as delivered there.
    pub marks: BTreeSet<Vec<u8>>,
}

/// Compares both, and counts what is held.
pub(super) fn compare(
    check: &mut Check<'_>,
    media: &Path,
    expected: Expected,
    fresh: &Fresh,
    part: &mut MediaPart,
) -> Result<Compared, Error> {
    let actual = actual(check, media, &expected.scratch.0, part.segments > 0);
    let mut difference =
        Difference { fresh, lacks: BTreeMap::new(), stale: Count::default(), late: Count::default(), gone: Vec::new() };
    let mut held = Held::default();
    let result = match &actual {
        Ok(index) => bulkhead::behind(|| difference.walk(index.as_ref(), &expected.index, &mut held)),
        Err(_) => bulkhead::behind(|| difference.walk(None, &expected.index, &mut held)),
    };
    held.tell(part);
    let mut compared = Compared { gone: Vec::new(), rebuild: None, copy: None };
    let walked = result.map_err(|burst| burst.to_string()).and_then(|walked| walked.map_err(|e| e.to_string()));
    match (actual, walked) {
        (Ok(Some(index)), Ok(in_vain)) => {
            part.compared = true;
            difference.tell(check, in_vain, &mut compared);
            compared.gone = difference.gone;
            compared.copy = Some((index, Box::new(expected.scratch)));
        }
        (Ok(None), _) => compared.rebuild = (part.objects > 0).then(|| "it was not there".into()),
        (Ok(Some(_)), Err(why)) => compared.rebuild = Some(unreadable(check, &why)),
        (Err(rebuild), _) => compared.rebuild = rebuild,
    }
    Ok(compared)
}

/// The copy of the index that is there; `None` without one. An error says why there is no copy, and whether the index is
/// to be built anew for it.
fn actual(check: &mut Check<'_>, media: &Path, scratch: &Path, log: bool) -> Result<Option<Index>, Option<String>> {
    let dir = media.join("index");
    if !dir.is_dir() {
        if log {
            let means = "nothing is delivered or shown until it is built anew, which the next start does";
            let finding = Finding::new(Severity::Warning, Kind::IndexMissing, INDEX, "the index is not there", means);
            check.found(finding.repaired_by("build it from the log"));
        }
        return Ok(None);
    }
    if media.join("index.opening").exists() {
        let what = "a process died while it opened the index";
        let means = "normal after a crash: the next start does not open it again, but builds it anew";
        check.found(Finding::new(Severity::Note, Kind::IndexUnreadable, INDEX, what, means).repaired_by(REBUILD));
        return Err(Some(what.into()));
    }
    let copy = scratch.join("actual");
    if let Err(e) = copy_all(&dir, &copy) {
        let what = format!("the index was not held against the log: {e}");
        let means = "it cannot be read, or there is no room for its copy; TMPDIR says where copies go";
        check.found(Finding::new(Severity::Warning, Kind::IndexNotCompared, INDEX, what, means));
        return Err(None);
    }
    match bulkhead::behind(|| Index::open(&copy)) {
        Ok(Ok(index)) => Ok(Some(index)),
        Ok(Err(e)) => Err(Some(unreadable(check, &e.to_string()))),
        Err(burst) => Err(Some(unreadable(check, &burst.to_string()))),
    }
}

fn unreadable(check: &mut Check<'_>, why: &str) -> String {
    let means = "nothing is lost: all that it says is in the log; the next start builds it anew";
    check.found(Finding::new(Severity::Warning, Kind::IndexUnreadable, INDEX, why, means).repaired_by(REBUILD));
    why.to_owned()
}

fn copy_all(from: &Path, to: &Path) -> io::Result<()> {
    fs::create_dir(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        match entry.file_type()? {
            kind if kind.is_dir() => copy_all(&entry.path(), &to)?,
            kind if kind.is_file() => drop(fs::copy(entry.path(), to)?),
            _ => {}
        }
    }
    Ok(())
}

/// How many, and the first of them.
#[derive(Default)]
struct Count {
    n: u64,
    first: String,
}

impl Count {
    fn add(&mut self, object: &ObjectRef) {
        if self.n == 0 {
            self.first = words::title(&object.meta);
        }
        self.n += 1;
    }

    fn words(&self) -> String {
        match self.n {
            1 => self.first.clone(),
            n => format!("{n} objects, the first {}", self.first),
        }
    }
}

struct Difference<'a> {
    fresh: &'a Fresh,
    /// By segment.
    lacks: BTreeMap<u64, Count>,
    stale: Count,
    /// Delivered by the log, and not by the index.
    late: Count,
    gone: Vec<ObjectRef>,
}

impl Difference<'_> {
    /// Both in order of their keys, side by side; how many rows of what is pending lead nowhere.
    fn walk(&mut self, actual: Option<&Index>, expected: &Index, held: &mut Held) -> Result<u64, Error> {
        let (mut there, mut made) = (actual.map(Index::objects), expected.objects());
        let mut next = || there.as_mut().and_then(Iterator::next).transpose();
        let (mut row, mut object) = (next()?, made.next().transpose()?);
        loop {
            let order = match (&row, &object) {
                (None, None) => break,
                (Some(_), None) => std::cmp::Ordering::Less,
                (None, Some(_)) => std::cmp::Ordering::Greater,
                (Some((row, _)), Some((object, _))) => row.cmp(object),
            };
            if order.is_lt() {
                self.gone.extend(row.take().map(|(_, known)| known));
            } else if order.is_gt() {
                if let Some((_, unknown)) = &object {
                    held.add(unknown, unknown.delivered);
                    self.lacks.entry(unknown.at.segment).or_default().add(unknown);
                }
            } else if let (Some((key, known)), Some((_, is)), Some(index)) = (&row, &object, actual) {
                held.add(is, known.delivered);
                self.both(index, key, known, is)?;
            }
            if order.is_le() {
                row = next()?;
            }
            if order.is_ge() {
                object = made.next().transpose()?;
            }
        }
        actual.map_or(Ok(0), |index| index.waiting_in_vain(&self.fresh.marks))
    }

    fn both(&mut self, index: &Index, key: &[u8], known: &ObjectRef, is: &ObjectRef) -> Result<(), Error> {
        if known.at.sequence > is.at.sequence {
            // The newer copy is no good; this one is what is left.
            self.gone.push(known.clone());
        } else if known.at != is.at
            || known.before != is.before
            || known.meta != is.meta
            || !index.is_whole(known, self.fresh.marks.contains(key))?
        {
            // It had not come to the newest segments, or not to all rows of the object: a start does both again.
            let behind = known.at.sequence < is.at.sequence || (known.at == is.at && known.meta == is.meta);
            let fresh = behind && self.fresh.segments.contains(&is.at.segment);
            if fresh { self.lacks.entry(is.at.segment).or_default().add(is) } else { self.stale.add(is) }
        } else if is.delivered && !known.delivered && !self.fresh.marks.contains(key) {
            self.late.add(is);
        }
        // (Delivered by the index alone: the mark may have made room before its object did.)
        Ok(())
    }

    fn tell(&self, check: &mut Check<'_>, in_vain: u64, compared: &mut Compared) {
        for (segment, count) in &self.lacks {
            let what = format!("it lacks {} of segment {segment:016x}", count.words());
            let finding = if self.fresh.segments.contains(segment) {
                let means = "normal after a crash: it is always a little behind; the next start adds what it lacks";
                Finding::new(Severity::Note, Kind::IndexLacks, INDEX, what, means).repaired_by("add them to the index")
            } else {
                let means = "nothing is lost, but they are neither delivered nor shown";
                compared.rebuild = Some(what.clone());
                Finding::new(Severity::Warning, Kind::IndexLacks, INDEX, what, means).repaired_by(REBUILD)
            };
            check.found(finding);
        }
        let mut stale = |what: String, means: &str| {
            compared.rebuild = Some(what.clone());
            check.found(Finding::new(Severity::Warning, Kind::IndexStale, INDEX, what, means).repaired_by(REBUILD));
        };
        if self.stale.n > 0 {
            let means = "the index is older than the log, or damaged; the objects are there";
            stale(format!("it says something else than the log of {}", self.stale.words()), means);
        }
        if self.late.n > 0 {
            let means = "it would be sent to headquarters again, which changes nothing there";
            stale(format!("it does not know that headquarters has {}", self.late.words()), means);
        }
        if in_vain > 0 {
            let means = "nothing is lost; what is to be sent would be found more slowly";
            stale(format!("{in_vain} rows say that something waits which does not"), means);
        }
    }
}

/// Counts objects as they come in the order of their keys: evidence by incident, camera, number; then buffers by
/// camera and time.
#[derive(Default)]
struct Held {
    objects: u64,
    undelivered: u64,
    intervals: u64,
    cameras: BTreeSet<CameraId>,
    /// The recording that is being counted, and where its last fragment ended.
    last: Option<(Vec<u8>, Option<Utc>)>,
}

impl Held {
    fn add(&mut self, object: &ObjectRef, delivered: bool) {
        self.objects += 1;
        self.undelivered += u64::from(!delivered);
        let meta = &object.meta;
        if !self.cameras.contains(&meta.camera) {
            self.cameras.insert(meta.camera.clone());
        }
        let recording = words::recording(meta);
        let ended = match self.last.take() {
            Some((last, ended)) if last == recording => ended,
            _ => None,
        };
        // An init segment is no interval.
        let ended = if meta.gap.is_some() {
            ended
        } else if meta.from < meta.to {
            self.intervals += u64::from(ended.is_none_or(|ended| meta.from.since(ended) > JITTER));
            Some(meta.to)
        } else {
            ended
        };
        self.last = Some((recording, ended));
    }

    fn tell(self, part: &mut MediaPart) {
        part.objects = self.objects;
        part.undelivered = self.undelivered;
        part.intervals = self.intervals;
        part.cameras = self.cameras.len();
    }
}
