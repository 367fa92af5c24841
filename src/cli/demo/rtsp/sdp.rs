//! What a camera says of its streams (RFC 4566, RFC 6184 section 8.2.1). Pure.

use base64::{Engine, engine::general_purpose::STANDARD};

use crate::cli::demo::clip::{FPS, Film};

/// The session description of a film with sound.
pub(super) fn describe(path: &str, film: &Film) -> String {
    let profile: String = film.sps.iter().skip(1).take(3).map(|b| format!("{b:02X}")).collect();
    let sets = format!("{},{}", STANDARD.encode(&film.sps), STANDARD.encode(&film.pps));
    [
        "v=0",
        "o=- 1 1 IN IP4 127.0.0.1",
        &format!("s=chowki demo: {path}"),
        "c=IN IP4 0.0.0.0",
        "t=0 0",
        "a=control:*",
        "a=range:npt=now-",
        "m=video 0 RTP/AVP 96",
        "a=rtpmap:96 H264/90000",
        &format!("a=fmtp:96 packetization-mode=1;profile-level-id={profile};sprop-parameter-sets={sets}"),
        &format!("a=framerate:{FPS}"),
        "a=control:video",
        "m=audio 0 RTP/AVP 0",
        "a=rtpmap:0 PCMU/8000",
        "a=control:audio",
        "",
    ]
    .join("\r\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::demo::clip::Clip;

    #[test]
    fn a_description_names_both_streams_and_the_parameter_sets() {
        let text = describe("gate-1", &Film::cut(Clip::Gate.h264()).unwrap());
        assert!(text.contains("profile-level-id=4D"), "main profile: {text}");
        assert!(text.contains("m=video 0 RTP/AVP 96\r\n") && text.contains("m=audio 0 RTP/AVP 0\r\n"));
        assert!(!text.contains("sprop-parameter-sets=,"));
    }
}
