//! Recordings of real clips, read back by ffprobe and ffmpeg.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests fail by panicking")]

#[path = "support/clips.rs"]
mod clips;
mod support;

use std::{path::Path, process::Command, sync::Arc, time::Duration};

use chowki::media::{
    fragment::{Fragment, Init, Piece, Settings},
    frame::{Codec, Frame, Track},
    manifest::Manifest,
    playlist::{Entry, Playlist},
    recording::Recording,
};
use clips::{BEGAN, Clip, interleaved};
use mp4_atom::{Decode, Moof};
use serde_json::Value;
use tempfile::TempDir;

/// A recording on disk, as headquarters' store holds it.
struct Stored {
    dir: TempDir,
    inits: Vec<Init>,
    fragments: Vec<Fragment>,
}

impl Stored {
    /// Records frames and stores what comes out.
    fn record(frames: &[Arc<Frame>]) -> Self {
        let settings = Settings::default();
        let mut recording = Recording::new(settings);
        let mut pieces: Vec<_> = frames.iter().flat_map(|f| recording.push(f)).collect();
        pieces.extend(recording.finish());

        let dir = tempfile::tempdir().unwrap();
        let (mut inits, mut fragments, mut list) = (Vec::new(), Vec::new(), Playlist::new(settings.longest));
        for piece in pieces {
            match piece {
                Piece::Init(init) => {
                    std::fs::write(dir.path().join(init.name()), &init.bytes).unwrap();
                    inits.push(init);
                }
                Piece::Fragment(chunk) if chunk.chunk > 0 => {
                    let whole: &mut Fragment = fragments.last_mut().unwrap();
                    assert_eq!((whole.number, whole.more), (chunk.number, true));
                    whole.bytes = [&whole.bytes[..], &chunk.bytes[..]].concat().into();
                    whole.duration += chunk.duration;
                    (whole.to, whole.more) = (chunk.to, chunk.more);
                    (whole.frames, whole.lost) = (whole.frames + chunk.frames, whole.lost || chunk.lost);
                }
                Piece::Fragment(fragment) => fragments.push(fragment),
                Piece::Refused { error, .. } => panic!("{error}"),
            }
        }
        for fragment in &fragments {
            assert!(!fragment.more);
            std::fs::write(dir.path().join(fragment.name()), &fragment.bytes).unwrap();
            list.push(&Entry::from(fragment));
        }
        list.end();
        std::fs::write(dir.path().join("index.m3u8"), list.text()).unwrap();
        Self { dir, inits, fragments }
    }

    /// Init segment and these fragments, one after another, as one file.
    fn joined(&self, fragments: &[Fragment]) -> std::path::PathBuf {
        let init = &self.inits[fragments[0].init as usize];
        let parts: Vec<&[u8]> = [&init.bytes[..]].into_iter().chain(fragments.iter().map(|f| &f.bytes[..])).collect();
        let path = self.dir.path().join("joined.mp4");
        std::fs::write(&path, parts.concat()).unwrap();
        path
    }

    fn whole(&self) -> std::path::PathBuf {
        self.joined(&self.fragments)
    }
}

fn ffprobe(path: &Path) -> Value {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_packets", "-of", "json"])
        .arg(path)
        .output()
        .expect("ffprobe (apt-get install ffmpeg)");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Decodes everything and wants not one complaint; gives what `args` ask ffmpeg to write.
fn decode(path: &Path, args: &[&str]) -> Vec<u8> {
    let out =
        Command::new("ffmpeg").args(["-v", "error", "-xerror", "-i"]).arg(path).args(args).output().expect("ffmpeg");
    assert!(out.status.success() && out.stderr.is_empty(), "{}", String::from_utf8_lossy(&out.stderr));
    out.stdout
}

fn decodes(path: &Path) {
    // In the stream's own time: after a hole, ffmpeg's guess of a frame rate would give two frames one time.
    decode(path, &["-enc_time_base", "-1", "-f", "null", "-"]);
}

/// The numbers of a field in the packets of a kind of stream.
fn packets(probe: &Value, kind: &str, field: &str) -> Vec<i64> {
    let all = probe["packets"].as_array().unwrap().iter();
    all.filter(|p| p["codec_type"] == kind).map(|p| p[field].as_i64().unwrap()).collect()
}

fn stream<'a>(probe: &'a Value, kind: &str) -> &'a Value {
    probe["streams"].as_array().unwrap().iter().find(|s| s["codec_type"] == kind).unwrap()
}

/// A frame rate of 29.97 with a camera's wobble.
fn wobbling(i: i64) -> i64 {
    8_000_000_000 + i * 3003 + (i % 7) * 41
}

