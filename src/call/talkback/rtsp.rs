//! RTSP as a client writes and reads it (RFC 2326): requests, answers, what is interleaved with them. Pure.

/// Longest head of a message, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Longest body of a message, in bytes.
const MAX_BODY: usize = 64 << 10;

/// What a unit sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// An answer.
    Answer(Answer),
    /// A request of its own, with its number.
    Request(Option<u32>),
    /// An interleaved packet (section 10.12), such as a receiver report; nothing reads it.
    Packet,
}

/// An answer.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Answer {
    pub status: u16,
    pub reason: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// Bytes that are not RTSP.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("what it sends is not RTSP: {0:?}")]
    Line(String),
    #[error("it sends a message longer than {MAX_HEAD} bytes, or with a body longer than {MAX_BODY}")]
    TooLong,
}

impl Answer {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.headers.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The number of the request that it answers.
    pub fn number(&self) -> Option<u32> {
        self.header("cseq")?.parse().ok()
    }
}

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

/// Takes the next message off `buffer`; `None` while it is incomplete.
pub(super) fn take(buffer: &mut Vec<u8>) -> Result<Option<Incoming>, Malformed> {
    // Empty lines between messages.
    let blank = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    buffer.drain(..blank);
    if buffer.first() == Some(&b'$') {
        let Some(length) = buffer.get(2..4) else { return Ok(None) };
        let end = 4 + usize::from(u16::from_be_bytes([length[0], length[1]]));
        return Ok((buffer.len() >= end).then(|| {
            buffer.drain(..end);
            Incoming::Packet
        }));
    }
    let Some(head_end) = buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
        return if buffer.len() > MAX_HEAD { Err(Malformed::TooLong) } else { Ok(None) };
    };
    if head_end > MAX_HEAD {
        return Err(Malformed::TooLong);
    }
    let head = String::from_utf8_lossy(&buffer[..head_end]).into_owned();
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned()))
        .collect();
    let header = |name: &str| headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str());
    let length = match header("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) if length <= MAX_BODY => length,
        Some(_) => return Err(Malformed::TooLong),
    };
    if buffer.len() < head_end + length {
        return Ok(None);
    }
    let mut words = first.splitn(3, ' ');
    let message = match (words.next(), words.next(), words.next()) {
        (Some("RTSP/1.0" | "RTSP/2.0"), Some(status), reason) => {
            let status = status.parse().map_err(|_| malformed(first))?;
            let body = buffer[head_end..head_end + length].to_vec();
            Incoming::Answer(Answer { status, reason: reason.unwrap_or_default().to_owned(), headers, body })
        }
        (Some(_), Some(_), Some("RTSP/1.0" | "RTSP/2.0")) => {
            Incoming::Request(header("cseq").and_then(|n| n.parse().ok()))
        }
        _ => return Err(malformed(first)),
    };
    buffer.drain(..head_end + length);
    Ok(Some(message))
}

fn malformed(line: &str) -> Malformed {
    Malformed::Line(line.chars().filter(|c| !c.is_control()).take(60).collect())
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
    use proptest::prelude::*;

    use super::*;

    const MIXED: &[u8] =
        b"$\x01\x00\x02hiRTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 2\r\nSession: ab;timeout=30\r\n\r\nxy\r\n\
        OPTIONS rtsp://h/a RTSP/1.0\r\nCSeq: 9\r\n\r\n$\x00\x00\x00";

    #[test]
    fn answers_requests_and_packets_are_told_apart() {
        let mut buffer = MIXED.to_vec();
        let mut all = Vec::new();
        while let Some(message) = take(&mut buffer).unwrap() {
            all.push(message);
        }
        let [Incoming::Packet, Incoming::Answer(answer), Incoming::Request(Some(9)), Incoming::Packet] = &all[..]
        else {
            panic!("{all:?}")
        };
        assert_eq!((answer.status, answer.number(), &answer.body[..]), (200, Some(3), &b"xy"[..]));
        let session = answer.header("session").unwrap();
        assert_eq!((parameter(session, "timeout"), session.split(';').next()), (Some("30"), Some("ab")));
    }

    #[test]
    fn what_is_not_rtsp_is_refused() {
        assert!(matches!(take(&mut b"HTTP/1.1 400 Bad\r\n\r\n".to_vec()), Err(Malformed::Line(_))));
        assert_eq!(take(&mut vec![b'x'; MAX_HEAD + 1]), Err(Malformed::TooLong));
        let huge = b"RTSP/1.0 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n";
        assert_eq!(take(&mut huge.to_vec()), Err(Malformed::TooLong));
    }

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

    proptest! {
        #[test]
        fn a_message_is_the_same_however_it_is_cut(cut in 0..MIXED.len()) {
            let mut buffer = MIXED[..cut].to_vec();
            let mut count = 0;
            while take(&mut buffer).unwrap().is_some() {
                count += 1;
            }
            buffer.extend(&MIXED[cut..]);
            while take(&mut buffer).unwrap().is_some() {
                count += 1;
            }
            prop_assert_eq!(count, 4);
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let mut buffer = bytes;
            while let Ok(Some(_)) = take(&mut buffer) {}
        }
    }
}
