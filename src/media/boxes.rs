//! The bytes of one fragment: `moof` and `mdat` (ISO/IEC 14496-12 section 8.8). Pure.

use std::sync::Arc;

use bytes::Bytes;
use mp4_atom::{Encode, Error, Mfhd, Moof, Tfdt, Tfhd, Traf, Trun, TrunEntry, TrunSamples};

use super::frame::{Frame, Track};

/// Sample flags (section 8.8.3.1): depends on no other sample.
const KEY: u32 = 0x0200_0000;
/// Sample flags: depends on others, and is no sync sample.
const NOT_KEY: u32 = 0x0101_0000;
/// Size and kind in front of a box's body.
const BOX_HEADER: usize = 8;

/// What one track has in a fragment.
pub(super) struct Run<'a> {
    /// Its number in the init segment.
    pub track_id: u32,
    /// Decode time of the first frame, in the track's ticks.
    pub time: u64,
    /// At least one frame.
    pub frames: &'a [Arc<Frame>],
    /// How long each is shown, in the track's ticks; as many as frames.
    pub durations: &'a [u32],
}

/// `moof` and `mdat` of these runs, in one allocation of its exact size.
pub(super) fn fragment(number: u32, runs: &[Run<'_>]) -> Result<Bytes, Error> {
    let sizes: Vec<usize> = runs.iter().map(|r| r.frames.iter().map(|f| f.data.len()).sum()).collect();
    let payload: usize = sizes.iter().sum();
    let mdat = u32::try_from(payload + BOX_HEADER).map_err(|_| Error::InvalidSize)?;

    // The runs say where their bytes lie counted from the moof's beginning, so its own length is needed first.
    let mut moof = Moof { mfhd: Mfhd { sequence_number: number }, traf: runs.iter().map(traf).collect() };
    let mut head = Vec::with_capacity(256 + 16 * runs.iter().map(|r| r.frames.len()).sum::<usize>());
    moof.encode(&mut head)?;
    let mut offset = head.len() + BOX_HEADER;
    for (traf, size) in moof.traf.iter_mut().zip(sizes) {
        for trun in &mut traf.trun {
            trun.data_offset = Some(i32::try_from(offset).map_err(|_| Error::InvalidSize)?);
        }
        offset += size;
    }

    let mut out = Vec::with_capacity(offset);
    moof.encode(&mut out)?;
    out.extend_from_slice(&mdat.to_be_bytes());
    out.extend_from_slice(b"mdat");
    for frame in runs.iter().flat_map(|r| r.frames) {
        out.extend_from_slice(&frame.data);
    }
    Ok(out.into())
}

fn traf(run: &Run<'_>) -> Traf {
    let sound = run.frames.first().is_some_and(|f| f.track == Track::Audio);
    let key = |f: &Frame| sound || f.key;
    let usual_flags = if sound { KEY } else { NOT_KEY };
    let usual_duration = run.durations.first().copied();
    let even = run.durations.iter().all(|d| Some(*d) == usual_duration);
    // The usual case, one key frame at the front, takes no flags per sample.
    let front_only = run.frames.iter().skip(1).all(|f| (if key(f) { KEY } else { NOT_KEY }) == usual_flags);

    let entries = run.frames.iter().zip(run.durations).enumerate().map(|(i, (frame, duration))| {
        let flags = if key(frame) { KEY } else { NOT_KEY };
        TrunEntry {
            duration: (!even).then_some(*duration),
            size: Some(frame.data.len() as u32),
            flags: (!front_only || (i == 0 && flags != usual_flags)).then_some(flags),
            cts: None,
        }
    });
    Traf {
        tfhd: Tfhd {
            track_id: run.track_id,
            default_sample_duration: if even { usual_duration } else { None },
            default_sample_flags: Some(usual_flags),
            default_base_is_moof: true,
            ..Tfhd::default()
        },
        tfdt: Some(Tfdt { base_media_decode_time: run.time }),
        trun: vec![Trun { data_offset: Some(0), samples: TrunSamples::Explicit(entries.collect()) }],
        ..Traf::default()
    }
}
