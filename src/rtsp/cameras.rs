//! The gateway's own cameras, units' included, for its clients by name and token.

use std::sync::Arc;

use super::stage::{Offer, Refused, Stage};
use crate::{
    gateway::{
        Facade,
        access::{self, Access, Right},
    },
    wire::digest::Proof,
};

/// The cameras of a gateway.
#[derive(Clone)]
pub struct Cameras {
    gateway: Facade,
    access: Arc<Access>,
}

impl Cameras {
    /// Those of this gateway, for these clients.
    pub fn new(gateway: Facade, access: Arc<Access>) -> Self {
        Self { gateway, access }
    }
}

impl Stage for Cameras {
    fn realm(&self) -> &'static str {
        access::REALM
    }

    fn is_open(&self) -> bool {
        self.access.is_open()
    }

    fn admit(&self, proof: &Proof, method: &str) -> Result<Arc<str>, Refused> {
        let caller = self.access.by_proof(proof, method).ok_or(Refused::Unproven)?;
        caller.may(Right::Incidents).map_err(Refused::Forbidden)?;
        Ok(caller.name.unwrap_or_else(|| "anyone".into()))
    }

    fn offer(&self, camera: &str) -> Offer {
        let ring = camera.parse().ok().and_then(|id| self.gateway.ring(&id));
        ring.map_or(Offer::Unknown, Offer::Live)
    }
}
