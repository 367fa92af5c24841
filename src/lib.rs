//! `chowki`: the edge gateway of a city district's panic buttons and cameras.
//!
//! Floors, from the top: [`cli`] 5, [`api`] and [`rtsp`] 4, [`gateway`] 3, [`incident`] 2, then the rooms of floor 1 ([`intake`],
//! [`camera`], [`call`], [`spool`], [`uplink`], [`config`]), and floor 0 ([`district`], [`media`], [`wire`], [`host`]). A file
//! imports only from floors below its own; `tests/floors.rs` holds that.
#![warn(missing_docs)]

pub mod api;
pub mod call;
pub mod camera;
pub mod cli;
pub mod config;
pub mod district;
pub mod gateway;
pub mod host;
pub mod incident;
pub mod intake;
pub mod media;
pub mod rtsp;
pub mod spool;
pub mod uplink;
pub mod wire;
