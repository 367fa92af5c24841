//! RTSP messages as bytes (RFC 2326 sections 4 to 7), and what stands between them (section 10.12). Pure.

/// Longest head of a message, in bytes.
pub const MAX_HEAD: usize = 16 << 10;
/// Longest body of a message, in bytes.
pub const MAX_BODY: usize = 64 << 10;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A request.
    Request(Request),
    /// An answer to a request of ours.
    Response(Response),
    /// An interleaved packet, such as a receiver report.
    Packet(Packet),
}

/// A request; its body is left out.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// `DESCRIBE`, as it was written.
    pub method: String,
    /// What it is about: a URL, a path or `*`.
    pub uri: String,
    /// `RTSP/1.0` or `RTSP/2.0`.
    pub version: String,
    /// Its headers.
    pub headers: Headers,
}

/// An answer to a request.
#[derive(Debug, PartialEq, Eq)]
pub struct Response {
    /// Its code, 200 where all is well.
    pub status: u16,
    /// The code in words.
    pub reason: String,
    /// Its headers.
    pub headers: Headers,
    /// Its body.
    pub body: Vec<u8>,
}

/// A packet within the connection.
#[derive(Debug, PartialEq, Eq)]
pub struct Packet {
    /// The channel it came on.
    pub channel: u8,
    /// RTP or RTCP, by its channel.
    pub data: Vec<u8>,
}

/// The headers of a message, in order.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Headers(Vec<(String, String)>);

/// Bytes that are not RTSP.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// The first line of a message is none; so it begins.
    #[error("what it sends is not RTSP: {0:?}")]
    Line(String),
    /// A head or body beyond the limits.
    #[error("it sends a message longer than {MAX_HEAD} bytes, or with a body longer than {MAX_BODY}")]
    TooLong,
}

impl Headers {
    /// The value of a header, whatever its case.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).next()
    }

    /// Every value of a header.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The number of the request, which its answer has too (section 12.17).
    pub fn number(&self) -> Option<u32> {
        self.get("cseq")?.parse().ok()
    }
}

impl Request {
    /// The segments of the path: `rtsp://host/gate-1/video` is `["gate-1", "video"]`.
    pub fn segments(&self) -> Vec<&str> {
        let path = match self.uri.split_once("://") {
            Some((_, rest)) => rest.split_once('/').map_or("", |(_, path)| path),
            None => &self.uri,
        };
        let path = path.split(['?', '#']).next().unwrap_or_default();
        path.split('/').filter(|s| !s.is_empty()).collect()
    }
}

/// Takes the next message off `buffer`; `None` while it is incomplete.
///
/// # Errors
/// [`Malformed`]; what follows cannot be read either.
pub fn take(buffer: &mut Vec<u8>) -> Result<Option<Incoming>, Malformed> {
    // Empty lines between messages.
    let blank = buffer.iter().take_while(|b| matches!(b, b'\r' | b'\n')).count();
    buffer.drain(..blank);
    if buffer.first() == Some(&b'$') {
        return Ok(packet(buffer).map(Incoming::Packet));
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
    let headers = lines.filter_map(|line| line.split_once(':'));
    let headers = Headers(headers.map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).collect());
    let length = match headers.get("content-length").map(str::parse::<usize>) {
        None => 0,
        Some(Ok(length)) if length <= MAX_BODY => length,
        Some(_) => return Err(Malformed::TooLong),
    };
    let end = head_end + length;
    if buffer.len() < end {
        // What is no RTSP is told so at once, whatever it says of its length.
        begin(first, Headers::default(), &[])?;
        return Ok(None);
    }
    let message = begin(first, headers, &buffer[head_end..end])?;
    buffer.drain(..end);
    Ok(Some(message))
}

fn packet(buffer: &mut Vec<u8>) -> Option<Packet> {
    let [_, channel, high, low, ..] = buffer[..] else { return None };
    let end = 4 + usize::from(u16::from_be_bytes([high, low]));
    let data = buffer.get(4..end)?.to_vec();
    buffer.drain(..end);
    Some(Packet { channel, data })
}

/// A message by its first line.
fn begin(first: &str, headers: Headers, body: &[u8]) -> Result<Incoming, Malformed> {
    let mut words = first.splitn(3, ' ');
    Ok(match (words.next(), words.next(), words.next()) {
        (Some("RTSP/1.0" | "RTSP/2.0"), Some(status), reason) => {
            let status = status.parse().map_err(|_| malformed(first))?;
            let reason = reason.unwrap_or_default().to_owned();
            Incoming::Response(Response { status, reason, headers, body: body.to_vec() })
        }
        (Some(method), Some(uri), Some(version @ ("RTSP/1.0" | "RTSP/2.0"))) if !method.is_empty() => {
            let [method, uri, version] = [method, uri, version].map(str::to_owned);
            Incoming::Request(Request { method, uri, version, headers })
        }
        _ => return Err(malformed(first)),
    })
}

