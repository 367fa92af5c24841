//! What this box signs of an incident at headquarters. A proof is put after what it speaks of, in the same turn, and again
//! whenever that changes; what this run knows nothing of, it takes from the proof that is there, if it is its own.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    time::Duration,
};

use bytes::Bytes;
use tracing::{error, info, warn};

use super::{Forwarder, Lists};
use crate::{
    district::{
        clock::Mono,
        digest::Sha256,
        identity::Identity,
        ids::{CameraId, IncidentId},
    },
    host::clock,
    media::{
        audit::{MANIFEST, PLAYLIST},
        proof::{DOCUMENT, Draft, PROOF, Proof, history},
    },
    uplink::objects::PutError,
};

/// A public key that headquarters' store did not take is tried again after this.
const KEY_AGAIN: Duration = Duration::from_secs(60);

/// What of each incident is at headquarters, as far as this run has put it there, and what is signed of it.
#[derive(Default)]
pub(super) struct Proofs {
    incidents: HashMap<IncidentId, Known>,
    /// Those whose proof does not say what is there.
    behind: BTreeSet<IncidentId>,
    /// When the public key is put. None: never again.
    key_due: Option<Mono>,
}

#[derive(Default)]
struct Known {
    /// The document that was last put: its revision, its history and its own hash.
    document: Option<(u64, Vec<(String, Sha256)>)>,
    /// Lists by their name; one without a hash grows, and is not signed.
    lists: BTreeMap<String, Option<Sha256>>,
    /// What the proof at headquarters says, once that was asked.
    signed: Option<Option<Draft>>,
}

impl Proofs {
    /// After a start: the key is put once.
    pub fn after_start() -> Self {
        Self { key_due: Some(Mono::default()), ..Self::default() }
    }

    /// An incident's document was put.
    pub fn document(&mut self, incident: IncidentId, revision: u64, json: &[u8]) {
        let mut entries = history(json);
        entries.push((DOCUMENT.to_owned(), Sha256::of(json)));
        self.incidents.entry(incident).or_default().document = Some((revision, entries));
        self.behind.insert(incident);
    }

    /// A camera's playlist was put, and its manifest if both are final.
    pub fn lists(&mut self, incident: IncidentId, camera: &CameraId, playlist: &[u8], manifest: Option<&[u8]>) {
        let is_final = manifest.is_some();
        let mut changed = false;
        let lists = &mut self.incidents.entry(incident).or_default().lists;
        let mut list = |file: &str, hash| changed |= lists.insert(format!("{camera}/{file}"), hash) != Some(hash);
        list(PLAYLIST, is_final.then(|| Sha256::of(playlist)));
        if let Some(manifest) = manifest {
            list(MANIFEST, Some(Sha256::of(manifest)));
        }
        if changed {
            self.behind.insert(incident);
        }
    }

    /// Lets go of incidents that are not held any more.
    pub fn keep(&mut self, is_held: impl Fn(&IncidentId) -> bool) {
        self.incidents.retain(|id, _| is_held(id));
        self.behind.retain(|id| is_held(id));
    }
}

impl Known {
    /// What is to be signed: what was put, and of the other lists what was signed before. Nothing before its document.
    fn draft(&self, subject: &str) -> Option<Draft> {
        let (revision, mut entries) = self.document.clone()?;
        let is_list = |name: &str| name.ends_with(PLAYLIST) || name.ends_with(MANIFEST);
        let earlier = self.signed.iter().flatten().flat_map(|draft| &draft.entries);
        let earlier = earlier.filter(|(name, _)| is_list(name)).map(|(name, hash)| (name.clone(), Some(*hash)));
        let mut lists: BTreeMap<String, Option<Sha256>> = earlier.collect();
        lists.extend(self.lists.clone());
        entries.extend(lists.into_iter().filter_map(|(name, hash)| Some((name, hash?))));
        Some(Draft { subject: subject.to_owned(), revision, entries })
    }
}

impl Forwarder {
    /// Signs what changed, the newest incident first.
    pub(super) async fn put_proofs(&self, lists: &mut Lists) -> Result<(), PutError> {
        let Some(identity) = &self.identity else { return Ok(()) };
        let Proofs { incidents, behind, .. } = &mut lists.proofs;
        for incident in behind.iter().rev().copied().collect::<Vec<_>>() {
            let subject = format!("{}/incidents/{incident}", self.district);
            let name = format!("{subject}/{PROOF}");
            // Without a document it comes with that.
            if let Some(known) = incidents.get_mut(&incident).filter(|known| known.document.is_some()) {
                match self.put_proof(&name, &subject, known, identity).await {
                    Err(e @ PutError::Refused { .. }) => error!(error = %e, "left out; the rest goes on"),
                    put => put?,
                }
            }
            behind.remove(&incident);
        }
        Ok(())
    }

    async fn put_proof(&self, name: &str, subject: &str, known: &mut Known, own: &Identity) -> Result<(), PutError> {
        if known.signed.is_none() {
            known.signed = Some(self.signed_before(name, own).await?);
        }
        let Some(draft) = known.draft(subject).filter(|draft| known.signed.as_ref() != Some(&Some(draft.clone())))
        else {
            return Ok(());
        };
        let proof = draft.clone().sign(clock::wall(), own);
        self.store.put(name, Bytes::from(proof.bytes())).await?;
        known.signed = Some(Some(draft));
        Ok(())
    }

    /// What this box has signed of an incident in an earlier run.
    async fn signed_before(&self, name: &str, own: &Identity) -> Result<Option<Draft>, PutError> {
        let found = match self.store.get(name).await {
            // Who may not list is not told that there is none.
            Err(e @ PutError::Later { .. }) => return Err(e),
            found => found.ok().flatten(),
        };
        let Some(bytes) = found else { return Ok(None) };
        match Proof::read(&bytes) {
            Ok(proof) if proof.key == own.public() => return Ok(Some(proof.draft())),
            Ok(proof) => warn!(name, key = %proof.key.fingerprint(), "a proof there is signed with another key"),
            Err(e) => error!(name, error = %e, "a proof there is not as this box wrote it; it is put anew"),
        }
        Ok(None)
    }

    /// Puts the public key where headquarters registers it: `{district}/identity/{fingerprint}.pub`. Nothing waits for it.
    pub(super) async fn put_key(&self, lists: &mut Lists) {
        let (Some(identity), now) = (&self.identity, clock::mono()) else { return };
        if lists.proofs.key_due.is_none_or(|due| now < due) {
            return;
        }
        let key = identity.public();
        let name = format!("{}/identity/{}.pub", self.district, key.fingerprint());
        let pem = Bytes::from(key.pem());
        let put = match self.store.has(&name, &pem).await {
            Ok(true) => Ok(()),
            Ok(false) => self.store.put(&name, pem).await,
            Err(e) => Err(e),
        };
        lists.proofs.key_due = match put {
            Ok(()) => {
                info!(name, "headquarters' store has this box's public key");
                None
            }
            Err(e) => {
                warn!(error = %e, "this box's public key");
                Some(now + KEY_AGAIN)
            }
        };
    }
}
