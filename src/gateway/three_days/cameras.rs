//! Cameras that send when somebody may look, and what they sent.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;

use crate::{
    district::{
        clock::{Mono, Utc},
        ids::CameraId,
    },
    media::{
        frame::{Codec, Format, Frame, Track},
        ring::Ring,
    },
};

const AVCC: &[u8] = &[1, 0x4d, 0x40, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x28, 1, 0, 2, 0x68, 0xee];
/// What a frame's bytes begin with: whose it is, its number, its length.
const MARK: &[u8; 4] = b"CHWK";
const HEAD: usize = 16;
/// From one frame to the next.
const EVERY: Duration = Duration::from_millis(500);

/// A frame that was sent.
#[derive(Debug, Clone, Copy)]
pub struct Sent {
    /// When, since the run began.
    pub at: Duration,
    /// The same, as the gateway dated it.
    pub captured: Utc,
}

/// A camera.
pub struct Camera {
    pub id: CameraId,
    pub always: bool,
    pub alive: bool,
    index: u8,
    /// Frames in a group of pictures.
    group: u64,
    format: Arc<Format>,
    timeline: u32,
    next: u64,
    /// Whether the last frame was sent.
    going: bool,
    pub sent: Vec<Sent>,
}

/// What the clocks of a machine say.
#[derive(Debug, Clone, Copy)]
pub struct Dated {
    pub mono: Mono,
    pub wall: Utc,
}

impl Camera {
    pub fn new(index: u8, always: bool, group: u64) -> Self {
        let format = Format { config: Bytes::from_static(AVCC), ..Format::bare(Codec::H264, 90_000) };
        Self {
            id: format!("c{index}").parse().unwrap(),
            always,
            alive: !always,
            index,
            group,
            format: Arc::new(Format { width: 1280, height: 720, ..format }),
            timeline: 0,
            next: 0,
            going: false,
            sent: Vec::new(),
        }
    }

    /// The clock by which its frames are dated was set, or its session is another one.
    pub fn interrupted(&mut self) {
        self.going = false;
    }

    /// Sends nothing until then.
    pub fn pass(&mut self, now: Duration) {
        self.next = u64::try_from(now.as_millis() / EVERY.as_millis()).unwrap() + 1;
        self.going = false;
    }

    /// Sends what is due until `now`, where it is wanted. Without a ring nobody is there.
    pub fn send(
        &mut self,
        ring: Option<&Arc<Ring>>,
        now: Duration,
        wanted: impl Fn(Duration) -> bool,
        dated: impl Fn(Duration) -> Dated,
    ) {
        while let at = EVERY * u32::try_from(self.next).unwrap()
            && at <= now
        {
            let (number, key) = (self.next, self.next.is_multiple_of(self.group));
            self.next += 1;
            let Some(ring) = ring.filter(|_| self.alive && (self.always || wanted(at))) else {
                self.going = false;
                continue;
            };
            if !self.going {
                // A new session begins with a key frame.
                if !key {
                    continue;
                }
                (self.going, self.timeline) = (true, self.timeline + 1);
            }
            let Dated { mono, wall } = dated(at);
            let data = self.bytes(key, self.sent.len());
            self.sent.push(Sent { at, captured: wall });
            ring.push(Frame {
                track: Track::Video,
                timeline: self.timeline,
                ticks: i64::try_from(number).unwrap() * 45_000,
                captured: wall,
                arrived: mono,
                key,
                lost_before: 0,
                format: self.format.clone(),
                data,
            });
        }
    }

    fn bytes(&self, key: bool, number: usize) -> Bytes {
        let len = if key { 36 << 10 } else { 8 << 10 };
        let mut bytes = vec![0; len];
        bytes[..4].copy_from_slice(MARK);
        bytes[4] = self.index;
        bytes[8..12].copy_from_slice(&u32::try_from(number).unwrap().to_le_bytes());
        bytes[12..16].copy_from_slice(&u32::try_from(len).unwrap().to_le_bytes());
        bytes.into()
    }
}

/// The frames in a fragment, chunk by chunk, by number; and that they are this camera's.
pub fn frames_in(fragment: &[u8], camera: &CameraId) -> Vec<usize> {
    let (mut rest, mut found) = (fragment, Vec::new());
    while let Some((size, kind)) = rest.first_chunk().zip(rest.get(4..8)) {
        let (one, next) = rest.split_at(u32::from_be_bytes(*size) as usize);
        let mut frames = if kind == b"mdat" { &one[8..] } else { &[] };
        while !frames.is_empty() {
            let head = &frames[..HEAD];
            assert_eq!(
                (&head[..4], format!("c{}", head[4]).as_str()),
                (&MARK[..], camera.as_str()),
                "another camera's"
            );
            let word = |from: usize| u32::from_le_bytes(head[from..from + 4].try_into().unwrap()) as usize;
            found.push(word(8));
            frames = &frames[word(12)..];
        }
        rest = next;
    }
    assert!(!found.is_empty(), "a fragment without frames");
    found
}
