//! RTSP messages as bytes (RFC 2326 sections 4 to 7), and what stands between them. Pure.

/// Longest head of a request, in bytes.
const MAX_HEAD: usize = 16 << 10;
/// Longest body of a request, in bytes.
const MAX_BODY: usize = 64 << 10;

/// What a peer sent.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Incoming {
    /// A request.
    Request(Request),
    /// An interleaved packet (section 10.12), such as a receiver report; nothing reads it.
    Packet,
}

/// A request, its body left out.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Request {
    pub method: String,
    pub uri: String,
    headers: Vec<(String, String)>,
}

/// Bytes that are not RTSP.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Malformed {
    #[error("a request line is not `METHOD uri RTSP/1.0`")]
    Line,
    #[error("a request longer than {MAX_HEAD} bytes, or with a body longer than {MAX_BODY}")]
    TooLong,
}

impl Request {
    /// The value of a header, whatever its case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, v)| v.as_str())
    }

    /// The segments of the path: `rtsp://host/gate-1/video` is `["gate-1", "video"]`.
    pub fn segments(&self) -> Vec<&str> {
        let rest = self.uri.split_once("://").map_or("", |(_, rest)| rest);
        let path = rest.split_once('/').map_or("", |(_, path)| path);
        let path = path.split(['?', '#']).next().unwrap_or_default();
        path.split('/').filter(|s| !s.is_empty()).collect()
    }
}

/// Takes the next message off `buffer`; `None` while it is incomplete.
pub(super) fn take(buffer: &mut Vec<u8>) -> Result<Option<Incoming>, Malformed> {
    if let [b'$', _channel, high, low, ..] = buffer[..] {
        let end = 4 + usize::from(u16::from_be_bytes([high, low]));
        return Ok((buffer.len() >= end).then(|| {
            buffer.drain(..end);
            Incoming::Packet
        }));
    }
    if buffer.first() == Some(&b'$') {
        return Ok(None);
    }
    let Some(head_end) = buffer.windows(4).position(|w| w == b"\r\n\r\n").map(|at| at + 4) else {
        return if buffer.len() > MAX_HEAD { Err(Malformed::TooLong) } else { Ok(None) };
    };
    let request = parse(&String::from_utf8_lossy(&buffer[..head_end]))?;
    let body = request.header("content-length").map_or(Ok(0), |n| n.parse::<usize>().map_err(|_| Malformed::Line))?;
    if head_end > MAX_HEAD || body > MAX_BODY {
        return Err(Malformed::TooLong);
    }
    if buffer.len() < head_end + body {
        return Ok(None);
    }
    buffer.drain(..head_end + body);
    Ok(Some(Incoming::Request(request)))
}

fn parse(head: &str) -> Result<Request, Malformed> {
    let mut lines = head.trim_start().lines();
    let mut words = lines.next().unwrap_or_default().split_whitespace();
    let (Some(method), Some(uri), Some("RTSP/1.0"), None) = (words.next(), words.next(), words.next(), words.next())
    else {
        return Err(Malformed::Line);
    };
    let headers = lines.filter_map(|line| line.split_once(':'));
    Ok(Request {
        method: method.to_owned(),
        uri: uri.to_owned(),
        headers: headers.map(|(n, v)| (n.trim().to_owned(), v.trim().to_owned())).collect(),
    })
}

/// A status an answer can have (section 7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    NotFound,
    SessionNotFound,
    NotValidInThisState,
    UnsupportedTransport,
    NotImplemented,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Status::Ok => "200 OK",
            Status::BadRequest => "400 Bad Request",
            Status::Unauthorized => "401 Unauthorized",
            Status::NotFound => "404 Not Found",
            Status::SessionNotFound => "454 Session Not Found",
            Status::NotValidInThisState => "455 Method Not Valid in This State",
            Status::UnsupportedTransport => "461 Unsupported Transport",
            Status::NotImplemented => "501 Not Implemented",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub(super) struct Answer {
    pub status: Status,
    headers: Vec<(&'static str, String)>,
    body: String,
}

impl Answer {
    /// One without headers or body.
    pub fn new(status: Status) -> Self {
        Self { status, headers: Vec::new(), body: String::new() }
    }
    /// With one more header.
    pub fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.headers.push((name, value.into()));
        self
    }
    /// With a body of a type.
    pub fn body(self, content_type: &str, body: String) -> Self {
        Self { body, ..self.with("Content-Type", content_type) }
    }
    /// As bytes, in answer to `request`.
    pub fn bytes(&self, request: Option<&Request>) -> Vec<u8> {
        let mut text = format!("RTSP/1.0 {}\r\n", self.status.line());
        // A sequence number goes back as it came, if it is one.
        if let Some(number) = request.and_then(|r| r.header("cseq")).and_then(|n| n.parse::<u32>().ok()) {
            text.push_str(&format!("CSeq: {number}\r\n"));
        }
        text.push_str("Server: chowki-demo\r\n");
        for (name, value) in &self.headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", self.body.len()));
        }
        text.push_str("\r\n");
        text.push_str(&self.body);
        text.into_bytes()
    }
}

