//! Why a connection ended. Pure.

use super::{packet::Fault, rules::Refusal};

/// Why a connection ended: counted by [`End::label`], logged in full.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// The client said DISCONNECT (section 3.14). Its will is forgotten.
    #[error("the client disconnected")]
    Disconnected,
    /// The client closed the connection without a word.
    #[error("the client closed the connection without DISCONNECT")]
    Closed,
    /// The network ended it.
    #[error("the connection was lost: {0}")]
    Lost(std::io::ErrorKind),
    /// No packet for one and a half times the keep-alive ([MQTT-3.1.2-24]), or for too long where there is none.
    #[error("nothing was heard for {0} s")]
    Silent(u64),
    /// The client does not take what it is sent.
    #[error("the client did not take what it was sent for {0} s")]
    Stalled(u64),
    /// TLS did not come about.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// TLS or CONNECT took too long.
    #[error("no CONNECT within {0} s")]
    NoConnect(u64),
    /// Something else came before CONNECT ([MQTT-3.1.0-1]).
    #[error("the first packet was not CONNECT")]
    NotConnect,
    /// CONNECT came twice ([MQTT-3.1.0-2]).
    #[error("a second CONNECT")]
    SecondConnect,
    /// CONNECT was answered with a return code.
    #[error("refused: {0}")]
    Refused(Refusal),
    /// The gateway could not take the connection on in time: return code 3.
    #[error("the gateway is too busy to take the connection on")]
    Busy,
    /// A packet that is not MQTT 3.1.1.
    #[error("malformed: {0}")]
    Malformed(Fault),
    /// A packet that makes no sense here.
    #[error("{0} without cause")]
    Unexpected(&'static str),
    /// A PUBLISH to a topic that is not the client's own.
    #[error("published where it may not")]
    Forbidden,
    /// Too many messages of quality 2 that it never released.
    #[error("too many messages of quality 2 without PUBREL")]
    Unreleased,
    /// A press could not be recorded: the connection is closed, so that the device connects again and resends it.
    #[error("a press could not be recorded; the device resends it when it is back")]
    Withheld,
    /// Another connection came with the same identity ([MQTT-3.1.4-2]).
    #[error("taken over by another connection")]
    TakenOver,
    /// The gateway is going down.
    #[error("the gateway is stopping")]
    Stopping,
}

impl End {
    /// A fixed word for counters.
    pub fn label(&self) -> &'static str {
        match self {
            End::Disconnected => "disconnected",
            End::Closed => "closed",
            End::Lost(_) => "lost",
            End::Silent(_) => "silent",
            End::Stalled(_) => "stalled",
            End::Handshake(_) => "handshake",
            End::NoConnect(_) => "no_connect",
            End::NotConnect => "not_connect",
            End::SecondConnect => "second_connect",
            End::Refused(Refusal::Version) => "refused_version",
            End::Refused(Refusal::Identifier) => "refused_identifier",
            End::Refused(Refusal::Credentials) => "refused_credentials",
            End::Refused(Refusal::Certificate) => "refused_certificate",
            End::Refused(Refusal::Will) => "refused_will",
            End::Busy => "busy",
            End::Malformed(Fault::TooLarge(_)) => "oversized",
            End::Malformed(_) => "malformed",
            End::Unexpected(_) => "unexpected",
            End::Forbidden => "forbidden",
            End::Unreleased => "unreleased",
            End::Withheld => "withheld",
            End::TakenOver => "taken_over",
            End::Stopping => "stopping",
        }
    }

    /// Whether the client's will is published (section 3.1.2.5): not after DISCONNECT, and not when the client is here
    /// after all (a takeover) or it is the gateway that goes.
    pub fn executes_will(&self) -> bool {
        !matches!(self, End::Disconnected | End::TakenOver | End::Stopping)
    }
}
