//! How evidence stands in the media log: what a recording's pieces are called there, and what playlists, manifests and
//! a recording that goes on are made from. Pure.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::{
    district::{
        clock::Utc,
        correction::ClockCorrection,
        evidence::{CameraEvidence, EvidenceObject},
        ids::{CameraId, DistrictId},
    },
    media::{
        fragment::{Fragment, Init, Position, Settings, init_name},
        manifest::{Manifest, hex, sha256},
        playlist::{Entry, Playlist},
    },
    spool::{Kept, ObjectMeta, ObjectRef},
};

/// An init segment of a buffer is stored anew in each such stretch of time: what is left when the oldest has made room can
/// still be played, and it is found without looking far.
pub const INIT_ANEW: Duration = Duration::from_secs(600);

/// See [`Whose::init_place`].
pub type InitPlace = (String, i64);

/// How long fragments of evidence are.
pub fn fragments() -> Settings {
    Settings::default()
}

/// What a stored object is, beside what the log itself knows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "piece", rename_all = "lowercase")]
pub enum Extra {
    /// An init segment.
    Init {
        /// Its number, from 0.
        init: u32,
        /// RFC 6381 names of its tracks.
        codecs: String,
    },
    /// A fragment of evidence.
    Fragment {
        /// Its number, from 1.
        fragment: u32,
        /// The init segment it needs.
        init: u32,
        /// Where it stands on the recording's time line, in microseconds.
        at_us: u64,
        /// Whether it does not go on where the one before ended.
        discontinuity: bool,
        /// Whether packets were lost.
        lost: bool,
    },
    /// A fragment of a buffer.
    Stretch {
        /// The init segment it needs, beside it.
        init: String,
        /// Where it stands on the recording's time line, in microseconds.
        at_us: u64,
        /// Whether it does not go on where the one before ended.
        discontinuity: bool,
        /// Whether packets were lost.
        lost: bool,
    },
}

/// Whose pictures, and what they are kept for.
#[derive(Debug, Clone)]
pub struct Whose {
    /// Evidence of an incident, or a buffer.
    pub kept: Kept,
    /// The camera.
    pub camera: CameraId,
    /// Its rank in the incident.
    pub rank: u32,
    /// The seconds around the press, which go before the rest.
    pub urgent: Option<(Utc, Utc)>,
    /// The machine's boot, for a clock that was never set in it.
    pub boot: &'static str,
}

impl Whose {
    /// Where, below the camera's folder, what begins then is kept: the day's folder for a buffer.
    pub fn folder(&self, from: Utc) -> String {
        match self.kept {
            Kept::Evidence { .. } => String::new(),
            Kept::Buffer { .. } => day_of(from, self.boot),
        }
    }

    /// Where what begins then finds its init segment: of a buffer in its folder, and in it within [`INIT_ANEW`].
    pub fn init_place(&self, from: Utc) -> InitPlace {
        let n = match self.kept {
            Kept::Evidence { .. } => 0,
            Kept::Buffer { .. } => from.micros().div_euclid(INIT_ANEW.as_micros() as i64),
        };
        (self.folder(from), n)
    }
}

/// An init segment as the media log takes it, before the first fragment that needs it. Evidence is counted; a buffer's has
/// the same name for the same format, on every day and after every restart.
pub fn init(whose: &Whose, init: &Init, before: &Fragment) -> ObjectMeta {
    let extra = Extra::Init { init: init.number, codecs: init.codecs.clone() };
    let number = before.number.saturating_mul(2).saturating_sub(1);
    match whose.kept {
        // Nothing plays without it.
        Kept::Evidence { .. } => {
            ObjectMeta { urgent: whose.urgent.is_some(), ..meta(whose, init.name(), number, &init.bytes, &extra) }
        }
        Kept::Buffer { .. } => {
            let name = format!("{}/{}", whose.folder(before.from), dated_init(init));
            let (from, to) = (before.from, before.from);
            ObjectMeta { from, to, ..meta(whose, name, number, &init.bytes, &extra) }
        }
    }
}

