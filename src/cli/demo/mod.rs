//! The demo district: bundled clips, and the cameras that serve them.

pub mod clip;
pub mod rtsp;
