//! Whether the folder of an incident is what its box has signed: every file that the proof, the document and the
//! manifests speak of, and no other.
//!
//! It is asked of names, sizes and hashes; who reads the files is another's business. What is wrong is named in the
//! order of the chain: the proof, the document, then camera by camera, object by object.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::{
    manifest::{Manifest, ManifestError},
    proof::{DOCUMENT, PROOF, Proof, ProofError, history},
};
use crate::district::{
    clock::Utc, digest::Sha256, evidence::EvidenceObject, identity::PublicKey, ids::IncidentId, press::Progress,
};

/// A camera's list of objects, and its playlist.
pub const MANIFEST: &str = "manifest.json";
/// See [`MANIFEST`].
pub const PLAYLIST: &str = "index.m3u8";

/// A file that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct File {
    /// Bytes.
    pub size: u64,
    /// Their hash.
    pub sha256: Sha256,
    /// The bytes themselves, of what is read as text: see [`is_text`].
    pub text: Option<Vec<u8>>,
}

/// An incident's folder.
#[derive(Debug, Clone, Default)]
pub struct Folder {
    /// What it is called.
    pub name: String,
    /// Every file, by its name from here; or why it, or a folder of that name, cannot be read. The folder itself is `""`.
    pub files: BTreeMap<String, Result<File, String>>,
}

/// Whether the bytes of a file of that name are needed, and not its hash alone.
pub fn is_text(name: &str) -> bool {
    name == PROOF || name == DOCUMENT || camera_of(name).is_some_and(|(_, file)| file == MANIFEST)
}

/// What kind of thing is not right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// It is not what was signed.
    Changed,
    /// It was signed and is not there.
    Missing,
    /// It is there, and nothing that was signed names it.
    NotListed,
    /// It was signed with a key that is not one of those given.
    OtherKey,
    /// There is no proof.
    NoProof,
    /// It cannot be read, or not by this version: nothing can be said of it.
    Unreadable,
}

impl Kind {
    /// Whether evidence was changed, and not only that nobody can tell.
    pub fn is_change(self) -> bool {
        !matches!(self, Kind::NoProof | Kind::Unreadable)
    }
}

/// Something that is not right.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The file, from the incident's folder; or an entry of its document's history.
    pub name: String,
    /// What kind of thing.
    pub kind: Kind,
    /// What is wrong, in words.
    pub what: String,
}

/// What it comes to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Everything that was signed is there, and is what was signed.
    Whole,
    /// It cannot be told.
    Unknown,
    /// Something was changed, removed or added.
    Changed,
}

/// Who signed, and when.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Signed {
    /// By the box's clock.
    pub at: Utc,
    /// The box's public key.
    pub key: PublicKey,
    /// Its fingerprint.
    pub fingerprint: Sha256,
    /// Whether it is one of the keys that were given. None: none was given, and nobody vouches for it.
    pub vouched: Option<bool>,
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// What it comes to.
    pub verdict: Verdict,
    /// The incident, as headquarters' store names its folder: `saddar/incidents/0190...`.
    pub subject: Option<String>,
    /// The revision of its document.
    pub revision: Option<u64>,
    /// Who signed.
    pub signed: Option<Signed>,
    /// Whether more is to come: it is not closed, or not all of its evidence has its final list.
    pub growing: bool,
    /// Files that are what was signed.
    pub proven: usize,
    /// Their bytes.
    pub proven_bytes: u64,
    /// Files of which nothing that was signed speaks yet: they came after it.
    pub unproven: Vec<String>,
    /// What is not right; the first of it first.
    pub findings: Vec<Finding>,
}

/// The document, as far as it is needed here.
#[derive(Debug, Deserialize)]
struct Document {
    id: IncidentId,
    revision: u64,
    district: String,
    state: Progress,
    evidence: Vec<Evidence>,
}

#[derive(Debug, Deserialize)]
struct Evidence {
    camera: String,
    objects: Vec<EvidenceObject>,
    object_count: usize,
    ended: bool,
}

/// A file that something signed speaks of.
struct Claim {
    name: String,
    size: Option<u64>,
    sha256: Sha256,
    /// It may not be there yet.
    pending: bool,
}

