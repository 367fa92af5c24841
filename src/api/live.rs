//! `GET /v1/events`: every change as it happens, by server-sent events. `Last-Event-ID` resumes without loss; when
//! what was missed is no longer kept, a `reset` event says that everything is to be read anew.

use std::{convert::Infallible, time::Duration};

use axum::{
    extract::State,
    http::HeaderMap,
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, stream};
use tokio::sync::broadcast::{Receiver, error::RecvError};

use super::Api;
use crate::gateway::board::Change;

/// A comment goes out at this pace, so that a broken connection is noticed.
const KEEP_ALIVE: Duration = Duration::from_secs(15);

pub(super) async fn events(
    State(api): State<Api>,
    headers: HeaderMap,
) -> Sse<impl Stream<Item = Result<Event, Infallible>> + Send> {
    let last = headers.get("last-event-id").filter(|v| !v.is_empty());
    // Whoever was here before and does not say where, may have missed anything.
    let known = last.map(|v| v.to_str().ok().and_then(|v| v.parse().ok()));
    let (missed, receiver) = api.gateway.board().follow(known.flatten());
    let first = match missed.filter(|_| known != Some(None)) {
        Some(changes) => changes.into_iter().map(|c| event(&c)).collect(),
        None => vec![reset()],
    };
    let stopping = api.gateway.stopping();
    let come = stream::unfold((receiver, Box::pin(stopping)), |(mut receiver, mut stopping)| async move {
        tokio::select! {
            next = next(&mut receiver) => next.map(|event| (event, (receiver, stopping))),
            () = &mut stopping => None,
        }
    });
    let all = futures::StreamExt::chain(stream::iter(first), come);
    Sse::new(futures::StreamExt::map(all, Ok)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

async fn next(receiver: &mut Receiver<Change>) -> Option<Event> {
    match receiver.recv().await {
        Ok(change) => Some(event(&change)),
        // The reader fell behind what is kept.
        Err(RecvError::Lagged(_)) => Some(reset()),
        Err(RecvError::Closed) => None,
    }
}

fn event(change: &Change) -> Event {
    let data = change.data();
    let data = String::from_utf8_lossy(&data);
    Event::default().id(change.id.to_string()).event(change.event).data(data)
}

fn reset() -> Event {
    Event::default().event("reset").data("{}")
}
