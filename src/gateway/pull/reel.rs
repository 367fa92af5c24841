//! What is held of a camera between two moments, or of an incident, as one MP4 file that is never made: planned from the
//! index, then read from the media log piece by piece while it is sent. Memory grows neither with the interval nor with
//! what is held of it.
//!
//! The plan goes through the index in stretches of ten minutes and keeps of each how long it is, a digest, and how far the
//! choosing had got: so any byte is found without going through all before it, and what has gone meanwhile is noticed.

use std::{collections::BTreeMap, ops::Range, sync::Arc, time::Duration};

use aws_lc_rs::digest::{Context, SHA256};
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use tracing::warn;

use super::{
    choice::{Candidate, Chooser},
    plan::{Piece, Plan, Source, Unreeled, digest},
};
use crate::{
    district::{clock::Utc, hex},
    gateway::{Interval, Unheld, shelf},
    media::{
        playlist::{Entry, Playlist},
        reel::{self, Index, KeyFrame, Splice},
    },
    spool::{self, ObjectMeta},
};

/// Fragments that are read while the one before them is sent.
const AHEAD: usize = 3;

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

/// A part of the file.
struct Stretch {
    /// What begins before this, and not before the stretch before it ended.
    until: Utc,
    /// How far the choosing was before it.
    chooser: Chooser,
    bytes: u64,
    digest: [u8; 32],
}

impl Reel {
    /// Plans what a source holds between two moments.
    ///
    /// # Errors
    /// [`Unreeled`], when there is nothing to send.
    pub(in crate::gateway) async fn plan(source: Source, asked: Interval) -> Result<Self, Unreeled> {
        let mut plan = Plan::new(source, asked);
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
            etag: hex::encode(&whole.finish().as_ref()[..16]),
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

/// Which bytes of something that stands at `at` are within `range`.
fn overlap(range: &Range<u64>, at: u64, len: u64) -> Option<Range<usize>> {
    let (from, to) = (range.start.max(at), range.end.min(at + len));
    let part = |n: u64| usize::try_from(n - at).unwrap_or(usize::MAX);
    (from < to).then(|| part(from)..part(to))
}
