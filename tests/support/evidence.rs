//! Evidence as headquarters' directory holds it, judged by ffprobe and ffmpeg.
#![allow(dead_code, reason = "each test binary uses some of it")]

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use chowki::{
    district::{clock::Utc, evidence::CameraEvidence, incident::Incident},
    media::manifest::Manifest,
};
use serde_json::Value;

use super::{gateway::SOON, support::eventually};

/// How far a window's ends may be off: a camera's clock against ours, a frame.
pub const NEARLY: Duration = Duration::from_millis(400);

/// A camera's folder of an incident.
pub fn folder(objects: &Path, incident: &Incident, camera: &str) -> PathBuf {
    objects.join(format!("saddar/incidents/{}/{camera}", incident.id))
}

/// One line of a playlist.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed {
    pub name: String,
    pub from: Utc,
    pub seconds: f64,
    pub broken: bool,
}

/// A playlist's fragments.
pub fn listed(playlist: &str) -> Vec<Listed> {
    let (mut all, mut from, mut seconds, mut broken) = (Vec::new(), None, 0.0, false);
    for line in playlist.lines() {
        if let Some(at) = line.strip_prefix("#EXT-X-PROGRAM-DATE-TIME:") {
            from = Some(at.parse().unwrap());
        } else if let Some(length) = line.strip_prefix("#EXTINF:") {
            seconds = length.trim_end_matches(',').parse().unwrap();
        } else if line == "#EXT-X-DISCONTINUITY" {
            broken = true;
        } else if !line.starts_with('#') {
            let from = from.take().expect("each fragment says when it was captured");
            all.push(Listed { name: line.into(), from, seconds, broken: std::mem::take(&mut broken) });
        }
    }
    all
}

/// How often there are no pictures between two fragments. A break alone may be a clock that was corrected: by less than
/// this, after a session's first report.
pub fn holes(list: &[Listed]) -> usize {
    let end = |l: &Listed| l.from.after(Duration::from_secs_f64(l.seconds));
    list.windows(2).filter(|w| w[1].broken && w[1].from > end(&w[0]).after(Duration::from_millis(300))).count()
}

/// What ffprobe reads of a file or playlist, without one complaint.
pub fn ffprobe(path: &Path) -> Value {
    let out = Command::new("ffprobe")
        .args(["-v", "error", "-show_streams", "-show_packets", "-of", "json"])
        .arg(path)
        .output()
        .expect("ffprobe (apt-get install ffmpeg)");
    assert!(out.status.success() && out.stderr.is_empty(), "{path:?}: {}", String::from_utf8_lossy(&out.stderr));
    serde_json::from_slice(&out.stdout).unwrap()
}

/// Decodes everything, and wants not one complaint. By the times that the fragments say: ffmpeg would close a hole of
/// more than ten seconds, and round times to whole frames of the first stretch.
pub fn decodes(path: &Path) {
    let out = Command::new("ffmpeg")
        .args(["-v", "error", "-xerror", "-copyts", "-i"])
        .arg(path)
        .args(["-enc_time_base", "-1", "-f", "null", "-"])
        .output()
        .expect("ffmpeg");
    assert!(out.status.success() && out.stderr.is_empty(), "{path:?}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Presentation times of a kind of stream, in seconds.
pub fn times(probe: &Value, kind: &str) -> Vec<f64> {
    let all = probe["packets"].as_array().unwrap().iter().filter(|p| p["codec_type"] == kind);
    all.map(|p| p["pts_time"].as_str().unwrap().parse().unwrap()).collect()
}

/// The codec of a kind of stream.
pub fn codec(probe: &Value, kind: &str) -> String {
    let found = probe["streams"].as_array().unwrap().iter().find(|s| s["codec_type"] == kind);
    found.map(|s| s["codec_name"].as_str().unwrap().to_owned()).unwrap_or_default()
}

/// Asserts that times go on in steps of that many seconds.
pub fn assert_steps(times: &[f64], step: f64, what: &str) {
    for (i, pair) in times.windows(2).enumerate() {
        let found = pair[1] - pair[0];
        assert!((found - step).abs() < 0.002, "{what}: a step of {found:.4} s at packet {i} of {}", times.len());
    }
}

/// The manifest of a camera's folder: its chain holds, every file is what it says, and there is no other file.
pub fn proven(folder: &Path) -> Manifest {
    let json = eventually(SOON, "a manifest.json", || std::fs::read(folder.join("manifest.json")).ok());
    let manifest: Manifest = serde_json::from_slice(&json).unwrap();
    manifest.check().unwrap();
    for object in &manifest.objects {
        object.check(&std::fs::read(folder.join(&object.name)).unwrap()).unwrap();
    }
    let there: BTreeSet<String> =
        names(folder).into_iter().filter(|n| n.ends_with(".mp4") || n.ends_with(".m4s")).collect();
    let proven: BTreeSet<String> = manifest.objects.iter().map(|o| o.name.clone()).collect();
    assert_eq!(there, proven);
    manifest
}

/// The names in a folder; none when it is not there.
pub fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = std::fs::read_dir(folder) else { return Vec::new() };
    let mut names: Vec<_> = entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// The evidence of one camera in a document.
pub fn of<'a>(incident: &'a Incident, camera: &str) -> &'a CameraEvidence {
    let found = incident.evidence.iter().find(|e| e.camera.to_string() == camera);
    found.unwrap_or_else(|| panic!("no evidence of {camera}"))
}

