//! Fragments of several recordings of one camera as one MP4 file (ISO/IEC 14496-12), built without holding it. Pure.
//!
//! **Head.** `ftyp`, a `moov` that describes every format that occurs, and a `sidx`. Pictures of one codec share a track,
//! each format with a sample description of its own; and since players are known that read only the first, its parameter
//! sets go before the key frames of the others too (`avc3`, `hev1`: ISO/IEC 14496-15). Another codec, and another format
//! of sound, is another track. The head's length depends on the formats alone: the same fragments stand at the same bytes
//! while the file still grows.
//!
//! **Fragments** get the time and the numbers of this file in their `moof`; their media bytes are not touched. Each takes
//! up [`len`] bytes, known before it is read: what is left over is a `free` box. One that cannot be read any more becomes
//! a `free` box whole.

mod index;
mod key;
mod rewrite;

use std::{collections::BTreeMap, mem};

use bytes::Bytes;
use mp4_atom::{
    Avc1, Avc3, Codec as Entry, Decode, Encode, FourCC, Ftyp, Hev1, Hvc1, Mehd, Moov, Mvex, Mvhd, Trak, Trex,
};

pub use index::Index;
pub use key::{KeyFrame, key_frame};

use rewrite::{Target, rewrite};

/// Ticks a second of the movie's and the index's own times.
const MILLIS: u32 = 1_000;

/// Size and kind in front of a box's body.
const BOX_HEADER: usize = 8;

/// A fragment has at most two tracks, and each takes four bytes more here: its sample description.
const GROWTH: u64 = 2 * 4;

/// Why fragments cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum ReelError {
    /// A box cannot be read or written.
    #[error("a box of a stored fragment cannot be read")]
    Box(#[from] mp4_atom::Error),
    /// Something is not as we write it.
    #[error("a stored fragment is not as it was written: {0}")]
    Shape(&'static str),
}

/// How many bytes a fragment takes up in the file, whose own file has `size` bytes in at most `chunks` chunks.
pub fn len(size: u64, chunks: u64) -> u64 {
    size + GROWTH * chunks + BOX_HEADER as u64
}

/// What of a fragment is kept: frames that begin within, in microseconds of the recording's own time line.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// From.
    pub from_us: i64,
    /// To, not included.
    pub to_us: i64,
}

impl Keep {
    /// Everything.
    pub const ALL: Self = Self { from_us: i64::MIN, to_us: i64::MAX };
}

/// What describes the fragments: tracks, and where in them each init segment's formats are.
#[derive(Debug)]
pub struct Reel {
    tracks: Vec<Joint>,
    /// For each init segment, by its own track's number.
    formats: Vec<BTreeMap<u32, Place>>,
}

/// A track of the file.
#[derive(Debug)]
struct Joint {
    /// As its first init segment has it.
    trak: Trak,
    /// Sample descriptions, with the parameter sets of each.
    entries: Vec<(Entry, Bytes)>,
    timescale: u32,
}

/// Where a format is described.
#[derive(Debug, Clone, Copy)]
struct Place {
    /// From 0.
    track: usize,
    /// From 1.
    description: u32,
    /// Ticks a second in the fragments.
    rate: u32,
}

/// A fragment as it is to stand in the file.
#[derive(Debug, Clone, Copy)]
pub struct Splice {
    /// Which init segment it needs, from 0.
    pub init: usize,
    /// From its recording's time line to the file's, in microseconds.
    pub shift_us: i64,
    /// What is kept of it.
    pub keep: Keep,
    /// Whether its parameter sets go before its first picture.
    pub sets: bool,
    /// How many bytes it takes up.
    pub len: u64,
}

