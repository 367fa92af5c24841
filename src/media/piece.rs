//! What a recording is made of: init segments and fragments, named, numbered and dated. Pure.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use super::{
    boxes::{self, Run},
    frame::{Format, Frame, Track},
    init::{self, FormatError},
    line::span_of,
};
use crate::district::clock::{Mono, Utc};

/// What comes out of a recording, in the order in which it is to be stored.
#[derive(Debug)]
pub enum Piece {
    /// What a player must know before the fragments that follow.
    Init(Init),
    /// The next fragment.
    Fragment(Fragment),
    /// Something that cannot be recorded: said once for each format, and for each fragment that could not be written.
    Refused {
        /// Of which track; `None` where a whole fragment is lost.
        track: Option<Track>,
        /// Why.
        error: FormatError,
    },
}

/// An init segment: `ftyp` and `moov`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Init {
    /// Counts up from 0.
    pub number: u32,
    /// The file.
    pub bytes: Bytes,
    /// RFC 6381 names of all tracks, as MSE and HLS want them: `avc1.4d4028,opus`.
    pub codecs: String,
    /// Pixels across; zero where there are no pictures.
    pub width: u16,
    /// Pixels down.
    pub height: u16,
}

impl Init {
    /// The object's name: `init.mp4`, `init-2.mp4`, ...
    pub fn name(&self) -> String {
        init_name(self.number)
    }
}

/// The name of an init segment by its number from 0: `init.mp4`, `init-2.mp4`, ...
pub fn init_name(number: u32) -> String {
    if number == 0 { "init.mp4".into() } else { format!("init-{}.mp4", u64::from(number) + 1) }
}

/// The name of a fragment by its number from 1: `00001.m4s`, ...
pub fn fragment_name(number: u32) -> String {
    format!("{number:05}.m4s")
}

/// The number of the fragment of that name.
pub fn fragment_number(name: &str) -> Option<u32> {
    name.strip_suffix(".m4s")?.parse().ok()
}

/// The number of the init segment of that name.
pub fn init_number(name: &str) -> Option<u32> {
    let rest = name.strip_prefix("init")?.strip_suffix(".mp4")?;
    if rest.is_empty() { Some(0) } else { rest.strip_prefix('-')?.parse::<u32>().ok()?.checked_sub(1) }
}

/// A fragment, or a chunk of one: `moof` and `mdat`. Its chunks one after another are the fragment's file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fragment {
    /// The fragment's: counts up from 1 without holes.
    pub number: u32,
    /// How many chunks of the fragment came before.
    pub chunk: u16,
    /// Whether more of the fragment is to come.
    pub more: bool,
    /// The init segment it needs.
    pub init: u32,
    /// What goes into the file.
    pub bytes: Bytes,
    /// When its first frame was captured.
    pub from: Utc,
    /// When its first frame arrived here.
    pub arrived: Mono,
    /// `from` and `duration`.
    pub to: Utc,
    /// Where it stands on the recording's time line.
    pub at: Duration,
    /// How long it lasts, by the camera's ticks.
    pub duration: Duration,
    /// Whether decoding can begin here.
    pub key: bool,
    /// Pictures, or packets of sound where there are no pictures.
    pub frames: u32,
    /// Whether packets were lost in it or just before it.
    pub lost: bool,
    /// Whether it does not go on where what came before it ended, or needs another init segment than that.
    pub discontinuity: bool,
}

impl Fragment {
    /// The object's name: `00001.m4s`, ...
    pub fn name(&self) -> String {
        fragment_name(self.number)
    }
}

/// Where a recording goes on that a restart of the gateway interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Position {
    /// Number of the next fragment; the first of a recording is 1.
    pub fragment: u32,
    /// Number of the next init segment; the first of a recording is 0.
    pub init: u32,
    /// Where on the recording's time line the next frame stands at the earliest.
    pub at: Duration,
}

impl Default for Position {
    /// The beginning.
    fn default() -> Self {
        Self { fragment: 1, init: 0, at: Duration::ZERO }
    }
}

/// Frames of one track that go into a fragment together.
#[derive(Debug, Default)]
pub(super) struct Stretch {
    /// In order.
    pub frames: Vec<Arc<Frame>>,
    /// How long each lasts, in ticks.
    pub durations: Vec<u32>,
    /// Where the first stands on the recording's time line, in ticks.
    pub time: i64,
}

impl Stretch {
    /// Where it ends on the recording's time line.
    pub fn end(&self) -> Duration {
        let ticks: i64 = self.durations.iter().map(|d| i64::from(*d)).sum();
        self.frames.first().map_or(Duration::ZERO, |f| span_of(self.time + ticks, f.format.clock_rate))
    }
}