fn dated_init(init: &Init) -> String {
    dated_init_name(&sha256(&init.bytes))
}

/// What a buffer calls an init segment of these bytes, in whatever folder.
pub fn dated_init_name(sha256: &[u8; 32]) -> String {
    format!("init-{}.mp4", &hex(sha256)[..8])
}

/// A fragment as the media log takes it, chunk by chunk.
#[derive(Clone)]
pub struct Growing {
    /// What is known of it, as far as it is.
    pub meta: ObjectMeta,
    hash: Context,
}

impl Growing {
    /// Its first chunk. Evidence is counted, a buffer is named by the time its pictures were captured.
    pub fn begin(whose: &Whose, init: &Init, f: &Fragment) -> Self {
        let (at_us, discontinuity, lost) = (micros(f.at), f.discontinuity, f.lost);
        let (name, extra) = match whose.kept {
            Kept::Evidence { .. } => {
                (f.name(), Extra::Fragment { fragment: f.number, init: f.init, at_us, discontinuity, lost })
            }
            Kept::Buffer { .. } => {
                let name = format!("{}/{}.m4s", whose.folder(f.from), time_of(f.from));
                (name, Extra::Stretch { init: dated_init(init), at_us, discontinuity, lost })
            }
        };
        let base = meta(whose, name, f.number.saturating_mul(2), &Bytes::new(), &extra);
        let base = ObjectMeta { from: f.from, key: f.key, ..base };
        Self { meta: base, hash: Context::new(&SHA256) }.with(whose, f)
    }

    /// With the chunk that comes next.
    pub fn and(mut self, whose: &Whose, f: &Fragment) -> Self {
        self.meta.chunk += 1;
        if f.lost {
            self.meta.extra["lost"] = true.into();
        }
        self.with(whose, f)
    }

    /// What ends it where it is: a chunk of no bytes.
    pub fn end(mut self) -> ObjectMeta {
        self.meta.chunk += 1;
        self.meta
    }

    fn with(mut self, whose: &Whose, f: &Fragment) -> Self {
        self.hash.update(&f.bytes);
        let meta = &mut self.meta;
        meta.to = f.to;
        meta.duration_us += micros(f.duration);
        meta.size += f.bytes.len() as u64;
        meta.sha256.copy_from_slice(self.hash.clone().finish().as_ref());
        meta.urgent |= whose.urgent.is_some_and(|(from, to)| f.from < to && f.to > from);
        self
    }
}

fn meta(whose: &Whose, name: String, number: u32, bytes: &Bytes, extra: &Extra) -> ObjectMeta {
    ObjectMeta {
        kept: whose.kept,
        camera: whose.camera.clone(),
        rank: u16::try_from(whose.rank).unwrap_or(u16::MAX),
        urgent: false,
        name,
        number,
        from: Default::default(),
        to: Default::default(),
        duration_us: 0,
        key: false,
        sha256: sha256(bytes),
        size: bytes.len() as u64,
        gap: None,
        chunk: 0,
        extra: serde_json::to_value(extra).unwrap_or_default(),
    }
}

/// The folder of a day's recordings: `2026-11-27` in UTC. A clock that was never set since the machine started counts from
/// long ago: such days are told apart by the boot, since another boot counts from there again.
pub fn day_of(at: Utc, boot: &str) -> String {
    let text = at.to_string();
    let day = text.split('T').next().unwrap_or_default();
    if at < FIRST_DAY { format!("{day}-{}", boot.get(..8).unwrap_or("unknown")) } else { day.to_owned() }
}

/// No clock that was ever set says less: 2026-01-01.
const FIRST_DAY: Utc = Utc::from_micros(1_767_225_600_000_000);

/// `101502.123`: a time of the day in UTC, as the names of recordings have it.
fn time_of(at: Utc) -> String {
    let text = at.to_string();
    text.split('T').nth(1).unwrap_or_default().trim_end_matches('Z').replace(':', "")
}

