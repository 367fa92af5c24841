//! What a client has set up of a camera, and what it is played.

use std::{future::poll_fn, net::SocketAddr, sync::Arc, task::Poll, time::Duration};

use tokio::time::timeout;
use tracing::info;

use super::{
    connection::Ended,
    out::Out,
    pace::Pace,
    path::Path,
    sdp::{self, Description},
    track::{Epoch, Sending},
};
use crate::{
    district::clock::{Mono, Utc},
    gateway::spectators::Seat,
    host::clock,
    media::{
        frame::{Frame, Track},
        parcels::Parcels,
        ring::{Read, Reader, Ring, Start},
    },
};

/// A client that is so far behind goes on at the newest key frame, if there is one that it has not had.
const LATE: Duration = Duration::from_secs(3);
/// The kernel has room for a datagram at once; where it has none, for so long.
const DATAGRAM: Duration = Duration::from_millis(50);

/// A camera for one client.
pub(super) struct Session {
    pub id: String,
    pub camera: String,
    pub viewer: Arc<str>,
    pub peer: SocketAddr,
    ring: Arc<Ring>,
    parcels: Arc<Parcels>,
    description: Description,
    lanes: Vec<Lane>,
    playing: Option<Playing>,
}

/// What comes next.
pub(super) enum Next {
    /// Something to play.
    Read(Read),
    /// A sign of life.
    Heard,
}

/// One track and its way.
struct Lane {
    sending: Sending,
    path: Path,
}

struct Playing {
    reader: Reader,
    epoch: Epoch,
    /// No picture can be decoded before the next key frame.
    wants_key: bool,
    pace: Pace,
    seat: Seat,
    since: Mono,
    frames: u64,
    skipped: u64,
}

impl Session {
    /// One in which nothing is set up yet.
    pub fn new(
        id: String,
        camera: String,
        (viewer, peer): (Arc<str>, SocketAddr),
        (ring, parcels): (Arc<Ring>, Arc<Parcels>),
        description: Description,
    ) -> Self {
        Self { id, camera, viewer, peer, ring, parcels, description, lanes: Vec::new(), playing: None }
    }

    /// Whether it plays.
    pub fn is_playing(&self) -> bool {
        self.playing.is_some()
    }

    /// Whether a track is set up.
    pub fn has_tracks(&self) -> bool {
        !self.lanes.is_empty()
    }

    /// A channel that is free, and the one after it too.
    pub fn free_channel(&self) -> u8 {
        let free = |channel: &u8| self.channels().all(|(_, taken)| taken != *channel && taken != channel + 1);
        (0..=254).step_by(2).find(free).unwrap_or(0)
    }

    /// Whether a channel is another track's.
    pub fn takes(&self, channel: u8, track: Track) -> bool {
        self.channels().any(|(of, taken)| of != track && taken == channel)
    }

    /// The channels that are taken.
    fn channels(&self) -> impl Iterator<Item = (Track, u8)> {
        let interleaved = |lane: &Lane| match lane.path {
            Path::Interleaved { rtp, rtcp } => Some([rtp, rtcp].map(|channel| (lane.sending.track, channel))),
            Path::Datagrams { .. } => None,
        };
        self.lanes.iter().filter_map(interleaved).flatten()
    }

    /// Sets up a track, anew where it was before. Its synchronisation source; None: the camera has no such track.
    pub fn set_up(&mut self, track: Track, path: Path) -> Option<u32> {
        let format = self.description.format(track)?.clone();
        let sending = Sending::new(track, format, &mut fastrand::Rng::new());
        let ssrc = sending.ssrc();
        self.lanes.retain(|lane| lane.sending.track != track);
        self.lanes.push(Lane { sending, path });
        Some(ssrc)
    }

    /// Begins to play, at the last key frame.
    pub fn play(&mut self, seat: Seat, now: Mono, wall: Utc) {
        let reader = self.ring.reader(Start::LastKey);
        let epoch = match self.ring.reader(Start::LastKey).try_next() {
            Some(Read::Frame(frame)) => Epoch::of(&frame),
            _ => Epoch::at(wall, now),
        };
        let pace = Pace::new(self.ring.held(), now);
        self.playing = Some(Playing { reader, epoch, wants_key: true, pace, seat, since: now, frames: 0, skipped: 0 });
        let (camera, viewer, transport) = (&self.camera, &self.viewer, self.transport());
        info!(%camera, %viewer, peer = %self.peer, %transport, "watched by RTSP");
    }