/// How long each frame of the first track of a fragment lasts, chunk by chunk.
fn lengths(mut fragment: &[u8]) -> Vec<i64> {
    let mut found = Vec::new();
    while !fragment.is_empty() {
        let size = |at: &[u8]| u32::from_be_bytes(at[..4].try_into().unwrap()) as usize;
        let moof = Moof::decode(&mut &fragment[..]).unwrap();
        let usual = moof.traf[0].tfhd.default_sample_duration;
        found.extend(moof.traf[0].trun[0].samples.iter().map(|s| i64::from(s.duration.or(usual).unwrap())));
        let mdat = size(fragment);
        fragment = &fragment[mdat + size(&fragment[mdat..])..];
    }
    found
}

fn exact_video(clip: &Clip, name: &str, tag: &str) -> Stored {
    let frames = clip.frames(0, Duration::ZERO, wobbling);
    let stored = Stored::record(&frames);
    let probe = ffprobe(&stored.whole());
    let video = stream(&probe, "video");
    assert_eq!((&video["codec_name"], &video["codec_tag_string"]), (&name.into(), &tag.into()));
    assert_eq!(video["time_base"], "1/90000");
    assert_eq!(video["width"], clip.format.width);

    let wanted: Vec<_> = frames.iter().map(|f| f.ticks - wobbling(0)).collect();
    assert_eq!(packets(&probe, "video", "pts"), wanted);
    assert_eq!(packets(&probe, "video", "dts"), wanted);
    // ffprobe tells the length of a packet from the frame rate, so the boxes themselves are asked.
    let lengths: Vec<_> = stored.fragments.iter().flat_map(|f| lengths(&f.bytes)).collect();
    let deltas: Vec<_> = wanted.windows(2).map(|w| w[1] - w[0]).collect();
    assert_eq!((&lengths[..deltas.len()], lengths.last()), (&deltas[..], deltas.last()));
    let total: Duration = stored.fragments.iter().map(|f| f.duration).sum();
    assert_eq!((total.as_nanos() as i64 * 9 + 50_000) / 100_000, lengths.iter().sum::<i64>());
    assert_eq!(stored.fragments.iter().map(|f| f.frames as usize).sum::<usize>(), frames.len());
    stored
}

#[test]
fn h264_comes_back_with_every_timestamp_exact_and_each_fragment_plays_as_soon_as_it_is_there() {
    let clip = clips::h264();
    let stored = exact_video(&clip, "h264", "avc1");
    assert!(stored.inits[0].codecs.starts_with("avc1.4d"), "{}", stored.inits[0].codecs);
    assert_eq!(stored.fragments.len(), 5);
    let mut frames = 0;
    for n in 1..=stored.fragments.len() {
        frames += stored.fragments[n - 1].frames as usize;
        let probe = ffprobe(&stored.joined(&stored.fragments[..n]));
        assert_eq!(packets(&probe, "video", "pts").len(), frames);
    }
    // Each alone: it begins with a key frame.
    for fragment in &stored.fragments {
        assert!(fragment.key && !fragment.lost);
        decodes(&stored.joined(std::slice::from_ref(fragment)));
    }
}

#[test]
fn h265_comes_back_with_every_timestamp_exact() {
    let stored = exact_video(&clips::h265(), "hevc", "hvc1");
    assert!(stored.inits[0].codecs.starts_with("hvc1.1.6.L"), "{}", stored.inits[0].codecs);
    decodes(&stored.joined(&stored.fragments[..2]));
}

#[test]
fn jpeg_comes_back_as_motion_jpeg_cut_every_second() {
    let clip = clips::jpeg();
    let stored = Stored::record(&clip.frames(0, Duration::ZERO, |i| i * 9_000));
    let probe = ffprobe(&stored.whole());
    assert_eq!(stream(&probe, "video")["codec_name"], "mjpeg");
    assert_eq!(packets(&probe, "video", "pts"), (0..50).map(|i| i * 9_000).collect::<Vec<_>>());
    assert_eq!(stored.fragments.len(), 5);
    decodes(&stored.whole());
}