impl Reel {
    /// A file whose fragments need these init segments, the first first. Give each but once.
    ///
    /// # Errors
    /// When one of them cannot be read.
    pub fn new(inits: &[Bytes]) -> Result<Self, ReelError> {
        let traks = |init: &Bytes| {
            let mut at = &init[..];
            Ftyp::decode(&mut at)?;
            Ok::<_, ReelError>(Moov::decode(&mut at)?.trak)
        };
        let all = inits.iter().map(traks).collect::<Result<Vec<_>, _>>()?;
        let mut reel = Self { tracks: Vec::new(), formats: vec![BTreeMap::new(); inits.len()] };
        // Pictures first: what shows but one track of a file shows the first.
        for sound in [false, true] {
            for (at, trak) in all.iter().enumerate().flat_map(|(at, traks)| traks.iter().map(move |trak| (at, trak))) {
                if (trak.mdia.hdlr.handler == FourCC::new(b"soun")) == sound {
                    let place = reel.place(trak.clone())?;
                    reel.formats[at].insert(trak.tkhd.track_id, place);
                }
            }
        }
        Ok(reel)
    }

    fn place(&mut self, trak: Trak) -> Result<Place, ReelError> {
        let rate = trak.mdia.mdhd.timescale;
        let entry =
            trak.mdia.minf.stbl.stsd.codecs.first().cloned().ok_or(ReelError::Shape("a track has no format"))?;
        if rate == 0 {
            return Err(ReelError::Shape("a track has no time scale"));
        }
        let sets = parameter_sets_of(&entry);
        let known = |joint: &Joint| joint.timescale == rate && joint.entries.iter().any(|(e, _)| *e == entry);
        let alike = |joint: &Joint| {
            let same_codec = mem::discriminant(&joint.entries[0].0) == mem::discriminant(&entry);
            joint.timescale == rate && same_codec && !sets.is_empty()
        };
        let track = self.tracks.iter().position(known).or_else(|| self.tracks.iter().position(alike));
        let Some(track) = track else {
            self.tracks.push(Joint { trak, entries: vec![(entry, sets)], timescale: rate });
            return Ok(Place { track: self.tracks.len() - 1, description: 1, rate });
        };
        let joint = &mut self.tracks[track];
        if joint.trak.tkhd.width.integer() < trak.tkhd.width.integer() {
            (joint.trak.tkhd.width, joint.trak.tkhd.height) = (trak.tkhd.width, trak.tkhd.height);
        }
        let known = joint.entries.iter().position(|(e, _)| *e == entry);
        let at = known.unwrap_or_else(|| {
            joint.entries.push((entry, sets));
            joint.entries.len() - 1
        });
        Ok(Place { track, description: number(at), rate })
    }

    /// What stands before the fragments: their total length, and where in time they are, as `index` has counted.
    ///
    /// # Errors
    /// When a box cannot be written.
    pub fn head(&self, index: &Index) -> Result<Bytes, ReelError> {
        let trak = |(at, joint): (usize, &Joint)| {
            let mut trak = joint.trak.clone();
            trak.tkhd.track_id = number(at);
            let entries = joint.entries.iter().map(|(entry, _)| entry.clone());
            let several = joint.entries.len() > 1;
            let entries = entries.map(|entry| if several { with_sets_in_band(entry) } else { entry });
            trak.mdia.minf.stbl.stsd.codecs = entries.collect();
            trak
        };
        let trex = |at| Trex { track_id: number(at), default_sample_description_index: 1, ..Trex::default() };
        let moov = Moov {
            mvhd: Mvhd {
                timescale: MILLIS,
                rate: 1.into(),
                volume: 1.into(),
                next_track_id: number(self.tracks.len()),
                ..Mvhd::default()
            },
            mvex: Some(Mvex {
                mehd: Some(Mehd { fragment_duration: index.end_us() / 1_000 }),
                trex: (0..self.tracks.len()).map(trex).collect(),
            }),
            trak: self.tracks.iter().enumerate().map(trak).collect(),
            ..Moov::default()
        };
        let compatible_brands = vec![FourCC::new(b"iso6"), FourCC::new(b"mp41")];
        let ftyp = Ftyp { major_brand: FourCC::new(b"iso6"), minor_version: 0, compatible_brands };
        let mut out = Vec::with_capacity(16 << 10);
        ftyp.encode(&mut out)?;
        moov.encode(&mut out)?;
        index.encode(&mut out)?;
        Ok(out.into())
    }

