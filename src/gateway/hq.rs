//! What headquarters is sent by MQTT, and what is known of the way there.

use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tracing::{info, warn};

use super::board::{CallNews, Status};
use crate::{
    district::{button::ButtonCondition, clock::Utc, ids::DistrictId, incident::Incident},
    host::clock,
    uplink::{
        events::{Document, Event, Events, Lane, Tag},
        link::Backhaul,
    },
};

/// The way to headquarters' broker; cheap to clone. A gateway that stands alone has none, and says so.
#[derive(Clone)]
pub struct Headquarters {
    district: DistrictId,
    events: Option<Events>,
    link: Arc<Mutex<LinkSeen>>,
}

/// What is known of the backhaul.
#[derive(Debug, Clone)]
pub struct LinkSeen {
    /// `up`, `degraded`, `down`, `none`.
    pub state: &'static str,
    /// Since when.
    pub since: Option<Utc>,
    /// Why, in the transport's words.
    pub detail: String,
}

impl Headquarters {
    /// With events, or alone.
    pub fn new(district: DistrictId, events: Option<Events>) -> Self {
        let state = if events.is_some() { "down" } else { "none" };
        let since = events.is_some().then(clock::wall);
        let link = LinkSeen { state, since, detail: "not yet connected".into() };
        Self { district, events, link: Arc::new(Mutex::new(link)) }
    }

    /// Sends an incident's document.
    pub fn incident(&self, document: &Incident, json: Bytes) {
        self.offer(Document {
            topic: format!("chowki/{}/incidents/{}", self.district, document.id),
            lane: Lane::Incident,
            payload: json,
            revision: document.revision,
            retain: false,
            tag: Tag::Incident(document.id),
        });
    }

    /// Sends how a call stands; of two the higher revision counts.
    pub fn call(&self, call: &CallNews, revision: u64) {
        let incident = call.event.incident;
        self.offer(Document {
            topic: format!("chowki/{}/calls/{incident}", self.district),
            lane: Lane::Incident,
            payload: call.json(),
            revision,
            retain: false,
            tag: Tag::Call(incident),
        });
    }

    /// Sends a button's condition.
    pub fn condition(&self, condition: &ButtonCondition) {
        self.offer(Document {
            topic: format!("chowki/{}/buttons/{}", self.district, condition.button),
            lane: Lane::Condition,
            payload: serde_json::to_vec(condition).unwrap_or_default().into(),
            revision: condition.revision,
            retain: true,
            tag: Tag::Button(condition.button.clone()),
        });
    }

    /// Sends the gateway's own state.
    pub fn status(&self, status: &Status, revision: u64) {
        self.offer(Document {
            topic: format!("chowki/{}/status", self.district),
            lane: Lane::Status,
            payload: serde_json::to_vec(status).unwrap_or_default().into(),
            revision,
            retain: true,
            tag: Tag::Status,
        });
    }

    fn offer(&self, document: Document) {
        if let Some(events) = &self.events {
            events.offer(document);
        }
    }

    /// Takes what the transport says of the link.
    pub fn link(&self, event: Event) {
        let mut seen = self.link.lock().unwrap_or_else(PoisonError::into_inner);
        match event {
            Event::Up { address, .. } => {
                info!(%address, "connected to headquarters");
                seen.detail = format!("connected to {address}");
            }
            Event::Down { reason, .. } => {
                warn!(%reason, "no connection to headquarters");
                seen.detail = reason;
            }
            Event::Backhaul { state, now, .. } => {
                let state = match state {
                    Backhaul::Up => "up",
                    Backhaul::Degraded => "degraded",
                    Backhaul::Down => "down",
                };
                info!(backhaul = state, "the backhaul");
                (seen.state, seen.since) = (state, Some(now.wall));
            }
            Event::Delivered { .. } | Event::SetAside { .. } | Event::Command { .. } => {}
        }
    }

    /// What is known of the backhaul.
    pub fn seen(&self) -> LinkSeen {
        self.link.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Documents that headquarters has not confirmed.
    pub fn pending(&self) -> usize {
        self.events.as_ref().map_or(0, |e| {
            let held = e.stats().held;
            held.waiting + held.flying
        })
    }

    /// The transport's counts, when there is one.
    pub fn events(&self) -> Option<&Events> {
        self.events.as_ref()
    }
}
