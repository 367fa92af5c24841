//! Which fragments make up a file, stretch by stretch, and how many bytes each takes up in it: worked out from the index, as
//! often as need be.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;

use super::choice::{Candidate, Chooser, Chosen, Series};
use crate::{
    district::{clock::Utc, correction::ClockCorrection, digest::fixed, ids::CameraId, incident::Incident},
    gateway::{
        Interval,
        shelf::{self, Extra},
    },
    media::reel::{self, ReelError},
    spool::{self, Buffer, Kept, MediaStore, ObjectRef},
};

/// What the plan goes through at a time: in each, a buffer has its init segments.
const STRETCH: Duration = shelf::INIT_ANEW;

/// How far a group of pictures may reach back, and a fragment forward.
const REACH: Duration = Duration::from_secs(15);

/// Most formats in one file: a camera that flaps between more is no recording of anything.
const FORMATS: usize = 64;

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
pub(super) struct Plan {
    pub source: Source,
    asked: Interval,
    pub formats: Vec<FormatOf>,
}

/// A format: its init segment.
pub(super) struct FormatOf {
    pub object: ObjectRef,
    pub bytes: Bytes,
    /// Bytes of its parameter sets before a frame.
    sets_len: u64,
}

impl FormatOf {
    /// Whether a buffer calls it so.
    fn is_called(&self, name: &str) -> bool {
        shelf::dated_init_name(&self.object.meta.sha256) == name
    }
}

/// A fragment's place in the file.
pub(super) struct Piece {
    pub chosen: Chosen<ObjectRef>,
    /// Bytes that it takes up.
    pub len: u64,
}

impl Plan {
    /// Nothing known yet of what a source holds between two moments.
    pub fn new(source: Source, asked: Interval) -> Self {
        Self { source, asked, formats: Vec::new() }
    }

    /// Where stretches end.
    pub fn ends(&self) -> Vec<Utc> {
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
    pub async fn pieces(&mut self, chooser: &mut Chooser, until: Utc) -> Result<Vec<Piece>, Unreeled> {
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
    pub async fn known_pieces(&self, chooser: &mut Chooser, until: Utc) -> Result<Vec<Piece>, Unreeled> {
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
pub(super) fn digest(pieces: &[Piece]) -> [u8; 32] {
    let mut all = Context::new(&SHA256);
    for Piece { chosen, len } in pieces {
        all.update(&chosen.fragment.what.meta.sha256);
        let (keep, plays) = (chosen.keep, chosen.plays_us);
        for n in [chosen.shift_us, keep.from_us, keep.to_us, plays.0, plays.1] {
            all.update(&n.to_be_bytes());
        }
        all.update(&len.to_be_bytes());
    }
    fixed(all.finish().as_ref())
}
