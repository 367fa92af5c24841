//! Several recordings of one camera put into one file, of real clips in changing formats; read back by ffprobe and ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/clips.rs"]
mod clips;
mod support;

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use bytes::Bytes;
use chowki::media::{
    fragment::{Fragment, Piece, Settings},
    frame::{Codec, Frame},
    recording::Recording,
    reel::{self, Index, Keep, Reel, Splice},
};
use clips::{h264, h265, interleaved};
use serde_json::Value;

/// A recording's init segment and its fragments, each whole.
fn recorded(frames: &[Arc<Frame>]) -> (Bytes, Vec<Fragment>) {
    let mut recording = Recording::new(Settings::default());
    let mut pieces: Vec<_> = frames.iter().flat_map(|f| recording.push(f)).collect();
    pieces.extend(recording.finish());
    let (mut init, mut fragments) = (None, Vec::<Fragment>::new());
    for piece in pieces {
        match piece {
            Piece::Init(one) => assert!(init.replace(one.bytes).is_none(), "one format"),
            Piece::Fragment(chunk) if chunk.chunk > 0 => {
                let whole = fragments.last_mut().unwrap();
                whole.bytes = [&whole.bytes[..], &chunk.bytes[..]].concat().into();
                whole.duration += chunk.duration;
                whole.chunk = chunk.chunk;
            }
            Piece::Fragment(fragment) => fragments.push(fragment),
            Piece::Refused { error, .. } => panic!("{error}"),
        }
    }
    (init.unwrap(), fragments)
}

/// All of a fragment of the first format, where it is.
fn all(len: u64) -> Splice {
    Splice { init: 0, shift_us: 0, keep: Keep::ALL, sets: false, len }
}

fn us(span: Duration) -> i64 {
    span.as_micros() as i64
}

/// These recordings one after another, a second between them, each in the file from when to when.
fn joined(recordings: &[(Bytes, Vec<Fragment>)]) -> (Bytes, Vec<(f64, f64)>) {
    let mut inits: Vec<Bytes> = Vec::new();
    let (mut index, mut parts, mut spans, mut at) = (Index::default(), Vec::new(), Vec::new(), 0);
    for (init, fragments) in recordings {
        let known = inits.iter().position(|known| known == init).unwrap_or_else(|| {
            inits.push(init.clone());
            inits.len() - 1
        });
        let begins = at;
        for f in fragments {
            let sets = known > 0 || !spans.is_empty();
            let len = reel::len(f.bytes.len() as u64, u64::from(f.chunk) + 1);
            let len = len + if sets { reel::sets_len(init).unwrap() } else { 0 };
            let shift_us = begins - us(fragments[0].at);
            let plays = (us(f.at) + shift_us, us(f.at + f.duration) + shift_us);
            index.push(len, (plays.0 as u64, plays.1 as u64), f.key);
            parts.push((f.bytes.clone(), Splice { init: known, shift_us, keep: Keep::ALL, sets, len }));
            at = plays.1;
        }
        spans.push((begins as f64 / 1e6, at as f64 / 1e6));
        at += 1_000_000;
    }
    let reel = Reel::new(&inits).unwrap();
    let mut file = reel.head(&index).unwrap().to_vec();
    for (bytes, splice) in parts {
        let spliced = reel.splice(&bytes, &splice).unwrap().concat();
        assert_eq!(spliced.len() as u64, splice.len);
        file.extend(spliced);
    }
    (file.into(), spans)
}

/// For each stream: its codec, and when its packets are shown.
fn probe(path: &Path) -> Vec<(String, Vec<f64>)> {
    let args = ["-v", "error", "-show_streams", "-show_packets", "-of", "json"];
    let out = Command::new("ffprobe").args(args).arg(path).output().expect("ffprobe (apt-get install ffmpeg)");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    let all: Value = serde_json::from_slice(&out.stdout).unwrap();
    let times = |index: &Value| {
        let packets = all["packets"].as_array().unwrap().iter().filter(|p| p["stream_index"] == *index);
        packets.map(|p| p["pts_time"].as_str().unwrap().parse().unwrap()).collect()
    };
    let stream = |s: &Value| (s["codec_name"].as_str().unwrap().to_owned(), times(&s["index"]));
    all["streams"].as_array().unwrap().iter().map(stream).collect()
}

