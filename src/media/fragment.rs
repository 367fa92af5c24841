//! Frames into fragments that a player takes one after another (ISO/IEC 14496-12 section 8.8, 23000-19). Pure.
//!
//! Both tracks of a camera are in each fragment. A fragment is cut at the first key frame at or after
//! [`Settings::target`], and at [`Settings::longest`] without one. It comes in chunks (23000-19 section 7.3.2.3), each as
//! soon as it lasts [`Settings::chunk`], so that it can be written before it ends.
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

pub use super::piece::{Fragment, Init, Piece, Position, fragment_name, fragment_number, init_name, init_number};
use super::{
    frame::{Format, Frame, Track},
    init,
    line::{Anchor, Line, rescale, span_of, ticks_from, ticks_in, ticks_near},
    piece::{Cut, Stretch, Writer},
};
use crate::district::clock::Mono;

/// Sound that waits for pictures or for the next key frame; the oldest goes when there is more.
const WAITING: usize = 1024;

/// What is held is cut when it has more bytes than this, or has been arriving for twice [`Settings::longest`]: a camera's
/// clock may stand still while its frames go on.
const MOST_BYTES: usize = 24 << 20;

/// Most frames of a track in a fragment.
const MOST_FRAMES: usize = 8 * 1024;

/// New stretches, after a jump of the camera's clock or a change of its format, begin at most once in this time, some
/// [`FLAPS`] sooner: a camera that flaps with every frame would else make an object of each.
const SETTLE: Duration = Duration::from_millis(250);

/// See [`SETTLE`].
const FLAPS: u32 = 8;

/// Where fragments are cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Settings {
    /// Cut at the first key frame at or after this.
    pub target: Duration,
    /// No fragment lasts longer; cut without a key frame if need be.
    pub longest: Duration,
    /// So much of a fragment, at the least, is given out before it ends.
    pub chunk: Duration,
}

impl Default for Settings {
    /// A second, so that evidence is at headquarters soon; 4.5 s takes groups of pictures of 4 s whole. With chunks of half
    /// a second, a power cut takes less than one.
    fn default() -> Self {
        Self {
            target: Duration::from_secs(1),
            longest: Duration::from_millis(4_500),
            chunk: Duration::from_millis(500),
        }
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
    /// What is out of a fragment that goes on.
    begun: Option<Begun>,
    /// What the leading track's ticks were last read by, and where its fragments ended by it.
    anchor: Option<(Anchor, i64)>,
    /// How far new stretches are ahead of one in [`SETTLE`].
    settled: Mono,
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
            begun: None,
            anchor: None,
            settled: Mono::default(),
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

    /// What is held goes out, and the frames that come next, if they ever come, go on right behind it, key frame or not.
    /// `next` is the frame that comes next, where it is known already.
    pub fn pause(&mut self, next: Option<&Frame>) -> Vec<Piece> {
        let mut out = Vec::new();
        self.give_out(next, &mut out);
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
        let flaps = self.settled > frame.arrived + SETTLE * FLAPS;
        if frame.key && !flaps {
            self.settled = self.settled.max(frame.arrived) + SETTLE;
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
                let (end, rate) = (self.writer.next().at, frame.format.clock_rate);
                let arrived = self.newest.map_or(end, |(then, at)| at + frame.arrived.since(then));
                Anchor { frame: frame.clone(), at: ticks_near(arrived, rate).max(ticks_from(end, rate)) }
            }
        };
        self.anchor = on;
        self.lead = Some(Line::new(anchor, frame.clone()));
    }

    /// The next frame of the leading track where it stands: cuts before it where that is due.
    fn advance(&mut self, frame: &Arc<Frame>, out: &mut Vec<Piece>) {
        let rate = frame.format.clock_rate;
        while let Some((first, count)) = self.held()
            && frame.ticks - first.ticks > ticks_in(self.settings.longest, rate)
        {
            // The newest frame held would last too long: it begins the next fragment. Alone, it is cut short.
            self.cut(count.saturating_sub(1).max(1), frame.ticks, End::Fragment, out);
        }
        if let Some((first, count)) = self.held()
            && self.is_over(&first, frame)
        {
            self.cut(count, frame.ticks, End::Fragment, out);
        }
        if let Some((first, count)) = self.held()
            && frame.key
        {
            let full = frame.ticks - first.ticks >= ticks_in(self.settings.target, rate);
            if full || !first.key {
                self.cut_at_key(count, frame, full, out);
            }
        }
        if let Some((first, count)) = self.held()
            && self.is_chunk(frame)
        {
            // The last frame of a fragment is not alone in a chunk: it would be cut short.
            let delta = self.lead.as_ref().map_or(0, Line::delta);
            let last = frame.ticks + delta - first.ticks > ticks_in(self.settings.longest, rate);
            self.cut(count, frame.ticks, if last { End::Fragment } else { End::Chunk }, out);
        }
        let Some(lead) = &mut self.lead else { return };
        let goes_on = lead.held.is_empty();
        lead.push(frame.clone());
        if frame.key || goes_on {
            self.rejoin(out);
        }
    }

