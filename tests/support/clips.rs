//! Frames as a camera session would give them, from the clips of `support::media()`.
#![allow(dead_code, reason = "each test binary uses some of them")]

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use chowki::{
    district::clock::{Mono, Utc},
    media::frame::{Codec, Format, Frame, Track},
};

use super::support::media;

/// When the first frame of every clip was captured.
pub const BEGAN: Utc = Utc::from_micros(1_772_366_400_000_000);

/// A clip, cut into access units.
pub struct Clip {
    pub format: Arc<Format>,
    pub units: Vec<(bool, Bytes)>,
}

impl Clip {
    /// Its frames: `ticks(i)` from the camera's own beginning, captured `late` after [`BEGAN`].
    pub fn frames(&self, timeline: u32, late: Duration, ticks: impl Fn(i64) -> i64) -> Vec<Arc<Frame>> {
        let rate = i64::from(self.format.clock_rate);
        let track = if self.format.channels > 0 { Track::Audio } else { Track::Video };
        let frame = |(i, (key, data)): (usize, &(bool, Bytes))| {
            let (first, ticks) = (ticks(0), ticks(i as i64));
            let us = late.as_micros() as i64 + (ticks - first) * 1_000_000 / rate;
            Arc::new(Frame {
                track,
                timeline,
                ticks,
                captured: BEGAN.shifted(us),
                arrived: Mono::from_boot(Duration::from_secs(100) + Duration::from_micros(us as u64)),
                key: *key,
                lost_before: 0,
                format: self.format.clone(),
                data: data.clone(),
            })
        };
        self.units.iter().enumerate().map(frame).collect()
    }
}

/// Frames of both tracks in the order of their arrival.
pub fn interleaved(tracks: Vec<Vec<Arc<Frame>>>) -> Vec<Arc<Frame>> {
    let mut all: Vec<_> = tracks.into_iter().flatten().collect();
    all.sort_by_key(|f| f.arrived);
    all
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(media().join(name)).unwrap()
}

fn format(codec: Codec, clock_rate: u32, size: (u16, u16), channels: u16, config: Vec<u8>) -> Arc<Format> {
    let (width, height) = size;
    Arc::new(Format { codec, clock_rate, width, height, channels, config: config.into(), rfc6381: String::new() })
}

/// NAL units of an Annex B stream.
fn nals(stream: &[u8]) -> Vec<&[u8]> {
    let starts: Vec<usize> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0, 0, 1]).map(|(i, _)| i + 3).collect();
    let ends = starts.iter().skip(1).map(|s| s - 3).chain([stream.len()]);
    let trim = |(s, e): (&usize, usize)| {
        let nal = &stream[*s..e];
        &nal[..nal.iter().rposition(|b| *b != 0).map_or(0, |i| i + 1)]
    };
    starts.iter().zip(ends).map(trim).collect()
}

/// Access units with 4-byte lengths, without parameter sets and delimiters; `kind` reads a NAL unit's type.
fn units(
    nals: &[&[u8]],
    kind: fn(u8) -> u8,
    delimiter: u8,
    left_out: &[u8],
    key: fn(u8) -> bool,
) -> Vec<(bool, Bytes)> {
    let mut units: Vec<(bool, Vec<u8>)> = Vec::new();
    for nal in nals {
        let kind = kind(nal[0]);
        if kind == delimiter {
            units.push((false, Vec::new()));
        } else if !left_out.contains(&kind) {
            let unit = units.last_mut().unwrap();
            unit.0 |= key(kind);
            unit.1.extend((nal.len() as u32).to_be_bytes());
            unit.1.extend(*nal);
        }
    }
    units.into_iter().map(|(key, data)| (key, data.into())).collect()
}

fn with_length(nal: &[u8]) -> Vec<u8> {
    [&(nal.len() as u16).to_be_bytes(), nal].concat()
}

