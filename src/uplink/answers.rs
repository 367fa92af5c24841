//! The S3 answers that object_store gives only as text, as types: which of them another attempt cannot change.

use std::{fmt, future::Future, pin::Pin};

use object_store::{
    ClientOptions, HeaderMap,
    client::{HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService},
};

use super::http::{Client, Way};

/// Codes (S3 API reference, "Error responses") that speak of the one object.
const OBJECT: [&str; 4] = ["KeyTooLongError", "EntityTooLarge", "InvalidObjectName", "XMinioInvalidObjectName"];
/// Codes that speak of how we are set up.
const SETUP: [&str; 5] = [
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "InvalidBucketName",
    "InvalidToken",
    "PermanentRedirect",
];

/// An answer that stays the same however often one asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Final {
    /// Whether it is about this object only, not about every one.
    pub(super) object: bool,
    status: u16,
    code: String,
}

impl fmt::Display for Final {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "HTTP {} {}", self.status, self.code)
    }
}

impl std::error::Error for Final {}

/// Whether an answer is final. Whatever is not known to be may change with the next attempt; 401, 403 and 404 have
/// types of their own in object_store.
fn judge(status: u16, body: &[u8]) -> Option<Final> {
    let text = String::from_utf8_lossy(body);
    let code = text.split_once("<Code>").and_then(|(_, rest)| rest.split_once("</Code>")).map_or("", |(code, _)| code);
    let object = status == 413 || OBJECT.contains(&code);
    let setup = matches!(status, 301 | 307 | 308 | 405) || SETUP.contains(&code);
    (object || setup).then(|| Final { object, status, code: code.to_owned() })
}

/// An answer says by this extension that its ETag is no MD5, whatever it looks like.
#[derive(Debug, Clone, Copy)]
pub(super) struct Encrypted;

/// Whether the store encrypts with keys of a key service or of the customer: then an ETag is no MD5 (S3 API reference,
/// "Object"). With its own keys (`AES256`) it is one.
fn encrypted(headers: &HeaderMap) -> bool {
    headers.contains_key("x-amz-server-side-encryption-customer-algorithm")
        || headers.get("x-amz-server-side-encryption").is_some_and(|how| how.as_bytes() != b"AES256")
}

/// Our HTTP client, with its final answers as errors of type [`Final`].
#[derive(Debug)]
pub(super) struct Connector(pub(super) Way);

impl HttpConnector for Connector {
    // What of the options is for the connection is in `Way`.
    fn connect(&self, _: &ClientOptions) -> object_store::Result<HttpClient> {
        Ok(HttpClient::new(Judged(Client::new(&self.0))))
    }
}

#[derive(Debug)]
struct Judged(Client);

impl HttpService for Judged {
    fn call<'a, 'b>(
        &'a self,
        request: HttpRequest,
    ) -> Pin<Box<dyn Future<Output = Result<HttpResponse, HttpError>> + Send + 'b>>
    where
        'a: 'b,
        Self: 'b,
    {
        Box::pin(async move {
            let mut response = self.0.call(request).await?;
            if encrypted(response.headers()) {
                response.extensions_mut().insert(Encrypted);
            }
            let status = response.status().as_u16();
            if !matches!(status, 301 | 307 | 308 | 400 | 405 | 413) {
                return Ok(response);
            }
            let (parts, body) = response.into_parts();
            let body = body.bytes().await?;
            match judge(status, &body) {
                Some(answer) => Err(HttpError::new(HttpErrorKind::Unknown, answer)),
                None => Ok(HttpResponse::from_parts(parts, object_store::client::HttpResponseBody::from(body))),
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_answers_that_cannot_change_are_final() {
        let answer = |code: &str| format!("<?xml version=\"1.0\"?><Error><Code>{code}</Code></Error>").into_bytes();
        assert!(judge(400, &answer("KeyTooLongError")).unwrap().object);
        assert!(judge(413, b"").unwrap().object);
        assert!(!judge(400, &answer("AuthorizationHeaderMalformed")).unwrap().object);
        assert!(!judge(301, &answer("PermanentRedirect")).unwrap().object);
        for passing in ["RequestTimeout", "IncompleteBody", "BadDigest", "SlowDown"] {
            assert_eq!(judge(400, &answer(passing)), None, "{passing}");
        }
    }
}
