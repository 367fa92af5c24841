//! RTSP as a client writes and reads it (RFC 2326): requests, and what stands in the headers of answers. Pure.

/// A request as bytes.
pub(super) fn request(method: &str, uri: &str, headers: &[(&str, &str)]) -> Vec<u8> {
    let mut text = format!("{method} {uri} RTSP/1.0\r\n");
    for (name, value) in headers {
        // What a unit said is said back to it, so nothing may begin a line of its own.
        let value: String = value.chars().filter(|c| !c.is_control()).collect();
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str("\r\n");
    text.into_bytes()
}

/// The value of a parameter in `first;name=value;other`.
pub(super) fn parameter<'a>(header: &'a str, name: &str) -> Option<&'a str> {
    header.split(';').skip(1).filter_map(|p| p.trim().split_once('=')).find(|(n, _)| *n == name).map(|(_, v)| v)
}

/// The first of two numbers joined by a dash, `5000-5001`.
pub(super) fn first_of_pair<N: std::str::FromStr>(pair: &str) -> Option<N> {
    pair.split('-').next()?.trim().parse().ok()
}

/// The address of a track: as it is, or below that of the session (appendix C.1.1).
pub(super) fn resolve(base: &str, control: &str) -> String {
    if control.is_empty() || control == "*" {
        return base.to_owned();
    }
    if control.get(..5).is_some_and(|s| s.eq_ignore_ascii_case("rtsp:")) {
        return control.to_owned();
    }
    format!("{}/{}", base.trim_end_matches('/'), control.trim_start_matches('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_tracks_are_below_the_session_or_their_own() {
        assert_eq!(resolve("rtsp://h/a/", "track3"), "rtsp://h/a/track3");
        assert_eq!(resolve("rtsp://h/a?x=1", "track3"), "rtsp://h/a?x=1/track3");
        assert_eq!(resolve("rtsp://h/a", "RTSP://h/b"), "RTSP://h/b");
        assert_eq!(resolve("rtsp://h/a/", "*"), "rtsp://h/a/");
    }

    #[test]
    fn nothing_that_a_unit_said_begins_a_line_of_its_own() {
        let bytes = request("PLAY", "rtsp://h/a", &[("CSeq", "1"), ("Session", "a\r\nX: y")]);
        assert_eq!(bytes, b"PLAY rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\nSession: aX: y\r\n\r\n");
    }
}
