//! Frames into fragments that a player takes one after another (ISO/IEC 14496-12 section 8.8, 23000-19). Pure.
//!
//! Both tracks of a camera are in each fragment. A fragment is cut at the first key frame at or after
//! [`Settings::target`], and at [`Settings::longest`] without one.
//!
//! **Time.** A recording has one time line, which begins at zero with its first frame and never restarts: `tfdt` is the
//! time since then. Within a camera's timeline it moves exactly by the camera's ticks; a new timeline (a new session, a
//! clock that jumped) is placed by when its first frame arrived here, never before the end of what went before. So an
//! interval nobody holds is a hole of its true length, the init segment and all fragments of one format put one after
//! another are one MP4 that plays, and a browser appends them to one source buffer with `timestampOffset` 0. Sound is
//! placed beside the pictures once per timeline, by when both were captured, then moves by its own ticks.
//!
//! **Init segments.** A new one comes when what a decoder must know changes: a format, or sound that comes or goes. A new
//! timeline of the same formats needs none; its first fragment says [`Fragment::discontinuity`].

use std::{collections::VecDeque, sync::Arc, time::Duration};

pub use super::piece::{Fragment, Init, Piece, Position, fragment_name, init_name};
use super::{
    frame::{Format, Frame, Track},
    init,
    line::{Anchor, Line, rescale, span_of, ticks_from, ticks_in},
    piece::{Cut, Stretch, Writer},
};
use crate::district::clock::Mono;

/// Sound that waits for pictures or for the next key frame; the oldest goes when there is more.
const WAITING: usize = 1024;

/// Where fragments are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Cut at the first key frame at or after this.
    pub target: Duration,
    /// No fragment lasts longer; cut without a key frame if need be.
    pub longest: Duration,
}

impl Default for Settings {
    /// A second, so that evidence is at headquarters soon; 4.5 s takes groups of pictures of 4 s whole.
    fn default() -> Self {
        Self { target: Duration::from_secs(1), longest: Duration::from_millis(4_500) }
    }
}

/// Makes fragments of one camera's frames.
#[derive(Debug)]
pub struct Fragmenter {
    settings: Settings,
    writer: Writer,
    /// Pictures, or sound where there are none: what decides the cuts.
    lead: Option<Line>,
    /// Sound beside pictures.
    follow: Option<Line>,
    /// Sound that cannot be placed yet.
    waiting: VecDeque<Arc<Frame>>,
    /// What the leading track's ticks were last read by, and where its fragments ended by it.
    anchor: Option<(Anchor, i64)>,
    /// The newest frame of the leading track in a fragment: its arrival, its place.
    newest: Option<(Mono, Duration)>,
    /// Where the sound in the fragments ended.
    sound_end: Duration,
    /// For pictures and sound: the format last looked at, and whether it can be recorded.
    known: [Option<(Arc<Format>, bool)>; 2],
}

impl Fragmenter {
    /// A recording that begins.
    pub fn new(settings: Settings) -> Self {
        Self::resume(settings, Position::default())
    }

    /// A recording that goes on, with an init segment first.
    pub fn resume(settings: Settings, next: Position) -> Self {
        Self {
            settings: Settings { longest: settings.longest.max(settings.target), ..settings },
            writer: Writer::new(next),
            lead: None,
            follow: None,
            waiting: VecDeque::new(),
            anchor: None,
            newest: None,
            sound_end: next.at,
            known: [None, None],
        }
    }

    /// Where the recording goes on after the pieces so far.
    pub fn position(&self) -> Position {
        self.writer.next()
    }

    /// Takes the next frame and gives what is complete by it, mostly nothing.
    pub fn push(&mut self, frame: &Arc<Frame>) -> Vec<Piece> {
        let mut out = Vec::new();
        if !frame.data.is_empty() && self.recordable(frame, &mut out) {
            match frame.track {
                Track::Video => self.push_lead(frame, &mut out),
                Track::Audio => self.push_sound(frame, &mut out),
            }
        }
        out
    }

    /// Frames are missing here (the reader was too slow): what is held goes out, and the recording goes on at the next
    /// key frame.
    pub fn skip(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        self.flush(None, &mut out);
        self.waiting.clear();
        out
    }

    /// No frame will come any more: what is held goes out. The last frame lasts as long as the one before it.
    pub fn finish(&mut self) -> Vec<Piece> {
        let mut out = Vec::new();
        if self.lead.is_none() && self.known[0].is_none() {
            self.sound_alone(&mut out);
        }
        self.flush(None, &mut out);
        out
    }

