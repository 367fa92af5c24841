//! The task of one camera: keeps one session going, puts its frames into the ring, tells when its state changes.

use std::{pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::StreamExt as _;
use retina::{
    client::Demuxed,
    codec::{AudioFrame, CodecItem, VideoFrame},
    rtcp::ReceivedCompoundPacket,
};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    Settings,
    fault::Fault,
    format::{self, Chosen},
    session::{Address, Playing},
    states::{Change, States},
    stats::Counters,
    timeline::{Arrival, Clock, Stamp},
};
use crate::{
    district::{camera::CameraReport, clock::Mono, ids::CameraId},
    host::{bulkhead, clock, scope::Scope},
    media::{
        frame::{Format, Frame, Track},
        ring::Ring,
    },
};

/// A report that found the channel full is tried again after this long.
const TELL_AGAIN: Duration = Duration::from_millis(200);
/// How long the next session waits for the camera to take leave of the last one. A camera that broke off seldom
/// answers, and every moment is a gap in the pictures; TEARDOWN goes on in the background.
const LEAVE: Duration = Duration::from_millis(300);

/// Largest picture that is taken, in bytes: one of 4K at the best quality has some 3 MB.
const MAX_PICTURE: usize = 16 << 20;

/// Everything the task of one camera holds.
pub(super) struct Keeper {
    pub(super) camera: CameraId,
    pub(super) address: Address,
    pub(super) settings: Settings,
    pub(super) states: States,
    pub(super) intake: Intake,
    pub(super) teller: Teller,
    pub(super) scope: Scope,
}

impl Keeper {
    pub(super) async fn run(mut self) {
        loop {
            let pause = self.settings.pace.reserve(clock::mono());
            if self.wait(pause).await {
                break;
            }
            let stopping = self.scope.stopping();
            let ended = tokio::select! {
                () = stopping => None,
                fault = self.session() => Some(fault),
            };
            // The session is dropped by now; its TEARDOWN is on the way.
            let Some(fault) = ended else {
                self.address.leave(self.settings.teardown).await;
                break;
            };
            let (change, pause) = self.states.fault(clock::mono(), &fault);
            self.tell(change);
            self.address.leave(LEAVE).await;
            if self.wait(pause).await {
                self.address.leave(self.settings.teardown).await;
                break;
            }
            self.intake.counters.reconnects();
        }
        self.intake.ring.end();
    }

    /// One session behind a bulkhead: whatever a camera sends, it ends no other's.
    async fn session(&mut self) -> Fault {
        match bulkhead::behind_all_of(self.session_as_it_is()).await {
            Ok(fault) => fault,
            Err(burst) => self.address.unreadable(&burst),
        }
    }

    /// One session from connecting to its end.
    async fn session_as_it_is(&mut self) -> Fault {
        match self.address.play(self.settings.connect).await {
            Ok(playing) => self.receive(playing).await,
            Err(fault) => fault,
        }
    }

    /// Receives until the session ends. The watchdog looks at what arrived, not at whether the socket is open.
    async fn receive(&mut self, playing: Playing) -> Fault {
        let Playing { mut demuxed, chosen } = playing;
        self.intake.begin(chosen);
        let mut watchdog = Watchdog::new(clock::mono(), &self.settings);
        let mut watch = pin!(sleep_until(self.next_look(&watchdog)));
        loop {
            let item = tokio::select! {
                biased;
                () = &mut watch => {
                    self.teller.again();
                    if let Some(fault) = watchdog.fault(clock::mono(), &self.address) {
                        return fault;
                    }
                    watch.as_mut().reset(self.next_look(&watchdog));
                    continue;
                }
                item = demuxed.next() => item,
            };
            let taken = match item {
                Some(Ok(CodecItem::VideoFrame(frame))) if frame.data().len() > MAX_PICTURE => {
                    return self.address.too_large(frame.data().len());
                }
                Some(Ok(item)) => self.intake.take(item, &demuxed),
                Some(Err(error)) => return self.address.ended(Some(&error)),
                None => return self.address.ended(None),
            };
            watchdog.note(&taken);
            if let Taken::First(at) = taken {
                let what = self.intake.describe();
                let change = self.states.frames(at, what);
                self.tell(change);
                if self.teller.untold() {
                    watch.as_mut().reset(Instant::now() + TELL_AGAIN);
                }
            }
        }
    }

