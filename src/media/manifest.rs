//! What a camera's folder holds, and the proof that nothing in it was changed, left out or moved. Pure.
//!
//! Each object has its SHA-256, and a chain runs through all of them in order:
//! `chain(0) = SHA-256("chowki manifest 1\n" + subject)`,
//! `chain(n) = SHA-256(chain(n-1) + sha256(n) + name(n))`, hashes as their 32 bytes, texts as UTF-8. Who knows the last
//! link knows every object, its name and its place.

use std::time::Duration;

use aws_lc_rs::digest::{Context, SHA256};
use serde::{Deserialize, Serialize};

use super::fragment::{Fragment, Init};
use crate::district::{clock::Utc, digest::fixed, evidence::Gap, hex::decode as unhex};
pub use crate::district::{digest::sha256, hex::encode as hex};

/// The form of the file that this reads and writes.
const FORMAT: u32 = 1;

/// Why a manifest proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Written by a later version.
    #[error("manifest format {0} is not known here (1 is); use a newer chowki")]
    Format(u32),
    /// A hash is not 64 hexadecimal digits.
    #[error("{name}: {text:?} is not a SHA-256; the manifest was damaged")]
    NotAHash {
        /// The object.
        name: String,
        /// What stands there.
        text: String,
    },
    /// The chain does not hold at this object: it, its name, its place or the manifest's subject was changed.
    #[error("{name}: the hash chain breaks here; the manifest was changed from this object on")]
    Chain {
        /// The first object at which it breaks.
        name: String,
    },
    /// An object's bytes are not those that were recorded.
    #[error(
        "{name}: its content was changed (size {size}, SHA-256 {sha256}); fetch it again or treat it as tampered with"
    )]
    Content {
        /// The object.
        name: String,
        /// What was found: bytes.
        size: u64,
        /// What was found: hash.
        sha256: String,
    },
}

/// One object of a camera's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Object {
    /// Its name in the folder.
    pub name: String,
    /// Bytes.
    pub size: u64,
    /// SHA-256, lower-case hex.
    pub sha256: String,
    /// The chain up to and with this object, lower-case hex.
    pub chain: String,
    /// RFC 6381 names of its tracks; init segments only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub codecs: Option<String>,
    /// When its first frame was captured; fragments only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Utc>,
    /// When its last frame ended; fragments only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Utc>,
    /// Whether packets were lost in it; written only where they were.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub lost: bool,
}

/// `manifest.json` of one camera's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// The form of this file: 1.
    pub format: u32,
    /// The folder in headquarters' object store: `saddar/incidents/0190.../cam-0101`. Part of the chain.
    pub subject: String,
    /// Every object, in the order of recording.
    pub objects: Vec<Object>,
    /// Intervals that nobody holds.
    pub gaps: Vec<Gap>,
    /// Whether recording has ended without gaps.
    pub complete: bool,
}

impl Manifest {
    /// A manifest without objects.
    pub fn new(subject: impl Into<String>) -> Self {
        Self { format: FORMAT, subject: subject.into(), objects: Vec::new(), gaps: Vec::new(), complete: false }
    }

    /// Adds an init segment.
    pub fn push_init(&mut self, init: &Init) {
        let codecs = Some(init.codecs.clone());
        self.push(init.name(), init.bytes.len() as u64, &sha256(&init.bytes), codecs, None, false);
    }

    /// Adds a fragment.
    pub fn push_fragment(&mut self, f: &Fragment) {
        let span = Some((f.from, f.to));
        self.push(f.name(), f.bytes.len() as u64, &sha256(&f.bytes), None, span, f.lost);
    }

    /// Adds an object by what is known of it, for a manifest that is built from an index instead of from bytes.
    pub fn push(
        &mut self,
        name: String,
        size: u64,
        sha256: &[u8; 32],
        codecs: Option<String>,
        span: Option<(Utc, Utc)>,
        lost: bool,
    ) {
        let before = self.objects.last().and_then(|o| unhex(&o.chain)).unwrap_or_else(|| self.origin());
        let chain = hex(&link(&before, sha256, &name));
        let (from, to) = (span.map(|s| s.0), span.map(|s| s.1));
        self.objects.push(Object { name, size, sha256: hex(sha256), chain, codecs, from, to, lost });
    }

    /// Says that nobody holds an interval.
    pub fn gap(&mut self, gap: Gap) {
        self.gaps.push(gap);
        self.complete = false;
    }

