//! Key frames out of stored fragments. Pure.

use std::ops::Range;

use bytes::Bytes;
use mp4_atom::{Codec as Entry, Decode, Moof, Traf};

use super::{
    Reel, ReelError,
    rewrite::{Run, next_box},
};
use crate::media::frame::Codec;

/// Of a sample's flags (section 8.8.3.1): it is no sync sample.
const NOT_SYNC: u32 = 0x0001_0000;

/// A picture that can be decoded by itself.
#[derive(Debug, Clone)]
pub struct KeyFrame {
    /// How it is encoded.
    pub codec: Codec,
    /// Its parameter sets, each with its length.
    pub sets: Bytes,
    /// The picture, NAL units with their lengths; a whole file of [`Codec::Jpeg`].
    pub data: Bytes,
    /// Where it stands on its recording's time line, in microseconds.
    pub at_us: i64,
}

/// The last key frame of a fragment that stands at or before `until_us` on its recording's time line.
///
/// # Errors
/// When it is not as it was written.
pub fn key_frame(init: &Bytes, fragment: &Bytes, until_us: i64) -> Result<Option<KeyFrame>, ReelError> {
    let reel = Reel::new(std::slice::from_ref(init))?;
    let Some(joint) = reel.tracks.first() else { return Ok(None) };
    let codec = match &joint.entries[0].0 {
        Entry::Avc1(_) => Codec::H264,
        Entry::Hvc1(_) => Codec::H265,
        Entry::Jpeg(_) => Codec::Jpeg,
        _ => return Ok(None),
    };
    let (mut found, mut at) = (None, 0);
    while at < fragment.len() {
        let (kind, whole) = next_box(fragment, at)?;
        if kind == *b"moof" {
            for traf in Moof::decode(&mut &fragment[whole.clone()])?.traf {
                if traf.tfhd.track_id == joint.trak.tkhd.track_id {
                    last_key(&traf, at, joint.timescale, until_us)?.into_iter().for_each(|key| found = Some(key));
                }
            }
        }
        at = whole.end;
    }
    let Some((at_us, range)) = found else { return Ok(None) };
    if range.end > fragment.len() {
        return Err(ReelError::Shape("its frames lie outside it"));
    }
    Ok(Some(KeyFrame { codec, sets: joint.entries[0].1.clone(), data: fragment.slice(range), at_us }))
}

/// Where the last key frame of a track's run begins, and where its bytes lie.
fn last_key(traf: &Traf, at: usize, rate: u32, until_us: i64) -> Result<Option<(i64, Range<usize>)>, ReelError> {
    let run = Run::of(traf, at, rate)?;
    let usual = traf.tfhd.default_sample_flags.unwrap_or(NOT_SYNC);
    let (mut found, mut begins) = (None, run.begins);
    for (entry, starts_us, _) in run.samples() {
        let size = entry.size.ok_or(ReelError::Shape("its frames have no sizes"))? as usize;
        if entry.flags.unwrap_or(usual) & NOT_SYNC == 0 && starts_us <= until_us {
            found = Some((starts_us, begins..begins + size));
        }
        begins += size;
    }
    Ok(found)
}
