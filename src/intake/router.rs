//! Fan-out to local integrations by rumqttd's router, used as a library.
//!
//! The router keeps state for every client id, filter and topic it ever saw, and can be brought down by links that come and
//! go. So it never meets a client: it gets one link of ours for each configured integration, for as long as the process
//! runs, and one filter, [`ALL`]; what an integration subscribes to, and may, is decided by its mailbox. So overlapping
//! filters do not bring a message twice either.
//!
//! rumqttd has no way to stop its router: its thread, idle, outlives the scope.

use std::sync::Arc;

use bytes::Bytes;
use rumqttd::{
    Notification, Router, RouterConfig,
    local::{LinkBuilder, LinkError, LinkRx},
};
use tokio::sync::mpsc;

use super::{
    Error,
    mailbox::{Fate, Message},
    seats::Seat,
    stats::Counters,
};
use crate::host::scope::Scope;

/// Messages that may wait for the router. When full the newest is dropped and counted: presses are safe on disk by then,
/// and an acknowledgement never waits for an integration.
const QUEUE: usize = 4096;

/// The one filter that the router knows.
const ALL: &str = "buttons/#";

/// Bytes of one segment of the router's in-memory log, and how many segments there are. A reader that falls behind by
/// more than their product misses the oldest.
const SEGMENT: usize = 256 * 1024;
const SEGMENTS: usize = 4;

/// Where messages for integrations go in.
pub(super) struct Fanout {
    queue: Option<mpsc::Sender<Message>>,
    counters: Arc<Counters>,
}

impl Fanout {
    /// Starts the router when there is an integration to serve; without one it costs nothing.
    pub(super) fn start(integrations: &[Arc<Seat>], counters: Arc<Counters>, scope: &Scope) -> Result<Self, Error> {
        if integrations.is_empty() {
            return Ok(Self { queue: None, counters });
        }
        let config = RouterConfig {
            max_connections: integrations.len() + 1,
            max_outgoing_packet_count: 200,
            max_segment_size: SEGMENT,
            max_segment_count: SEGMENTS,
            ..RouterConfig::default()
        };
        let router = Router::new(0, config).spawn();
        let failed = |e: &dyn std::fmt::Display| Error::Router(e.to_string());
        for (n, seat) in integrations.iter().enumerate() {
            let name = format!("reader-{n}");
            let (mut tx, rx, _) = LinkBuilder::new(&name, router.clone()).build().map_err(|e| failed(&e))?;
            tx.subscribe(ALL).map_err(|e| failed(&e))?;
            scope.spawn("integration", read(rx, seat.clone(), counters.clone(), scope.clone()));
        }
        let (mut tx, mut acks, _) = LinkBuilder::new("writer", router).build().map_err(|e| failed(&e))?;
        let (queue, mut waiting) = mpsc::channel::<Message>(QUEUE);
        let stopping = scope.stopping();
        scope.spawn("fanout", async move {
            tokio::pin!(stopping);
            loop {
                tokio::select! {
                    () = &mut stopping => return,
                    // Quality 0 on this link: the router sends nothing back, but its end would show here.
                    note = acks.next() => if let Err(error) = note {
                        return gone(&error);
                    },
                    message = waiting.recv() => {
                        let Some(Message { topic, payload, .. }) = message else { return };
                        if let Err(error) = tx.publish(topic, payload) {
                            return gone(&error);
                        }
                    }
                }
            }
        });
        Ok(Self { queue: Some(queue), counters })
    }

    /// Whether anybody listens at all.
    pub(super) fn is_used(&self) -> bool {
        self.queue.is_some()
    }

    /// Hands a message to the router; never waits.
    pub(super) fn send(&self, topic: Bytes, payload: Bytes) {
        if let Some(queue) = &self.queue
            && queue.try_send(Message { topic, payload, retain: false }).is_err()
        {
            self.counters.fanout_dropped.add();
        }
    }
}

/// Moves what the router has for one integration into its mailbox. Always reads, whether the integration is connected or
/// not, so the link never falls behind; the mailbox has the rule for what is too much.
async fn read(mut link: LinkRx, seat: Arc<Seat>, counters: Arc<Counters>, scope: Scope) {
    let stopping = scope.stopping();
    tokio::pin!(stopping);
    loop {
        let note = tokio::select! {
            () = &mut stopping => return,
            note = link.next() => note,
        };
        match note {
            Ok(Some(Notification::Forward(forward))) => {
                let publish = forward.publish;
                match seat.offer(Message { topic: publish.topic, payload: publish.payload, retain: false }) {
                    Fate::Unwanted => {}
                    Fate::Queued => counters.queued.add(),
                    Fate::QueuedForAnother => {
                        counters.queued.add();
                        counters.dropped.add();
                    }
                }
            }
            // Not answered, the router would never send again.
            Ok(Some(Notification::Unschedule)) => {
                if let Err(error) = link.ready() {
                    return gone(&error);
                }
            }
            Ok(_) => {}
            Err(error) => return gone(&error),
        }
    }
}

fn gone(error: &LinkError) {
    tracing::error!(%error, "the router of local integrations is gone; they see nothing until a restart");
}
