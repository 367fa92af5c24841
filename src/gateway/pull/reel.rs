//! What is held of a camera between two moments, or of an incident, as one MP4 file that is never made: planned from the
//! index, then read from the media log piece by piece while it is sent. Memory grows neither with the interval nor with
//! what is held of it.
//!
//! The plan goes through the index in stretches of ten minutes and keeps of each how long it is, a digest, and how far the
//! choosing had got: so any byte is found without going through all before it, and what has gone meanwhile is noticed.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tracing::warn;

use super::choice::{Candidate, Chooser, Chosen, Series};
use crate::{
    district::{clock::Utc, correction::ClockCorrection, ids::CameraId, incident::Incident},
    gateway::{
        Interval, Unheld,
        shelf::{self, Extra},
    },
    media::{
        manifest::hex,
        playlist::{Entry, Playlist},
        reel::{self, Index, KeyFrame, ReelError, Splice},
    },
    spool::{self, Buffer, Kept, MediaStore, ObjectMeta, ObjectRef},
};

/// What the plan goes through at a time: in each, a buffer has its init segments.
const STRETCH: Duration = shelf::INIT_ANEW;

/// How far a group of pictures may reach back, and a fragment forward.
const REACH: Duration = Duration::from_secs(15);

/// Most formats in one file: a camera that flaps between more is no recording of anything.
const FORMATS: usize = 64;

/// Fragments that are read while the one before them is sent.
const AHEAD: usize = 3;

