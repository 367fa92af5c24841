//! Fragments as they stand in another file: their times, numbers and descriptions made anew, frames that are not kept left out.
//! Pure.

use std::ops::Range;

use bytes::Bytes;
use mp4_atom::{Decode, Encode, Header, Moof, Tfdt, Traf, Trun, TrunEntry, TrunSamples};

use super::{BOX_HEADER, Keep, ReelError};

/// What becomes of a track's run.
pub(super) struct Target {
    pub track_id: u32,
    pub description: u32,
    pub rate: u32,
    /// Ticks from the recording's beginning to the file's.
    pub shift: i64,
    /// What goes before the first frame.
    pub sets: Bytes,
}

impl Target {
    fn without_sets(self) -> Self {
        Self { sets: Bytes::new(), ..self }
    }
}

/// `moof` and `mdat` of every chunk of which something is kept.
pub(super) fn rewrite(
    bytes: &Bytes,
    keep: Keep,
    target: impl Fn(u32) -> Option<Target>,
) -> Result<Vec<Bytes>, ReelError> {
    let (mut out, mut at) = (Vec::new(), 0);
    while at < bytes.len() {
        let (kind, whole) = next_box(bytes, at)?;
        if kind == *b"moof" {
            let moof = Moof::decode(&mut &bytes[whole.clone()])?;
            let first = out.is_empty();
            rewrite_chunk(
                moof,
                at,
                bytes,
                keep,
                |id| target(id).map(|t| if first { t } else { t.without_sets() }),
                &mut out,
            )?;
        }
        at = whole.end;
    }
    Ok(out)
}

fn rewrite_chunk(
    moof: Moof,
    at: usize,
    bytes: &Bytes,
    keep: Keep,
    target: impl Fn(u32) -> Option<Target>,
    out: &mut Vec<Bytes>,
) -> Result<(), ReelError> {
    let mut kept = Moof { mfhd: moof.mfhd, traf: Vec::new() };
    let mut media = Vec::new();
    for traf in moof.traf {
        let target = target(traf.tfhd.track_id).ok_or(ReelError::Shape("it has a track that is not described"))?;
        if let Some((traf, range)) = cut(traf, at, keep, &target)? {
            if range.start < at || range.end > bytes.len() {
                return Err(ReelError::Shape("its frames lie outside it"));
            }
            kept.traf.push(traf);
            media.push((target.sets, bytes.slice(range)));
        }
    }
    if kept.traf.is_empty() {
        return Ok(());
    }
    // The runs say where their bytes lie counted from the moof's beginning, so its own length is needed first.
    let mut head = Vec::with_capacity(512 + 16 * bytes.len() / 4096);
    kept.encode(&mut head)?;
    let mut offset = head.len() + BOX_HEADER;
    for (traf, (sets, media)) in kept.traf.iter_mut().zip(&media) {
        for trun in &mut traf.trun {
            trun.data_offset = Some(i32::try_from(offset).map_err(|_| ReelError::Shape("it is too large"))?);
        }
        offset += sets.len() + media.len();
    }
    let mdat = offset - head.len();
    head.clear();
    kept.encode(&mut head)?;
    head.extend_from_slice(&u32::try_from(mdat).map_err(|_| ReelError::Shape("it is too large"))?.to_be_bytes());
    head.extend_from_slice(b"mdat");
    out.push(head.into());
    out.extend(media.into_iter().flat_map(|(sets, media)| [sets, media]).filter(|part| !part.is_empty()));
    Ok(())
}

/// A track's run in a fragment.
pub(super) struct Run<'a> {
    entries: &'a [TrunEntry],
    /// Decode time of the first frame, in ticks.
    time: u64,
    usual: u32,
    rate: u32,
    /// Where the bytes of the first frame lie.
    pub begins: usize,
}

impl<'a> Run<'a> {
    /// Of a `moof` that begins at `at`.
    pub fn of(traf: &'a Traf, at: usize, rate: u32) -> Result<Self, ReelError> {
        let [trun] = &traf.trun[..] else { return Err(ReelError::Shape("a track has not one run")) };
        let TrunSamples::Explicit(entries) = &trun.samples else {
            return Err(ReelError::Shape("its frames have no sizes"));
        };
        let begins = trun.data_offset.and_then(|offset| at.checked_add_signed(offset as isize));
        Ok(Self {
            entries,
            time: traf.tfdt.as_ref().ok_or(ReelError::Shape("it has no time"))?.base_media_decode_time,
            usual: traf.tfhd.default_sample_duration.unwrap_or(0),
            rate,
            begins: begins.ok_or(ReelError::Shape("it does not say where its frames are"))?,
        })
    }

    /// Its frames, when each begins in microseconds, rounded as the recording's own places are, and in ticks.
    pub fn samples(&self) -> impl Iterator<Item = (&'a TrunEntry, i64, u64)> + use<'a> {
        let (mut time, usual, rate) = (self.time, self.usual, u128::from(self.rate));
        self.entries.iter().map(move |entry| {
            let starts = time;
            time = time.saturating_add(u64::from(entry.duration.unwrap_or(usual)));
            (entry, i64::try_from(u128::from(starts) * 1_000_000 / rate).unwrap_or(i64::MAX), starts)
        })
    }
}

/// What is kept of a track's run, and where its bytes lie.
fn cut(mut traf: Traf, at: usize, keep: Keep, target: &Target) -> Result<Option<(Traf, Range<usize>)>, ReelError> {
    let run = Run::of(&traf, at, target.rate)?;
    let (mut begins, mut first, mut count, mut size) = (run.begins, None, 0, 0_usize);
    for (n, (entry, starts_us, time)) in run.samples().enumerate() {
        let bytes = entry.size.ok_or(ReelError::Shape("its frames have no sizes"))? as usize;
        if starts_us < keep.from_us {
            begins += bytes;
        } else if starts_us < keep.to_us {
            first.get_or_insert((n, time));
            (count, size) = (count + 1, size + bytes);
        }
    }
    let Some((n, time)) = first else { return Ok(None) };
    if let [Trun { samples: TrunSamples::Explicit(entries), .. }] = &mut traf.trun[..] {
        entries.truncate(n + count);
        entries.drain(..n);
        if let Some(size) = entries.first_mut().and_then(|entry| entry.size.as_mut()) {
            *size = size.saturating_add(u32::try_from(target.sets.len()).unwrap_or(u32::MAX));
        }
    }
    traf.tfhd.track_id = target.track_id;
    traf.tfhd.sample_description_index = Some(target.description);
    traf.tfdt = Some(Tfdt { base_media_decode_time: time.saturating_add_signed(target.shift) });
    Ok(Some((traf, begins..begins + size)))
}

/// The box at `at`: its kind, and from where to where it goes.
pub(super) fn next_box(bytes: &Bytes, at: usize) -> Result<([u8; 4], Range<usize>), ReelError> {
    let mut rest = &bytes[at..];
    let before = rest.len();
    let header = Header::decode(&mut rest)?;
    let head = before - rest.len();
    let size = header.size.ok_or(ReelError::Shape("a box has no end"))?;
    let end = at.checked_add(head + size).filter(|end| *end <= bytes.len());
    let end = end.ok_or(ReelError::Shape("it is cut short"))?;
    Ok((*header.kind.as_ref(), at..end))
}