    fn transport(&self) -> &'static str {
        let datagrams = self.lanes.iter().any(|lane| matches!(lane.path, Path::Datagrams { .. }));
        if datagrams { "udp" } else { "tcp" }
    }

    /// Where each track begins, for `RTP-Info` (RFC 2326 section 12.33).
    pub fn rtp_info(&self, base: &str) -> String {
        let line = |lane: &Lane| {
            let (sequence, time) = lane.sending.place();
            format!("url={base}/{};seq={sequence};rtptime={time}", sdp::name(lane.sending.track))
        };
        self.lanes.iter().map(line).collect::<Vec<_>>().join(",")
    }

    /// Whether an interleaved packet is RTCP of its client.
    pub fn hears_on(&self, channel: u8) -> bool {
        self.lanes.iter().any(|lane| lane.path.hears_on(channel))
    }

    /// What comes next: something to play, if `wants` it, or RTCP of its client.
    pub async fn next(&mut self, wants: bool) -> Next {
        poll_fn(|cx| {
            if self.lanes.iter().any(|lane| lane.path.poll_rtcp(cx).is_ready()) {
                return Poll::Ready(Next::Heard);
            }
            match &mut self.playing {
                Some(playing) if wants => playing.reader.poll_next(cx).map(Next::Read),
                _ => Poll::Pending,
            }
        })
        .await
    }

    /// Adds what is there already to what goes out, as much as has room.
    pub fn fill(&mut self, out: &mut Out, now: Mono) -> Result<(), Ended> {
        while out.has_room() {
            let Some(read) = self.playing.as_mut().and_then(|playing| playing.reader.try_next()) else { break };
            self.take(read, out, now)?;
        }
        Ok(())
    }

    /// Takes what was read.
    pub fn take(&mut self, read: Read, out: &mut Out, now: Mono) -> Result<(), Ended> {
        let Some(playing) = &mut self.playing else { return Ok(()) };
        match read {
            Read::Ended => return Err(Ended::Camera),
            Read::Skipped(frames) => {
                // Nobody wants to see the oldest that is left.
                let more = playing.reader.skip_to_last_key();
                playing.skip(frames + more);
            }
            Read::Frame(frame) => {
                if now.since(frame.arrived) > LATE {
                    let more = playing.reader.skip_to_last_key();
                    if more > 0 {
                        playing.skip(1 + more);
                        return Ok(());
                    }
                }
                return self.send(&frame, out, now);
            }
        }
        Ok(())
    }

    fn send(&mut self, frame: &Arc<Frame>, out: &mut Out, now: Mono) -> Result<(), Ended> {
        let Some(playing) = &mut self.playing else { return Ok(()) };
        let Some(lane) = self.lanes.iter_mut().find(|lane| lane.sending.track == frame.track) else { return Ok(()) };
        if frame.track == Track::Video && playing.wants_key && !frame.key {
            return Ok(());
        }
        if !lane.sending.fits(frame) {
            return Err(Ended::Changed);
        }
        let Some(parts) = self.parcels.of(frame) else { return Ok(()) };
        playing.wants_key &= frame.track != Track::Video;
        playing.frames += 1;
        let path = &lane.path;
        lane.sending.send(frame, &parts, playing.epoch, now, |packet| out.packet(frame.track, path, packet));
        Ok(())
    }

    /// Sends the datagrams that may go now; when the next may, if any waits.
    pub async fn send_datagrams(&mut self, out: &mut Out) -> Option<Mono> {
        let playing = self.playing.as_mut()?;
        while let Some(next) = out.datagrams.front() {
            if let Err(at) = playing.pace.take(next.bytes.len(), clock::mono()) {
                return Some(at);
            }
            let next = out.datagrams.pop_front()?;
            let lane = self.lanes.iter().find(|lane| lane.sending.track == next.track);
            let Some(Path::Datagrams { rtp, rtcp }) = lane.map(|lane| &lane.path) else { continue };
            let socket = if next.is_rtp { rtp } else { rtcp };
            // One that cannot be sent is lost, as datagrams are.
            if !matches!(timeout(DATAGRAM, socket.send(&next.bytes)).await, Ok(Ok(_))) {
                playing.seat.lost();
            }
        }
        None
    }

    /// Ends it: each track says goodbye.
    pub fn end(self, out: &mut Out) {
        out.datagrams.clear();
        for lane in self.lanes.iter().filter(|_| self.playing.is_some()) {
            let goodbye = lane.sending.goodbye();
            match &lane.path {
                Path::Interleaved { rtcp, .. } => {
                    let [high, low] = (goodbye.len() as u16).to_be_bytes();
                    out.say(&[&[b'$', *rtcp, high, low], &goodbye[..]].concat());
                }
                Path::Datagrams { rtcp, .. } => drop(rtcp.try_send(&goodbye)),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        if let Some(playing) = &self.playing {
            let seconds = clock::mono().since(playing.since).as_secs();
            let (frames, skipped) = (playing.frames, playing.skipped);
            let (camera, viewer) = (&self.camera, &self.viewer);
            info!(%camera, %viewer, peer = %self.peer, seconds, frames, skipped, "no longer watched by RTSP");
        }
    }
}

impl Playing {
    /// So many frames are left out.
    fn skip(&mut self, frames: u64) {
        self.skipped += frames;
        self.seat.skipped(frames);
        self.wants_key = true;
    }
}
