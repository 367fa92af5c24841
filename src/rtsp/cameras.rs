//! The gateway's own cameras, units' included, for its clients by name and token.

use std::{net::IpAddr, sync::Arc};

use super::stage::{Offer, Refused, Stage};
use crate::{
    gateway::{
        Facade,
        access::{self, Access, Right},
        audit::{Audit, Note},
    },
    host::clock,
    wire::digest::Proof,
};

/// The cameras of a gateway.
#[derive(Clone)]
pub struct Cameras {
    gateway: Facade,
    access: Arc<Access>,
    audit: Arc<Audit>,
}

impl Cameras {
    /// Those of this gateway, for these clients; who watches is written down.
    pub fn new(gateway: Facade, access: Arc<Access>, audit: Arc<Audit>) -> Self {
        Self { gateway, access, audit }
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

    fn watched(&self, who: &str, from: IpAddr, camera: &str) {
        let (who, from) = (Some(who.to_owned()), Some(from.to_canonical().to_string()));
        let what = format!("RTSP PLAY /{camera}");
        self.audit.note(Note { n: 0, at: clock::wall(), who, role: None, from, what, status: 200 }, None);
    }

    fn offer(&self, camera: &str) -> Offer {
        let ring = camera.parse().ok().and_then(|id| self.gateway.ring(&id));
        ring.map_or(Offer::Unknown, Offer::Live)
    }
}
