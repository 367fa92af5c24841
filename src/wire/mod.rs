//! Floor 0, pure: RTSP and RTCP as they stand on the wire, for whoever serves and whoever asks: messages, answers, transports,
//! the digest login, sender reports.

pub mod answer;
pub mod digest;
pub mod message;
pub mod rtcp;
pub mod transport;
