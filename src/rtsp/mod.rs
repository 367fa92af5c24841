//! Floor 4: RTSP out (RFC 2326). Each camera live for recorders and players, from its ring: however many watch, the camera has one
//! session. Over the RTSP connection or by datagrams, with the digest login, from the last key frame on.
//!
//! One task a connection reads requests, answers them and sends what its session plays. A client that falls behind goes on at the
//! newest key frame, and what it missed is counted; the camera and other clients never notice. A session ends with its connection,
//! when its client has said nothing for a minute, or has taken nothing for ten seconds.

mod cameras;
mod connection;
mod out;
mod pace;
mod path;
mod requests;
mod sdp;
mod server;
mod session;
mod stage;
mod track;

pub use cameras::Cameras;
pub use server::{Limits, serve};
pub use stage::{Offer, Refused, Stage};