    /// Whether MP4 takes frames of this format; says so once where not.
    fn recordable(&mut self, frame: &Frame, out: &mut Vec<Piece>) -> bool {
        let known = &mut self.known[usize::from(frame.track == Track::Audio)];
        if let Some((format, good)) = known
            && same(format, &frame.format)
        {
            return *good;
        }
        let entry = init::sample_entry(&frame.format);
        let good = entry.is_ok();
        *known = Some((frame.format.clone(), good));
        if let Err(error) = entry {
            out.push(Piece::Refused { track: Some(frame.track), error });
        }
        good
    }

    /// A frame of the leading track.
    fn push_lead(&mut self, frame: &Arc<Frame>, out: &mut Vec<Piece>) {
        if self.lead.as_ref().is_some_and(|l| l.continues(frame)) {
            return self.advance(frame, out);
        }
        self.flush(Some(frame), out);
        if frame.key {
            self.open(frame);
            self.rejoin(out);
        } else {
            // Pictures are there, so what waits is not a camera of sound alone.
            self.waiting.clear();
        }
    }

    /// Begins with a key frame after a beginning, a new timeline, a new format or a skip.
    fn open(&mut self, frame: &Arc<Frame>) {
        let on = self.anchor.take_if(|(anchor, end)| anchor.fits(frame) && anchor.time(frame) >= *end);
        let anchor = match &on {
            Some((anchor, _)) => anchor.clone(),
            None => {
                let end = self.writer.next().at;
                let arrived = self.newest.map_or(end, |(then, at)| at + frame.arrived.since(then));
                Anchor { frame: frame.clone(), at: ticks_from(arrived.max(end), frame.format.clock_rate) }
            }
        };
        self.anchor = on;
        self.lead = Some(Line::new(anchor, frame.clone()));
    }

    /// The next frame of the leading track where it stands: cuts before it where that is due.
    fn advance(&mut self, frame: &Arc<Frame>, out: &mut Vec<Piece>) {
        while let Some((first, count)) = self.held()
            && frame.ticks - first.ticks > ticks_in(self.settings.longest, frame.format.clock_rate)
        {
            // The newest frame held would last too long: it begins the next fragment. Alone, it is cut short.
            self.cut(count.saturating_sub(1).max(1), frame.ticks, false, out);
        }
        if let Some((first, count)) = self.held()
            && frame.key
        {
            let full = frame.ticks - first.ticks >= ticks_in(self.settings.target, frame.format.clock_rate);
            if full || !first.key {
                self.cut_at_key(count, frame, full, out);
            }
        }
        if let Some(lead) = &mut self.lead {
            lead.push(frame.clone());
        }
        if frame.key {
            self.rejoin(out);
        }
    }

    /// The leading track's first frame held, and how many are.
    fn held(&self) -> Option<(Arc<Frame>, usize)> {
        let held = &self.lead.as_ref()?.held;
        Some((held.first()?.clone(), held.len()))
    }

    /// Cuts before a key frame: the one place where sound may go, or change its format.
    fn cut_at_key(&mut self, count: usize, frame: &Frame, full: bool, out: &mut Vec<Piece>) {
        let changed = self.follow.as_ref().is_some_and(|f| self.waiting.iter().any(|w| !f.continues(w)));
        let heard = self.cut(count, frame.ticks, changed, out);
        let gone = full && !heard && self.follow.as_ref().is_some_and(|f| f.held.is_empty());
        if changed || gone {
            self.follow = None;
        }
    }

    fn push_sound(&mut self, frame: &Arc<Frame>, out: &mut Vec<Piece>) {
        let Some((first, _)) = self.held() else { return self.push_unplaced(frame, out) };
        if first.track == Track::Audio {
            return self.push_lead(frame, out);
        }
        match &mut self.follow {
            Some(follow) if follow.continues(frame) => {
                follow.push(frame.clone());
                self.stop_without_pictures(frame, out);
            }
            None if first.key && first.timeline == frame.timeline => self.join(frame),
            _ => self.wait(frame),
        }
    }

    /// Sound before any pictures. When it goes on alone for long enough, there are none.
    fn push_unplaced(&mut self, frame: &Arc<Frame>, out: &mut Vec<Piece>) {
        self.waiting.retain(|w| w.timeline == frame.timeline && same(&w.format, &frame.format));
        self.wait(frame);
        let alone = self.waiting.front().map_or(Duration::ZERO, |w| frame.arrived.since(w.arrived));
        if alone >= self.settings.longest {
            self.sound_alone(out);
        }
    }