/// Why there is no such file, or not all of it.
#[derive(Debug, thiserror::Error)]
pub enum Unreeled {
    /// The media log cannot be read.
    #[error("the media log cannot be read: {0}")]
    Store(#[from] spool::Error),
    /// What is stored cannot be put together.
    #[error(transparent)]
    Reel(#[from] ReelError),
    /// Nothing of it is held.
    #[error("nothing is held of it that can be played")]
    Nothing,
    /// Too many formats.
    #[error("its format changed more than {FORMATS} times; ask for less at a time")]
    Formats,
    /// Some of it has made room for other things since the plan.
    #[error("some of it has made room for other things meanwhile; ask again")]
    Changed,
}

/// A file that can be sent.
pub struct Reel {
    plan: Plan,
    stretches: Vec<Stretch>,
    file: reel::Reel,
    /// Which of the file's init segments each format is.
    inits: BTreeMap<usize, usize>,
    head: Bytes,
    len: u64,
    etag: String,
    held: Interval,
}

/// Where fragments are found.
pub(in crate::gateway) struct Source {
    pub media: MediaStore,
    pub camera: CameraId,
    /// Incidents of which there is evidence of the camera.
    pub incidents: Vec<Arc<Incident>>,
    /// Whether buffers count as well: a recording of the camera, and not of one incident.
    pub buffers: bool,
}

/// A source, and what is known of it by now.
struct Plan {
    source: Source,
    asked: Interval,
    formats: Vec<FormatOf>,
}

/// A format: its init segment.
struct FormatOf {
    object: ObjectRef,
    bytes: Bytes,
    /// Bytes of its parameter sets before a frame.
    sets_len: u64,
}

impl FormatOf {
    /// Whether a buffer calls it so.
    fn is_called(&self, name: &str) -> bool {
        shelf::dated_init_name(&self.object.meta.sha256) == name
    }
}

/// A part of the file.
struct Stretch {
    /// What begins before this, and not before the stretch before it ended.
    until: Utc,
    /// How far the choosing was before it.
    chooser: Chooser,
    bytes: u64,
    digest: [u8; 32],
}

/// A fragment's place in the file.
struct Piece {
    chosen: Chosen<ObjectRef>,
    len: u64,
}

impl Reel {
    /// Plans what a source holds between two moments.
    ///
    /// # Errors
    /// [`Unreeled`], when there is nothing to send.
    pub(in crate::gateway) async fn plan(source: Source, asked: Interval) -> Result<Self, Unreeled> {
        let mut plan = Plan { source, asked, formats: Vec::new() };
        let mut chooser = Chooser::new(asked);
        let (mut stretches, mut index) = (Vec::new(), Index::default());
        let (mut used, mut held): (Vec<usize>, Option<Interval>) = (Vec::new(), None);
        for until in plan.ends() {
            let before = chooser.clone();
            let pieces = plan.pieces(&mut chooser, until).await?;
            for Piece { chosen, len } in &pieces {
                let plays = |us: i64| u64::try_from(us).unwrap_or(0);
                let fragment = &chosen.fragment;
                index.push(*len, (plays(chosen.plays_us.0), plays(chosen.plays_us.1)), fragment.key);
                if !used.contains(&fragment.init) {
                    used.push(fragment.init);
                }
                let (from, to) = (held.map_or(fragment.from, |held| held.from), fragment.to.min(asked.to));
                held = Some(Interval { from, to });
            }
            if !pieces.is_empty() {
                let (bytes, digest) = (pieces.iter().map(|piece| piece.len).sum(), digest(&pieces));
                stretches.push(Stretch { until, chooser: before, bytes, digest });
            }
        }
        let held = held.ok_or(Unreeled::Nothing)?;
        let described: Vec<_> = used.iter().map(|format| plan.formats[*format].bytes.clone()).collect();
        let file = reel::Reel::new(&described)?;
        let head = file.head(&index)?;
        let mut whole = Context::new(&SHA256);
        whole.update(&head);
        stretches.iter().for_each(|stretch| whole.update(&stretch.digest));
        Ok(Self {
            inits: used.iter().enumerate().map(|(init, format)| (*format, init)).collect(),
            len: head.len() as u64 + index.bytes(),
            etag: hex(&whole.finish().as_ref()[..16]),
            plan,
            stretches,
            file,
            head,
            held,
        })
    }

    /// Bytes of the file.
    #[expect(clippy::len_without_is_empty, reason = "there is no empty one")]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// A name that no other file has, of this camera or another.
    pub fn etag(&self) -> &str {
        &self.etag
    }

    /// When its first frame was captured, and when the last one ended.
    pub fn held(&self) -> Interval {
        self.held
    }

    /// These bytes of it, as they are read. It ends with an error where the log has changed or fails.
    pub fn bytes(self: Arc<Self>, range: Range<u64>) -> impl Stream<Item = Result<Bytes, Unreeled>> + Send {
        let head = overlap(&range, 0, self.head.len() as u64).map(|part| Ok(self.head.slice(part)));
        let mut at = self.head.len() as u64;
        let mut asked = Vec::new();
        for (n, stretch) in self.stretches.iter().enumerate() {
            let begins = at;
            at += stretch.bytes;
            if begins < range.end && range.start < at {
                asked.push((n, begins));
            }
        }
        let reel = self.clone();
        let pieces = stream::iter(asked).then(move |(n, begins)| {
            let (reel, range) = (reel.clone(), range.clone());
            async move { reel.placed(n, begins, &range).await }
        });
        let read = pieces.flat_map(stream::iter).map(move |piece| {
            let reel = self.clone();
            async move {
                match piece {
                    Ok((piece, part)) => reel.read(piece, part).await,
                    Err(error) => vec![Err(error)],
                }
            }
        });
        stream::iter(head).chain(read.buffered(AHEAD).flat_map(stream::iter))
    }

    /// The same as an HLS playlist of the objects as they are stored, each whole; `url` says where one is to be had.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub async fn playlist(&self, url: impl Fn(&ObjectMeta) -> String, gaps: &[Unheld]) -> Result<String, Unreeled> {
        let mut list = Playlist::new(shelf::fragments().longest);
        let mut gaps = gaps.iter().filter_map(Unheld::known).peekable();
        for stretch in &self.stretches {
            let pieces = self.plan.known_pieces(&mut stretch.chooser.clone(), stretch.until).await?;
            if digest(&pieces) != stretch.digest {
                return Err(Unreeled::Changed);
            }
            for Piece { chosen, .. } in pieces {
                let fragment = &chosen.fragment;
                while let Some(gap) = gaps.next_if(|gap| gap.from < fragment.from) {
                    list.gap(&gap);
                }
                list.push(&Entry {
                    init: url(&self.plan.formats[fragment.init].object.meta),
                    name: url(&fragment.what.meta),
                    duration: Duration::from_micros(fragment.what.meta.duration_us),
                    from: fragment.from,
                    key: fragment.key,
                    discontinuity: chosen.broken,
                });
            }
        }
        gaps.for_each(|gap| list.gap(&gap));
        list.end();
        Ok(list.text())
    }

    /// The last key frame of it at or before a moment, and when it was captured.
    ///
    /// # Errors
    /// As [`Self::bytes`].
    pub async fn key_frame(&self, at: Utc) -> Result<(KeyFrame, Utc), Unreeled> {
        for stretch in self.stretches.iter().rev() {
            let pieces = self.plan.known_pieces(&mut stretch.chooser.clone(), stretch.until).await?;
            for Candidate { what, init, from, at_us, .. } in pieces.iter().rev().map(|piece| &piece.chosen.fragment) {
                let bytes = self.plan.source.media.read(what).await?;
                let until_us = at_us.saturating_add(at.micros().saturating_sub(from.micros()));
                if let Some(frame) = reel::key_frame(&self.plan.formats[*init].bytes, &bytes, until_us)? {
                    let captured = from.shifted(frame.at_us - at_us);
                    return Ok((frame, captured));
                }
            }
        }
        Err(Unreeled::Nothing)
    }

    /// The pieces of a stretch that are asked for, and which bytes of each.
    async fn placed(&self, n: usize, begins: u64, range: &Range<u64>) -> Vec<Result<(Piece, Range<usize>), Unreeled>> {
        let stretch = &self.stretches[n];
        let pieces = match self.plan.known_pieces(&mut stretch.chooser.clone(), stretch.until).await {
            Ok(pieces) if digest(&pieces) == stretch.digest => pieces,
            Ok(_) => return vec![Err(Unreeled::Changed)],
            Err(error) => return vec![Err(error)],
        };
        let mut at = begins;
        let place = |piece: Piece| {
            let part = overlap(range, at, piece.len);
            at += piece.len;
            Some(Ok((piece, part?)))
        };
        pieces.into_iter().filter_map(place).collect()
    }

    /// A piece's bytes. What the disk has lost is a hole, and said in the log.
    async fn read(&self, piece: Piece, part: Range<usize>) -> Vec<Result<Bytes, Unreeled>> {
        let Piece { chosen, len } = piece;
        let object = &chosen.fragment.what;
        let init = self.inits.get(&chosen.fragment.init).copied().unwrap_or(usize::MAX);
        let spliced = match self.plan.source.media.read(object).await {
            Ok(bytes) => {
                let (shift_us, keep, sets) = (chosen.shift_us, chosen.keep, chosen.another && chosen.fragment.key);
                self.file.splice(&bytes, &Splice { init, shift_us, keep, sets, len }).map_err(Unreeled::from)
            }
            Err(spool::Error::Gone(_)) => return vec![Err(Unreeled::Changed)],
            Err(error @ spool::Error::Damaged { .. }) => Err(error.into()),
            Err(error) => return vec![Err(error.into())],
        };
        let parts = spliced.unwrap_or_else(|error| {
            warn!(%object, %error, "a hole in a recording that is pulled");
            vec![reel::filler(len)]
        });
        let mut at = 0;
        let cut = |bytes: Bytes| {
            let overlap = overlap(&(part.start as u64..part.end as u64), at, bytes.len() as u64);
            at += bytes.len() as u64;
            Some(Ok(bytes.slice(overlap?)))
        };
        parts.into_iter().filter_map(cut).collect()
    }
}

impl Plan {
    /// Where stretches end.
    fn ends(&self) -> Vec<Utc> {
        if !self.source.buffers {
            return vec![self.asked.to];
        }
        let mut ends = Vec::new();
        let mut at = self.asked.from;
        while at < self.asked.to {
            at = stretch_of(at).after(STRETCH).min(self.asked.to);
            ends.push(at);
        }
        ends
    }