    fn next_look(&self, watchdog: &Watchdog) -> Instant {
        if self.teller.untold() {
            return Instant::now() + TELL_AGAIN;
        }
        clock::deadline(watchdog.due())
    }

    fn tell(&mut self, change: Option<Change>) {
        let Some(Change { state, detail }) = change else { return };
        if state.healthy() {
            tracing::info!(camera = %self.camera, %detail, "camera is live");
        } else {
            tracing::warn!(camera = %self.camera, ?state, %detail, "camera does not deliver");
        }
        self.intake.counters.state(clock::mono(), state, &detail);
        self.teller.tell(CameraReport { camera: self.camera.clone(), state, detail });
    }

    /// Waits; `true` when told to stop meanwhile.
    async fn wait(&mut self, span: Duration) -> bool {
        let until = Instant::now() + span;
        loop {
            let untold = self.teller.untold();
            let look = if untold { until.min(Instant::now() + TELL_AGAIN) } else { until };
            tokio::select! {
                biased;
                () = self.scope.stopping() => return true,
                () = sleep_until(look) => self.teller.again(),
            }
            if Instant::now() >= until {
                return false;
            }
        }
    }
}

/// Tells the gateway. When its queue is full the newest state waits here and replaces older ones: the camera never
/// waits for a reader, and what is told last is true.
pub(super) struct Teller {
    pub(super) reports: mpsc::Sender<CameraReport>,
    pub(super) pending: Option<CameraReport>,
}

impl Teller {
    fn tell(&mut self, report: CameraReport) {
        self.pending = Some(report);
        self.again();
    }

    fn again(&mut self) {
        if let Some(report) = self.pending.take()
            && let Err(mpsc::error::TrySendError::Full(report)) = self.reports.try_send(report)
        {
            self.pending = Some(report);
        }
    }

    fn untold(&self) -> bool {
        self.pending.is_some()
    }
}

/// Whether frames arrive.
struct Watchdog {
    stall: Duration,
    first_key: Duration,
    began: Mono,
    heard: Mono,
    /// A frame went into the ring.
    delivered: bool,
}

impl Watchdog {
    fn new(now: Mono, settings: &Settings) -> Self {
        Self { stall: settings.stall, first_key: settings.first_key, began: now, heard: now, delivered: false }
    }

    fn note(&mut self, taken: &Taken) {
        match taken {
            Taken::First(at) => (self.heard, self.delivered) = (*at, true),
            Taken::Main(at) => self.heard = *at,
            Taken::Other => {}
        }
    }

    fn due(&self) -> Mono {
        let silent = self.heard + self.stall;
        if self.delivered { silent } else { silent.min(self.began + self.first_key) }
    }

    fn fault(&self, now: Mono, address: &Address) -> Option<Fault> {
        let address = address.name().to_owned();
        if now >= self.heard + self.stall {
            return Some(Fault::Silent { address, after: self.stall });
        }
        let keyless = !self.delivered && now >= self.began + self.first_key;
        keyless.then_some(Fault::NoKeyFrame { address, after: self.first_key })
    }
}

/// What became of an item.
enum Taken {
    /// The session's first frame that went into the ring.
    First(Mono),
    /// A frame of the pictures (of the sound, where there are none).
    Main(Mono),
    /// Something else.
    Other,
}

/// From retina's items to frames in the ring.
pub(super) struct Intake {
    pub(super) ring: Arc<Ring>,
    pub(super) counters: Arc<Counters>,
    clock: Clock,
    chosen: Chosen,
    video: Option<Arc<Format>>,
    audio: Option<Arc<Format>>,
    /// Decoding can begin: until the first key frame nothing goes into the ring, sound included.
    begun: bool,
    /// Packets lost in frames that were left out.
    lost: u16,
}

impl Intake {
    pub(super) fn new(ring: Arc<Ring>, counters: Arc<Counters>) -> Self {
        Self {
            ring,
            counters,
            clock: Clock::default(),
            chosen: Chosen { video: None, audio: None },
            video: None,
            audio: None,
            begun: false,
            lost: 0,
        }
    }

    fn begin(&mut self, chosen: Chosen) {
        self.clock.begin_session();
        self.chosen = chosen;
        (self.video, self.audio) = (None, None);
        self.begun = false;
        self.lost = 0;
    }

