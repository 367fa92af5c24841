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
        proof::{Draft, PROOF, Proof, entries},
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
    /// Lists that were read back, because this run cannot make them: what is there.
    found: BTreeMap<String, Option<Sha256>>,
}

impl Proofs {
    /// After a start: the key is put once.
    pub fn after_start() -> Self {
        Self { key_due: Some(Mono::default()), ..Self::default() }
    }

    /// An incident's document was put.
    pub fn document(&mut self, incident: IncidentId, revision: u64, json: &[u8]) {
        self.incidents.entry(incident).or_default().document = Some((revision, entries(json)));
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
        let (revision, mut signed) = self.document.clone()?;
        let is_list = |name: &str| name.ends_with(PLAYLIST) || name.ends_with(MANIFEST);
        let earlier = self.signed.iter().flatten().flat_map(|draft| &draft.entries);
        let is_there = |name: &String, hash: &Sha256| self.found.get(name).is_none_or(|found| *found == Some(*hash));
        let earlier = earlier.filter(|(name, hash)| is_list(name) && is_there(name, hash));
        let earlier = earlier.map(|(name, hash)| (name.clone(), Some(*hash)));
        let mut lists: BTreeMap<String, Option<Sha256>> = earlier.collect();
        lists.extend(self.lists.clone());
        signed.extend(lists.into_iter().filter_map(|(name, hash)| Some((name, hash?))));
        Some(Draft { subject: subject.to_owned(), revision, entries: signed })
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
        let Some(bytes) = self.read_back(name).await? else { return Ok(None) };
        match Proof::read(&bytes) {
            Ok(proof) if proof.key == own.public() => return Ok(Some(proof.draft())),
            Ok(proof) => warn!(name, key = %proof.key.fingerprint(), "a proof there is signed with another key"),
            Err(e) => error!(name, error = %e, "a proof there is not as this box wrote it; it is put anew"),
        }
        Ok(None)
    }

    /// Looks at a camera's lists that this run cannot make: what was signed of them stays so where it is what is there.
    pub(super) async fn look_at_lists(
        &self,
        incident: IncidentId,
        camera: &CameraId,
        folder: &str,
        lists: &mut Lists,
    ) -> Result<(), PutError> {
        for file in [PLAYLIST, MANIFEST] {
            let found = self.read_back(&format!("{folder}/{file}")).await?.map(|bytes| Sha256::of(&bytes));
            lists.proofs.incidents.entry(incident).or_default().found.insert(format!("{camera}/{file}"), found);
        }
        lists.proofs.behind.insert(incident);
        Ok(())
    }

