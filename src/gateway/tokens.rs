//! Tokens that were issued with `chowki token`: a file beside the spool that holds of each only what proves it. Pure, but for
//! [`load`] and [`save`].
//!
//! The gateway reads the file again when it changes, so that a token works, or works no more, within seconds.

use std::{
    fs,
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
};

use aws_lc_rs::rand;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::access::REALM;
use crate::{
    config::Role,
    district::{clock::Utc, digest::sha256, hex},
    wire::digest::Key,
};

/// The file's name in the gateway's data directory.
const NAME: &str = "tokens.toml";

/// What every token begins with, so that one that was lost is known for what it is.
const PREFIX: &str = "chowki_";

/// Of a token: 256 bits.
const RANDOM: usize = 32;

/// What stands at the head of the file.
const HEAD: &str =
    "# Tokens of the API, by `chowki token`. Only hashes are kept; the gateway reads changes within seconds.\n\n";

/// Where the tokens of a gateway are.
pub fn path(data: &Path) -> PathBuf {
    data.join(NAME)
}

/// All of them.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tokens {
    /// In the order of their issue.
    #[serde(default, rename = "token")]
    pub all: Vec<Issued>,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Issued {
    /// By what it is revoked.
    pub id: String,
    /// Who has it: as it stands in an incident's timeline and in the audit log.
    pub name: String,
    /// What it may do.
    pub role: Role,
    /// Which group of the call it belongs to; the first when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// When it was issued.
    pub issued: Utc,
    /// SHA-256 of the token, lower-case hex.
    pub sha256: String,
    /// What RTSP's digest login is checked with (RFC 2617 section 3.2.2.2): it lets in by RTSP, and by nothing else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rtsp: Option<String>,
}

impl Tokens {
    /// Issues a token: what is kept of it, and itself, which is never seen again.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn issue(&mut self, name: &str, role: Role, group: Option<String>, now: Utc) -> io::Result<(Issued, String)> {
        let mut random = [0; RANDOM];
        rand::fill(&mut random).map_err(|_| io::Error::other("the system gives no random numbers"))?;
        let token = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random));
        let sha256 = hex::encode(&sha256(token.as_bytes()));
        let rtsp = Some(Key::new(name, REALM, &token).reveal().to_owned());
        let issued =
            Issued { id: sha256[..8].to_owned(), name: name.to_owned(), role, group, issued: now, sha256, rtsp };
        self.all.push(issued.clone());
        Ok((issued, token))
    }

    /// Takes those of that id or name back; which they were.
    pub fn revoke(&mut self, what: &str) -> Vec<Issued> {
        let (gone, kept) = std::mem::take(&mut self.all).into_iter().partition(|t| t.id == what || t.name == what);
        self.all = kept;
        gone
    }
}

/// Reads the file. None: there is none.
///
/// # Errors
/// When it cannot be read, or is not what `chowki token` writes.
pub fn load(path: &Path) -> io::Result<Option<Tokens>> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(e),
    };
    toml::from_str(&text).map(Some).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e.message().to_owned()))
}

/// Writes the file, whole or not at all; nobody else may read it. It belongs to whom the directory belongs, so that the
/// gateway can read it whoever issues a token.
///
/// # Errors
/// What the system says.
pub fn save(path: &Path, tokens: &Tokens) -> io::Result<()> {
    let text = toml::to_string(tokens).map_err(io::Error::other)?;
    let (dir, new) = (path.parent().unwrap_or(Path::new(".")), path.with_extension("new"));
    let mut file = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
    let owner = fs::metadata(dir)?;
    use std::os::unix::fs::MetadataExt as _;
    let mine = file.metadata()?;
    if (mine.uid(), mine.gid()) != (owner.uid(), owner.gid()) {
        std::os::unix::fs::fchown(&file, Some(owner.uid()), Some(owner.gid()))?;
    }
    file.write_all(HEAD.as_bytes())?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&new, path)?;
    fs::File::open(dir)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_issued_is_kept_as_a_hash_and_can_be_taken_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = path(dir.path());
        assert_eq!(load(&path).unwrap(), None);
        let mut tokens = Tokens::default();
        let now = Utc::from_micros(1_772_366_400_000_000);
        let (one, secret) = tokens.issue("hq", Role::Puller, None, now).unwrap();
        let (_, other) = tokens.issue("desk", Role::Operator, Some("night".into()), now).unwrap();
        assert_ne!(secret, other);
        save(&path, &tokens).unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert!(!text.contains(&secret) && text.contains(&one.sha256), "{text}");
        assert_eq!(load(&path).unwrap(), Some(tokens.clone()));
        use std::os::unix::fs::PermissionsExt as _;
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(tokens.revoke("nobody"), []);
        assert_eq!(tokens.revoke(&one.id), [one]);
        assert_eq!(tokens.revoke("desk").len(), 1);
        save(&path, &tokens).unwrap();
        assert_eq!(load(&path).unwrap(), Some(Tokens::default()), "an empty file is not none: it still says who may");
        fs::write(&path, "[[token]]\nname = 3").unwrap();
        assert!(load(&path).is_err());
    }
}
