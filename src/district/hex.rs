//! Digests as lower-case hex digits, in documents and where they are stored.

use std::fmt::Write;

use serde::{Deserialize, Deserializer, Serializer, de::Error};

/// Two digits a byte.
pub fn encode(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// 32 bytes from 64 digits. None: it is something else.
pub fn decode(text: &str) -> Option<[u8; 32]> {
    let mut out = [0; 32];
    if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    for (i, byte) in out.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&text[i * 2..i * 2 + 2], 16).ok()?;
    }
    Some(out)
}

/// For serde's `with`.
///
/// # Errors
/// What the serializer says.
pub fn serialize<S: Serializer>(bytes: &[u8; 32], s: S) -> Result<S::Ok, S::Error> {
    s.serialize_str(&encode(bytes))
}

/// For serde's `with`.
///
/// # Errors
/// When it is not 64 digits.
pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<[u8; 32], D::Error> {
    decode(&String::deserialize(d)?).ok_or_else(|| D::Error::custom("not 64 hex digits"))
}

/// The same of what may not be there.
pub mod maybe {
    use super::{Deserializer, Serializer};

    /// For serde's `with`.
    ///
    /// # Errors
    /// What the serializer says.
    #[allow(clippy::ref_option, reason = "serde asks so")]
    pub fn serialize<S: Serializer>(bytes: &Option<[u8; 32]>, s: S) -> Result<S::Ok, S::Error> {
        match bytes {
            Some(bytes) => super::serialize(bytes, s),
            None => s.serialize_none(),
        }
    }

    /// For serde's `with`.
    ///
    /// # Errors
    /// When it is not 64 digits.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<[u8; 32]>, D::Error> {
        super::deserialize(d).map(Some)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_written_is_read_and_nothing_else() {
        let bytes = std::array::from_fn(|i| (i * 7) as u8);
        assert_eq!(super::decode(&super::encode(&bytes)), Some(bytes));
        for text in ["", "00", &"g".repeat(64), &"\u{e9}".repeat(32), &"+1".repeat(32)] {
            assert_eq!(super::decode(text), None, "{text}");
        }
    }
}
