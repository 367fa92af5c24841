//! Talkback.
mod decode;
mod jitter;
mod mix;
mod player;
pub mod prompts;
mod rtp_out;
mod rtsp;
mod sdp;