#[test]
fn sound_stands_beside_the_pictures_by_when_both_were_captured() {
    let late = Duration::from_millis(137);
    let (video, sound) = (clips::h264().frames(0, Duration::ZERO, wobbling), clips::aac());
    let stored = Stored::record(&interleaved(vec![video, sound.frames(0, late, |i| 77_777 + i * 1024)]));
    assert_eq!(stored.inits.len(), 1);
    assert!(stored.inits[0].codecs.ends_with(",mp4a.40.2"));

    for path in [stored.whole(), stored.dir.path().join("index.m3u8")] {
        let probe = ffprobe(&path);
        assert_eq!(stream(&probe, "audio")["codec_name"], "aac");
        assert_eq!(stream(&probe, "audio")["sample_rate"], "16000");
        let times: Vec<f64> = probe["packets"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|p| p["codec_type"] == "audio")
            .map(|p| p["pts_time"].as_str().unwrap().parse().unwrap())
            .collect();
        assert_eq!(times.len(), sound.units.len());
        for (i, time) in times.iter().enumerate() {
            assert!((time - 0.137 - i as f64 * 0.064).abs() < 0.000_2, "{i}: {time}");
        }
    }
    decodes(&stored.joined(&stored.fragments[..1]));
}

#[test]
fn hls_plays_to_the_end_while_it_grows_and_afterwards() {
    let clip = clips::h264();
    let stored = Stored::record(&clip.frames(0, Duration::ZERO, wobbling));
    let index = stored.dir.path().join("index.m3u8");
    let probe = ffprobe(&index);
    assert_eq!(packets(&probe, "video", "pts").len(), clip.units.len());
    let text = std::fs::read_to_string(&index).unwrap();
    assert!(text.contains("#EXT-X-PROGRAM-DATE-TIME:2026-03-01T12:00:00.000Z") && text.contains("INDEPENDENT"));
    // Cut off after three fragments: what a player finds while it grows, but told that it ends.
    let growing = text.split_inclusive("00003.m4s\n").next().unwrap().to_owned() + "#EXT-X-ENDLIST\n";
    std::fs::write(&index, growing).unwrap();
    let frames: u32 = stored.fragments[..3].iter().map(|f| f.frames).sum();
    assert_eq!(packets(&ffprobe(&index), "video", "pts").len(), frames as usize);
}

/// Power of a tone in sound of 8 kHz.
fn power(samples: &[f64], hz: f64) -> f64 {
    let step = std::f64::consts::TAU * hz / 8_000.0;
    let (mut re, mut im) = (0.0, 0.0);
    for (i, s) in samples.iter().enumerate() {
        re += s * (step * i as f64).cos();
        im += s * (step * i as f64).sin();
    }
    re.hypot(im) / samples.len() as f64
}

fn linear(bytes: &[u8]) -> Vec<f64> {
    bytes.chunks_exact(2).map(|b| f64::from(i16::from_le_bytes([b[0], b[1]]))).collect()
}

/// How loud a tone is around each sample; two periods of 440 Hz long, so that 440 Hz itself does not show.
fn loudness(samples: &[f64], hz: f64) -> Vec<f64> {
    samples.windows(36).map(|w| power(w, hz)).collect()
}

/// By how many samples `heard` must be moved back to fit `said` best, tried within 50 ms.
fn lag(said: &[f64], heard: &[f64]) -> i64 {
    let fit = |lag: i64| -> f64 {
        (4_000..28_000i64).map(|i| said[i as usize] * heard.get((i + lag) as usize).copied().unwrap_or(0.0)).sum()
    };
    (-400..400).max_by(|a, b| fit(*a).total_cmp(&fit(*b))).unwrap()
}

#[test]
fn g711_becomes_opus_that_sounds_the_same_at_the_same_time() {
    for (codec, name, file) in [(Codec::Pcmu, "mulaw", "cam.ulaw"), (Codec::Pcma, "alaw", "cam.alaw")] {
        let video = clips::jpeg().frames(0, Duration::ZERO, |i| i * 18_000);
        let sound = clips::g711(codec).frames(0, Duration::ZERO, |i| 5_000 + i * 160);
        let stored = Stored::record(&interleaved(vec![video, sound]));
        assert_eq!((stored.inits.len(), stored.inits[0].codecs.as_str()), (1, "jpeg,opus"));
        let whole = stored.whole();
        let probe = ffprobe(&whole);
        assert_eq!(stream(&probe, "audio")["codec_name"], "opus");
        let pts = packets(&probe, "audio", "pts");
        // The first packet begins 6.5 ms before the pictures and is left out.
        assert_eq!((pts[0], pts.len()), (960 - 312, 499));
        assert!(pts.windows(2).all(|w| w[1] - w[0] == 960));

        let args =
            ["-map", "0:a", "-af", "aresample=async=1:first_pts=0", "-ac", "1", "-ar", "8000", "-f", "s16le", "-"];
        let heard = linear(&decode(&whole, &args));
        let raw = support::media().join(file);
        let said = Command::new("ffmpeg")
            .args(["-v", "error", "-f", name, "-ar", "8000", "-ac", "1", "-i"])
            .arg(raw)
            .args(["-f", "s16le", "-"])
            .output()
            .unwrap();
        let said = linear(&said.stdout);

        assert!(heard.len().abs_diff(said.len()) < 800, "{} of {}", heard.len(), said.len());
        let tone = power(&heard[8_000..40_000], 440.0);
        assert!((0.5..2.0).contains(&(tone / power(&said[8_000..40_000], 440.0))));
        for other in [220.0, 300.0, 620.0, 880.0] {
            assert!(power(&heard[8_000..40_000], other) < tone / 20.0, "{other} Hz");
        }
        // The clip's beeps of 1760 Hz come when they came: within 2 ms, less than the encoder's delay of 6.5 ms.
        let moved = lag(&loudness(&said[..30_000], 1760.0), &loudness(&heard[..30_000], 1760.0));
        assert!(moved.abs() <= 16, "{moved} samples");
    }
}

