//! Ids as types: a camera's id is never taken for a button's, and no id can break a topic, a path or a URL.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest id a config may give a thing, in bytes.
pub const MAX_ID: usize = 64;

/// Why a text is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Nothing stands there.
    #[error("an id must not be empty")]
    Empty,
    /// Longer than [`MAX_ID`] bytes.
    #[error("an id has at most {MAX_ID} characters, this one has {0}")]
    TooLong(usize),
    /// A character that a topic, a path or a URL could read as something else.
    #[error("an id is made of a-z, A-Z, 0-9, '-', '_' and '.'; {0:?} is not allowed")]
    Character(char),
    /// A '-', '_' or '.' where it begins.
    #[error("an id begins with a letter or digit, not with {0:?}")]
    Begin(char),
    /// In the id of a press, a space, a control character, or one that is not ASCII.
    #[error("the id of a press is made of visible ASCII characters; {0:?} is none")]
    NotVisible(char),
}

fn check(text: &str) -> Result<(), IdError> {
    if text.is_empty() {
        return Err(IdError::Empty);
    }
    if text.len() > MAX_ID {
        return Err(IdError::TooLong(text.len()));
    }
    for (i, c) in text.chars().enumerate() {
        match c {
            _ if c.is_ascii_alphanumeric() => {}
            '-' | '_' | '.' if i > 0 => {}
            '-' | '_' | '.' => return Err(IdError::Begin(c)),
            _ => return Err(IdError::Character(c)),
        }
    }
    Ok(())
}

macro_rules! id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        ///
        /// 1 to [`MAX_ID`] characters of `a-z A-Z 0-9 - _ .`, beginning with a letter or digit.
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(with = "String", extend("minLength" = 1, "maxLength" = MAX_ID, "pattern" = "^[A-Za-z0-9][A-Za-z0-9_.-]*$"))]
        pub struct $name(std::sync::Arc<str>);

        impl $name {
            /// The id as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(text: &str) -> Result<Self, IdError> {
                check(text).map(|()| Self(text.into()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                text.parse()
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

id! {
    /// A city district: one gateway.
    DistrictId
}
id! {
    /// A panic button.
    ButtonId
}
id! {
    /// A camera. A button's own unit has the camera id `unit-{button}`.
    CameraId
}
id! {
    /// A local integration that may read from the broker.
    ClientId
}

impl CameraId {
    /// The camera of a button's own unit. The prefix is reserved: config refuses it for other cameras.
    pub fn of_unit(button: &ButtonId) -> Self {
        Self(format!("{UNIT_PREFIX}{button}").into())
    }
}

impl CameraId {
    /// What an operator says and shows in a call: recorded like a camera. The id is reserved as well.
    pub fn of_operator() -> Self {
        Self(OPERATOR.into())
    }
}

/// See [`CameraId::of_operator`].
pub const OPERATOR: &str = "operator";

/// What the camera ids of units begin with.
pub const UNIT_PREFIX: &str = "unit-";

/// The id a button gave one press. Free text from outside: 1 to 64 visible ASCII characters.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String", extend("minLength" = 1, "maxLength" = MAX_ID, "pattern" = "^[!-~]+$"))]
pub struct PressId(std::sync::Arc<str>);

impl PressId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PressId {
    type Err = IdError;
    fn from_str(text: &str) -> Result<Self, IdError> {
        if text.is_empty() {
            return Err(IdError::Empty);
        }
        if text.len() > MAX_ID {
            return Err(IdError::TooLong(text.len()));
        }
        match text.chars().find(|c| !c.is_ascii_graphic()) {
            Some(c) => Err(IdError::NotVisible(c)),
            None => Ok(Self(text.into())),
        }
    }
}

impl TryFrom<String> for PressId {
    type Error = IdError;
    fn try_from(text: String) -> Result<Self, IdError> {
        text.parse()
    }
}

impl From<PressId> for String {
    fn from(id: PressId) -> Self {
        id.0.as_ref().to_owned()
    }
}

impl fmt::Display for PressId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An incident: a UUIDv7 (RFC 9562 section 5.7) whose random part is derived from what made it, so that making it
/// twice makes the same incident.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
#[schemars(with = "String")]
pub struct IncidentId(uuid::Uuid);

impl IncidentId {
    /// The id of the incident that `key` made at `unix_ms` (milliseconds since 1970, UTC).
    pub fn derive(unix_ms: u64, key: &[u8]) -> Self {
        let hash = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, key);
        let mut random = [0u8; 10];
        random.copy_from_slice(&hash.as_ref()[..10]);
        Self(uuid::Builder::from_unix_timestamp_millis(unix_ms, &random).into_uuid())
    }
}

impl FromStr for IncidentId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, uuid::Error> {
        uuid::Uuid::parse_str(text).map(Self)
    }
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.hyphenated().fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_refuse_what_a_topic_or_path_would_misread() {
        for bad in ["", "a/b", "+", "#", "../x", "-x", ".", "a b", "ü", "$SYS"] {
            assert!(bad.parse::<ButtonId>().is_err(), "{bad:?}");
        }
        assert!("saddar-01".parse::<ButtonId>().is_ok());
        assert_eq!("..".parse::<ButtonId>(), Err(IdError::Begin('.')));
        assert_eq!("a/b".parse::<ButtonId>(), Err(IdError::Character('/')));
        assert_eq!("x".repeat(65).parse::<ButtonId>(), Err(IdError::TooLong(65)));
    }

    #[test]
    fn a_schema_of_an_id_says_what_is_taken_and_no_more() {
        let press: serde_json::Value = schemars::schema_for!(PressId).into();
        assert_eq!((&press["minLength"], &press["maxLength"]), (&1.into(), &64.into()), "{press}");
        assert_eq!(press["pattern"], "^[!-~]+$");
        assert!("!~".parse::<PressId>().is_ok() && "a b".parse::<PressId>().is_err());
        let button: serde_json::Value = schemars::schema_for!(ButtonId).into();
        assert_eq!((&button["minLength"], &button["maxLength"]), (&1.into(), &64.into()), "{button}");
        assert_eq!(button["pattern"], "^[A-Za-z0-9][A-Za-z0-9_.-]*$");
    }

    #[test]
    fn the_same_key_at_the_same_time_makes_the_same_incident() {
        let a = IncidentId::derive(1_700_000_000_000, b"saddar-01\0p1");
        assert_eq!(a, IncidentId::derive(1_700_000_000_000, b"saddar-01\0p1"));
        assert_ne!(a, IncidentId::derive(1_700_000_000_000, b"saddar-01\0p2"));
        assert_eq!(a.to_string().as_bytes()[14], b'7');
    }
}