    /// A fragment's bytes in the file: exactly as many as was said.
    ///
    /// # Errors
    /// When it is not as it was written, or is longer than that.
    pub fn splice(&self, fragment: &Bytes, splice: &Splice) -> Result<Vec<Bytes>, ReelError> {
        let formats = self.formats.get(splice.init).ok_or(ReelError::Shape("its init segment is another's"))?;
        let target = |id: u32| {
            let place = formats.get(&id)?;
            let joint = &self.tracks[place.track];
            let (_, sets) = &joint.entries[place.description as usize - 1];
            Some(Target {
                track_id: number(place.track),
                description: place.description,
                rate: place.rate,
                shift: rescale(splice.shift_us, place.rate),
                sets: if splice.sets { sets.clone() } else { Bytes::new() },
            })
        };
        let mut out = rewrite(fragment, splice.keep, target)?;
        let taken: u64 = out.iter().map(|part| part.len() as u64).sum();
        match splice.len.checked_sub(taken) {
            Some(0) => {}
            Some(rest) if rest >= BOX_HEADER as u64 => out.push(filler(rest)),
            _ => return Err(ReelError::Shape("it is longer than was said")),
        }
        Ok(out)
    }
}

/// How many bytes remain of a fragment of which not all is kept, without parameter sets. None: nothing of it.
///
/// # Errors
/// When it is not as it was written.
pub fn kept_len(init: &Bytes, fragment: &Bytes, keep: Keep) -> Result<Option<u64>, ReelError> {
    let reel = Reel::new(std::slice::from_ref(init))?;
    let target = |id: u32| {
        let rate = reel.formats[0].get(&id)?.rate;
        Some(Target { track_id: id, description: 1, rate, shift: 0, sets: Bytes::new() })
    };
    let parts = rewrite(fragment, keep, target)?;
    Ok((!parts.is_empty()).then(|| parts.iter().map(|part| part.len() as u64).sum()))
}

/// How many bytes the parameter sets of an init segment's pictures take up before a frame.
///
/// # Errors
/// When it cannot be read.
pub fn sets_len(init: &Bytes) -> Result<u64, ReelError> {
    let reel = Reel::new(std::slice::from_ref(init))?;
    Ok(reel.tracks.iter().map(|joint| joint.entries[0].1.len() as u64).sum())
}

/// Parameter sets as they stand before a frame, each with its length. Nothing of other codecs.
fn parameter_sets_of(entry: &Entry) -> Bytes {
    let sets: Vec<&[u8]> = match entry {
        Entry::Avc1(avc) => [&avc.avcc.sequence_parameter_sets, &avc.avcc.picture_parameter_sets]
            .into_iter()
            .flatten()
            .map(|set| &set[..])
            .collect(),
        Entry::Hvc1(hevc) => hevc.hvcc.arrays.iter().flat_map(|array| &array.nalus).map(|set| &set[..]).collect(),
        _ => Vec::new(),
    };
    let mut out = Vec::new();
    for set in sets {
        out.extend_from_slice(&u32::try_from(set.len()).unwrap_or(u32::MAX).to_be_bytes());
        out.extend_from_slice(set);
    }
    out.into()
}

/// The sample entry that says that parameter sets are among the frames too.
fn with_sets_in_band(entry: Entry) -> Entry {
    match entry {
        Entry::Avc1(Avc1 { visual, avcc, .. }) => Avc3 { visual, avcc, ..Avc3::default() }.into(),
        Entry::Hvc1(Hvc1 { visual, hvcc, .. }) => Hev1 { visual, hvcc, ..Hev1::default() }.into(),
        other => other,
    }
}

/// A `free` box of so many bytes, at least eight: what nobody reads.
pub fn filler(len: u64) -> Bytes {
    let mut out = vec![0; usize::try_from(len).unwrap_or(usize::MAX).max(BOX_HEADER)];
    out[..4].copy_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    out[4..8].copy_from_slice(b"free");
    out.into()
}

fn rescale(us: i64, timescale: u32) -> i64 {
    i64::try_from((i128::from(us) * i128::from(timescale)).div_euclid(1_000_000)).unwrap_or(i64::MAX)
}

fn number(at: usize) -> u32 {
    u32::try_from(at + 1).unwrap_or(u32::MAX)
}