/// How a client wants its RTP (section 12.39).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wanted {
    /// In the RTSP connection, RTP on this channel and RTCP on the next named.
    Interleaved(u8, u8),
    /// Datagrams to these ports of the client, RTP and RTCP.
    Datagrams(u16, u16),
}

/// The first of the client's alternatives that can be served.
pub(super) fn wanted(header: &str) -> Option<Wanted> {
    header.split(',').find_map(|alternative| {
        let mut parts = alternative.split(';').map(str::trim);
        let profile = parts.next()?.to_ascii_uppercase();
        let parts: Vec<&str> = parts.collect();
        if parts.contains(&"multicast") {
            return None;
        }
        let pair = |name: &str| -> Option<(u16, u16)> {
            let value = parts.iter().find_map(|p| p.strip_prefix(name)?.strip_prefix('='))?;
            let (first, second) = value.split_once('-').unwrap_or((value, ""));
            let first = first.parse().ok()?;
            Some((first, second.parse().ok().or_else(|| u16::checked_add(first, 1))?))
        };
        match profile.as_str() {
            "RTP/AVP/TCP" => {
                let (rtp, rtcp) = pair("interleaved").unwrap_or((0, 1));
                Some(Wanted::Interleaved(u8::try_from(rtp).ok()?, u8::try_from(rtcp).ok()?))
            }
            "RTP/AVP" | "RTP/AVP/UDP" => pair("client_port").map(|(rtp, rtcp)| Wanted::Datagrams(rtp, rtcp)),
            _ => None,
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(bytes: &[u8]) -> Vec<Incoming> {
        let mut buffer = bytes.to_vec();
        let mut found = Vec::new();
        while let Some(message) = take(&mut buffer).unwrap() {
            found.push(message);
        }
        assert!(buffer.is_empty(), "{buffer:?}");
        found
    }

    #[test]
    fn requests_and_interleaved_packets_are_told_apart() {
        let mut bytes = b"$\x01\x00\x03abc".to_vec();
        bytes.extend(b"GET_PARAMETER rtsp://h:1/gate-1 RTSP/1.0\r\nCSeq: 7\r\nContent-Length: 4\r\n\r\nping");
        bytes.extend(b"$\x01\x00\x00");
        let found = all(&bytes);
        assert_eq!(found[0], Incoming::Packet);
        assert_eq!(found[2], Incoming::Packet);
        let Incoming::Request(request) = &found[1] else { panic!("{found:?}") };
        assert_eq!((request.method.as_str(), request.segments()), ("GET_PARAMETER", vec!["gate-1"]));
        assert_eq!(request.header("CSEQ"), Some("7"));
    }

    #[test]
    fn a_message_is_the_same_however_it_is_cut() {
        let whole = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n$\x00\x00\x02hi";
        for cut in 0..whole.len() {
            let mut buffer = whole[..cut].to_vec();
            let mut n = 0;
            while take(&mut buffer).unwrap().is_some() {
                n += 1;
            }
            buffer.extend(&whole[cut..]);
            while take(&mut buffer).unwrap().is_some() {
                n += 1;
            }
            assert_eq!(n, 2, "cut at {cut}");
        }
    }

    #[test]
    fn bytes_that_are_not_rtsp_are_refused() {
        assert_eq!(take(&mut b"GET / HTTP/1.1\r\n\r\n".to_vec()), Err(Malformed::Line));
        assert_eq!(take(&mut vec![b'x'; MAX_HEAD + 1]), Err(Malformed::TooLong));
        let huge = b"PLAY rtsp://h/a RTSP/1.0\r\nContent-Length: 999999999\r\n\r\n";
        assert_eq!(take(&mut huge.to_vec()), Err(Malformed::TooLong));
    }

    #[test]
    fn the_first_transport_that_can_be_served_is_taken() {
        assert_eq!(wanted("RTP/AVP/TCP;unicast;interleaved=2-3"), Some(Wanted::Interleaved(2, 3)));
        assert_eq!(wanted("RTP/AVP;unicast;client_port=5000-5001"), Some(Wanted::Datagrams(5000, 5001)));
        assert_eq!(wanted("RTP/AVP;multicast, RTP/AVP/TCP;unicast;interleaved=0-1"), Some(Wanted::Interleaved(0, 1)));
        assert_eq!(wanted("RTP/SAVP;unicast;client_port=5000-5001"), None);
        assert_eq!(wanted("RTP/AVP/TCP;interleaved=256-257"), None);
        assert_eq!(wanted("RTP/AVP;unicast;client_port=65535"), None);
    }
}
