//! What a box has signed of an incident: one chain through its history, its document and the lists of every camera.
//!
//! `chain(0) = SHA-256("chowki proof 1\n" + subject)`, and from there as in a manifest (see [`super::manifest`]). What is
//! signed, with Ed25519, is the text `chowki proof 1\n{subject}\n{revision}\n{signed_at}\n{key}\n{last link}\n`. A manifest
//! in the chain brings all its objects with it, since it has the SHA-256 of each.
//!
//! `proof.json` has one spelling: what is read is written again and must be the same to the byte, so that nothing in it can
//! be changed that does not count.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::manifest::link;
use crate::district::{
    clock::Utc,
    digest::Sha256,
    identity::{Identity, PublicKey, Signature},
};

/// The proof's name in an incident's folder.
pub const PROOF: &str = "proof.json";

/// The document's name there.
pub const DOCUMENT: &str = "incident.json";

/// The form of the file that this reads and writes.
const FORMAT: u32 = 1;

/// The lists of the document that are its history: what the journal holds of the incident, entry by entry.
const HISTORY: [&str; 2] = ["presses", "timeline"];

/// Why a proof proves nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ProofError {
    /// It is not JSON, or not with these fields.
    #[error("it cannot be read: {0}")]
    Unreadable(String),
    /// Written by a later version.
    #[error("its format {0} is not known here (1 is); use a newer chowki")]
    Format(u64),
    /// Read and written again it is another text.
    #[error("it is not spelt as it was written")]
    Respelt,
    /// The chain does not hold at this entry: it, its name, its place or the proof's subject was changed.
    #[error("its hash chain breaks at {name}")]
    Chain {
        /// The first entry at which it breaks.
        name: String,
    },
    /// The signature is not of this proof and this key.
    #[error("its signature does not hold: subject, revision, time, key, the last entries or the signature was changed")]
    Signature,
}

/// Something that the proof speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    /// A file in the incident's folder; or, as a JSON pointer (RFC 6901) behind `#`, an entry of its document's history,
    /// hashed as compact JSON with its keys sorted: `incident.json#/timeline/0`.
    pub name: String,
    /// Its SHA-256, lower-case hex.
    pub sha256: Sha256,
    /// The chain up to and with this entry, lower-case hex.
    pub chain: Sha256,
}

/// What is to be signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Draft {
    /// The incident's folder in headquarters' object store.
    pub subject: String,
    /// The document's revision.
    pub revision: u64,
    /// Names and hashes, in order.
    pub entries: Vec<(String, Sha256)>,
}

/// `proof.json` of an incident's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Proof {
    /// The form of this file: 1.
    pub format: u32,
    /// The incident's folder in headquarters' object store: `saddar/incidents/0190...`. Part of the chain.
    pub subject: String,
    /// The revision of the document that was signed.
    pub revision: u64,
    /// When, by the box's clock.
    pub signed_at: Utc,
    /// What was signed, in order.
    pub entries: Vec<Entry>,
    /// The public half of the key it was signed with, Ed25519.
    pub key: PublicKey,
    /// The signature.
    pub signature: Signature,
}

impl Draft {
    /// Signs it.
    pub fn sign(self, signed_at: Utc, identity: &Identity) -> Proof {
        let Draft { subject, revision, entries } = self;
        let mut chain = origin(&subject);
        let linked = |(name, sha256): (String, Sha256)| {
            chain = Sha256::new(link(chain.bytes(), sha256.bytes(), &name));
            Entry { name, sha256, chain }
        };
        let entries: Vec<_> = entries.into_iter().map(linked).collect();
        // As it is written, in milliseconds.
        let signed_at = Utc::from_micros(signed_at.micros().div_euclid(1_000) * 1_000);
        let key = identity.public();
        let signature = identity.sign(message(&subject, revision, signed_at, &key, chain).as_bytes());
        Proof { format: FORMAT, subject, revision, signed_at, entries, key, signature }
    }
}

impl Proof {
    /// Reads one, and checks its spelling, its chain and that the key it names has signed it. Whose key that is, it cannot say.
    pub fn read(bytes: &[u8]) -> Result<Self, ProofError> {
        let unreadable = |e: serde_json::Error| ProofError::Unreadable(e.to_string());
        let value: Value = serde_json::from_slice(bytes).map_err(unreadable)?;
        match value["format"].as_u64() {
            Some(format) if format != u64::from(FORMAT) => return Err(ProofError::Format(format)),
            _ => {}
        }
        let proof: Proof = serde_json::from_slice(bytes).map_err(unreadable)?;
        if proof.bytes() != bytes {
            return Err(ProofError::Respelt);
        }
        let mut chain = origin(&proof.subject);
        for Entry { name, sha256, chain: told } in &proof.entries {
            chain = Sha256::new(link(chain.bytes(), sha256.bytes(), name));
            if chain != *told {
                return Err(ProofError::Chain { name: name.clone() });
            }
        }
        let Proof { subject, revision, signed_at, key, signature, .. } = &proof;
        let message = message(subject, *revision, *signed_at, key, chain);
        if key.has_signed(message.as_bytes(), signature) { Ok(proof) } else { Err(ProofError::Signature) }
    }

    /// As the file has it.
    pub fn bytes(&self) -> Vec<u8> {
        serde_json::to_vec_pretty(self).unwrap_or_default()
    }

    /// What was signed in it.
    pub fn draft(&self) -> Draft {
        let entries = self.entries.iter().map(|e| (e.name.clone(), e.sha256)).collect();
        Draft { subject: self.subject.clone(), revision: self.revision, entries }
    }

    /// What it says of a file or an entry.
    pub fn of(&self, name: &str) -> Option<Sha256> {
        self.entries.iter().find(|e| e.name == name).map(|e| e.sha256)
    }
}

