//! What a server answers (RFC 2326 section 7). Pure.

use super::message::Request;

/// A status an answer can have (section 7.1.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "each is the standard's own name")]
pub enum Status {
    Ok,
    BadRequest,
    Unauthorized,
    Forbidden,
    NotFound,
    RequestEntityTooLarge,
    SessionNotFound,
    NotValidInThisState,
    InvalidRange,
    UnsupportedTransport,
    NotImplemented,
    ServiceUnavailable,
    VersionNotSupported,
    OptionNotSupported,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::BadRequest => "400 Bad Request",
            Self::Unauthorized => "401 Unauthorized",
            Self::Forbidden => "403 Forbidden",
            Self::NotFound => "404 Not Found",
            Self::RequestEntityTooLarge => "413 Request Entity Too Large",
            Self::SessionNotFound => "454 Session Not Found",
            Self::NotValidInThisState => "455 Method Not Valid in This State",
            Self::InvalidRange => "457 Invalid Range",
            Self::UnsupportedTransport => "461 Unsupported Transport",
            Self::NotImplemented => "501 Not Implemented",
            Self::ServiceUnavailable => "503 Service Unavailable",
            Self::VersionNotSupported => "505 RTSP Version Not Supported",
            Self::OptionNotSupported => "551 Option not supported",
        }
    }
}

/// An answer.
#[derive(Debug)]
pub struct Answer {
    /// How it went.
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

    /// As bytes, in answer to `request` where there is one.
    pub fn bytes(&self, request: Option<&Request>) -> Vec<u8> {
        let mut text = format!("RTSP/1.0 {}\r\n", self.status.line());
        // A sequence number goes back as it came, if it is one.
        if let Some(number) = request.and_then(|r| r.headers.number()) {
            text.push_str(&format!("CSeq: {number}\r\n"));
        }
        text.push_str(concat!("Server: chowki/", env!("CARGO_PKG_VERSION"), "\r\n"));
        for (name, value) in &self.headers {
            // What a client said is said back to it, so nothing may begin a line of its own.
            let value: String = value.chars().filter(|c| !c.is_control()).collect();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::message::{Incoming, take};

    #[test]
    fn an_answer_has_the_number_of_its_request_and_reads_as_what_it_is() {
        let mut asked = b"DESCRIBE rtsp://h/a RTSP/1.0\r\nCSeq: 12\r\n\r\n".to_vec();
        let Ok(Some(Incoming::Request(request))) = take(&mut asked) else { panic!() };
        let answer = Answer::new(Status::NotFound).with("X", "a\r\nY: b").body("text/plain", "none".into());
        let Ok(Some(Incoming::Response(read))) = take(&mut answer.bytes(Some(&request))) else { panic!() };
        assert_eq!((read.status, read.headers.number(), &read.body[..]), (404, Some(12), &b"none"[..]));
        assert_eq!((read.headers.get("x"), read.headers.get("y")), (Some("aY: b"), None));
    }
}
