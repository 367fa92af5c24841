//! What a server shows, and to whom.

use std::{net::IpAddr, sync::Arc};

use crate::{media::ring::Ring, wire::digest::Proof};

/// What a server shows, and to whom.
pub trait Stage: Send + Sync + 'static {
    /// The realm that logins are of.
    fn realm(&self) -> &'static str;

    /// Whether everybody may watch, without a login.
    fn is_open(&self) -> bool;

    /// Who a proof for that method is by, if that one may watch.
    ///
    /// # Errors
    /// [`Refused`]: why it may not.
    fn admit(&self, proof: &Proof, method: &str) -> Result<Arc<str>, Refused>;

    /// Somebody watches a camera from now on, from that address.
    fn watched(&self, who: &str, from: IpAddr, camera: &str);

    /// A camera by the first segment of a URL's path.
    fn offer(&self, camera: &str) -> Offer;
}

/// Why somebody may not watch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// The proof is none.
    Unproven,
    /// It is known who it is, and that it may not, in words for it.
    Forbidden(String),
}

/// What there is under a name.
#[derive(Debug, Clone)]
pub enum Offer {
    /// A camera.
    Live(Arc<Ring>),
    /// No camera.
    Unknown,
    /// A camera without power: whoever asks for it is cut off.
    Down,
}