/// 1080p30, 10 s, a key frame every 2 s.
pub fn h264() -> Clip {
    h264_of("cam_h264.h264", (1920, 1080))
}

/// 360p15, 10 s, a key frame every 2 s.
pub fn h264_small() -> Clip {
    h264_of("cam_sub.h264", (640, 360))
}

fn h264_of(file: &str, size: (u16, u16)) -> Clip {
    let stream = read(file);
    let nals = nals(&stream);
    let kind = |b: u8| b & 0x1f;
    let set = |k: u8| *nals.iter().find(|n| kind(n[0]) == k).unwrap();
    let (sps, pps) = (set(7), set(8));
    let head = [1, sps[1], sps[2], sps[3], 0xff, 0xe1];
    let config = [&head[..], &with_length(sps), &[1], &with_length(pps)].concat();
    Clip { format: format(Codec::H264, 90_000, size, 0, config), units: units(&nals, kind, 9, &[7, 8], |k| k == 5) }
}

/// 1080p30, 10 s, a key frame every 2 s.
pub fn h265() -> Clip {
    let stream = read("cam_h265.h265");
    let nals = nals(&stream);
    let kind = |b: u8| (b >> 1) & 0x3f;
    let set = |k: u8| *nals.iter().find(|n| kind(n[0]) == k).unwrap();
    let mut sps = Vec::new();
    for byte in set(33) {
        // Without emulation prevention.
        if !(sps.ends_with(&[0, 0]) && *byte == 3) {
            sps.push(*byte);
        }
    }
    let mut config = vec![1];
    config.extend(&sps[3..15]);
    config.extend([0xf0, 0, 0xfc, 0xfd, 0xf8, 0xf8, 0, 0, 0x0f, 3]);
    for k in [32, 33, 34] {
        config.extend([0x80 | k, 0, 1]);
        config.extend(with_length(set(k)));
    }
    Clip {
        format: format(Codec::H265, 90_000, (1920, 1080), 0, config),
        units: units(&nals, kind, 35, &[32, 33, 34], |k| (16..=21).contains(&k)),
    }
}

/// 720p10, 5 s.
pub fn jpeg() -> Clip {
    let stream = read("cam.mjpeg");
    let starts: Vec<_> =
        stream.windows(3).enumerate().filter(|(_, w)| *w == [0xff, 0xd8, 0xff]).map(|(i, _)| i).collect();
    let ends = starts.iter().skip(1).copied().chain([stream.len()]);
    let units = starts.iter().zip(ends).map(|(s, e)| (true, Bytes::copy_from_slice(&stream[*s..e]))).collect();
    Clip { format: format(Codec::Jpeg, 90_000, (1280, 720), 0, Vec::new()), units }
}

/// 16 kHz, one channel, 10 s, 1024 samples a unit.
pub fn aac() -> Clip {
    let stream = read("cam.aac");
    let (mut at, mut units) = (0, Vec::new());
    while at + 7 < stream.len() {
        let h = &stream[at..at + 7];
        let length = (usize::from(h[3] & 3) << 11) | (usize::from(h[4]) << 3) | usize::from(h[5] >> 5);
        let head = if h[1] & 1 == 1 { 7 } else { 9 };
        units.push((true, Bytes::copy_from_slice(&stream[at + head..at + length])));
        at += length;
    }
    // AAC LC, 16 kHz, one channel.
    Clip { format: format(Codec::Aac, 16_000, (0, 0), 1, vec![0x14, 0x08]), units }
}

/// G.711, 8 kHz, 10 s, packets of 20 ms.
pub fn g711(codec: Codec) -> Clip {
    let stream = read(if codec == Codec::Pcmu { "cam.ulaw" } else { "cam.alaw" });
    let units = stream.chunks_exact(160).map(|c| (true, Bytes::copy_from_slice(c))).collect();
    Clip { format: format(codec, 8_000, (0, 0), 1, Vec::new()), units }
}