fn decodes(path: &Path) {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-copyts", "-i"])
        .arg(path)
        .args(["-map", "0", "-enc_time_base", "-1", "-f", "null", "-"])
        .output()
        .expect("ffmpeg");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
}

/// A frame rate of 29.97 with a camera's wobble.
fn wobbling(i: i64) -> i64 {
    8_000_000_000 + i * 3003 + (i % 7) * 41
}

#[test]
fn formats_that_change_and_sound_of_other_rates_are_in_one_file_at_their_places() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("all.mp4");
    let late = Duration::from_millis(137);
    let pictures = || h264().frames(0, Duration::ZERO, wobbling);
    // The same camera set to another size.
    let small = clips::h264_small();
    let recordings = [
        recorded(&interleaved(vec![pictures(), clips::aac().frames(0, late, |i| 77_777 + i * 1024)])),
        recorded(&interleaved(vec![
            small.frames(1, Duration::ZERO, |i| i * 6_000),
            clips::aac().frames(1, late, |i| i * 1024),
        ])),
        recorded(&interleaved(vec![pictures(), clips::g711(Codec::Pcmu).frames(0, late, |i| i * 160)])),
        recorded(&h265().frames(0, Duration::ZERO, wobbling)),
        recorded(&interleaved(vec![pictures(), clips::aac().frames(0, late, |i| 77_777 + i * 1024)])),
    ];
    let (file, spans) = joined(&recordings);
    std::fs::write(&path, &file).unwrap();
    let streams = probe(&path);
    let kinds: Vec<_> = streams.iter().map(|(codec, _)| codec.as_str()).collect();
    assert_eq!(kinds, ["h264", "hevc", "aac", "opus"], "pictures first");
    let frames = h264().units.len();
    assert_eq!(streams[0].1.len(), 3 * frames + small.units.len(), "three of the one size and one of the other");
    assert_eq!(streams[1].1.len(), frames);
    for (n, at) in [(0, 0), (2, frames + small.units.len()), (4, 2 * frames + small.units.len())] {
        let first = wobbling(0);
        for i in 0..frames as i64 {
            let wanted = spans[n].0 + (wobbling(i) - first) as f64 / 90_000.0;
            assert!((streams[0].1[at + i as usize] - wanted).abs() < 0.000_02, "{n}: {i}");
        }
    }
    // Sound is as far from the pictures as it was.
    assert!((streams[2].1[0] - 0.137).abs() < 0.000_2);
    decodes(&path);
}

#[test]
fn what_is_kept_of_a_fragment_is_whole_frames_and_as_long_as_was_said() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("cut.mp4");
    let (video, sound) = (h264().frames(0, Duration::ZERO, |i| i * 3000), clips::aac());
    let (init, fragments) = recorded(&interleaved(vec![video, sound.frames(0, Duration::ZERO, |i| i * 1024)]));
    let first = &fragments[0];
    let reel = Reel::new(std::slice::from_ref(&init)).unwrap();
    // Frames are 33,333 us apart, packets of sound 64,000.
    for (from, to, frames, packets) in
        [(0, 500_000, 15, 8), (0, 500_001, 16, 8), (33_333, 66_667, 2, 1), (500_000, 1_000_000, 15, 8), (0, 1, 1, 1)]
    {
        let keep = Keep { from_us: from, to_us: to };
        let len = reel::kept_len(&init, &first.bytes, keep).unwrap().unwrap();
        let part = reel.splice(&first.bytes, &Splice { keep, ..all(len) }).unwrap().concat();
        assert_eq!(part.len() as u64, len);
        let mut index = Index::default();
        index.push(len, (0, to as u64), true);
        let file = [&reel.head(&index).unwrap()[..], &part].concat();
        std::fs::write(&path, file).unwrap();
        let streams = probe(&path);
        assert_eq!((streams[0].1.len(), streams[1].1.len()), (frames, packets), "{from}..{to}");
        let begins = from as f64 / 1e6;
        assert!(
            streams
                .iter()
                .flat_map(|(_, times)| times)
                .all(|t| *t > begins - 0.000_02 && *t < to as f64 / 1e6 + 0.000_02)
        );
    }
    assert!(reel::kept_len(&init, &first.bytes, Keep { from_us: 99_000_000, to_us: i64::MAX }).unwrap().is_none());
}