/// Looks at a folder. `keys` are the fingerprints of the keys that are known to be boxes'; none: whoever signed it counts.
pub fn audit(folder: &Folder, keys: Option<&[Sha256]>) -> Audit {
    let mut auditor = Auditor { folder, claims: Vec::new(), findings: Vec::new(), lists: BTreeSet::new() };
    let proof = auditor.proof();
    let signed = proof.as_ref().map(|proof| auditor.signed(proof, keys));
    let document = auditor.document(proof.as_ref());
    auditor.manifests(proof.as_ref());
    if let Some(document) = &document {
        auditor.listed(document);
    }
    let (proven, proven_bytes) = auditor.claims(proof.is_some());
    let unproven = auditor.unlisted(proof.as_ref(), document.as_ref());
    let is_final = |e: &Evidence| {
        let listed = proof.as_ref().is_some_and(|p| p.of(&format!("{}/{PLAYLIST}", e.camera)).is_some());
        listed || (e.ended && e.object_count == 0)
    };
    let growing = document.as_ref().is_some_and(|d| d.state < Progress::Closed || !d.evidence.iter().all(is_final));
    let findings = auditor.findings;
    let verdict = match &findings {
        f if f.iter().any(|f| f.kind.is_change()) => Verdict::Changed,
        f if f.is_empty() => Verdict::Whole,
        _ => Verdict::Unknown,
    };
    let subject = proof.as_ref().map(|p| p.subject.clone());
    let subject = subject.or_else(|| document.as_ref().map(Document::subject));
    let revision = proof.as_ref().map(|p| p.revision).or_else(|| document.as_ref().map(|d| d.revision));
    Audit { verdict, subject, revision, signed, growing, proven, proven_bytes, unproven, findings }
}

struct Auditor<'a> {
    folder: &'a Folder,
    claims: Vec<Claim>,
    findings: Vec<Finding>,
    /// Cameras with a manifest that can be believed.
    lists: BTreeSet<String>,
}

impl Document {
    fn subject(&self) -> String {
        format!("{}/incidents/{}", self.district, self.id)
    }
}