    /// Says that recording has ended: complete, if there are no gaps and something is held.
    pub fn end(&mut self) {
        self.complete = self.gaps.is_empty() && !self.objects.is_empty();
    }

    /// How much time is held, in all fragments.
    pub fn held(&self) -> Duration {
        self.objects.iter().filter_map(|o| Some(o.to?.since(o.from?))).sum()
    }

    /// Checks the chain from its beginning.
    pub fn check(&self) -> Result<(), ManifestError> {
        if self.format != FORMAT {
            return Err(ManifestError::Format(self.format));
        }
        let mut chain = self.origin();
        for object in &self.objects {
            let own = unhex(&object.sha256)
                .ok_or_else(|| ManifestError::NotAHash { name: object.name.clone(), text: object.sha256.clone() })?;
            chain = link(&chain, &own, &object.name);
            if unhex(&object.chain) != Some(chain) {
                return Err(ManifestError::Chain { name: object.name.clone() });
            }
        }
        Ok(())
    }

    fn origin(&self) -> [u8; 32] {
        sha256(format!("chowki manifest {FORMAT}\n{}", self.subject).as_bytes())
    }
}

impl Object {
    /// Checks that these bytes are the object's.
    pub fn check(&self, bytes: &[u8]) -> Result<(), ManifestError> {
        let (size, found) = (bytes.len() as u64, hex(&sha256(bytes)));
        if size == self.size && found.eq_ignore_ascii_case(&self.sha256) {
            return Ok(());
        }
        Err(ManifestError::Content { name: self.name.clone(), size, sha256: found })
    }
}

/// The next link of a chain: of the one before, and of what comes next with its name.
pub(super) fn link(before: &[u8; 32], sha256: &[u8; 32], name: &str) -> [u8; 32] {
    let mut context = Context::new(&SHA256);
    context.update(before);
    context.update(sha256);
    context.update(name.as_bytes());
    fixed(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::district::evidence::GapReason;

    fn manifest() -> Manifest {
        let mut m = Manifest::new("saddar/incidents/1/cam-0101");
        for i in 0..5u8 {
            let span = Some((
                Utc::from_micros(i64::from(i) * 1_000_000),
                Utc::from_micros(i64::from(i) * 1_000_000 + 999_000),
            ));
            m.push(format!("{i:05}.m4s"), 3, &sha256(&[i; 3]), None, span, false);
        }
        m
    }

    #[test]
    fn the_chain_is_the_documented_one() {
        let m = manifest();
        let origin = sha256(b"chowki manifest 1\nsaddar/incidents/1/cam-0101");
        let first = sha256(&[origin.as_slice(), &sha256(&[0; 3]), b"00000.m4s"].concat());
        assert_eq!(m.objects[0].chain, hex(&first));
        assert_eq!(hex(&sha256(b"abc")), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(m.held(), Duration::from_millis(4_995));
    }

    #[test]
    fn a_manifest_survives_json_and_is_still_proven() {
        let mut m = manifest();
        m.gap(Gap { from: Utc::default(), to: Utc::default(), reason: GapReason::CameraDown });
        m.end();
        assert!(!m.complete);
        let read: Manifest = serde_json::from_str(&serde_json::to_string(&m).unwrap()).unwrap();
        assert_eq!((read.check(), &read), (Ok(()), &m));
    }

    #[test]
    fn every_kind_of_tampering_is_found_where_it_was_done() {
        let at = |n: &str| Err(ManifestError::Chain { name: n.into() });
        let changed = |f: fn(&mut Manifest)| {
            let mut m = manifest();
            f(&mut m);
            m.check()
        };
        assert_eq!(changed(|m| m.objects[2].sha256 = hex(&sha256(b"other"))), at("00002.m4s"));
        assert_eq!(changed(|m| drop(m.objects.remove(1))), at("00002.m4s"));
        assert_eq!(changed(|m| m.objects.swap(3, 4)), at("00004.m4s"));
        assert_eq!(changed(|m| m.objects[0].name = "x".into()), at("x"));
        assert_eq!(changed(|m| m.subject = "saddar/incidents/2/cam-0101".into()), at("00000.m4s"));
        assert_eq!(changed(|m| m.format = 2), Err(ManifestError::Format(2)));
        assert!(matches!(changed(|m| m.objects[1].sha256 = "é".repeat(32)), Err(ManifestError::NotAHash { .. })));
        let m = manifest();
        assert_eq!(m.objects[1].check(&[1; 3]), Ok(()));
        assert!(matches!(m.objects[1].check(&[2; 3]), Err(ManifestError::Content { size: 3, .. })));
    }
}
