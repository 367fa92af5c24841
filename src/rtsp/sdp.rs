//! What is said of a camera's streams (RFC 8866; RFC 6184, RFC 7798, RFC 2435, RFC 3640, RFC 3551, RFC 7587). Pure.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::media::{
    frame::{Codec, Format, Track},
    init::parameter_sets,
    packets::aac,
    ring::Ring,
};

/// Payload types (RFC 3551 section 6): fixed ones, and those that a description gives their meaning.
const PCMU: u8 = 0;
const PCMA: u8 = 8;
const JPEG: u8 = 26;
const PICTURES: u8 = 96;
const SOUND: u8 = 97;

/// The streams of a camera, each with its format.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Description {
    pub video: Option<Arc<Format>>,
    pub audio: Option<Arc<Format>>,
}

impl Description {
    /// What a camera sends now.
    pub fn of(ring: &Ring) -> Self {
        let format = |track| ring.newest_of(track).map(|frame| frame.format.clone());
        Self { video: format(Track::Video), audio: format(Track::Audio) }
    }

    /// The format of a track.
    pub fn format(&self, track: Track) -> Option<&Arc<Format>> {
        match track {
            Track::Video => self.video.as_ref(),
            Track::Audio => self.audio.as_ref(),
        }
    }

    /// The session description of a live camera.
    pub fn text(&self, camera: &str) -> String {
        let head = ["v=0", "o=- 1 1 IN IP4 0.0.0.0", &format!("s={camera}"), "c=IN IP4 0.0.0.0", "t=0 0"].join("\r\n");
        let media: String = [Track::Video, Track::Audio]
            .into_iter()
            .filter_map(|track| Some(media(track, self.format(track)?)))
            .collect();
        format!("{head}\r\na=control:*\r\na=range:npt=now-\r\n{media}")
    }
}

/// The name of a track, the last segment of its URL.
pub(super) fn name(track: Track) -> &'static str {
    match track {
        Track::Video => "video",
        Track::Audio => "audio",
    }
}

/// The track of a name.
pub(super) fn track(name: &str) -> Option<Track> {
    [Track::Video, Track::Audio].into_iter().find(|track| self::name(*track) == name)
}

/// The payload type of a format.
pub(super) fn payload_type(format: &Format) -> u8 {
    match format.codec {
        Codec::H264 | Codec::H265 => PICTURES,
        Codec::Jpeg => JPEG,
        Codec::Pcmu if is_plain(format) => PCMU,
        Codec::Pcma if is_plain(format) => PCMA,
        Codec::Pcmu | Codec::Pcma | Codec::Aac | Codec::Opus => SOUND,
    }
}

/// G.711 as the fixed payload types have it.
fn is_plain(format: &Format) -> bool {
    format.clock_rate == 8_000 && format.channels <= 1
}

fn media(track: Track, format: &Format) -> String {
    let (name, payload_type, rate) = (name(track), payload_type(format), format.clock_rate);
    let channels = format.channels.max(1);
    let encoding = match format.codec {
        Codec::H264 => format!("H264/{rate}"),
        Codec::H265 => format!("H265/{rate}"),
        Codec::Jpeg => format!("JPEG/{rate}"),
        Codec::Aac => format!("mpeg4-generic/{rate}/{channels}"),
        Codec::Pcmu => format!("PCMU/{rate}/{channels}"),
        Codec::Pcma => format!("PCMA/{rate}/{channels}"),
        // Always two channels (RFC 7587 section 4.1).
        Codec::Opus => format!("opus/{rate}/2"),
    };
    let parameters = parameters(format).map(|p| format!("a=fmtp:{payload_type} {p}\r\n")).unwrap_or_default();
    format!(
        "m={name} 0 RTP/AVP {payload_type}\r\na=rtpmap:{payload_type} {encoding}\r\n{parameters}a=control:{name}\r\n"
    )
}

