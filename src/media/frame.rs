//! One encoded frame and the format it is in.

use std::sync::Arc;

use bytes::Bytes;

use crate::district::clock::{Mono, Utc};

/// Which of a camera's streams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Track {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
}

/// How the bytes are encoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ITU-T H.264; frames are NAL units with 4-byte lengths, parameter sets out of band.
    H264,
    /// ITU-T H.265; frames as H.264's.
    H265,
    /// A JPEG picture a frame (RFC 2435).
    Jpeg,
    /// AAC, raw access units (RFC 3640).
    Aac,
    /// G.711 mu-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// Opus packets (RFC 6716), 48 kHz clock.
    Opus,
}

/// What a decoder must know before the first frame. Shared by all frames of a stretch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Format {
    /// How the bytes are encoded.
    pub codec: Codec,
    /// Ticks a second of [`Frame::ticks`].
    pub clock_rate: u32,
    /// Pixels across and down; zero for sound.
    pub width: u16,
    /// See `width`.
    pub height: u16,
    /// Channels of sound; zero for pictures.
    pub channels: u16,
    /// The codec's configuration as MP4 carries it: `avcC` or `hvcC` body (ISO/IEC 14496-15), AudioSpecificConfig
    /// (ISO/IEC 14496-3), empty for JPEG and G.711, `OpusHead` body for Opus.
    pub config: Bytes,
    /// RFC 6381 name, `avc1.4d4028`; empty where there is none.
    pub rfc6381: String,
}

#[cfg(test)]
impl Format {
    /// One of which nothing more is known, for tests.
    pub fn bare(codec: Codec, clock_rate: u32) -> Self {
        let (config, rfc6381) = (Bytes::new(), String::new());
        Self { codec, clock_rate, width: 0, height: 0, channels: 0, config, rfc6381 }
    }
}

/// One access unit: a picture, or a packet's worth of sound. Held once, shared by every reader.
#[derive(Debug, Clone)]
pub struct Frame {
    /// Which stream.
    pub track: Track,
    /// Counts up whenever the camera's clock cannot be followed on: a new session, a jump, a step back. Ticks compare
    /// only within one timeline.
    pub timeline: u32,
    /// The camera's timestamp in [`Format::clock_rate`], unwrapped, never decreasing within a timeline and track.
    pub ticks: i64,
    /// When it was captured: the camera's clock mapped to wall time, by RTCP sender reports where the camera sends
    /// them, by arrival where not. Constant offset to `ticks` within a timeline and track.
    pub captured: Utc,
    /// When its last packet arrived here.
    pub arrived: Mono,
    /// Whether decoding can begin here. Sound always can.
    pub key: bool,
    /// Packets lost just before it, by RTP sequence number.
    pub lost_before: u16,
    /// What a decoder must know.
    pub format: Arc<Format>,
    /// The bytes.
    pub data: Bytes,
}