    /// What of the file begins before `until`; learns formats.
    async fn pieces(&mut self, chooser: &mut Chooser, until: Utc) -> Result<Vec<Piece>, Unreeled> {
        let found = self.found(until).await?;
        for init in found.needed() {
            if self.format(&init.meta.sha256).is_none() {
                if self.formats.len() == FORMATS {
                    return Err(Unreeled::Formats);
                }
                let bytes = self.source.media.read(init).await?;
                let sets_len = reel::sets_len(&bytes)?;
                self.formats.push(FormatOf { object: init.clone(), bytes, sets_len });
            }
        }
        self.choose(chooser, found, until).await
    }

    /// As [`Self::pieces`], when all formats are known.
    async fn known_pieces(&self, chooser: &mut Chooser, until: Utc) -> Result<Vec<Piece>, Unreeled> {
        let found = self.found(until).await?;
        self.choose(chooser, found, until).await
    }

    fn format(&self, sha256: &[u8; 32]) -> Option<usize> {
        self.formats.iter().position(|format| format.object.meta.sha256 == *sha256)
    }

    async fn choose(&self, chooser: &mut Chooser, found: Found, until: Utc) -> Result<Vec<Piece>, Unreeled> {
        let candidates = found.candidates(|name, init| match init {
            Some(init) => self.format(&init.meta.sha256),
            // The init segment beside it has made room for other things; its name says which it was.
            None => self.formats.iter().position(|format| format.is_called(name)),
        });
        let chosen = match self.source.buffers {
            true => chooser.choose(&candidates, until),
            false => chooser.choose_all(&candidates),
        };
        let mut pieces = Vec::with_capacity(chosen.len());
        for chosen in chosen {
            let meta = &chosen.fragment.what.meta;
            let format = &self.formats[chosen.fragment.init];
            let whole = Some(reel::len(meta.size, u64::from(meta.chunk) + 1));
            let kept = if chosen.keep == reel::Keep::ALL {
                whole
            } else {
                match self.source.media.read(&chosen.fragment.what).await {
                    Ok(bytes) => reel::kept_len(&format.bytes, &bytes, chosen.keep)?,
                    // As long as it was, and a hole.
                    Err(spool::Error::Damaged { .. }) => whole,
                    Err(error) => return Err(error.into()),
                }
            };
            let sets = if chosen.another && chosen.fragment.key { format.sets_len } else { 0 };
            let len = kept.map(|len| len + sets);
            pieces.extend(len.map(|len| Piece { chosen, len }));
        }
        Ok(pieces)
    }

