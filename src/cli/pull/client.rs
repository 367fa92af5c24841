//! A gateway's API as whoever pulls sees it: each answer within a deadline, what may go better later tried again.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use http_body_util::BodyExt;
use hyper::{
    HeaderMap, Response, StatusCode, Uri,
    body::Incoming,
    header::{AUTHORIZATION, HeaderValue, RETRY_AFTER},
};
use serde_json::Value;
use tokio::time::{sleep, timeout};

use crate::{
    district::secret::Secret,
    uplink::http::{Client, Way},
};

/// A connection is there within this.
const CONNECT: Duration = Duration::from_secs(10);

/// The head of an answer within this: a plan of many days takes its time.
const ANSWER: Duration = Duration::from_secs(40);

/// And then something of its body within this, again and again.
const SILENCE: Duration = Duration::from_secs(30);

/// How often what may go better later is tried, and how long is waited before it is tried again.
const TRIES: u32 = 4;
const WAIT: Duration = Duration::from_secs(1);

/// Largest answer that is taken whole.
const MOST: usize = 64 << 20;

/// Why something was not had.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unpulled {
    /// No connection, or it broke.
    #[error("{0}")]
    Line(String),
    /// The gateway refused.
    #[error("{status}: {why}")]
    Refused {
        /// How.
        status: u16,
        /// In its words.
        why: String,
    },
    /// What came is not what was promised.
    #[error("{0}")]
    Wrong(String),
    /// It cannot be kept.
    #[error("{0}")]
    Place(String),
}

impl Unpulled {
    /// Whether it is not there, for good or for now.
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    fn may_pass(&self) -> bool {
        match self {
            Self::Line(_) => true,
            Self::Refused { status, .. } => matches!(status, 408 | 429 | 500..),
            Self::Wrong(_) | Self::Place(_) => false,
        }
    }
}

/// A gateway.
pub(super) struct Gateway {
    client: Client,
    base: String,
    headers: HeaderMap,
}

impl Gateway {
    /// One at that address.
    pub fn new(base: &str, token: Option<&Secret>, tls: Arc<rustls::ClientConfig>) -> Result<Self, String> {
        let base = base.trim_end_matches('/').to_owned();
        let uri: Uri = base.parse().map_err(|e| format!("{base}: {e}"))?;
        let tls = match uri.scheme_str() {
            Some("https") => Some(tls),
            Some("http") => None,
            _ => return Err(format!("{base:?} is no address of a gateway; write https://HOST:PORT")),
        };
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            let bearer = HeaderValue::from_str(&format!("Bearer {}", token.reveal()));
            let mut bearer = bearer.map_err(|_| "the token has characters that none can have".to_owned())?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        let client = Client::new(&Way { tls, connect_timeout: CONNECT, pacer: None });
        Ok(Self { client, base, headers })
    }

    /// An answer's head, with a status that is a success or 304; its body is read by [`next`].
    pub async fn open(&self, path: &str, more: &[(&'static str, String)]) -> Result<Response<Incoming>, Unpulled> {
        let uri: Uri = format!("{}{path}", self.base).parse().map_err(|e| Unpulled::Wrong(format!("{path}: {e}")))?;
        let mut headers = self.headers.clone();
        for (name, value) in more {
            let value = HeaderValue::from_str(value).map_err(|e| Unpulled::Wrong(format!("{name}: {e}")))?;
            headers.insert(*name, value);
        }
        let mut tried = 0;
        loop {
            tried += 1;
            let (error, wait) = match timeout(ANSWER, self.client.get(uri.clone(), headers.clone())).await {
                Err(_) => (Unpulled::Line(format!("no answer within {} s", ANSWER.as_secs())), None),
                Ok(Err(e)) => (Unpulled::Line(super::super::chain(&e)), None),
                Ok(Ok(answer)) if answer.status().is_success() || answer.status() == StatusCode::NOT_MODIFIED => {
                    return Ok(answer);
                }
                Ok(Ok(answer)) => {
                    let wait = answer.headers().get(RETRY_AFTER).and_then(|v| v.to_str().ok()?.parse().ok());
                    (refusal(answer).await, wait.map(Duration::from_secs))
                }
            };
            if tried == TRIES || !error.may_pass() {
                return Err(error);
            }
            sleep(wait.unwrap_or(WAIT * 2_u32.pow(tried - 1)).min(Duration::from_secs(30))).await;
        }
    }

    /// An answer, whole. A line that breaks in the middle is tried again.
    pub async fn get(&self, path: &str) -> Result<Bytes, Unpulled> {
        let mut tried = 0;
        loop {
            tried += 1;
            let mut answer = self.open(path, &[]).await?;
            match whole(answer.body_mut()).await {
                Err(error) if tried < TRIES && error.may_pass() => sleep(WAIT).await,
                result => return result,
            }
        }
    }

    /// An answer as JSON.
    pub async fn json(&self, path: &str) -> Result<Value, Unpulled> {
        let bytes = self.get(path).await?;
        serde_json::from_slice(&bytes).map_err(|e| Unpulled::Wrong(format!("{path} is no JSON: {e}")))
    }
}

/// The next bytes of a body. None: that was all, as the head had promised.
pub(super) async fn next(body: &mut Incoming) -> Result<Option<Bytes>, Unpulled> {
    loop {
        match timeout(SILENCE, body.frame()).await {
            Err(_) => return Err(Unpulled::Line(format!("nothing came for {} s", SILENCE.as_secs()))),
            Ok(None) => return Ok(None),
            Ok(Some(Err(e))) => return Err(Unpulled::Line(super::super::chain(&e))),
            Ok(Some(Ok(frame))) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

async fn whole(body: &mut Incoming) -> Result<Bytes, Unpulled> {
    let mut all = Vec::new();
    while let Some(bytes) = next(body).await? {
        all.extend_from_slice(&bytes);
        if all.len() > MOST {
            return Err(Unpulled::Wrong(format!("an answer of more than {} MiB", MOST >> 20)));
        }
    }
    Ok(all.into())
}

async fn refusal(mut answer: Response<Incoming>) -> Unpulled {
    let status = answer.status().as_u16();
    let said = whole(answer.body_mut()).await.ok().and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    let why = said.and_then(|said| Some(said.get("detail")?.as_str()?.to_owned()));
    Unpulled::Refused { status, why: why.unwrap_or_else(|| answer.status().to_string()) }
}