impl Auditor<'_> {
    fn find(&mut self, name: &str, kind: Kind, what: impl Into<String>) {
        self.findings.push(Finding { name: name.to_owned(), kind, what: what.into() });
    }

    /// A file, or why it cannot be read: it, or a folder that it would be in.
    fn file(&self, name: &str) -> Option<&Result<File, String>> {
        let files = &self.folder.files;
        let above = camera_of(name).map_or("", |(camera, _)| camera);
        files.get(name).or_else(|| ["", above].iter().find_map(|folder| files.get(*folder)).filter(|f| f.is_err()))
    }

    fn text(&self, name: &str) -> Option<&[u8]> {
        self.folder.files.get(name)?.as_ref().ok()?.text.as_deref()
    }

    fn hash(&self, name: &str) -> Option<Sha256> {
        Some(self.folder.files.get(name)?.as_ref().ok()?.sha256)
    }

    /// The proof, if there is one that holds in itself.
    fn proof(&mut self) -> Option<Proof> {
        let text = match self.file(PROOF) {
            None => {
                self.find(PROOF, Kind::NoProof, "there is none: nothing says what this folder held");
                return None;
            }
            Some(Err(why)) => {
                let why = why.clone();
                self.find(PROOF, Kind::Unreadable, why);
                return None;
            }
            Some(Ok(file)) => file.text.as_deref().unwrap_or_default(),
        };
        match Proof::read(text) {
            Ok(proof) => Some(proof),
            Err(e @ ProofError::Format(_)) => {
                self.find(PROOF, Kind::Unreadable, e.to_string());
                None
            }
            Err(e) => {
                self.find(PROOF, Kind::Changed, format!("it was changed: {e}"));
                None
            }
        }
    }

    /// By whom; and whether the proof lies where it belongs.
    fn signed(&mut self, proof: &Proof, keys: Option<&[Sha256]>) -> Signed {
        let fingerprint = proof.key.fingerprint();
        let vouched = keys.map(|keys| keys.contains(&fingerprint));
        if vouched == Some(false) {
            self.find(
                PROOF,
                Kind::OtherKey,
                format!("it is signed with the key {fingerprint}, which is none of those given"),
            );
        }
        let own = proof.subject.rsplit('/').next().unwrap_or_default();
        let name = &self.folder.name;
        if name.parse::<IncidentId>().is_ok() && name != own {
            let what = format!("it is of incident {own}, and lies in the folder of {name}");
            self.find(PROOF, Kind::Changed, what);
        }
        Signed { at: proof.signed_at, key: proof.key, fingerprint, vouched }
    }

    /// The document, if it can be believed: it is the one that was signed, or there is no proof to say.
    fn document(&mut self, proof: Option<&Proof>) -> Option<Document> {
        let read = |text: &[u8]| serde_json::from_slice::<Document>(text).ok();
        let document = self.text(DOCUMENT).and_then(read);
        let Some(proof) = proof else { return document };
        let signed = proof.of(DOCUMENT);
        if let Some(sha256) = signed {
            self.claims.push(Claim { name: DOCUMENT.into(), size: None, sha256, pending: false });
        }
        if signed.is_none() || self.hash(DOCUMENT) != signed {
            if self.hash(DOCUMENT).is_some() && signed.is_some() {
                self.other_document(proof, document.as_ref());
            }
            return None;
        }
        if let Some(document) = document.as_ref().filter(|d| d.subject() != proof.subject) {
            let what = format!("it is the document of {}, and the proof is of {}", document.subject(), proof.subject);
            self.find(DOCUMENT, Kind::Changed, what);
        }
        document
    }

    /// Says of a document that is not the one that was signed what is different in it.
    fn other_document(&mut self, proof: &Proof, document: Option<&Document>) {
        let what = match document {
            Some(d) if d.revision != proof.revision => format!(
                "it is not what was signed: it says that it is revision {}, and revision {} was signed",
                d.revision, proof.revision
            ),
            Some(_) => "it is not what was signed".to_owned(),
            None => "it is not what was signed, and cannot be read".to_owned(),
        };
        self.find(DOCUMENT, Kind::Changed, what);
        if document.is_none() {
            return;
        }
        let now: BTreeMap<_, _> = history(self.text(DOCUMENT).unwrap_or_default()).into_iter().collect();
        let entries: Vec<_> = proof.entries.iter().filter(|e| e.name.contains('#')).collect();
        for entry in &entries {
            match now.get(&entry.name) {
                Some(hash) if *hash == entry.sha256 => {}
                Some(_) => self.find(&entry.name, Kind::Changed, "this entry is not what was signed"),
                None => self.find(&entry.name, Kind::Missing, "this entry was signed and is not there"),
            }
        }
        for name in now.keys().filter(|name| entries.iter().all(|e| e.name != **name)) {
            self.find(name, Kind::NotListed, "this entry was not signed");
        }
    }

    /// What the proof says of files, and the manifests among them of theirs; then manifests that it does not know yet.
    fn manifests(&mut self, proof: Option<&Proof>) {
        let subject = proof.map(|p| p.subject.as_str());
        for entry in proof.iter().flat_map(|p| &p.entries).filter(|e| !e.name.contains('#') && e.name != DOCUMENT) {
            self.claims.push(Claim { name: entry.name.clone(), size: None, sha256: entry.sha256, pending: false });
            if camera_of(&entry.name).is_some_and(|(_, file)| file == MANIFEST) {
                self.manifest(&entry.name, subject, self.hash(&entry.name) == Some(entry.sha256));
            }
        }
        let unknown = |name: &&String| {
            camera_of(name).is_some_and(|(_, file)| file == MANIFEST) && proof.is_none_or(|p| p.of(name).is_none())
        };
        for name in self.folder.files.keys().filter(unknown) {
            self.manifest(name, subject, true);
        }
    }

    fn manifest(&mut self, name: &str, subject: Option<&str>, as_signed: bool) {
        let Some((camera, _)) = camera_of(name) else { return };
        let Some(text) = self.text(name) else { return };
        let wanted = subject.map(|subject| format!("{subject}/{camera}"));
        let manifest = match serde_json::from_slice::<Manifest>(text) {
            Ok(manifest) => manifest,
            Err(e) => return self.find(name, Kind::Changed, format!("it cannot be read: {e}")),
        };
        match manifest.check() {
            Ok(()) => {}
            Err(e @ ManifestError::Format(_)) if as_signed => return self.find(name, Kind::Unreadable, e.to_string()),
            Err(e) => return self.find(name, Kind::Changed, e.to_string()),
        }
        if wanted.is_some_and(|wanted| wanted != manifest.subject) {
            return self.find(name, Kind::Changed, format!("it is the list of {}", manifest.subject));
        }
        if !as_signed {
            return;
        }
        self.lists.insert(camera.to_owned());
        for object in manifest.objects {
            let Ok(sha256) = object.sha256.parse() else { continue };
            let name = format!("{camera}/{}", object.name);
            self.claims.push(Claim { name, size: Some(object.size), sha256, pending: false });
        }
    }

    /// Objects that the document lists: those that no manifest does yet.
    fn listed(&mut self, document: &Document) {
        for evidence in &document.evidence {
            for object in &evidence.objects {
                let Ok(sha256) = object.sha256.parse() else { continue };
                let name = format!("{}/{}", evidence.camera, object.name);
                self.claims.push(Claim { name, size: Some(object.size), sha256, pending: !object.delivered });
            }
        }
    }

    /// Holds every claim against what is there. How many files, and bytes, are as was signed.
    fn claims(&mut self, signed: bool) -> (usize, u64) {
        let claims = std::mem::take(&mut self.claims);
        let mut wrong: BTreeSet<String> = self.findings.iter().map(|f| f.name.clone()).collect();
        let mut right = BTreeMap::new();
        for claim in &claims {
            if wrong.contains(&claim.name) {
                continue;
            }
            let (kind, what) = match self.file(&claim.name) {
                None if claim.pending => continue,
                None => (Kind::Missing, "it was signed and is not there".to_owned()),
                Some(Err(why)) => (Kind::Unreadable, why.clone()),
                Some(Ok(file)) if claim.is(file) => {
                    right.insert(claim.name.as_str(), file.size);
                    continue;
                }
                Some(Ok(file)) => (Kind::Changed, claim.against(file) + &content(&claims, file)),
            };
            self.find(&claim.name, kind, what);
            wrong.insert(claim.name.clone());
        }
        right.retain(|name, _| signed && !wrong.contains(*name));
        let proven = (right.len(), right.values().sum());
        self.claims = claims;
        proven
    }

    /// Files that no claim names: what came after the proof is not proven yet, all else does not belong here.
    fn unlisted(&mut self, proof: Option<&Proof>, document: Option<&Document>) -> Vec<String> {
        let folder = self.folder;
        let named: BTreeSet<&str> = self.claims.iter().map(|c| c.name.as_str()).chain([PROOF]).collect();
        let strays: Vec<_> = folder.files.iter().filter(|(name, _)| !named.contains(name.as_str())).collect();
        let cameras: BTreeSet<&str> = document.iter().flat_map(|d| &d.evidence).map(|e| e.camera.as_str()).collect();
        let may_come = |lists: &BTreeSet<String>, name: &str| match camera_of(name) {
            None => name == DOCUMENT && proof.is_none(),
            Some((_, PLAYLIST | MANIFEST)) if proof.is_none() => true,
            Some((camera, _)) => {
                let is_final = proof.is_none_or(|p| p.of(&format!("{camera}/{PLAYLIST}")).is_some());
                let all_known = is_final && lists.contains(camera);
                // With another document than the signed one nobody knows which cameras there are.
                !all_known && (document.is_none() || cameras.contains(camera))
            }
        };
        let (unproven, strays): (Vec<_>, Vec<_>) =
            strays.into_iter().partition(|(name, _)| may_come(&self.lists, name));
        for (name, file) in strays {
            if let (Err(why), true) = (file, name.is_empty() || cameras.contains(name.as_str())) {
                self.find(name, Kind::Unreadable, why);
                continue;
            }
            let content = file.as_ref().map(|file| content(&self.claims, file)).unwrap_or_default();
            self.find(name, Kind::NotListed, format!("nothing that was signed names it{content}"));
        }
        unproven.into_iter().map(|(name, _)| name.clone()).collect()
    }
}

impl Claim {
    fn is(&self, file: &File) -> bool {
        file.sha256 == self.sha256 && self.size.is_none_or(|size| size == file.size)
    }

    /// What is wrong with a file that is there.
    fn against(&self, file: &File) -> String {
        match self.size {
            Some(size) if size != file.size => format!("it is not what was signed: {} bytes of {size}", file.size),
            _ => "it is not what was signed".to_owned(),
        }
    }
}

/// Whose content a file has that should have another, or none.
fn content(claims: &[Claim], file: &File) -> String {
    let other = claims.iter().find(|claim| claim.sha256 == file.sha256);
    other.map(|other| format!("; its content is that of {}", other.name)).unwrap_or_default()
}

/// The camera's folder that a file is in, and its name there.
fn camera_of(name: &str) -> Option<(&str, &str)> {
    name.split_once('/').filter(|(_, file)| !file.contains('/'))
}

#[cfg(test)]
#[path = "audit_tests.rs"]
mod tests;