    /// What is stored around the stretch that ends then.
    async fn found(&self, until: Utc) -> Result<Found, Unreeled> {
        let Source { media, camera, incidents, buffers } = &self.source;
        let first = until.before(STRETCH) <= self.asked.from;
        let from = if first {
            // From where its init segment is; those of later stretches are known by then, or begin them.
            stretch_of(self.asked.from.before(REACH))
        } else {
            until.before(STRETCH).before(REACH)
        };
        let to = until.after(REACH);
        let mut found = Found::default();
        for incident in incidents {
            let Some(evidence) = incident.evidence.iter().find(|evidence| evidence.camera == *camera) else { continue };
            if *buffers && (evidence.from.before(REACH) > to || evidence.to.after(REACH) < from) {
                continue;
            }
            let objects = media.evidence(incident.id, camera).await?;
            let dated = dated(objects, incident.pressed_at.clock_correction, (evidence.from, evidence.to));
            let asked = dated.filter(|(_, (begins, ends))| begins >= ends || !buffers || *begins < to && *ends > from);
            asked.for_each(|(object, span)| found.add(Series::Evidence(incident.id), object, span));
        }
        if *buffers {
            for object in media.buffer(camera, (from, to)).await? {
                let series = match object.meta.kept {
                    Kept::Buffer { buffer: Buffer::Bulk } => Series::Bulk,
                    _ => Series::Outage,
                };
                let span = (object.meta.from, object.meta.to);
                found.add(series, object, span);
            }
            found.fragments.sort_by_key(|fragment| (fragment.from, fragment.to));
        }
        Ok(found)
    }
}

/// When the stretch began that a moment is in.
fn stretch_of(at: Utc) -> Utc {
    let long = i64::try_from(STRETCH.as_micros()).unwrap_or(i64::MAX);
    Utc::from_micros(at.micros().div_euclid(long).saturating_mul(long))
}

/// Objects with when they were captured, as the incident's document dates them.
fn dated(
    objects: Vec<ObjectRef>,
    correction: Option<ClockCorrection>,
    window: (Utc, Utc),
) -> impl Iterator<Item = (ObjectRef, (Utc, Utc))> {
    let spans: Vec<_> = objects.iter().map(|object| (object.meta.from, object.meta.to)).collect();
    let spans = correction.map_or_else(|| spans.clone(), |correction| correction.date(spans.iter().copied(), window));
    objects.into_iter().zip(spans)
}

/// Fragments that were found, and the init segments beside them.
#[derive(Default)]
struct Found {
    fragments: Vec<Candidate<ObjectRef>>,
    /// By whose they are and what they are called: the names that fragments know.
    inits: BTreeMap<(Series, String), ObjectRef>,
    /// What each fragment calls its init segment.
    names: Vec<(Series, String)>,
}

impl Found {
    fn add(&mut self, series: Series, object: ObjectRef, (from, to): (Utc, Utc)) {
        let (at_us, init) = match shelf::extra(&object.meta) {
            Some(Extra::Init { init, .. }) => {
                let file = object.meta.name.rsplit('/').next().unwrap_or_default().to_owned();
                let name = if matches!(series, Series::Evidence(_)) { init.to_string() } else { file };
                self.inits.insert((series, name), object);
                return;
            }
            Some(Extra::Fragment { init, at_us, .. }) => (at_us, init.to_string()),
            Some(Extra::Stretch { init, at_us, .. }) => (at_us, init),
            None => return,
        };
        let us = |us: u64| i64::try_from(us).unwrap_or(i64::MAX);
        let (at_us, duration_us, key) = (us(at_us), us(object.meta.duration_us), object.meta.key);
        if duration_us == 0 || from >= to {
            return;
        }
        let init = self.names.iter().position(|name| *name == (series, init.clone())).unwrap_or_else(|| {
            self.names.push((series, init));
            self.names.len() - 1
        });
        self.fragments.push(Candidate { what: object, series, init, from, to, at_us, duration_us, key });
    }

