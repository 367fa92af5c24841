//! Which of a unit's tracks is its speaker (RFC 4566; ONVIF Streaming Specification section 5.3). Pure.
//!
//! ONVIF says `sendonly` for the track that a client sends, and `recvonly` for those that it gets. Some units read RFC 4566
//! by the letter instead, and speak of themselves: then their pictures are `sendonly`, and their speaker is `recvonly`.

use super::rtp_out::Encoding;

/// A unit's speaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Speaker {
    /// What it plays.
    pub encoding: Encoding,
    /// As that payload type.
    pub payload_type: u8,
    /// Its address, as the unit writes it.
    pub control: String,
    /// The address of all tracks together, as the unit writes it.
    pub session: String,
}

/// Why a description names no speaker that could be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Without {
    #[error("its description of its streams is no session description (SDP)")]
    Unreadable,
    #[error(
        "it offers no audio backchannel; switch the speaker (audio output) on in its web page, for the profile of this address"
    )]
    Speaker,
    #[error("its speaker takes {0}; set it to G.711 (PCMU or PCMA) or Opus")]
    Encoding(String),
}

/// One track: its `m=` line and its attributes.
#[derive(Debug)]
struct Media<'a> {
    kind: &'a str,
    types: Vec<&'a str>,
    attributes: Vec<&'a str>,
}

impl<'a> Media<'a> {
    /// Reads the rest of an `m=` line: kind, port, protocol, payload types.
    fn begin(line: &'a str) -> Self {
        let mut words = line.split_whitespace();
        let kind = words.next().unwrap_or_default();
        Self { kind, types: words.skip(2).collect(), attributes: Vec::new() }
    }

    fn has(&self, attribute: &str) -> bool {
        self.attributes.contains(&attribute)
    }

    /// `a=rtpmap`: payload types and what they are.
    fn maps(&self) -> impl Iterator<Item = (u8, &'a str)> {
        self.attributes.iter().filter_map(|attribute| {
            let (number, said) = attribute.strip_prefix("rtpmap:")?.trim().split_once(' ')?;
            Some((number.parse().ok()?, said.trim()))
        })
    }

    /// The payload type that it has for an encoding.
    fn payload_type(&self, wanted: Encoding) -> Option<u8> {
        let name = match wanted {
            Encoding::Pcmu => "PCMU/8000",
            Encoding::Pcma => "PCMA/8000",
            Encoding::Opus => "OPUS/48000",
        };
        let types: Vec<u8> = self.types.iter().filter_map(|t| t.parse().ok()).collect();
        let mapped = self.maps().find(|(number, said)| {
            let said = said.to_ascii_uppercase();
            let rest = said.strip_prefix(name);
            // G.711 with two channels is nothing that a unit has; Opus is always said to have two (RFC 7587 section 7).
            types.contains(number)
                && rest.is_some_and(|rest| rest.is_empty() || rest == "/1" || wanted == Encoding::Opus)
        });
        let fixed = wanted.payload_type();
        let has_fixed = wanted != Encoding::Opus && types.contains(&fixed) && !self.maps().any(|(n, _)| n == fixed);
        mapped.map(|(number, _)| number).or(has_fixed.then_some(fixed))
    }
}

fn control(attributes: &[&str]) -> String {
    attributes.iter().find_map(|a| a.strip_prefix("control:")).unwrap_or("*").trim().to_owned()
}