/// Whether the evidence of every camera has ended and what there is of it is at headquarters.
pub fn all_there(incident: &Incident) -> bool {
    !incident.evidence.is_empty() && incident.evidence.iter().all(|e| e.ended && e.objects.iter().all(|o| o.delivered))
}

/// What a camera of the rig should give.
pub struct Wanted {
    pub camera: &'static str,
    pub video: &'static str,
    pub fps: f64,
    pub audio: &'static str,
    /// Seconds a packet of sound lasts.
    pub step: f64,
}

/// Everything that must hold of a recording without gaps.
pub fn assert_whole(objects: &Path, incident: &Incident, wanted: &Wanted, before: Duration, after: Duration) {
    let Wanted { camera, video, fps, audio, step } = wanted;
    let folder = folder(objects, incident, camera);
    let evidence = of(incident, camera);
    assert!(evidence.complete, "{camera}: {:?}", evidence.gaps);
    let manifest = proven(&folder);
    assert!(manifest.complete, "{camera}");
    let document: BTreeSet<_> = evidence.objects.iter().map(|o| (o.name.clone(), o.size, o.sha256.clone())).collect();
    let files: BTreeSet<_> = manifest.objects.iter().map(|o| (o.name.clone(), o.size, o.sha256.clone())).collect();
    // The disk may have made room of what headquarters has: the document lists what is here and counts all.
    assert!(document.is_subset(&files), "{camera}: the document names what the manifest does not");
    assert_eq!(evidence.object_count, files.len(), "{camera}");

    let index = folder.join("index.m3u8");
    let playlist = std::fs::read_to_string(&index).unwrap();
    assert!(playlist.ends_with("#EXT-X-ENDLIST\n"), "{camera}: {playlist}");
    let list = listed(&playlist);
    assert!(list.iter().all(|l| !l.broken), "{camera}: {playlist}");
    let (first, last) = (list.first().unwrap(), list.last().unwrap());
    let pressed = incident.pressed_at.at;
    let begins = pressed.before(before).after(NEARLY);
    assert!(first.from <= begins, "{camera} begins at {}, wanted by {begins}", first.from);
    let ends = last.from.after(Duration::from_secs_f64(last.seconds));
    let wanted_end = pressed.after(after).before(NEARLY);
    assert!(ends >= wanted_end, "{camera} ends at {ends}, wanted {wanted_end}");
    assert!(ends <= pressed.after(after + Duration::from_secs(2)), "{camera} ends late, at {ends}");

    let probe = ffprobe(&index);
    assert_eq!((codec(&probe, "video").as_str(), codec(&probe, "audio").as_str()), (*video, *audio), "{camera}");
    let pictures = times(&probe, "video");
    assert_steps(&pictures, 1.0 / fps, camera);
    let seconds: f64 = list.iter().map(|l| l.seconds).sum();
    let frames = pictures.len() as f64;
    assert!((frames - seconds * fps).abs() <= 1.5, "{camera}: {frames} frames in {seconds} s");
    if !audio.is_empty() {
        let sound = times(&probe, "audio");
        assert_steps(&sound, *step, camera);
        assert!((sound.len() as f64 * step - seconds).abs() < 1.0, "{camera}: {} packets of sound", sound.len());
    }
    decodes(&index);
}
