//! Floor 1. The way to headquarters: what goes first, whether the link is up, events by MQTT, objects to the store.
//!
//! [`lanes`] decides what is sent next, [`link`] when and where a connection is tried and what the backhaul is called;
//! [`turns`] whose media goes next, [`outage`] from when to when cameras are kept because of it; all four are pure.
//! [`events`] is the MQTT shell around them, [`objects`] the object store, [`held`] the proof of what is there, [`budget`]
//! how fast bytes leave, [`pace`] how fast they should where nobody said it, [`tls`] whom we trust.

mod answers;
pub mod budget;
mod error;
pub mod events;
pub mod held;
pub mod http;
pub mod lanes;
pub mod link;
mod mqtt;
pub mod objects;
pub mod outage;
mod outbox;
pub mod pace;
pub mod paced;
mod session;
pub mod tls;
pub mod turns;
mod wire;

pub use error::Error;