/// What a stored object is. Nothing for one that another version wrote in another way.
pub fn extra(meta: &ObjectMeta) -> Option<Extra> {
    serde_json::from_value(meta.extra.clone()).ok()
}

/// An object as the incident's document shows it.
pub fn shown(meta: &ObjectMeta, delivered: bool) -> EvidenceObject {
    EvidenceObject { name: meta.name.clone(), size: meta.size, sha256: meta.sha256_hex(), delivered }
}

/// Where a recording goes on after what is stored of it.
pub fn position(held: &[ObjectRef]) -> Position {
    let mut position = Position::default();
    for object in held {
        match extra(&object.meta) {
            Some(Extra::Init { init, .. }) => position.init = position.init.max(init + 1),
            Some(Extra::Fragment { fragment, at_us, .. }) => {
                position.fragment = position.fragment.max(fragment + 1);
                position.at = position.at.max(Duration::from_micros(at_us + object.meta.duration_us));
            }
            Some(Extra::Stretch { .. }) | None => {}
        }
    }
    position
}

/// When objects were captured, as the incident's document dates them.
fn captured(held: &[ObjectRef], evidence: &CameraEvidence, clock: Option<ClockCorrection>) -> Vec<(Utc, Utc)> {
    let spans = held.iter().map(|o| (o.meta.from, o.meta.to));
    match clock {
        Some(clock) => clock.date(spans, (evidence.from, evidence.to)),
        None => spans.collect(),
    }
}

/// The HLS playlist of these objects, in order. It is ended once the recording is and all of them are listed.
pub fn playlist(held: &[ObjectRef], evidence: &CameraEvidence, clock: Option<ClockCorrection>) -> String {
    let mut list = Playlist::new(fragments().longest);
    let mut gaps = evidence.gaps.iter().peekable();
    for (object, (from, _)) in held.iter().zip(captured(held, evidence, clock)) {
        let Some(Extra::Fragment { init, discontinuity, .. }) = extra(&object.meta) else { continue };
        let meta = &object.meta;
        while let Some(gap) = gaps.next_if(|gap| gap.from < from) {
            list.gap(gap);
        }
        list.push(&Entry {
            init: init_name(init),
            name: meta.name.clone(),
            duration: Duration::from_micros(meta.duration_us),
            from,
            key: meta.key,
            discontinuity,
        });
    }
    gaps.for_each(|gap| list.gap(gap));
    if evidence.ended {
        list.end();
    }
    list.text()
}

/// The manifest of these objects.
pub fn manifest(
    subject: String,
    held: &[ObjectRef],
    evidence: &CameraEvidence,
    clock: Option<ClockCorrection>,
) -> Manifest {
    let mut manifest = Manifest::new(subject);
    for (ObjectRef { meta, .. }, span) in held.iter().zip(captured(held, evidence, clock)) {
        let (codecs, span, lost) = match extra(meta) {
            Some(Extra::Init { codecs, .. }) => (Some(codecs), None, false),
            Some(Extra::Fragment { lost, .. } | Extra::Stretch { lost, .. }) => (None, Some(span), lost),
            None => (None, None, false),
        };
        manifest.push(meta.name.clone(), meta.size, &meta.sha256, codecs, span, lost);
    }
    evidence.gaps.iter().cloned().for_each(|gap| manifest.gap(gap));
    manifest.end();
    manifest
}

/// Where a camera's evidence lies at headquarters: `{district}/incidents/{incident}/{camera}`; and its recordings:
/// `{district}/recordings/{camera}`.
pub fn folder(district: &DistrictId, kept: Kept, camera: &CameraId) -> String {
    match kept {
        Kept::Evidence { incident } => format!("{district}/incidents/{incident}/{camera}"),
        Kept::Buffer { .. } => format!("{district}/recordings/{camera}"),
    }
}

fn micros(span: Duration) -> u64 {
    u64::try_from(span.as_micros()).unwrap_or(u64::MAX)
}