fn parameters(format: &Format) -> Option<String> {
    match format.codec {
        Codec::H264 => {
            let sets = parameter_sets(format);
            let said = sets.iter().map(|set| STANDARD.encode(set)).collect::<Vec<_>>().join(",");
            let profile = sets.first().and_then(|sps| sps.get(1..4)).map(hex);
            let profile = profile.map(|p| format!(";profile-level-id={p}")).unwrap_or_default();
            let said = if said.is_empty() { said } else { format!(";sprop-parameter-sets={said}") };
            Some(format!("packetization-mode=1{profile}{said}"))
        }
        Codec::H265 => {
            let sets = parameter_sets(format);
            let of = |kind: u8, name: &str| {
                let some = sets.iter().filter(|s| s.first().is_some_and(|b| b >> 1 & 0x3f == kind));
                let some: Vec<_> = some.map(|set| STANDARD.encode(set)).collect();
                (!some.is_empty()).then(|| format!("{name}={}", some.join(",")))
            };
            let all: Vec<_> =
                [of(32, "sprop-vps"), of(33, "sprop-sps"), of(34, "sprop-pps")].into_iter().flatten().collect();
            (!all.is_empty()).then(|| all.join(";"))
        }
        Codec::Aac => Some(format!("{};config={}", aac::PARAMETERS, hex(&format.config))),
        Codec::Opus if format.channels > 1 => Some("sprop-stereo=1".into()),
        Codec::Jpeg | Codec::Pcmu | Codec::Pcma | Codec::Opus => None,
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;

    fn said(track: Track, format: Format) -> String {
        media(track, &format)
    }

    #[test]
    fn pictures_name_their_parameter_sets() {
        let avcc = &[1, 0x4d, 0x40, 0x28, 0xff, 0xe1, 0, 4, 0x67, 0x4d, 0x40, 0x28, 1, 0, 2, 0x68, 0xee];
        let format = Format { config: Bytes::from_static(avcc), ..Format::bare(Codec::H264, 90_000) };
        assert_eq!(
            said(Track::Video, format),
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 packetization-mode=1;profile-level-id=4D4028;\
             sprop-parameter-sets=Z01AKA==,aO4=\r\na=control:video\r\n"
        );
        let unknown = said(Track::Video, Format::bare(Codec::H264, 90_000));
        assert!(unknown.contains("a=fmtp:96 packetization-mode=1\r\n"), "{unknown}");
        let jpeg = said(Track::Video, Format::bare(Codec::Jpeg, 90_000));
        assert!(jpeg.starts_with("m=video 0 RTP/AVP 26\r\na=rtpmap:26 JPEG/90000\r\na=control"), "{jpeg}");
    }

    #[test]
    fn sound_has_a_fixed_payload_type_where_there_is_one() {
        let audio = |codec, rate, channels| said(Track::Audio, Format { channels, ..Format::bare(codec, rate) });
        assert!(audio(Codec::Pcma, 8_000, 1).starts_with("m=audio 0 RTP/AVP 8\r\na=rtpmap:8 PCMA/8000/1\r\n"));
        assert!(audio(Codec::Pcmu, 16_000, 1).starts_with("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 PCMU/16000/1\r\n"));
        assert!(audio(Codec::Opus, 48_000, 1).contains("a=rtpmap:97 opus/48000/2\r\na=control"));
        let config = Bytes::from_static(&[0x14, 0x08]);
        let aac = said(Track::Audio, Format { config, channels: 1, ..Format::bare(Codec::Aac, 16_000) });
        assert!(aac.contains("mpeg4-generic/16000/1\r\n") && aac.contains(";config=1408\r\n"), "{aac}");
    }

    #[test]
    fn a_description_has_the_tracks_that_there_are() {
        let video = Some(Arc::new(Format::bare(Codec::Jpeg, 90_000)));
        let text = Description { video, audio: None }.text("cam-1");
        assert!(text.starts_with("v=0\r\no=- ") && text.contains("s=cam-1\r\n") && !text.contains("m=audio"), "{text}");
        assert_eq!((track("video"), track("audio"), track("x")), (Some(Track::Video), Some(Track::Audio), None));
    }
}
