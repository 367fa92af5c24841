//! What a browser sends, on its way into a ring: pictures put together, sound as it is. Whoever holds the inlet fills it,
//! and nobody else: in a call that is who has the floor.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;

use crate::{
    district::clock::{Now, Utc},
    host::clock,
    media::{
        assembly::{Assembler, Packet},
        frame::{Codec, Format, Frame, Track},
        opus,
        ring::Ring,
    },
};

/// A browser is asked for a key frame this often: recordings are cut there, and whoever joins begins there.
const KEY_EVERY: Duration = Duration::from_secs(2);
/// While pictures are broken, this often.
const KEY_SOON: Duration = Duration::from_millis(400);
/// Nobody.
const NOBODY: u32 = 0;
/// Silence, in dBov below the loudest (RFC 6464 section 3).
const SILENCE: u8 = 127;

/// A ring that browsers fill, one at a time.
#[derive(Debug)]
pub struct Inlet {
    ring: Arc<Ring>,
    holder: AtomicU32,
    /// Each stretch that one browser fills is a timeline of its own.
    timelines: AtomicU32,
    /// The loudest since it was last looked at.
    loudest: AtomicU8,
}

impl Inlet {
    /// Into that ring; nobody holds it.
    pub fn new(ring: Arc<Ring>) -> Arc<Self> {
        let (holder, timelines) = (AtomicU32::new(NOBODY), AtomicU32::new(0));
        Arc::new(Self { ring, holder, timelines, loudest: AtomicU8::new(SILENCE) })
    }

    /// The ring.
    pub fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    /// From now on that party fills it, or nobody.
    pub fn give(&self, party: Option<u32>) {
        self.holder.store(party.unwrap_or(NOBODY), Relaxed);
    }

    /// Nobody fills it any more, if that party did.
    pub fn release(&self, party: u32) {
        let _ = self.holder.compare_exchange(party, NOBODY, Relaxed, Relaxed);
    }

    /// The loudest that was sent since it was last asked, in dBov below the loudest possible: 0 to 127. A browser says so
    /// with its packets (RFC 6464).
    pub fn loudest(&self) -> u8 {
        self.loudest.swap(SILENCE, Relaxed)
    }
}

/// One browser's end of an inlet.
#[derive(Debug)]
pub(super) struct Uptake {
    inlet: Arc<Inlet>,
    party: u32,
    /// The stretch that it fills now.
    timeline: Option<u32>,
    video: Assembler,
    /// Where each track's time began, on the clock on the wall.
    origins: [Option<(i64, Utc)>; 2],
    sound: Option<(i64, Arc<Format>)>,
    last_key: Option<Instant>,
    asked: Option<Instant>,
}

/// A packet that came in.
#[derive(Debug)]
pub(super) struct Incoming {
    pub codec: Codec,
    /// Extended sequence number.
    pub number: u64,
    /// Extended RTP time.
    pub time: i64,
    pub marker: bool,
    pub payload: Arc<[u8]>,
    /// dBov below the loudest, where it says so.
    pub level: Option<u8>,
}

impl Uptake {
    pub fn new(inlet: Arc<Inlet>, party: u32) -> Self {
        let (video, origins) = (Assembler::default(), [None; 2]);
        Self { inlet, party, timeline: None, video, origins, sound: None, last_key: None, asked: None }
    }

    /// Whether what it takes goes into that ring now.
    pub fn fills(&self, ring: &Arc<Ring>) -> bool {
        self.timeline.is_some() && Arc::ptr_eq(&self.inlet.ring, ring)
    }

    /// Takes a packet.
    pub fn packet(&mut self, packet: Incoming) {
        let mine = self.inlet.holder.load(Relaxed) == self.party;
        if !mine {
            if self.timeline.take().is_some() {
                (self.origins, self.sound, self.last_key) = ([None; 2], None, None);
            }
        } else if self.timeline.is_none() {
            self.timeline = Some(self.inlet.timelines.fetch_add(1, Relaxed));
        }
        let now = clock::now();
        match packet.codec {
            Codec::H264 => {
                let Incoming { number, time, marker, payload, .. } = packet;
                for picture in self.video.push(Packet { number, time, marker, payload, arrived: now.mono }) {
                    let begun = self.last_key.is_some() || picture.key;
                    let Some(timeline) = self.timeline.filter(|_| begun) else { continue };
                    if picture.key {
                        self.last_key = Some(clock::instant());
                    }
                    let captured = self.captured(Track::Video, picture.time, 90_000, now);
                    self.inlet.ring.push(Frame {
                        track: Track::Video,
                        timeline,
                        ticks: picture.time,
                        captured,
                        arrived: picture.arrived,
                        key: picture.key,
                        lost_before: picture.lost_before,
                        format: picture.format,
                        data: picture.data,
                    });
                }
            }
            Codec::Opus | Codec::Pcmu | Codec::Pcma => self.sound(packet, now),
            // Not agreed to.
            Codec::H265 | Codec::Jpeg | Codec::Aac => {}
        }
    }

    fn sound(&mut self, packet: Incoming, now: Now) {
        let Some(timeline) = self.timeline.filter(|_| !packet.payload.is_empty()) else { return };
        self.inlet.loudest.fetch_min(packet.level.unwrap_or(SILENCE), Relaxed);
        let known = self.sound.as_ref().filter(|(_, format)| format.codec == packet.codec);
        // What comes late would be heard late.
        if known.is_some_and(|(last, _)| packet.time <= *last) {
            return;
        }
        let format = known.map_or_else(|| Arc::new(sound_format(packet.codec)), |(_, format)| format.clone());
        self.sound = Some((packet.time, format.clone()));
        let captured = self.captured(Track::Audio, packet.time, format.clock_rate, now);
        self.inlet.ring.push(Frame {
            track: Track::Audio,
            timeline,
            ticks: packet.time,
            captured,
            arrived: now.mono,
            key: true,
            lost_before: 0,
            format,
            data: Bytes::from_owner(packet.payload),
        });
    }

    /// When it was captured: by our clock when the stretch began, by the browser's from then on.
    fn captured(&mut self, track: Track, ticks: i64, rate: u32, now: Now) -> Utc {
        let (origin, wall) = *self.origins[track as usize].get_or_insert((ticks, now.wall));
        wall.shifted((ticks - origin) * 1_000_000 / i64::from(rate.max(1)))
    }

    /// Whether the browser is to be asked for a key frame now.
    pub fn wants_key(&mut self, now: Instant) -> bool {
        let pace = match self.last_key {
            _ if self.timeline.is_none() => return false,
            Some(at) if !self.video.wants_key() && now < at + KEY_EVERY => return false,
            Some(_) | None => KEY_SOON,
        };
        let due = self.asked.is_none_or(|at| now >= at + pace);
        if due {
            self.asked = Some(now);
        }
        due
    }
}

impl Drop for Uptake {
    fn drop(&mut self) {
        self.inlet.release(self.party);
    }
}

fn sound_format(codec: Codec) -> Format {
    match codec {
        // Two channels, whatever is sent (RFC 7587 section 4.1).
        Codec::Opus => opus::stereo(),
        codec => Format {
            codec,
            clock_rate: 8_000,
            width: 0,
            height: 0,
            channels: 1,
            config: Bytes::new(),
            rfc6381: String::new(),
        },
    }
}
