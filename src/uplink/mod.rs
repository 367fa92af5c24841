//! Floor 1. The way to headquarters: what goes first, whether the link is up, events by MQTT, objects to the store.
//!
//! [`lanes`] decides what is sent next, [`link`] when and where a connection is tried and what the backhaul is called;
//! both are pure. [`events`] is the MQTT shell around them, [`objects`] the object store, [`tls`] whom we trust.

mod answers;
mod error;
pub mod events;
pub mod lanes;
pub mod link;
mod mqtt;
pub mod objects;
mod outbox;
mod session;
pub mod tls;
mod wire;

pub use error::Error;