    fn describe(&self) -> String {
        let mut words = Vec::new();
        if let Some(f) = &self.video {
            words.push(format!("{:?} {}x{}", f.codec, f.width, f.height));
        }
        if let Some(f) = &self.audio {
            words.push(format!("{:?} {} Hz", f.codec, f.clock_rate));
        }
        format!("frames arrive: {}", words.join(", "))
    }

    fn take(&mut self, item: CodecItem, from: &Demuxed) -> Taken {
        let at = Arrival { mono: clock::mono(), wall: clock::wall() };
        match item {
            CodecItem::VideoFrame(frame) => self.picture(at, frame, from),
            CodecItem::AudioFrame(frame) => self.sound(at, &frame, from),
            CodecItem::Rtcp(packet) => self.report(at, &packet, from),
            _ => Taken::Other,
        }
    }

    fn picture(&mut self, at: Arrival, frame: VideoFrame, from: &Demuxed) -> Taken {
        if frame.has_new_parameters() || self.video.is_none() {
            self.video = newest(self.video.take(), from, frame.stream_id());
        }
        if frame.loss() > 0 {
            self.counters.lost(frame.loss());
            self.lost = self.lost.saturating_add(frame.loss());
        }
        let Some(format) = self.video.clone() else { return Taken::Main(at.mono) };
        let key = format::is_key(format.codec, frame.is_random_access_point(), frame.data());
        if frame.data().is_empty() || !(key || self.begun) {
            return Taken::Main(at.mono);
        }
        let stamp = stamp(Track::Video, format.clock_rate, frame.timestamp().timestamp());
        let placed = self.clock.frame(at, stamp, key);
        let lost_before = std::mem::take(&mut self.lost);
        self.push(Frame {
            track: Track::Video,
            timeline: placed.timeline,
            ticks: placed.ticks,
            captured: placed.captured,
            arrived: at.mono,
            key,
            lost_before,
            format,
            data: Bytes::from(frame.into_data()),
        })
    }

    fn sound(&mut self, at: Arrival, frame: &AudioFrame, from: &Demuxed) -> Taken {
        if self.audio.is_none() {
            self.audio = newest(None, from, frame.stream_id());
        }
        if frame.loss() > 0 {
            self.counters.lost(frame.loss());
        }
        let alone = self.chosen.video.is_none();
        let Some(format) = self.audio.clone() else { return Taken::Other };
        if !(self.begun || alone) {
            return Taken::Other;
        }
        let stamp = stamp(Track::Audio, format.clock_rate, frame.timestamp().timestamp());
        let placed = self.clock.frame(at, stamp, alone);
        let taken = self.push(Frame {
            track: Track::Audio,
            timeline: placed.timeline,
            ticks: placed.ticks,
            captured: placed.captured,
            arrived: at.mono,
            key: true,
            lost_before: frame.loss(),
            format,
            data: Bytes::copy_from_slice(frame.data()),
        });
        if alone { taken } else { Taken::Other }
    }

    fn push(&mut self, frame: Frame) -> Taken {
        let at = frame.arrived;
        self.counters.frame(&frame);
        self.ring.push(frame);
        if std::mem::replace(&mut self.begun, true) { Taken::Main(at) } else { Taken::First(at) }
    }

    fn report(&mut self, at: Arrival, packet: &ReceivedCompoundPacket, from: &Demuxed) -> Taken {
        let id = packet.stream_id();
        let track = if self.chosen.video == Some(id) { Track::Video } else { Track::Audio };
        let rate = from.streams().get(id).map_or(0, retina::client::Stream::clock_rate_hz);
        for sender in packet.pkts().filter_map(|p| p.as_sender_report().ok().flatten()) {
            let stamp = Stamp { track, rate, rtp: sender.rtp_timestamp() };
            self.clock.sender_report(at, stamp, sender.ntp_timestamp().0);
        }
        self.counters.clock_ahead(self.clock.camera_ahead_us());
        Taken::Other
    }
}

/// The low 32 bits are those of the RTP header; unwrapping them is the clock's.
fn stamp(track: Track, rate: u32, timestamp: i64) -> Stamp {
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "the RTP header's bits")]
    let rtp = timestamp as u32;
    Stamp { track, rate, rtp }
}

/// The stream's format now; the one before where nothing changed, so that frames keep sharing it.
fn newest(before: Option<Arc<Format>>, from: &Demuxed, stream: usize) -> Option<Arc<Format>> {
    let now = from.streams().get(stream).and_then(format::format)?;
    Some(before.filter(|b| **b == now).unwrap_or_else(|| Arc::new(now)))
}