    fn wait(&mut self, frame: &Arc<Frame>) {
        if self.waiting.len() >= WAITING {
            self.waiting.pop_front();
        }
        self.waiting.push_back(frame.clone());
    }

    /// Lets the sound in that waited for a key frame.
    fn rejoin(&mut self, out: &mut Vec<Piece>) {
        for frame in std::mem::take(&mut self.waiting) {
            self.push_sound(&frame, out);
        }
    }

    /// Makes waiting sound the leading track.
    fn sound_alone(&mut self, out: &mut Vec<Piece>) {
        for frame in std::mem::take(&mut self.waiting) {
            self.push_lead(&frame, out);
        }
    }

    /// Sound beside pictures, unless it is from before them.
    fn join(&mut self, frame: &Arc<Frame>) {
        let Some(lead) = &self.lead else { return };
        let Some(first) = lead.held.first() else { return };
        let anchor = lead.anchor.beside(frame);
        let rate = frame.format.clock_rate;
        let begins = rescale(lead.time(first), lead.rate(), rate, true);
        if anchor.at >= begins.max(ticks_from(self.sound_end, rate)) {
            self.follow = Some(Line::new(anchor, frame.clone()));
        }
    }

    /// Pictures have stopped while sound goes on: it must not pile up.
    fn stop_without_pictures(&mut self, sound: &Frame, out: &mut Vec<Piece>) {
        let place = |line: &Line, f: &Frame| span_of(line.time(f), line.rate());
        if let (Some(lead), Some(follow)) = (&self.lead, &self.follow)
            && let Some(last) = lead.held.last()
            && place(follow, sound) > place(lead, last) + self.settings.longest * 2
        {
            self.flush(None, out);
        }
    }

    /// Everything held goes out. `next` is the frame that could not go on here, if there is one.
    fn flush(&mut self, next: Option<&Frame>, out: &mut Vec<Piece>) {
        if let Some(lead) = &self.lead
            && let Some(last) = lead.held.last()
        {
            let known = next.filter(|n| lead.anchor.fits(n) && n.ticks > last.ticks).map(|n| n.ticks);
            let (count, until) = (lead.held.len(), known.unwrap_or(last.ticks + lead.delta()));
            self.cut(count, until, true, out);
        }
        (self.lead, self.follow) = (None, None);
    }

    /// Makes a fragment of the first `count` frames of the leading track and the sound that goes with them, all of it
    /// where `drain` says so. `next` is where the frame after those held stands. Says whether there was sound.
    fn cut(&mut self, count: usize, next: i64, drain: bool, out: &mut Vec<Piece>) -> bool {
        let Some(lead) = &mut self.lead else { return false };
        let Some((first, last)) = lead.held.first().zip(lead.held.get(count - 1)) else { return false };
        let rate = lead.rate();
        self.newest = Some((last.arrived, span_of(lead.time(last), rate)));
        // A hole in the stream is not the last frame's length.
        let longest = first.ticks + ticks_in(self.settings.longest, rate);
        let until = lead.held.get(count).map_or(next, |f| f.ticks).min(longest).max(last.ticks);
        let end = lead.time(first) + (until - first.ticks);

        let stretch = lead.take(count, until);
        let follows = self.anchor.replace((lead.anchor.clone(), end)).is_some_and(|(_, end)| end == stretch.time);
        let (sound, formats) = match (&mut self.follow, stretch.frames[0].track) {
            (_, Track::Audio) => (Stretch::default(), [None, Some(lead.format.clone())]),
            (None, Track::Video) => (Stretch::default(), [Some(lead.format.clone()), None]),
            (Some(follow), Track::Video) => {
                let sound = follow.take_until(rescale(end, rate, follow.rate(), false), drain);
                (sound, [Some(lead.format.clone()), Some(follow.format.clone())])
            }
        };
        self.sound_end = self.sound_end.max(if sound.frames.is_empty() { Duration::ZERO } else { sound.end() });
        if formats[0].is_none() {
            self.sound_end = stretch.end();
        }
        let first = self.writer.next().init == 0;
        let cut = Cut { lead: stretch, sound, formats, follows: follows || first };
        self.writer.write(&cut, out);
        !cut.sound.frames.is_empty()
    }
}

fn same(a: &Arc<Format>, b: &Arc<Format>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}
