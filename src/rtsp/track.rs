//! One track on its way to one client: the RTP of its frames and the sender reports beside it (RFC 3550). Pure.
//!
//! RTP times keep the distances of the camera's own clock, also of the frames before the client came: a recorder gets what the
//! camera said. Where that clock begins anew, they go on by when frames were captured. Both tracks of a session count from
//! the same moment, and sender reports tie each to wall time, so that a player shows them together.

use std::{sync::Arc, time::Duration};

use rtp::header::Header;
use webrtc_util::marshal::Marshal;

use super::sdp;
use crate::{
    district::clock::{Mono, Utc},
    media::{
        frame::{Codec, Format, Frame, Track},
        packets::Payloads,
    },
    wire::rtcp::{self, Sent},
};

/// Bytes of an RTP header without extensions.
pub(super) const HEADER: usize = 12;
/// Time between sender reports.
const REPORT_EVERY: Duration = Duration::from_secs(5);
/// Some cameras' sound has no true time: a moment so far from when it came is taken for when it came.
const PLAUSIBLE_US: i64 = 5_000_000;

/// A packet for the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packet<'a> {
    /// Media: header and payload.
    Rtp(&'a [u8; HEADER], &'a [u8]),
    /// A report.
    Rtcp(&'a [u8]),
}

/// When a session begins: by the camera's clock and by ours.
#[derive(Debug, Clone, Copy)]
pub(super) struct Epoch {
    captured: Utc,
    arrived: Mono,
}

impl Epoch {
    /// The moment of a frame.
    pub fn of(frame: &Frame) -> Self {
        Self { captured: frame.captured, arrived: frame.arrived }
    }

    /// Now, where no frame is there yet.
    pub fn at(wall: Utc, now: Mono) -> Self {
        Self { captured: wall, arrived: now }
    }

    /// From then to a frame, in microseconds.
    fn until(self, frame: &Frame) -> i64 {
        let captured = frame.captured.micros().saturating_sub(self.captured.micros());
        let us = |at: Mono| i64::try_from(at.since_boot().as_micros()).unwrap_or(i64::MAX);
        let arrived = us(frame.arrived).saturating_sub(us(self.arrived));
        if captured.saturating_sub(arrived).abs() <= PLAUSIBLE_US { captured } else { arrived }
    }
}

/// Ties the camera's ticks to ours.
#[derive(Debug, Clone, Copy)]
struct Anchor {
    timeline: u32,
    ticks: i64,
    at: i64,
}

/// One track on its way to one client.
#[derive(Debug)]
pub(super) struct Sending {
    pub track: Track,
    /// What the client has been told of it.
    pub format: Arc<Format>,
    header: Header,
    /// The RTP time of the session's beginning.
    base: u32,
    anchor: Option<Anchor>,
    /// Where the newest frame stands, and when it was captured.
    newest: Option<(i64, Utc)>,
    sent: Sent,
    report: Option<Mono>,
}

impl Sending {
    /// A track whose numbers begin at random places (section 5.1).
    pub fn new(track: Track, format: Arc<Format>, random: &mut fastrand::Rng) -> Self {
        let header = Header {
            version: 2,
            payload_type: sdp::payload_type(&format),
            sequence_number: random.u16(..),
            ssrc: random.u32(..),
            ..Header::default()
        };
        let (anchor, newest, report) = (None, None, None);
        Self { track, format, header, base: random.u32(..), anchor, newest, sent: Sent::default(), report }
    }

    /// Its synchronisation source.
    pub fn ssrc(&self) -> u32 {
        self.header.ssrc
    }

    /// Sequence number of the packet to come, and the RTP time of the moment it belongs to.
    pub fn place(&self) -> (u16, u32) {
        (self.header.sequence_number, self.base.wrapping_add(self.newest.map_or(0, |(at, _)| at as u32)))
    }