fn malformed(line: &str) -> Malformed {
    Malformed::Line(line.chars().filter(|c| !c.is_control()).take(60).collect())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MIXED: &[u8] =
        b"$\x01\x00\x02hiRTSP/1.0 200 OK\r\nCSeq: 3\r\nContent-Length: 2\r\nSession: ab;timeout=30\r\n\r\nxy\r\n\
        GET_PARAMETER rtsp://h:1/gate-1/video?x=/y RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 4\r\n\r\nping$\x00\x00\x00";

    /// All messages of these bytes, taken off as they come in pieces of such sizes.
    fn all(bytes: &[u8], pieces: &[usize]) -> Vec<Incoming> {
        let (mut buffer, mut found, mut rest) = (Vec::new(), Vec::new(), bytes);
        let mut pieces = pieces.iter().copied();
        while !rest.is_empty() {
            let (piece, after) = rest.split_at(pieces.next().unwrap_or(rest.len()).clamp(1, rest.len()));
            (rest, buffer) = (after, [buffer, piece.to_vec()].concat());
            while let Some(message) = take(&mut buffer).unwrap() {
                found.push(message);
            }
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        found
    }

    #[test]
    fn requests_answers_and_packets_are_told_apart() {
        let found = all(MIXED, &[]);
        let [Incoming::Packet(first), Incoming::Response(answer), Incoming::Request(request), Incoming::Packet(last)] =
            &found[..]
        else {
            panic!("{found:?}")
        };
        assert_eq!((first.channel, &first.data[..], last.data.len()), (1, &b"hi"[..], 0));
        assert_eq!((answer.status, answer.headers.number(), &answer.body[..]), (200, Some(3), &b"xy"[..]));
        assert_eq!(answer.headers.get("SESSION"), Some("ab;timeout=30"));
        assert_eq!((request.method.as_str(), request.segments()), ("GET_PARAMETER", vec!["gate-1", "video"]));
        assert_eq!(request.headers.get("CSEQ"), Some("7"));
    }

    #[test]
    fn a_path_is_read_without_a_host_too() {
        for (uri, segments) in
            [("*", vec!["*"]), ("/gate-1/", vec!["gate-1"]), ("rtsp://h", vec![]), ("rtsp://h/a//b", vec!["a", "b"])]
        {
            let bytes = format!("OPTIONS {uri} RTSP/1.0\r\n\r\n");
            let [Incoming::Request(request)] = &all(bytes.as_bytes(), &[])[..] else { panic!("{uri}") };
            assert_eq!(request.segments(), segments);
        }
    }

    #[test]
    fn bytes_that_are_not_rtsp_are_refused() {
        for line in ["GET / HTTP/1.1", "HTTP/1.1 400 Bad", "PLAY rtsp://h/a", " x RTSP/1.0", "RTSP/1.0 ok"] {
            let refused = take(&mut format!("{line}\r\n\r\n").into_bytes());
            assert!(matches!(refused, Err(Malformed::Line(_))), "{line}: {refused:?}");
        }
        let post = b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\n";
        assert!(matches!(take(&mut post.to_vec()), Err(Malformed::Line(_))), "although more is to come");
    }

    #[test]
    fn what_is_too_long_is_refused_before_all_of_it_is_there() {
        assert_eq!(take(&mut vec![b'x'; MAX_HEAD + 1]), Err(Malformed::TooLong));
        for length in ["99999", "99999999999999999999", "-1", "x"] {
            let huge = format!("PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: {length}\r\n\r\n");
            assert_eq!(take(&mut huge.into_bytes()), Err(Malformed::TooLong));
        }
    }

    proptest! {
        #[test]
        fn a_message_is_the_same_however_it_is_cut(pieces in prop::collection::vec(1usize..40, 0..200)) {
            prop_assert_eq!(all(MIXED, &pieces), all(MIXED, &[]));
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::collection::vec(any::<u8>(), 0..300), cut in 0usize..300) {
            // As they are, and where a message has begun.
            for begun in [&b""[..], b"PLAY rtsp://h/a RTSP/1.0\r\nCSeq: 1\r\n"] {
                let mut buffer = [begun, &bytes].concat();
                buffer.truncate(cut + begun.len());
                while let Ok(Some(_)) = take(&mut buffer) {}
            }
        }
    }
}