#[test]
fn a_file_of_any_length_has_a_head_of_one_length_that_knows_where_each_moment_is() {
    let (init, fragments) = recorded(&h264().frames(0, Duration::ZERO, wobbling));
    let reel = Reel::new(std::slice::from_ref(&init)).unwrap();
    let mut index = Index::default();
    let mut heads = vec![reel.head(&index).unwrap()];
    for n in 0..5_000_u64 {
        index.push(1_000 + n, (n * 1_000_000, (n + 1) * 1_000_000), true);
        if [0, 1, 1_023, 1_024, 4_999].contains(&n) {
            heads.push(reel.head(&index).unwrap());
        }
    }
    assert!(heads.iter().all(|head| head.len() == heads[0].len()));
    // The last one's lines add up to what the fragments are.
    let at = heads.last().unwrap().windows(4).position(|w| w == b"sidx").unwrap() - 4;
    let sidx = <mp4_atom::Sidx as mp4_atom::Decode>::decode(&mut &heads.last().unwrap()[at..]).unwrap();
    let sum =
        |of: fn(&mp4_atom::SegmentReference) -> u32| sidx.references.iter().map(|r| u64::from(of(r))).sum::<u64>();
    assert_eq!(sum(|r| r.referenced_size), index.bytes());
    assert_eq!(sum(|r| r.subsegment_duration), 5_000_000);
    assert!((512..=1_024).contains(&sidx.references.len()));
    // Bytes that are no fragment, in all kinds of ways.
    let whole = &fragments[0].bytes;
    let len = reel::len(whole.len() as u64, 9);
    for cut in (0..whole.len()).step_by(97) {
        let _ = reel.splice(&whole.slice(..cut), &all(len));
        let mut flipped = whole.to_vec();
        flipped[cut] ^= 0xff;
        let _ = reel.splice(&flipped.into(), &all(len));
    }
    assert!(reel.splice(whole, &all(100)).is_err());
    assert!(reel.splice(whole, &Splice { init: 1, ..all(len) }).is_err());
}

#[test]
fn a_key_frame_of_each_codec_is_a_picture() {
    let dir = tempfile::tempdir().unwrap();
    for clip in [h264(), clips::h264_small(), h265(), clips::jpeg()] {
        let (init, fragments) = recorded(&clip.frames(0, Duration::ZERO, |i| i * 90_000 / 30));
        let frame = reel::key_frame(&init, &fragments[0].bytes, i64::MAX).unwrap().unwrap();
        assert!(reel::key_frame(&init, &fragments[0].bytes, -1).unwrap().is_none());
        let path = dir.path().join("still.jpg");
        std::fs::write(&path, chowki::media::still::jpeg(&frame, None).unwrap()).unwrap();
        let out = Command::new("ffprobe")
            .args(["-v", "error", "-show_entries", "stream=codec_name,width,height", "-of", "csv=p=0"])
            .arg(&path)
            .output()
            .unwrap();
        let (width, height) = (clip.format.width, clip.format.height);
        assert_eq!(String::from_utf8_lossy(&out.stdout).trim(), format!("mjpeg,{width},{height}"));
        decodes(&path);
        // What is cut short or altered is refused or a worse picture, and nothing else.
        for cut in [0, 3, frame.data.len() / 2] {
            let broken = reel::KeyFrame { data: frame.data.slice(..cut), ..frame.clone() };
            let _ = chowki::media::still::jpeg(&broken, Some(320));
        }
    }
}