    async fn read_back(&self, name: &str) -> Result<Option<Bytes>, PutError> {
        match self.store.get(name).await {
            Err(e @ PutError::Later { .. }) => Err(e),
            // Who may not list is not told that there is none.
            found => Ok(found.ok().flatten()),
        }
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

#[cfg(test)]
mod tests {
    use std::{path::PathBuf, sync::Arc};

    use super::{
        super::tests::{Rig, rig},
        *,
    };

    struct Stage {
        rig: Rig,
        incident: IncidentId,
        camera: CameraId,
        lists: Lists,
    }

    fn identity() -> Arc<Identity> {
        Arc::new(Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap())
    }

    fn stage() -> Stage {
        let mut rig = rig();
        rig.forwarder.identity = Some(identity());
        let (incident, camera) = (IncidentId::derive(1, b"x"), "cam".parse().unwrap());
        Stage { rig, incident, camera, lists: Lists::default() }
    }

    impl Stage {
        fn path(&self) -> PathBuf {
            self.rig.out.join(format!("saddar/incidents/{}/proof.json", self.incident))
        }

        fn document(&mut self, revision: u64) {
            self.lists.proofs.document(self.incident, revision, format!(r#"{{"revision":{revision}}}"#).as_bytes());
        }

        fn final_lists(&mut self) {
            self.lists.proofs.lists(self.incident, &self.camera, b"playlist", Some(b"manifest"));
        }

        /// Names in the proof that is there after another turn.
        async fn turn(&mut self) -> Vec<String> {
            self.rig.forwarder.put_proofs(&mut self.lists).await.unwrap();
            let proof = Proof::read(&std::fs::read(self.path()).unwrap()).unwrap();
            proof.entries.into_iter().map(|e| e.name).collect()
        }
    }

    const ALL: [&str; 3] = ["incident.json", "cam/index.m3u8", "cam/manifest.json"];

    #[tokio::test]
    async fn a_proof_follows_what_it_speaks_of_and_is_not_put_again_without_need() {
        let mut stage = stage();
        stage.final_lists();
        stage.rig.forwarder.put_proofs(&mut stage.lists).await.unwrap();
        assert!(!stage.path().exists(), "nothing is signed before the document");
        stage.document(1);
        assert_eq!(stage.turn().await, ALL);
        let before = std::fs::read(stage.path()).unwrap();
        stage.final_lists();
        stage.document(1);
        stage.turn().await;
        assert_eq!(std::fs::read(stage.path()).unwrap(), before, "nothing is new");
        // It is recorded further: the playlist grows again, and what the manifest lists is there still.
        stage.lists.proofs.lists(stage.incident, &stage.camera, b"growing", None);
        assert_eq!(stage.turn().await, ["incident.json", "cam/manifest.json"]);
        stage.final_lists();
        assert_eq!(stage.turn().await, ALL);
    }

    #[tokio::test]
    async fn after_a_restart_what_was_signed_before_stays_signed_but_not_what_another_key_did() {
        let mut stage = stage();
        stage.document(1);
        stage.final_lists();
        stage.turn().await;
        let before = std::fs::read(stage.path()).unwrap();
        // The disk gave the objects up meanwhile: their lists cannot be made anew.
        stage.lists = Lists::default();
        stage.document(1);
        stage.turn().await;
        assert_eq!(std::fs::read(stage.path()).unwrap(), before);
        stage.document(10_001);
        assert_eq!(stage.turn().await, ALL);
        let proof = Proof::read(&std::fs::read(stage.path()).unwrap()).unwrap();
        let forged = proof.draft().sign(proof.signed_at, &identity()).bytes();
        for there in [forged, b"{}".to_vec()] {
            stage.lists = Lists::default();
            std::fs::write(stage.path(), there).unwrap();
            stage.document(10_002);
            assert_eq!(stage.turn().await, ["incident.json"]);
        }
    }

    #[tokio::test]
    async fn of_lists_that_cannot_be_made_anew_only_what_is_there_stays_signed() {
        let mut stage = stage();
        stage.document(1);
        stage.final_lists();
        stage.turn().await;
        let folder = format!("saddar/incidents/{}/cam", stage.incident);
        std::fs::create_dir_all(stage.rig.out.join(&folder)).unwrap();
        std::fs::write(stage.rig.out.join(&folder).join(MANIFEST), "manifest").unwrap();
        std::fs::write(stage.rig.out.join(&folder).join(PLAYLIST), "put by a run that died before it signed").unwrap();
        stage.lists = Lists::default();
        stage.document(10_001);
        let (forwarder, lists) = (&stage.rig.forwarder, &mut stage.lists);
        forwarder.look_at_lists(stage.incident, &stage.camera, &folder, lists).await.unwrap();
        assert_eq!(stage.turn().await, ["incident.json", "cam/manifest.json"]);
    }

    #[tokio::test]
    async fn a_proof_that_could_not_be_put_is_put_in_a_later_turn_and_the_key_once() {
        let mut stage = stage();
        stage.lists.proofs = Proofs::after_start();
        let away = stage.rig.out.with_extension("away");
        std::fs::rename(&stage.rig.out, &away).unwrap();
        stage.document(1);
        assert!(stage.rig.forwarder.put_proofs(&mut stage.lists).await.is_err());
        stage.rig.forwarder.put_key(&mut stage.lists).await;
        assert!(stage.lists.proofs.key_due.is_some_and(|due| due > clock::mono()), "it is tried again");
        std::fs::rename(&away, &stage.rig.out).unwrap();
        assert_eq!(stage.turn().await, ["incident.json"]);
        stage.lists.proofs = Proofs::after_start();
        stage.rig.forwarder.put_key(&mut stage.lists).await;
        assert_eq!(stage.lists.proofs.key_due, None);
        let key = stage.rig.forwarder.identity.as_ref().unwrap().public();
        let registered = stage.rig.out.join(format!("saddar/identity/{}.pub", key.fingerprint()));
        assert_eq!(std::fs::read_to_string(registered).unwrap(), key.pem());
    }

    #[tokio::test]
    async fn without_a_key_nothing_is_signed() {
        let mut stage = stage();
        stage.rig.forwarder.identity = None;
        stage.document(1);
        stage.rig.forwarder.put_proofs(&mut stage.lists).await.unwrap();
        stage.rig.forwarder.put_key(&mut stage.lists).await;
        assert!(std::fs::read_dir(&stage.rig.out).unwrap().next().is_none());
    }
}
