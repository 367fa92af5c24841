//! Who may pull and command, and what each may do: clients of the config by their tokens. Over HTTP and over RTSP alike.

use std::sync::Arc;

use aws_lc_rs::{constant_time, digest};

use crate::{
    config::{ApiClient, Role},
    wire::digest::{Key, Proof},
};

/// What a digest login is asked of.
pub const REALM: &str = "chowki";

/// The clients of the config, their tokens hashed.
#[derive(Debug, Default)]
pub struct Access {
    clients: Vec<Known>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    role: Role,
    group: Arc<str>,
    token_hash: digest::Digest,
    /// For whoever proves to know the token instead of sending it.
    key: Key,
}

/// What a route asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To see how the gateway, its buttons and cameras are: everybody.
    States,
    /// To read incidents and their evidence: operators and pullers.
    Incidents,
    /// To take the steps of an incident: operators.
    Steps,
}

impl Right {
    fn of(self, role: Role) -> bool {
        match self {
            Self::States => true,
            Self::Incidents => matches!(role, Role::Operator | Role::Supervisor | Role::Puller),
            Self::Steps => matches!(role, Role::Operator | Role::Supervisor),
        }
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::States => "may not see this",
            Self::Incidents => "sees states and metrics; incidents and their evidence are for operators and pullers",
            Self::Steps => "may read only; the steps of an incident are an operator's",
        }
    }
}

/// Who calls.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Its name in the config; `None` when no client is configured.
    pub name: Option<Arc<str>>,
    /// What it may do. Where no client is configured everybody may everything.
    pub role: Role,
    /// Which group of the call it belongs to; `None` when no client is configured: it hears every ring.
    pub group: Option<Arc<str>>,
}

impl Access {
    /// These clients may call.
    pub fn new(clients: &[ApiClient]) -> Self {
        let known = |c: &ApiClient| Known {
            name: c.name.as_str().into(),
            role: c.role,
            group: c.group.as_str().into(),
            token_hash: digest::digest(&digest::SHA256, c.token.reveal().as_bytes()),
            key: Key::new(&c.name, REALM, c.token.reveal()),
        };
        Self { clients: clients.iter().map(known).collect() }
    }

    /// Whether no client is configured: then whoever reaches us may everything.
    pub fn is_open(&self) -> bool {
        self.clients.is_empty()
    }

    /// Whose token it is. Every token is compared, each in constant time.
    pub fn by_token(&self, token: &str) -> Option<Caller> {
        let hash = digest::digest(&digest::SHA256, token.as_bytes());
        let mut found = None;
        for known in &self.clients {
            if constant_time::verify_slices_are_equal(hash.as_ref(), known.token_hash.as_ref()).is_ok() {
                found = Some(known);
            }
        }
        found.map(Known::caller)
    }

    /// Who it is that proves to know its token, its name being the user name. Not whether the proof is fresh.
    pub fn by_proof(&self, proof: &Proof, method: &str) -> Option<Caller> {
        let known = self.clients.iter().find(|known| *known.name == *proof.username)?;
        proof.is_by(&known.key, method).then(|| known.caller())
    }
}

impl Known {
    fn caller(&self) -> Caller {
        Caller { name: Some(self.name.clone()), role: self.role, group: Some(self.group.clone()) }
    }
}

impl Caller {
    /// Whoever it is, where no client is configured.
    pub fn anyone() -> Self {
        Self { name: None, role: Role::Supervisor, group: None }
    }

    /// Whether it may do what asks for that right.
    ///
    /// # Errors
    /// Why not, in words for it.
    pub fn may(&self, right: Right) -> Result<(), String> {
        let name = self.name.as_deref().unwrap_or("whoever calls");
        if right.of(self.role) { Ok(()) } else { Err(format!("{name} {}", right.refusal())) }
    }
}
