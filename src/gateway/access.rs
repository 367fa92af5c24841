//! Who may pull and command, and what each may do: clients of the config by their tokens or certificates, and holders of
//! tokens that were issued since. Over HTTP and over RTSP alike.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use aws_lc_rs::constant_time;
use tracing::{info, warn};

use super::tokens;
use crate::{
    config::{ApiClient, Role},
    district::{digest::sha256, hex},
    host::scope::Scope,
    wire::digest::{Key, Proof},
};

/// What a digest login is asked of.
pub const REALM: &str = "chowki";

/// How often it is looked whether tokens were issued or revoked.
const LOOK: Duration = Duration::from_secs(1);

/// The clients of the config, and those whose tokens were issued since; all tokens hashed.
#[derive(Debug, Default)]
pub struct Access {
    clients: Vec<Known>,
    /// Where tokens are issued.
    file: Option<PathBuf>,
    /// The group of whoever names none.
    group: Arc<str>,
    issued: RwLock<Issued>,
}

/// What was last read of the file.
#[derive(Debug, Default)]
struct Issued {
    /// None: there is no such file.
    clients: Option<Vec<Known>>,
    seen: Option<SystemTime>,
}

#[derive(Debug)]
struct Known {
    name: Arc<str>,
    role: Role,
    group: Arc<str>,
    token_hash: Option<[u8; 32]>,
    /// For whoever proves to know the token instead of sending it.
    key: Option<Key>,
    /// The common name of its certificate.
    certificate: Option<String>,
}

/// What is kept of a token: SHA-256 of it.
#[derive(Debug, Clone, Copy)]
pub struct TokenHash([u8; 32]);

/// What a route asks of who calls it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Right {
    /// To see how the gateway, its buttons and cameras are: everybody.
    States,
    /// To read incidents and their evidence: operators and pullers.
    Incidents,
    /// To take the steps of an incident: operators.
    Steps,
    /// To read who saw and did what: supervisors.
    Audit,
}

impl Right {
    fn of(self, role: Role) -> bool {
        match self {
            Self::States => true,
            Self::Incidents => matches!(role, Role::Operator | Role::Supervisor | Role::Puller),
            Self::Steps => matches!(role, Role::Operator | Role::Supervisor),
            Self::Audit => role == Role::Supervisor,
        }
    }

    /// Who has it, in words.
    pub fn roles(self) -> String {
        let all = [Role::Operator, Role::Supervisor, Role::Puller, Role::Engineer];
        let names = all.into_iter().filter(|role| self.of(*role)).map(Role::name);
        names.collect::<Vec<_>>().join(", ")
    }

    fn refusal(self) -> &'static str {
        match self {
            Self::States => "may not see this",
            Self::Incidents => "sees states and metrics; incidents and their evidence are for operators and pullers",
            Self::Steps => "may read only; the steps of an incident are an operator's",
            Self::Audit => "may not read the audit log; it is a supervisor's",
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
            token_hash: c.token.as_ref().map(|token| sha256(token.reveal().as_bytes())),
            key: c.token.as_ref().map(|token| Key::new(&c.name, REALM, token.reveal())),
            certificate: c.certificate.clone(),
        };
        Self { clients: clients.iter().map(known).collect(), ..Self::default() }
    }

    /// These, and whoever has a token that was issued there. Who names no group is of the first.
    pub fn with_issued(clients: &[ApiClient], data: &Path, group: &str) -> Self {
        let access = Self { file: Some(tokens::path(data)), group: group.into(), ..Self::new(clients) };
        access.refresh();
        access
    }

    /// Keeps up with the tokens that are issued and revoked.
    pub fn keep_up(self: &Arc<Self>, scope: &Scope) {
        let access = self.clone();
        scope.every("tokens", LOOK, move || access.refresh());
    }

    /// Reads the file again where it has changed. One that cannot be read changes nothing; but where there never was
    /// another, nobody is let in by it, and nobody without it.
    fn refresh(&self) {
        let Some(file) = &self.file else { return };
        let seen = std::fs::metadata(file).and_then(|meta| meta.modified()).ok();
        let write = || self.issued.write().unwrap_or_else(PoisonError::into_inner);
        if self.issued.read().unwrap_or_else(PoisonError::into_inner).seen == seen {
            return;
        }
        let known = |t: &tokens::Issued| {
            Some(Known {
                name: t.name.as_str().into(),
                role: t.role,
                group: t.group.as_deref().map_or_else(|| self.group.clone(), Arc::from),
                token_hash: Some(hex::decode(&t.sha256)?),
                key: t.rtsp.clone().map(Key::kept),
                certificate: None,
            })
        };
        match tokens::load(file) {
            Ok(Some(tokens)) => {
                let clients: Vec<_> = tokens.all.iter().filter_map(known).collect();
                info!(tokens = clients.len(), "tokens that were issued");
                *write() = Issued { clients: Some(clients), seen };
            }
            Ok(None) => {
                let mut issued = write();
                issued.seen = None;
                // That the file has gone, or its disk, opens no door.
                issued.clients = issued.clients.take().map(|_| Vec::new());
            }
            Err(error) => {
                warn!(file = %file.display(), %error, "the tokens cannot be read; those of before stay");
                let mut issued = write();
                issued.seen = seen;
                issued.clients.get_or_insert_default();
            }
        }
    }

    /// Whether no client is configured and no token was ever issued: then whoever reaches us may everything.
    pub fn is_open(&self) -> bool {
        self.clients.is_empty() && self.issued.read().unwrap_or_else(PoisonError::into_inner).clients.is_none()
    }

    /// Whose token it is. Every token is compared, each in constant time.
    pub fn by_token(&self, token: &str) -> Option<(Caller, TokenHash)> {
        let hash = TokenHash(sha256(token.as_bytes()));
        self.by_hash(&hash).map(|caller| (caller, hash))
    }

    /// Whose token it was, for as long as it is not taken back.
    pub fn by_hash(&self, token: &TokenHash) -> Option<Caller> {
        let is = |known: &[u8; 32]| constant_time::verify_slices_are_equal(&token.0, known).is_ok();
        self.find(|known| known.token_hash.as_ref().is_some_and(is))
    }

    /// Whose certificate has that common name. It was proved by TLS that whoever calls has its key.
    pub fn by_certificate(&self, common_name: &str) -> Option<Caller> {
        self.find(|known| known.certificate.as_deref() == Some(common_name))
    }

    /// The last one for which that holds; all of them are asked.
    fn find(&self, is: impl Fn(&Known) -> bool) -> Option<Caller> {
        let issued = self.issued.read().unwrap_or_else(PoisonError::into_inner);
        let all = self.clients.iter().chain(issued.clients.iter().flatten());
        let known = all.fold(None, |found, known| if is(known) { Some(known) } else { found })?;
        Some(known.caller())
    }

    /// Who it is that proves to know its token, its name being the user name. Not whether the proof is fresh.
    pub fn by_proof(&self, proof: &Proof, method: &str) -> Option<Caller> {
        let is = |known: &Known| known.key.as_ref().is_some_and(|key| proof.is_by(key, method));
        self.find(|known| *known.name == *proof.username && is(known))
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