    /// Init segments that fragments here need.
    fn needed(&self) -> impl Iterator<Item = &ObjectRef> {
        let named: BTreeSet<_> = self.fragments.iter().map(|fragment| fragment.init).collect();
        named.into_iter().filter_map(|name| self.inits.get(&self.names[name]))
    }

    /// Fragments whose format is known, by its number. One whose init segment is gone cannot be played.
    fn candidates(self, format: impl Fn(&str, Option<&ObjectRef>) -> Option<usize>) -> Vec<Candidate<ObjectRef>> {
        let formats: Vec<_> = self.names.iter().map(|name| format(&name.1, self.inits.get(name))).collect();
        let known = |fragment: Candidate<ObjectRef>| Some(Candidate { init: formats[fragment.init]?, ..fragment });
        self.fragments.into_iter().filter_map(known).collect()
    }
}

/// What tells a stretch's pieces from any other.
fn digest(pieces: &[Piece]) -> [u8; 32] {
    let mut all = Context::new(&SHA256);
    for Piece { chosen, len } in pieces {
        all.update(&chosen.fragment.what.meta.sha256);
        let (keep, plays) = (chosen.keep, chosen.plays_us);
        for n in [chosen.shift_us, keep.from_us, keep.to_us, plays.0, plays.1] {
            all.update(&n.to_be_bytes());
        }
        all.update(&len.to_be_bytes());
    }
    let mut out = [0; 32];
    out.copy_from_slice(all.finish().as_ref());
    out
}

/// Which bytes of something that stands at `at` are within `range`.
fn overlap(range: &Range<u64>, at: u64, len: u64) -> Option<Range<usize>> {
    let (from, to) = (range.start.max(at), range.end.min(at + len));
    let part = |n: u64| usize::try_from(n - at).unwrap_or(usize::MAX);
    (from < to).then(|| part(from)..part(to))
}