/// A fragment before it is bytes.
#[derive(Debug)]
pub(super) struct Cut {
    /// The leading track, never empty.
    pub lead: Stretch,
    /// Sound beside pictures, if there is some in this fragment.
    pub sound: Stretch,
    /// What the init segment must describe: pictures, sound.
    pub formats: [Option<Arc<Format>>; 2],
    /// Whether it goes on where what came before it ended.
    pub follows: bool,
    /// Whether more of the fragment is to come.
    pub more: bool,
}

/// Numbers the pieces and makes their bytes.
#[derive(Debug)]
pub(super) struct Writer {
    next: Position,
    /// How many chunks of the next fragment are out.
    chunks: u16,
    described: [Option<Arc<Format>>; 2],
    broken: bool,
}

impl Writer {
    pub fn new(next: Position) -> Self {
        Self { next, chunks: 0, described: [None, None], broken: next.fragment > 1 }
    }

    pub fn next(&self) -> Position {
        self.next
    }

    /// Makes a chunk, with an init segment before it where the formats are new. After one that cannot be made, a fragment
    /// begins.
    pub fn write(&mut self, cut: &Cut, out: &mut Vec<Piece>) {
        self.broken |= !cut.follows;
        match self.try_write(cut, out) {
            Ok(fragment) => out.push(Piece::Fragment(fragment)),
            Err(error) => {
                self.broken = true;
                self.next.fragment += u32::from(std::mem::take(&mut self.chunks) > 0);
                out.push(Piece::Refused { track: None, error });
            }
        }
    }

    fn try_write(&mut self, cut: &Cut, out: &mut Vec<Piece>) -> Result<Fragment, FormatError> {
        if self.described != cut.formats {
            let init = describe(self.next.init, &cut.formats)?;
            out.push(Piece::Init(init));
            self.next.init += 1;
            self.broken |= self.described.iter().any(Option::is_some);
            self.described.clone_from(&cut.formats);
        }
        let lead = &cut.lead;
        let Some(first) = lead.frames.first() else { return Err(mp4_atom::Error::MissingContent("frames").into()) };
        // Counts up from chunk to chunk.
        let sequence = (self.next.fragment << 8).saturating_add(u32::from(self.chunks));
        let bytes = boxes::fragment(sequence, &runs(cut))?;

        let rate = first.format.clock_rate;
        let ticks: i64 = lead.durations.iter().map(|d| i64::from(*d)).sum();
        let duration = span_of(ticks, rate);
        let at = span_of(lead.time, rate);
        let fragment = Fragment {
            number: self.next.fragment,
            chunk: self.chunks,
            more: cut.more,
            init: self.next.init - 1,
            bytes,
            from: first.captured,
            arrived: first.arrived,
            to: first.captured.after(duration),
            at,
            duration,
            key: first.key,
            frames: u32::try_from(lead.frames.len()).unwrap_or(u32::MAX),
            lost: lead.frames.iter().chain(&cut.sound.frames).any(|f| f.lost_before > 0),
            discontinuity: std::mem::take(&mut self.broken),
        };
        self.chunks += 1;
        if !cut.more {
            (self.next.fragment, self.chunks) = (self.next.fragment + 1, 0);
        }
        self.next.at = self.next.at.max(lead.end());
        Ok(fragment)
    }
}

fn describe(number: u32, formats: &[Option<Arc<Format>>; 2]) -> Result<Init, FormatError> {
    let [video, audio] = [formats[0].as_deref(), formats[1].as_deref()];
    Ok(Init {
        number,
        bytes: init::segment(video, audio)?,
        codecs: init::codecs(video, audio),
        width: video.map_or(0, |v| v.width),
        height: video.map_or(0, |v| v.height),
    })
}

fn runs(cut: &Cut) -> Vec<Run<'_>> {
    let stretches = [&cut.lead, &cut.sound].into_iter().filter(|s| !s.frames.is_empty());
    stretches
        .map(|s| Run {
            track_id: match s.frames[0].track {
                Track::Video => init::VIDEO_TRACK,
                Track::Audio => init::AUDIO_TRACK,
            },
            time: u64::try_from(s.time).unwrap_or(0),
            frames: &s.frames,
            durations: &s.durations,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_interface() {
        assert_eq!([init_name(0), init_name(1), init_name(9)], ["init.mp4", "init-2.mp4", "init-10.mp4"]);
        let read =
            [init_number("init.mp4"), init_number("init-10.mp4"), fragment_number("00007.m4s"), init_number("x")];
        assert_eq!(read, [Some(0), Some(9), Some(7), None]);
        assert_eq!([fragment_name(1), fragment_name(100_000)], ["00001.m4s", "100000.m4s"]);
    }
}