    /// The first frame of the leading track's fragment, and how many of it are held.
    fn held(&self) -> Option<(Arc<Frame>, usize)> {
        let held = &self.lead.as_ref()?.held;
        let first = self.begun.as_ref().map(|begun| &begun.first).or(held.first())?;
        (!held.is_empty()).then(|| (first.clone(), held.len()))
    }

    /// Whether what is held is enough to be given out before `frame`.
    fn is_chunk(&self, frame: &Frame) -> bool {
        let Some(first) = self.lead.as_ref().and_then(|lead| lead.held.first()) else { return false };
        frame.ticks - first.ticks >= ticks_in(self.settings.chunk, frame.format.clock_rate)
            || frame.arrived.since(first.arrived) >= self.settings.chunk * 2
    }

    /// Whether what is held must not grow by this frame, whatever the camera's clock says.
    fn is_over(&self, first: &Frame, frame: &Frame) -> bool {
        let Some(lead) = &self.lead else { return false };
        let out = self.begun.as_ref().map_or(0, |begun| begun.bytes);
        out + lead.bytes + frame.data.len() > MOST_BYTES
            || lead.held.len() >= MOST_FRAMES
            || frame.arrived.since(first.arrived) > self.settings.longest * 2
    }

    /// Cuts before a key frame: the one place where sound may go, or change its format.
    fn cut_at_key(&mut self, count: usize, frame: &Frame, full: bool, out: &mut Vec<Piece>) {
        let changed = self.follow.as_ref().is_some_and(|f| self.waiting.iter().any(|w| !f.continues(w)));
        let heard = self.cut(count, frame.ticks, if changed { End::Sound } else { End::Fragment }, out);
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
            None if self.begun.is_none() && first.key && first.timeline == frame.timeline => self.join(frame),
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
        self.give_out(next, out);
        (self.lead, self.follow) = (None, None);
    }

    fn give_out(&mut self, next: Option<&Frame>, out: &mut Vec<Piece>) {
        if let Some(lead) = &self.lead
            && let Some(last) = lead.held.last()
        {
            let known = next.filter(|n| lead.anchor.fits(n) && n.ticks > last.ticks).map(|n| n.ticks);
            let (count, until) = (lead.held.len(), known.unwrap_or(last.ticks + lead.delta()));
            self.cut(count, until, End::Sound, out);
        }
    }

    /// Makes a chunk of the first `count` frames of the leading track and the sound that goes with them. `next` is where
    /// the frame after those held stands. Says whether there was sound in the
    /// fragment.
    fn cut(&mut self, count: usize, next: i64, ends: End, out: &mut Vec<Piece>) -> bool {
        let begun = self.begun.take();
        let Some(lead) = &mut self.lead else { return false };
        let Some((first, last)) = lead.held.first().zip(lead.held.get(count - 1)) else { return false };
        let rate = lead.rate();
        self.newest = Some((last.arrived, span_of(lead.time(last), rate)));
        // A hole in the stream is not the last frame's length.
        let since = begun.as_ref().map_or(first, |begun| &begun.first);
        let longest = since.ticks + ticks_in(self.settings.longest, rate);
        let until = lead.held.get(count).map_or(next, |f| f.ticks).min(longest).max(last.ticks);
        let end = lead.time(first) + (until - first.ticks);

        let stretch = lead.take(count, until);
        let follows = self.anchor.replace((lead.anchor.clone(), end)).is_some_and(|(_, end)| end == stretch.time);
        let (sound, formats) = match (&mut self.follow, stretch.frames[0].track) {
            (_, Track::Audio) => (Stretch::default(), [None, Some(lead.format.clone())]),
            (None, Track::Video) => (Stretch::default(), [Some(lead.format.clone()), None]),
            (Some(follow), Track::Video) => {
                let sound = follow.take_until(rescale(end, rate, follow.rate(), false), ends == End::Sound);
                (sound, [Some(lead.format.clone()), Some(follow.format.clone())])
            }
        };
        self.sound_end = self.sound_end.max(if sound.frames.is_empty() { Duration::ZERO } else { sound.end() });
        if formats[0].is_none() {
            self.sound_end = stretch.end();
        }
        let first = self.writer.next().init == 0;
        let more = ends == End::Chunk;
        let cut = Cut { lead: stretch, sound, formats, follows: follows || first, more };
        let (bytes, heard) = begun.as_ref().map_or((0, false), |begun| (begun.bytes, begun.heard));
        let heard = heard || !cut.sound.frames.is_empty();
        if more && let Some(first) = cut.lead.frames.first() {
            let first = begun.map_or_else(|| first.clone(), |begun| begun.first);
            let bytes = bytes + cut.lead.frames.iter().map(|f| f.data.len()).sum::<usize>();
            self.begun = Some(Begun { first, bytes, heard });
        }
        self.writer.write(&cut, out);
        heard
    }
}