#[test]
fn a_camera_that_comes_back_leaves_a_hole_of_its_true_length_in_one_file_that_plays() {
    let (video, sound) = (clips::h264(), clips::aac());
    let mut frames = interleaved(vec![
        video.frames(0, Duration::ZERO, wobbling),
        sound.frames(0, Duration::from_millis(20), |i| i * 1024),
    ]);
    frames.truncate(220);
    let back = Duration::from_secs(25);
    frames.extend(interleaved(vec![
        video.frames(1, back, |i| 17 + i * 3000),
        sound.frames(1, back + Duration::from_millis(30), |i| 4_000_000 + i * 1024),
    ]));
    let stored = Stored::record(&frames);
    assert_eq!(stored.inits.len(), 1);
    let breaks: Vec<_> = stored.fragments.iter().filter(|f| f.discontinuity).collect();
    assert_eq!((breaks.len(), breaks[0].at, breaks[0].from), (1, back, BEGAN.after(back)));

    let probe = ffprobe(&stored.whole());
    for kind in ["video", "audio"] {
        let pts = packets(&probe, kind, "pts");
        assert!(pts.windows(2).all(|w| w[0] < w[1]), "{kind} goes back");
        let track = if kind == "video" { Track::Video } else { Track::Audio };
        assert_eq!(pts.len(), frames.iter().filter(|f| f.track == track).count());
    }
    decodes(&stored.whole());
    let index = std::fs::read_to_string(stored.dir.path().join("index.m3u8")).unwrap();
    assert_eq!((index.matches("EXT-X-DISCONTINUITY").count(), index.matches("EXT-X-MAP").count()), (1, 1));
    decodes(&stored.dir.path().join("index.m3u8"));
}

#[test]
fn a_camera_that_changes_its_codec_takes_a_second_init_and_both_parts_play() {
    let (first, second) = (clips::h265(), clips::h264());
    let mut frames = first.frames(0, Duration::ZERO, |i| i * 3000);
    frames.truncate(100);
    frames.extend(second.frames(1, Duration::from_secs(5), |i| i * 3000).into_iter().take(100));
    let stored = Stored::record(&frames);
    let names: Vec<_> = stored.inits.iter().map(Init::name).collect();
    assert_eq!(names, ["init.mp4", "init-2.mp4"]);
    let (old, new): (Vec<_>, Vec<_>) = stored.fragments.iter().cloned().partition(|f| f.init == 0);
    assert!(new[0].discontinuity && new[0].key && new[0].at == Duration::from_secs(5));
    for (part, name) in [(old, "hevc"), (new, "h264")] {
        let path = stored.joined(&part);
        let probe = ffprobe(&path);
        assert_eq!(stream(&probe, "video")["codec_name"], name);
        assert_eq!(packets(&probe, "video", "pts").len(), 100);
        decodes(&path);
    }
    let index = std::fs::read_to_string(stored.dir.path().join("index.m3u8")).unwrap();
    assert!(index.contains("#EXT-X-DISCONTINUITY\n#EXT-X-MAP:URI=\"init-2.mp4\"\n"), "{index}");
}

#[test]
fn a_manifest_proves_the_files_that_were_written() {
    let stored = Stored::record(&clips::jpeg().frames(0, Duration::ZERO, |i| i * 9_000));
    let mut manifest = Manifest::new("saddar/incidents/1/cam-0101");
    stored.inits.iter().for_each(|i| manifest.push_init(i));
    stored.fragments.iter().for_each(|f| manifest.push_fragment(f));
    manifest.end();
    assert!(manifest.complete && manifest.check().is_ok());
    assert_eq!(manifest.held(), Duration::from_secs(5));
    for object in &manifest.objects {
        let mut bytes = std::fs::read(stored.dir.path().join(&object.name)).unwrap();
        assert!(object.check(&bytes).is_ok());
        bytes[100] ^= 1;
        assert!(object.check(&bytes).is_err());
    }
}