/// What is signed of a document: its history, and itself.
pub fn entries(document: &[u8]) -> Vec<(String, Sha256)> {
    let mut entries = history(document);
    entries.push((DOCUMENT.to_owned(), Sha256::of(document)));
    entries
}

/// The history in a document: each entry's name and hash. Nothing when it cannot be read.
pub fn history(document: &[u8]) -> Vec<(String, Sha256)> {
    let lists: BTreeMap<String, Value> = serde_json::from_slice(document).unwrap_or_default();
    let of = |list: &'static str| {
        let entries = lists.get(list).and_then(Value::as_array).into_iter().flatten();
        entries.enumerate().map(move |(n, entry)| {
            // Sorted, whatever order the parser keeps.
            let sorted: BTreeMap<&String, &Value> = entry.as_object().into_iter().flatten().collect();
            let json = serde_json::to_vec(&sorted).unwrap_or_default();
            (format!("{DOCUMENT}#/{list}/{n}"), Sha256::of(&json))
        })
    };
    HISTORY.into_iter().flat_map(of).collect()
}

fn origin(subject: &str) -> Sha256 {
    Sha256::of(format!("chowki proof {FORMAT}\n{subject}").as_bytes())
}

fn message(subject: &str, revision: u64, signed_at: Utc, key: &PublicKey, last: Sha256) -> String {
    format!("chowki proof {FORMAT}\n{subject}\n{revision}\n{signed_at}\n{key}\n{last}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::district::digest::sha256;

    fn identity() -> Identity {
        Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap()
    }

    fn draft() -> Draft {
        let entries = (0..4u8).map(|n| (format!("cam/{n}"), Sha256::of(&[n]))).collect();
        Draft { subject: "saddar/incidents/1".into(), revision: 7, entries }
    }

    #[test]
    fn a_proof_is_read_back_and_the_chain_and_what_is_signed_are_the_documented_ones() {
        let box_key = identity();
        let proof = draft().sign(Utc::from_micros(1_772_366_400_123_456), &box_key);
        assert_eq!(Proof::read(&proof.bytes()), Ok(proof.clone()));
        assert_eq!(proof.draft(), draft());
        let mut chain = sha256(b"chowki proof 1\nsaddar/incidents/1");
        for n in 0..4u8 {
            chain = sha256(&[chain.as_slice(), &sha256(&[n]), format!("cam/{n}").as_bytes()].concat());
            assert_eq!(*proof.entries[usize::from(n)].chain.bytes(), chain);
        }
        let (key, last) = (box_key.public(), Sha256::new(chain));
        let text = format!("chowki proof 1\nsaddar/incidents/1\n7\n2026-03-01T12:00:00.123Z\n{key}\n{last}\n");
        assert!(key.has_signed(text.as_bytes(), &proof.signature));
    }

    #[test]
    fn any_bit_that_is_changed_in_a_proof_is_found() {
        let bytes = draft().sign(Utc::default(), &identity()).bytes();
        for bit in 0..8 * bytes.len() {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(Proof::read(&changed).is_err(), "bit {} of byte {}", bit % 8, bit / 8);
        }
        for cut in 0..bytes.len() {
            assert!(Proof::read(&bytes[..cut]).is_err(), "cut at {cut}");
        }
        let text = String::from_utf8(bytes).unwrap();
        for (of, with) in
            [("  \"format\"", " \"format\""), ("\n}", "\n}\n"), ("\n}", ",\n  \"more\": 1\n}"), ("1,", "1 ,")]
        {
            assert!(Proof::read(text.replacen(of, with, 1).as_bytes()).is_err(), "{of:?}");
        }
        assert_eq!(Proof::read(text.replace("format\": 1", "format\": 2").as_bytes()), Err(ProofError::Format(2)));
    }

    #[test]
    fn entries_that_are_left_out_moved_or_signed_by_another_key_are_found() {
        let (own, other) = (identity(), identity());
        let proof = draft().sign(Utc::default(), &own);
        let changed = |f: &dyn Fn(&mut Proof)| {
            let mut proof = proof.clone();
            f(&mut proof);
            Proof::read(&proof.bytes()).map(drop)
        };
        let at = |name: &str| Err(ProofError::Chain { name: name.into() });
        assert_eq!(changed(&|p| p.entries.swap(1, 2)), at("cam/2"));
        assert_eq!(changed(&|p| drop(p.entries.remove(0))), at("cam/1"));
        assert_eq!(changed(&|p| drop(p.entries.pop())), Err(ProofError::Signature));
        assert_eq!(changed(&|p| p.revision += 1), Err(ProofError::Signature));
        assert_eq!(changed(&|p| p.key = other.public()), Err(ProofError::Signature));
        assert_eq!(changed(&|p| p.subject = "saddar/incidents/2".into()), at("cam/0"));
        let again = proof.draft().sign(Utc::default(), &other);
        assert_eq!(Proof::read(&again.bytes()).unwrap().key, other.public(), "whose it is must be known otherwise");
    }

    #[test]
    fn history_is_hashed_entry_by_entry_with_sorted_keys() {
        let document = br#"{"id":"x","timeline":[{"what":"b","at":"a"}],"presses":[{"at":1},{}]}"#;
        let wanted: [(&str, &[u8]); 3] = [
            ("incident.json#/presses/0", br#"{"at":1}"#),
            ("incident.json#/presses/1", b"{}"),
            ("incident.json#/timeline/0", br#"{"at":"a","what":"b"}"#),
        ];
        let wanted: Vec<_> = wanted.iter().map(|(name, json)| ((*name).to_owned(), Sha256::of(json))).collect();
        assert_eq!(history(document), wanted);
        assert!(history(b"nothing").is_empty());
    }
}
