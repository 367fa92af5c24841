//! Why a camera does not deliver: each in one sentence that says what, where and what to do. Pure.

use std::time::Duration;

use crate::district::camera::CameraState;

/// What kept a session from beginning, or ended it. `address` is host and port; no variant carries a secret.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No TCP connection could be made.
    #[error("{address}: nothing answers there ({why}); check the camera's power, cable and address")]
    Unreachable {
        /// Where.
        address: String,
        /// The system's words.
        why: String,
    },
    /// It accepts connections and then says nothing: it hangs.
    #[error("{address}: accepts the connection but does not answer {step} within {after:?}; it may hang, restart it")]
    Mute {
        /// Where.
        address: String,
        /// The RTSP method that got no answer.
        step: &'static str,
        /// How long was waited.
        after: Duration,
    },
    /// It played, and then no frame came for the watchdog's time.
    #[error("{address}: connected, but no picture for {after:?}; it or the way to it hangs")]
    Silent {
        /// Where.
        address: String,
        /// The watchdog's time.
        after: Duration,
    },
    /// It refuses our user name or password (401), or that user may not view (403).
    #[error(
        "{address}: refuses user {user:?} ({said}); check `username` and `password_file`, and that the user may view"
    )]
    WrongPassword {
        /// Where.
        address: String,
        /// Who we said we are.
        user: String,
        /// Its words.
        said: String,
    },
    /// It wants a login and the config has none.
    #[error("{address}: asks for a login ({said}); set `username` and `password_file` for this camera")]
    LoginMissing {
        /// Where.
        address: String,
        /// Its words.
        said: String,
    },
    /// It has nothing at that path.
    #[error("{address}: has no stream at {path} ({said}); look up the stream's path in the camera's manual")]
    NoSuchStream {
        /// Where.
        address: String,
        /// The path asked for.
        path: String,
        /// Its words.
        said: String,
    },
    /// It refuses how RTP should travel (461).
    #[error("{address}: refuses this transport ({said}); set `transport` to the other of \"tcp\" and \"udp\"")]
    Transport {
        /// Where.
        address: String,
        /// Its words.
        said: String,
    },
    /// It answers with another error.
    #[error("{address}: refuses {step} ({said}); it may be at its limit of viewers")]
    Refused {
        /// Where.
        address: String,
        /// The RTSP method.
        step: &'static str,
        /// Its words.
        said: String,
    },
    /// None of its streams is in a codec we take.
    #[error("{address}: offers only {offered}; set the camera to H.264, H.265 or JPEG")]
    NoCodec {
        /// Where.
        address: String,
        /// Media and encoding names of what it offers.
        offered: String,
    },
    /// What it says cannot be understood.
    #[error("{address}: {step} failed ({said}); check that address and port are those of its RTSP service")]
    Protocol {
        /// Where.
        address: String,
        /// The RTSP method.
        step: &'static str,
        /// What was wrong.
        said: String,
    },
    /// What it sends is more than the library that reads it bears.
    #[error("{address}: sends what cannot be read ({said}); report this camera's model with the log")]
    Unreadable {
        /// Where.
        address: String,
        /// The panic's words.
        said: String,
    },
    /// Pictures come, but none that decoding could begin at.
    #[error("{address}: no key frame within {after:?}; set its key-frame interval to 2 seconds or less")]
    NoKeyFrame {
        /// Where.
        address: String,
        /// How long was waited.
        after: Duration,
    },
    /// The session ended: the camera closed it, restarted, or broke the protocol.
    #[error("{address}: the session ended ({said}); connecting again")]
    Ended {
        /// Where.
        address: String,
        /// Why.
        said: String,
    },
}

/// How soon it is worth trying again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Retry {
    /// It may be back at any moment.
    Soon,
    /// Somebody has to change something first.
    Later,
    /// Trying often may lock the account.
    Rarely,
}

impl Fault {
    /// What an operator is told the camera is doing. `delivered`: frames had arrived in the session that ended.
    pub fn state(&self, delivered: bool) -> CameraState {
        match self {
            Fault::Unreachable { .. } => CameraState::Unreachable,
            Fault::Mute { .. } | Fault::Silent { .. } => CameraState::Stalled,
            Fault::WrongPassword { .. } | Fault::LoginMissing { .. } => CameraState::WrongPassword,
            Fault::NoSuchStream { .. }
            | Fault::Transport { .. }
            | Fault::Refused { .. }
            | Fault::NoCodec { .. }
            | Fault::Protocol { .. }
            | Fault::Unreadable { .. }
            | Fault::NoKeyFrame { .. } => CameraState::Unusable,
            Fault::Ended { .. } if delivered => CameraState::Connecting,
            Fault::Ended { .. } => CameraState::Unusable,
        }
    }

    /// How soon to try again.
    pub fn retry(&self) -> Retry {
        match self {
            Fault::Unreachable { .. } | Fault::Mute { .. } | Fault::Silent { .. } | Fault::Ended { .. } => Retry::Soon,
            Fault::WrongPassword { .. } | Fault::LoginMissing { .. } => Retry::Rarely,
            _ => Retry::Later,
        }
    }
}
