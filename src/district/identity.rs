//! A box's identity: the Ed25519 key (RFC 8032) that it signs evidence with, and what others know of it.

use std::{fmt, str::FromStr};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::digest::{Sha256, fixed};

/// What stands before the 32 bytes of a public key in its SubjectPublicKeyInfo (RFC 8410, section 4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// Why there is no key.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// These bytes are no private key.
    #[error("it holds no Ed25519 key as PKCS#8 ({0})")]
    NotAKey(String),
    /// The system gives no random numbers.
    #[error("the system gives no random numbers to make a key of")]
    Random,
}

/// The secret half. Never printed.
pub struct Identity(Ed25519KeyPair);

impl Identity {
    /// A new key, as PKCS#8 with its public half in it (RFC 5958), so that a damaged one is found out.
    pub fn generate() -> Result<Vec<u8>, KeyError> {
        let key = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).map_err(|_| KeyError::Random)?;
        Ok(key.as_ref().to_vec())
    }

    /// The key in PKCS#8, DER.
    pub fn from_pkcs8(der: &[u8]) -> Result<Self, KeyError> {
        Ed25519KeyPair::from_pkcs8(der).map(Self).map_err(|e| KeyError::NotAKey(e.to_string()))
    }

    /// What others know of it.
    pub fn public(&self) -> PublicKey {
        PublicKey(fixed(self.0.public_key().as_ref()))
    }

    /// Signs a message.
    pub fn sign(&self, message: &[u8]) -> Signature {
        let mut out = [0; 64];
        out.iter_mut().zip(self.0.sign(message).as_ref()).for_each(|(to, from)| *to = *from);
        Signature(out)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.public())
    }
}

/// The public half, written as the base64 of its 32 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("contentEncoding" = "base64"))]
pub struct PublicKey([u8; 32]);

/// A signature, written as the base64 of its 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("contentEncoding" = "base64"))]
pub struct Signature([u8; 64]);

/// A text that is not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {what}")]
pub struct NotBase64 {
    text: String,
    what: &'static str,
}

impl PublicKey {
    /// The key in a SubjectPublicKeyInfo, DER.
    pub fn from_spki(der: &[u8]) -> Option<Self> {
        der.strip_prefix(&SPKI).and_then(|raw| raw.try_into().ok()).map(Self)
    }

    /// Its SubjectPublicKeyInfo, DER.
    fn spki(&self) -> Vec<u8> {
        [SPKI.as_slice(), &self.0].concat()
    }

    /// As a file that openssl reads too.
    pub fn pem(&self) -> String {
        format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", STANDARD.encode(self.spki()))
    }

    /// What people compare: SHA-256 of its SubjectPublicKeyInfo, as `openssl pkey -pubin -outform DER | sha256sum` says.
    pub fn fingerprint(&self) -> Sha256 {
        Sha256::of(&self.spki())
    }

    /// Whether its secret half has signed this message.
    pub fn has_signed(&self, message: &[u8], signature: &Signature) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0).verify(message, &signature.0).is_ok()
    }
}

impl Signature {
    /// Its 64 bytes.
    pub fn bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

fn decode<const N: usize>(text: &str, what: &'static str) -> Result<[u8; N], NotBase64> {
    let bytes = STANDARD.decode(text).ok().and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| NotBase64 { text: text.to_owned(), what })
}

macro_rules! base64 {
    ($name:ident, $what:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&STANDARD.encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }

        impl FromStr for $name {
            type Err = NotBase64;
            fn from_str(text: &str) -> Result<Self, NotBase64> {
                decode(text, $what).map(Self)
            }
        }

        impl TryFrom<String> for $name {
            type Error = NotBase64;
            fn try_from(text: String) -> Result<Self, NotBase64> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(it: $name) -> Self {
                it.to_string()
            }
        }
    };
}

base64!(PublicKey, "a public key: the base64 of 32 bytes");
base64!(Signature, "a signature: the base64 of 64 bytes");

#[cfg(test)]
mod tests {
    use super::*;

    fn identity() -> Identity {
        Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap()
    }

    #[test]
    fn what_one_key_signed_no_other_did_and_no_other_message_was() {
        let (own, other) = (identity(), identity());
        let signature = own.sign(b"evidence");
        assert!(own.public().has_signed(b"evidence", &signature));
        assert!(!other.public().has_signed(b"evidence", &signature));
        assert!(!own.public().has_signed(b"evidencE", &signature));
        assert_ne!(own.public().fingerprint(), other.public().fingerprint());
    }

    #[test]
    fn a_private_key_with_any_bit_changed_is_not_taken_for_another_one() {
        let der = Identity::generate().unwrap();
        let own = Identity::from_pkcs8(&der).unwrap().public();
        for bit in 0..8 * der.len() {
            let mut changed = der.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let read = Identity::from_pkcs8(&changed);
            assert!(read.is_err() || read.unwrap().public() == own, "bit {bit}");
        }
        assert!(Identity::from_pkcs8(&der[..der.len() - 1]).is_err());
    }

    #[test]
    fn keys_and_signatures_have_one_spelling() {
        let own = identity();
        let (key, signature) = (own.public(), own.sign(b"x"));
        assert_eq!(key.to_string().parse(), Ok(key));
        assert_eq!(signature.to_string().parse(), Ok(signature));
        assert_eq!(PublicKey::from_spki(&key.spki()), Some(key));
        // The last digit before the padding has bits that say nothing: only zeroes are taken.
        let text = signature.to_string();
        let last = text.len() - 3;
        for other in "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/".chars() {
            let spelt = format!("{}{other}==", &text[..last]);
            assert!(
                spelt == text
                    || spelt.parse::<Signature>().is_ok_and(|s| s != signature)
                    || spelt.parse::<Signature>().is_err()
            );
        }
        assert!("short".parse::<PublicKey>().is_err());
        assert!(!format!("{own:?}").contains("seed"));
    }

    #[test]
    fn a_key_of_rfc_8410_reads_as_there_and_its_pem_too() {
        // RFC 8410, section 10.1.
        let spki = STANDARD.decode("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=").unwrap();
        let key = PublicKey::from_spki(&spki).unwrap();
        assert!(key.pem().contains("\nMCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE=\n"));
        assert_eq!(key.fingerprint(), Sha256::of(&spki));
        assert_eq!(PublicKey::from_spki(&spki[1..]), None);
    }
}