    /// Whether a frame is what the client was told to expect. Pictures bring their parameter sets along, sound does not.
    pub fn fits(&self, frame: &Frame) -> bool {
        let (told, is) = (&*self.format, &*frame.format);
        let same = told.codec == is.codec && told.clock_rate == is.clock_rate && told.channels == is.channels;
        same && (self.track == Track::Video || told.config == is.config)
    }

    /// The packets of a frame, a report before them when one is due.
    pub fn send(&mut self, frame: &Frame, parts: &Payloads, epoch: Epoch, now: Mono, mut out: impl FnMut(Packet<'_>)) {
        let (at, anew) = self.stand(frame, epoch);
        let first = self.newest.replace((at, frame.captured)).is_none();
        if anew || self.report.is_none_or(|due| due <= now) {
            self.report = Some(now + REPORT_EVERY);
            out(Packet::Rtcp(&self.report()));
        }
        self.header.timestamp = self.base.wrapping_add(at as u32);
        // The last packet of a picture or an access unit, the first of a talk (RFC 3551 section 4.1).
        let whole = self.track == Track::Video || self.format.codec == Codec::Aac;
        for (i, part) in parts.iter().enumerate() {
            self.header.marker = if whole { i + 1 == parts.len() } else { first };
            let mut header = [0; HEADER];
            // It has room: there are no extensions.
            let _ = self.header.marshal_to(&mut header);
            out(Packet::Rtp(&header, part));
            self.header.sequence_number = self.header.sequence_number.wrapping_add(1);
            self.sent.packets = self.sent.packets.wrapping_add(1);
            self.sent.octets = self.sent.octets.wrapping_add(part.len() as u32);
        }
    }

    /// What is said at its end.
    pub fn goodbye(&self) -> Vec<u8> {
        rtcp::goodbye(self.report(), self.ssrc())
    }

    /// A report: the newest frame's moment is its RTP time.
    fn report(&self) -> Vec<u8> {
        let (at, captured) = self.newest.unwrap_or_default();
        rtcp::sender_report(self.ssrc(), captured, self.base.wrapping_add(at as u32), self.sent)
    }

    /// Where a frame stands, in ticks since the session began, and whether the camera's clock began anew with it.
    fn stand(&mut self, frame: &Frame, epoch: Epoch) -> (i64, bool) {
        let newest = self.newest.map(|(at, _)| at);
        if let Some(anchor) = &self.anchor
            && anchor.timeline == frame.timeline
        {
            let at = anchor.at + (frame.ticks - anchor.ticks);
            return (newest.map_or(at, |newest| at.max(newest)), false);
        }
        let ticks = i128::from(epoch.until(frame)) * i128::from(self.format.clock_rate) / 1_000_000;
        let at = i64::try_from(ticks).unwrap_or(0);
        // Whatever its clock says now, time does not go back.
        let at = newest.map_or(at, |newest| at.max(newest + 1));
        self.anchor = Some(Anchor { timeline: frame.timeline, ticks: frame.ticks, at });
        (at, true)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use webrtc_util::marshal::Unmarshal;

    use super::*;

    fn at(ms: u64) -> Mono {
        Mono::from_boot(Duration::from_millis(ms))
    }

    /// A frame captured and come at `ms`, whose camera's clock stands at `ticks`.
    fn frame(track: Track, timeline: u32, ticks: i64, ms: u64) -> Frame {
        let format = match track {
            Track::Video => Format::bare(Codec::H264, 90_000),
            Track::Audio => Format::bare(Codec::Pcmu, 8_000),
        };
        let captured = Utc::from_micros(ms as i64 * 1_000 + 1_772_366_400_000_000);
        let (format, data) = (Arc::new(format), Bytes::new());
        Frame { track, timeline, ticks, captured, arrived: at(ms), key: true, lost_before: 0, format, data }
    }

    fn sending(track: Track) -> Sending {
        Sending::new(track, frame(track, 0, 0, 0).format, &mut fastrand::Rng::with_seed(5))
    }

    /// What goes out: RTP headers, and how many reports before each.
    fn send(sending: &mut Sending, frame: &Frame, parts: usize, epoch: Epoch, now: u64) -> (usize, Vec<Header>) {
        let parts: Payloads = (0..parts).map(|_| [0; 100][..].into()).collect();
        let (mut reports, mut headers) = (0, Vec::new());
        sending.send(frame, &parts, epoch, at(now), |packet| match packet {
            Packet::Rtp(header, _) => headers.push(Header::unmarshal(&mut &header[..]).unwrap()),
            Packet::Rtcp(report) => {
                assert!(rtcp::is_rtcp(report) && headers.is_empty());
                reports += 1;
            }
        });
        (reports, headers)
    }

    #[test]
    fn numbers_go_on_and_the_last_packet_of_a_picture_is_marked() {
        let mut sending = sending(Track::Video);
        let first = frame(Track::Video, 0, 5_000, 1_000);
        let epoch = Epoch::of(&first);
        let (sequence, time) = sending.place();
        let (reports, a) = send(&mut sending, &first, 3, epoch, 3_000);
        let (none, b) = send(&mut sending, &frame(Track::Video, 0, 5_000 + 3_600, 1_040), 1, epoch, 3_000);
        assert_eq!((reports, none, a[0].sequence_number, a[0].timestamp), (1, 0, sequence, time));
        assert_eq!(a.iter().map(|h| h.marker).collect::<Vec<_>>(), [false, false, true]);
        assert_eq!(b[0].sequence_number, sequence.wrapping_add(3));
        assert_eq!(b[0].timestamp.wrapping_sub(time), 3_600, "the camera's own distance, however it came");
        assert_eq!((a[0].payload_type, a[0].ssrc), (96, sending.ssrc()));
        assert_eq!(send(&mut sending, &frame(Track::Video, 0, 12_200, 1_080), 1, epoch, 8_000).0, 1, "every 5 s");
    }

    #[test]
    fn both_tracks_count_from_the_same_moment() {
        let picture = frame(Track::Video, 0, 77, 1_000);
        let epoch = Epoch::of(&picture);
        let mut sound = sending(Track::Audio);
        let (_, base) = sound.place();
        let (_, headers) = send(&mut sound, &frame(Track::Audio, 0, 999, 1_500), 1, epoch, 1_500);
        assert_eq!((headers[0].timestamp.wrapping_sub(base), headers[0].marker), (4_000, true));
        // A clock of its own that is days away counts for nothing.
        let mut odd = frame(Track::Audio, 1, 5, 1_600);
        odd.captured = odd.captured.shifted(86_400_000_000);
        let (_, headers) = send(&mut sound, &odd, 1, epoch, 1_600);
        assert_eq!((headers[0].timestamp.wrapping_sub(base), headers[0].marker), (4_800, false));
    }

    #[test]
    fn a_camera_whose_clock_begins_anew_goes_on_and_never_back() {
        let mut sending = sending(Track::Video);
        let first = frame(Track::Video, 0, 900_000, 1_000);
        let epoch = Epoch::of(&first);
        let time = |sent: (usize, Vec<Header>)| (sent.0, sent.1[0].timestamp);
        let (_, a) = time(send(&mut sending, &first, 1, epoch, 1_000));
        let (reports, b) = time(send(&mut sending, &frame(Track::Video, 1, 0, 3_000), 1, epoch, 3_000));
        assert_eq!((reports, b.wrapping_sub(a)), (1, 180_000));
        let (_, c) = time(send(&mut sending, &frame(Track::Video, 2, 0, 2_000), 1, epoch, 3_001));
        assert_eq!(c.wrapping_sub(b), 1);
    }

    #[test]
    fn a_format_that_the_client_was_not_told_of_is_seen() {
        let sending = sending(Track::Video);
        let mut other = frame(Track::Video, 0, 0, 0);
        other.format = Arc::new(Format { config: Bytes::from_static(b"x"), ..Format::bare(Codec::H264, 90_000) });
        assert!(sending.fits(&other), "parameter sets come along");
        other.format = Arc::new(Format::bare(Codec::H265, 90_000));
        assert!(!sending.fits(&other));
    }
}