/// What is out of a fragment that goes on.
#[derive(Debug)]
struct Begun {
    first: Arc<Frame>,
    bytes: usize,
    heard: bool,
}

/// What ends with a cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    /// A chunk: the fragment goes on.
    Chunk,
    /// A fragment.
    Fragment,
    /// That, and the sound beside it: all of it goes along.
    Sound,
}

fn same(a: &Arc<Format>, b: &Arc<Format>) -> bool {
    Arc::ptr_eq(a, b) || a == b
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{district::clock::Utc, media::frame::Codec};
    use bytes::Bytes;

    const AVCC: &[u8] = &[1, 0x4d, 0x40, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x28, 1, 0, 2, 0x68, 0xee];

    /// Fragments that come in one piece.
    fn whole() -> Settings {
        Settings { chunk: Duration::from_secs(60), ..Settings::default() }
    }

    fn format(codec: Codec, level: u8) -> Arc<Format> {
        let (clock_rate, width, channels) = if codec == Codec::Aac { (16_000, 0, 1) } else { (90_000, 1920, 0) };
        let mut config = if codec == Codec::Aac { vec![0x14, 0x08] } else { AVCC.to_vec() };
        if codec == Codec::H264 {
            config[3] = level;
        }
        Arc::new(Format {
            codec,
            clock_rate,
            width,
            height: 0,
            channels,
            config: config.into(),
            rfc6381: String::new(),
        })
    }

    /// A camera with an exact clock: `ms` since its start, on a timeline whose ticks begin at a million.
    fn frame(format: &Arc<Format>, timeline: u32, ms: i64, key: bool) -> Arc<Frame> {
        Arc::new(Frame {
            track: if format.channels > 0 { Track::Audio } else { Track::Video },
            timeline,
            ticks: 1_000_000 * i64::from(timeline + 1) + ms * i64::from(format.clock_rate) / 1000,
            captured: Utc::from_micros(1_700_000_000_000_000 + ms * 1000),
            arrived: Mono::from_boot(Duration::from_millis(5_000 + ms as u64)),
            key: key || format.channels > 0,
            lost_before: 0,
            format: format.clone(),
            data: Bytes::from_static(&[0, 0, 0, 1, 9]),
        })
    }

    fn run(fragmenter: &mut Fragmenter, frames: &[Arc<Frame>]) -> Vec<Piece> {
        frames.iter().flat_map(|f| fragmenter.push(f)).collect()
    }

    fn fragments(pieces: &[Piece]) -> Vec<&Fragment> {
        pieces.iter().filter_map(|p| if let Piece::Fragment(f) = p { Some(f) } else { None }).collect()
    }

    fn codecs(pieces: &[Piece]) -> Vec<&str> {
        pieces.iter().filter_map(|p| if let Piece::Init(i) = p { Some(i.codecs.as_str()) } else { None }).collect()
    }

    fn ms(f: &[&Fragment]) -> Vec<(u128, u128)> {
        f.iter().map(|f| (f.at.as_millis(), f.duration.as_millis())).collect()
    }

    fn video(format: &Arc<Format>, timeline: u32, from: i64, to: i64, gop: i64) -> Vec<Arc<Frame>> {
        (from / 40..to / 40).map(|i| frame(format, timeline, i * 40, (i * 40 - from) % gop == 0)).collect()
    }

    #[test]
    fn fragments_are_cut_at_the_first_key_frame_after_the_target() {
        let mut f = Fragmenter::new(whole());
        let mut out = run(&mut f, &video(&format(Codec::H264, 40), 0, 0, 4_000, 800));
        out.extend(f.finish());
        assert_eq!(ms(&fragments(&out)), [(0, 1600), (1600, 1600), (3200, 800)]);
        assert!(fragments(&out).iter().all(|f| f.key && !f.discontinuity && f.init == 0));
        assert_eq!(codecs(&out), ["avc1.4d4028"]);
        let ends: Vec<_> =
            fragments(&out).iter().map(|f| (f.from.micros() % 1_000_000_000, f.to.since(f.from))).collect();
        assert_eq!(ends[1], (1_600_000, Duration::from_millis(1600)));
        assert_eq!(f.position(), Position { fragment: 4, init: 1, at: Duration::from_millis(4_000) });
    }

    #[test]
    fn a_fragment_comes_in_chunks_that_go_on_where_the_one_before_ended() {
        let (pictures, aac) = (format(Codec::H264, 40), format(Codec::Aac, 40));
        let mut frames = video(&pictures, 0, 0, 12_000, 2_000);
        frames.extend((0..187).map(|i| frame(&aac, 0, i * 64, true)));
        frames.sort_by_key(|f| f.arrived);
        let mut f = Fragmenter::new(Settings::default());
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        let all = fragments(&out);
        let first: Vec<_> = all.iter().take(5).map(|f| (f.number, f.chunk, f.more, f.key)).collect();
        let expected =
            [(1, 0, true, true), (1, 1, true, false), (1, 2, true, false), (1, 3, false, false), (2, 0, true, true)];
        assert_eq!(first, expected);
        assert_eq!(&ms(&all)[..4], [(0, 520), (520, 520), (1_040, 520), (1_560, 440)]);
        assert!(all.windows(2).all(|w| w[0].at + w[0].duration == w[1].at && w[0].to == w[1].from));
        assert!(all.iter().all(|f| !f.discontinuity && f.init == 0));
        assert_eq!(codecs(&out), ["avc1.4d4028,mp4a.40.2"], "sound is beside the pictures in each chunk");
    }

    #[test]
    fn an_endless_group_of_pictures_in_chunks_is_cut_within_no_frame() {
        for gop in [4_440, 4_480, 4_520, 60_000] {
            let mut f = Fragmenter::new(Settings::default());
            let mut out = run(&mut f, &video(&format(Codec::H264, 40), 0, 0, 30_000, gop));
            out.extend(f.finish());
            let all = fragments(&out);
            assert!(all.windows(2).all(|w| w[0].at + w[0].duration == w[1].at), "{gop}: {:?}", ms(&all));
            assert!(all.iter().all(|f| !f.discontinuity && f.frames > 0), "{gop}");
            assert!(all.iter().all(|f| f.duration <= Duration::from_millis(560)), "{gop}: {:?}", ms(&all));
            let ends: Vec<_> = all.iter().filter(|f| !f.more).map(|f| f.number).collect();
            assert_eq!(ends, (1..=ends.len() as u32).collect::<Vec<_>>(), "each ends once");
        }
    }

    #[test]
    fn what_comes_after_a_pause_goes_on_within_the_group_of_pictures_and_no_frame_is_there_twice() {
        let (pictures, aac) = (format(Codec::H264, 40), format(Codec::Aac, 40));
        let mut frames = video(&pictures, 0, 0, 8_000, 2_000);
        frames.extend((0..125).map(|i| frame(&aac, 0, i * 64, true)));
        frames.sort_by_key(|f| f.arrived);
        for pause in 10..frames.len() {
            let mut f = Fragmenter::new(whole());
            let (mut out, rest) = (run(&mut f, &frames[..pause]), &frames[pause..]);
            let next = rest.iter().find(|f| f.track == Track::Video);
            out.extend(f.pause(next.map(|f| &**f)));
            out.extend(run(&mut f, rest));
            out.extend(f.finish());
            let all = fragments(&out);
            assert_eq!(all.iter().map(|f| f.frames).sum::<u32>(), 200, "{pause}");
            assert!(all.windows(2).all(|w| w[0].at + w[0].duration == w[1].at), "{pause}: {:?}", ms(&all));
            assert!(all.iter().all(|f| !f.discontinuity && f.init == 0), "{pause}");
        }
    }

    /// A frame of a camera whose own clock has nothing to do with when it arrives.
    fn odd(format: &Arc<Format>, timeline: u32, ticks: i64, ms: u64, key: bool, bytes: usize) -> Arc<Frame> {
        let one = (*frame(format, timeline, 0, key)).clone();
        let arrived = Mono::from_boot(Duration::from_millis(ms));
        Arc::new(Frame { ticks, arrived, data: vec![9; bytes].into(), ..one })
    }

    #[test]
    fn a_camera_whose_clock_stands_still_is_written_all_the_same() {
        let mut f = Fragmenter::new(whole());
        let format = format(Codec::H264, 40);
        let frames: Vec<_> = (0..1_500).map(|i| odd(&format, 0, i / 100, 40 * i as u64, i == 0, 10)).collect();
        let out = run(&mut f, &frames);
        let taken: u32 = fragments(&out).iter().map(|f| f.frames).sum();
        assert!(taken >= 1_500 - 9 * 25 - 2, "{taken} of 1500 frames of a minute are out");
        assert!(fragments(&out).len() < 10);
    }

    #[test]
    fn a_flood_of_frames_is_held_within_bounds() {
        let mut f = Fragmenter::new(whole());
        let format = format(Codec::H264, 40);
        for i in 0..60_i64 {
            f.push(&odd(&format, 0, 1_000_000 + i, 5_000, i == 0, 1 << 20));
            assert!(f.lead.as_ref().unwrap().bytes <= MOST_BYTES);
        }
        for i in 0..20_000_i64 {
            f.push(&odd(&format, 0, 1_000_100 + i, 5_000, false, 1));
            assert!(f.lead.as_ref().unwrap().held.len() <= MOST_FRAMES);
        }
    }

    #[test]
    fn a_camera_that_flaps_with_every_frame_makes_no_object_of_each() {
        let (a, b) = (format(Codec::H264, 40), format(Codec::H264, 41));
        for flapping in [|i: u32| (i % 2, 0), |i: u32| (0, i)] {
            let mut f = Fragmenter::new(whole());
            let frames: Vec<_> = (0..10_000_u32)
                .map(|i| {
                    let (level, timeline) = flapping(i);
                    let format = if level == 0 { &a } else { &b };
                    odd(format, timeline, 1_000_000 + i64::from(i) * 90, 5_000 + u64::from(i), true, 5)
                })
                .collect();
            let pieces = run(&mut f, &frames).len();
            assert!((40..=120).contains(&pieces), "{pieces} objects in 10 s");
        }
    }

    #[test]
    fn an_endless_group_of_pictures_is_cut_without_a_key_frame_and_returns_to_it() {
        let mut f = Fragmenter::new(Settings { longest: Duration::from_secs(2), ..whole() });
        let mut out = run(&mut f, &video(&format(Codec::H264, 40), 0, 0, 6_000, 4_400));
        out.extend(f.finish());
        let all = fragments(&out);
        assert_eq!(ms(&all), [(0, 2000), (2000, 2000), (4000, 400), (4400, 1600)]);
        assert_eq!(all.iter().map(|f| f.key).collect::<Vec<_>>(), [true, false, false, true]);
    }

    #[test]
    fn a_hole_within_a_timeline_is_no_frames_length() {
        let f264 = format(Codec::H264, 40);
        let mut f = Fragmenter::new(Settings { longest: Duration::from_secs(2), ..whole() });
        let mut frames = video(&f264, 0, 0, 1_000, 500);
        frames.extend((775..800).map(|i| frame(&f264, 0, i * 40, false)));
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        let all = fragments(&out);
        assert_eq!(ms(&all), [(0, 960), (960, 2000), (31_000, 1000)]);
        assert_eq!(all.iter().map(|f| f.discontinuity).collect::<Vec<_>>(), [false, false, true]);
    }

    #[test]
    fn a_new_timeline_stands_where_it_arrived_and_needs_no_new_init() {
        let f264 = format(Codec::H264, 40);
        let mut f = Fragmenter::new(whole());
        let mut frames = video(&f264, 0, 0, 1_200, 400);
        // Back after ten seconds, in the middle of a group of pictures.
        frames.extend(video(&f264, 1, 11_000, 13_000, 1_000).into_iter().skip(1));
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        let all = fragments(&out);
        assert_eq!(ms(&all), [(0, 1200), (12_000, 1000)]);
        assert!(all[1].discontinuity && all[1].key);
        assert_eq!(codecs(&out).len(), 1);
    }

    #[test]
    fn a_new_format_takes_a_new_init_and_loses_no_time() {
        let mut f = Fragmenter::new(whole());
        let mut frames = video(&format(Codec::H264, 40), 0, 0, 1_480, 400);
        frames.extend(video(&format(Codec::H264, 31), 0, 1_480, 3_000, 2_000));
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        assert_eq!(codecs(&out), ["avc1.4d4028", "avc1.4d401f"]);
        let all = fragments(&out);
        assert_eq!(ms(&all), [(0, 1200), (1200, 280), (1480, 1520)]);
        assert_eq!(
            all.iter().map(|f| (f.init, f.discontinuity)).collect::<Vec<_>>(),
            [(0, false), (0, false), (1, true)]
        );
    }

    #[test]
    fn sound_that_comes_late_joins_at_a_key_frame_and_sound_that_goes_leaves_the_init() {
        let (f264, aac) = (format(Codec::H264, 40), format(Codec::Aac, 0));
        let mut frames = video(&f264, 0, 0, 10_000, 1_000);
        frames.extend((50..80).map(|i| frame(&aac, 0, i * 64, true)));
        frames.sort_by_key(|f| f.arrived);
        let mut f = Fragmenter::new(whole());
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        assert_eq!(codecs(&out), ["avc1.4d4028", "avc1.4d4028,mp4a.40.2", "avc1.4d4028"]);
        assert!(fragments(&out).iter().all(|f| f.key && f.duration == Duration::from_secs(1)));
        let inits: Vec<_> = fragments(&out).iter().map(|f| f.init).collect();
        assert_eq!(inits, [0, 0, 0, 1, 1, 1, 1, 2, 2, 2]);
    }

    #[test]
    fn sound_alone_is_recorded_when_no_pictures_come() {
        let aac = format(Codec::Aac, 0);
        let frames: Vec<_> = (0..200).map(|i| frame(&aac, 0, i * 64, true)).collect();
        let mut f = Fragmenter::new(whole());
        let mut out = run(&mut f, &frames);
        assert!(fragments(&out).len() > 5);
        out.extend(f.finish());
        assert_eq!(codecs(&out), ["mp4a.40.2"]);
        assert_eq!(fragments(&out).iter().map(|f| f.duration).sum::<Duration>(), Duration::from_millis(12_800));
        assert_eq!(fragments(&out).iter().map(|f| f.frames).sum::<u32>(), 200);
    }

    #[test]
    fn a_skip_goes_on_at_a_key_frame_of_the_same_clock() {
        let f264 = format(Codec::H264, 40);
        let mut f = Fragmenter::new(whole());
        let mut out = run(&mut f, &video(&f264, 0, 0, 600, 400));
        out.extend(f.skip());
        out.extend(run(&mut f, &video(&f264, 0, 2_000, 2_600, 400)));
        out.extend(f.finish());
        let all = fragments(&out);
        assert_eq!(ms(&all), [(0, 600), (2_000, 600)]);
        assert_eq!((all[0].discontinuity, all[1].discontinuity), (false, true));
    }

    #[test]
    fn a_resumed_recording_counts_on_and_begins_with_an_init() {
        let mut f = Fragmenter::resume(whole(), Position { fragment: 7, init: 2, at: Duration::from_secs(9) });
        let mut out = run(&mut f, &video(&format(Codec::H264, 40), 0, 0, 600, 400));
        out.extend(f.finish());
        let Piece::Init(init) = &out[0] else { panic!("{out:?}") };
        assert_eq!(init.name(), "init-3.mp4");
        let only = fragments(&out)[0];
        assert_eq!((only.number, only.init, only.at.as_secs(), only.discontinuity), (7, 2, 9, true));
    }

    #[test]
    fn what_mp4_cannot_hold_is_refused_once_and_the_rest_is_recorded() {
        let bad = Arc::new(Format { config: Bytes::new(), ..(*format(Codec::Aac, 0)).clone() });
        let mut frames = video(&format(Codec::H264, 40), 0, 0, 3_000, 400);
        frames.extend((0..40).map(|i| frame(&bad, 0, i * 64, true)));
        frames.sort_by_key(|f| f.arrived);
        let mut f = Fragmenter::new(whole());
        let mut out = run(&mut f, &frames);
        out.extend(f.finish());
        let refused = out.iter().filter(|p| matches!(p, Piece::Refused { track: Some(Track::Audio), .. })).count();
        assert_eq!((refused, codecs(&out)), (1, vec!["avc1.4d4028"]));
    }

    #[test]
    fn sound_does_not_pile_up_when_pictures_stop() {
        let (f264, aac) = (format(Codec::H264, 40), format(Codec::Aac, 0));
        let mut f = Fragmenter::new(whole());
        run(&mut f, &video(&f264, 0, 0, 800, 400));
        let out = run(&mut f, &(0..1000).map(|i| frame(&aac, 0, i * 64, true)).collect::<Vec<_>>());
        assert_eq!(codecs(&out), ["avc1.4d4028,mp4a.40.2", "mp4a.40.2"]);
        assert!(f.follow.is_none() && f.waiting.is_empty());
    }

    /// Frames of a stretch: distances in ticks, whether a key, and whether a new timeline begins here.
    fn arbitrary() -> impl Strategy<Value = Vec<(i64, bool, bool)>> {
        let step = prop_oneof![8 => Just(3_000i64), 2 => 1i64..9_000, 1 => Just(0i64), 1 => 9_000i64..90_000];
        let one = (step, prop::bool::weighted(0.15), prop::bool::weighted(0.02));
        prop::collection::vec(one, 1..400)
    }

    proptest! {
        #[test]
        fn fragments_account_for_every_tick(steps in arbitrary()) {
            let settings = Settings { longest: Duration::from_secs(2), ..whole() };
            let f264 = format(Codec::H264, 40);
            let mut f = Fragmenter::new(settings);
            let (mut timeline, mut ticks, mut ms) = (0u32, 0i64, 0u64);
            let (mut pieces, mut taken, mut span, mut open) = (Vec::new(), 0u32, 0i64, false);
            let (mut last, mut delta) = (0, 3_600);
            for (i, (step, key, jump)) in steps.into_iter().enumerate() {
                if jump {
                    // The last frame of a timeline lasts as long as the one before it.
                    span += if open { delta } else { 0 };
                    (timeline, ticks, open, delta) = (timeline + 1, 7_000_000, false, 3_600);
                }
                let key = key || i == 0;
                ticks += step;
                ms += step as u64 / 90;
                if open {
                    span += ticks - last;
                    delta = if ticks > last { ticks - last } else { delta };
                } else if key {
                    (open, delta) = (true, 3_600);
                }
                last = ticks;
                taken += u32::from(open);
                let mut one = (*frame(&f264, 0, 0, key)).clone();
                (one.timeline, one.ticks, one.arrived) = (timeline, ticks, Mono::from_boot(Duration::from_millis(ms)));
                pieces.extend(f.push(&Arc::new(one)));
            }
            pieces.extend(f.finish());
            span += if open { delta } else { 0 };

            let all = fragments(&pieces);
            prop_assert_eq!(all.iter().map(|f| f.frames).sum::<u32>(), taken);
            let total: Duration = all.iter().map(|f| f.duration).sum();
            let lost = i128::from(span) * 1_000_000_000 / 90_000 - total.as_nanos() as i128;
            // Nanoseconds are rounded down, and the guessed length of a timeline's last frame may meet `longest`.
            prop_assert!(lost >= 0 && lost < i128::from(timeline + 1) * 2_000_000_000, "{}", lost);
            if timeline == 0 {
                prop_assert!(lost <= 1_000_000_000 + all.len() as i128);
            }
            for (i, f) in all.iter().enumerate() {
                prop_assert_eq!(f.number as usize, i + 1);
                prop_assert!(f.duration <= settings.longest);
            }
            for pair in all.windows(2) {
                let end = pair[0].at + pair[0].duration;
                prop_assert!(pair[1].at + Duration::from_nanos(2) >= end);
                prop_assert!(pair[1].discontinuity || pair[1].at <= end + Duration::from_nanos(2));
                prop_assert!(pair[1].key || pair[0].duration > Duration::ZERO);
            }
            prop_assert!(matches!(pieces.first(), None | Some(Piece::Init(_))));
            prop_assert!(all.iter().filter(|f| f.discontinuity).all(|f| f.key));
        }
    }
}
