//! Why there is no way to a unit's speaker. Pure.

use std::{io, net::SocketAddr, time::Duration};

use super::sdp::Without;
use crate::wire::message::Malformed;

/// The longest that a unit may take for a connection or an answer.
pub(super) const ANSWER: Duration = Duration::from_secs(3);
/// A unit that takes no sound for so long is lost.
pub(super) const STUCK: Duration = Duration::from_secs(1);

/// Why there is no way to a speaker, in words for people.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failed {
    #[error("the unit's name {host:?} is not known: {source}")]
    Name { host: String, source: io::Error },
    #[error("no connection to the unit at {at}: {source}")]
    Connect { at: SocketAddr, source: io::Error },
    #[error("the unit at {at} did not answer {what} within {ANSWER:?}")]
    Slow { at: SocketAddr, what: String },
    #[error("the unit {host} did not come to play within {limit:?}")]
    Late { host: String, limit: Duration },
    #[error("the connection to the unit at {at} broke: {source}")]
    Broke { at: SocketAddr, source: io::Error },
    #[error("the unit at {at} took no sound for {STUCK:?}")]
    Stuck { at: SocketAddr },
    #[error("the unit at {at} closed the connection")]
    Closed { at: SocketAddr },
    #[error("the unit at {at}: {source}")]
    Malformed { at: SocketAddr, source: Malformed },
    #[error("the unit at {at} refuses our user name or password; correct username and password_file of [button.unit]")]
    Login { at: SocketAddr },
    #[error("the unit at {at} wants a login; set username and password_file of [button.unit]")]
    NoLogin { at: SocketAddr },
    #[error("the unit at {at} wants a login of a kind that is not known: {why}")]
    Challenge { at: SocketAddr, why: String },
    #[error("the unit at {at}: {source}")]
    Without { at: SocketAddr, source: Without },
    #[error("the unit at {at} answered {what} with {status} {reason}")]
    Refused { at: SocketAddr, what: String, status: u16, reason: String },
    #[error("the unit at {at} has no way for sound that we know (interleaved in TCP, or UDP)")]
    Transport { at: SocketAddr },
    #[error("nobody listens for RTP at {at}: {source}; correct the address in talkback of [button.unit]")]
    Nobody { at: SocketAddr, source: io::Error },
    #[error("sound cannot be sent: {0}")]
    Sound(#[from] super::rtp_out::Unsent),
}