/// The speaker that a session description names.
pub(super) fn speaker(text: &str) -> Result<Speaker, Without> {
    if !text.trim_start().starts_with("v=") {
        return Err(Without::Unreadable);
    }
    let (mut session, mut medias) = (Vec::new(), Vec::<Media<'_>>::new());
    for line in text.lines() {
        match (line.trim_end().split_once('='), medias.last_mut()) {
            (Some(("m", rest)), _) => medias.push(Media::begin(rest)),
            (Some(("a", attribute)), Some(media)) => media.attributes.push(attribute),
            (Some(("a", attribute)), None) => session.push(attribute),
            _ => {}
        }
    }
    let by_the_letter = medias.iter().any(|m| m.kind == "video" && m.has("sendonly"));
    let ours = if by_the_letter { "recvonly" } else { "sendonly" };
    let tracks: Vec<&Media<'_>> = medias.iter().filter(|m| m.kind == "audio" && m.has(ours)).collect();
    for wanted in [Encoding::Pcmu, Encoding::Pcma, Encoding::Opus] {
        for media in &tracks {
            if let Some(payload_type) = media.payload_type(wanted) {
                let (control, session) = (control(&media.attributes), control(&session));
                return Ok(Speaker { encoding: wanted, payload_type, control, session });
            }
        }
    }
    if tracks.is_empty() {
        return Err(Without::Speaker);
    }
    Err(Without::Encoding(tracks.iter().map(|m| said(m)).collect::<Vec<_>>().join(", ")))
}

/// What a track says that it takes, for people.
fn said(media: &Media<'_>) -> String {
    let names: Vec<&str> = media.maps().map(|(_, said)| said).collect();
    if names.is_empty() { format!("payload type {}", media.types.join(" ")) } else { names.join(", ") }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=s\r\nt=0 0\r\n";

    fn find(medias: &str) -> Result<Speaker, Without> {
        speaker(&format!("{HEAD}{medias}"))
    }

    #[test]
    fn the_example_of_the_specification_is_understood() {
        let found = find(
            "m=video 0 RTP/AVP 26\r\na=control:rtsp://192.168.0.1/video\r\na=recvonly\r\n\
             m=audio 0 RTP/AVP 0\r\na=control:rtsp://192.168.0.1/audio\r\na=recvonly\r\n\
             m=audio 0 RTP/AVP 0\r\na=control:rtsp://192.168.0.1/audioback\r\na=rtpmap:0 PCMU/8000\r\na=sendonly\r\n",
        )
        .unwrap();
        let control = "rtsp://192.168.0.1/audioback".to_owned();
        assert_eq!(found, Speaker { encoding: Encoding::Pcmu, payload_type: 0, control, session: "*".into() });
    }

    #[test]
    fn a_unit_that_speaks_of_itself_is_understood_too() {
        let found = find(
            "a=control:rtsp://h/all\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=sendonly\r\na=control:v\r\n\
             m=audio 0 RTP/AVP 8\r\na=sendonly\r\na=control:a\r\nm=audio 0 RTP/AVP 8\r\na=recvonly\r\na=control:b\r\n",
        )
        .unwrap();
        assert_eq!((found.control.as_str(), found.session.as_str()), ("b", "rtsp://h/all"));
        assert_eq!((found.encoding, found.payload_type), (Encoding::Pcma, 8));
    }

    #[test]
    fn of_what_a_speaker_takes_mu_law_comes_first_and_dynamic_numbers_are_read() {
        let many = "m=audio 0 RTP/AVP 97 98 99\r\na=rtpmap:97 opus/48000/2\r\na=rtpmap:98 PCMU/16000\r\n\
            a=rtpmap:99 pcmu/8000/1\r\na=sendonly\r\na=control:b\r\n";
        assert_eq!(find(many).map(|s| (s.encoding, s.payload_type)), Ok((Encoding::Pcmu, 99)));
        let opus = many.replace("99 pcmu/8000/1", "99 AAL2-G726-32/8000");
        assert_eq!(find(&opus).map(|s| (s.encoding, s.payload_type)), Ok((Encoding::Opus, 97)));
    }

    #[test]
    fn a_unit_without_a_speaker_that_we_can_use_is_told_what_to_change() {
        assert_eq!(find("m=audio 0 RTP/AVP 0\r\na=recvonly\r\n"), Err(Without::Speaker));
        let aac = find("m=audio 0 RTP/AVP 97\r\na=rtpmap:97 MPEG4-GENERIC/16000\r\na=sendonly\r\n").unwrap_err();
        assert_eq!(aac.to_string(), "its speaker takes MPEG4-GENERIC/16000; set it to G.711 (PCMU or PCMA) or Opus");
        assert_eq!(speaker("<html>"), Err(Without::Unreadable));
    }

    proptest! {
        #[test]
        fn no_description_does_harm(lines in prop::collection::vec(
            prop::sample::select(vec![
                "m=audio 0 RTP/AVP 0 97", "m=audio 0 RTP/AVP", "m=video 0 RTP/AVP 96", "a=sendonly", "a=recvonly",
                "a=rtpmap:97 opus/48000/2", "a=rtpmap:", "a=rtpmap:x y", "a=control", "a=control:", "x",
            ]), 0..12)
        ) {
            let _ = find(&lines.join("\r\n"));
        }
    }
}
