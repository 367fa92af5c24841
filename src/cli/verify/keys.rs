//! The keys that are known to be boxes', as somebody gives them.

use std::path::Path;

use crate::{
    district::{digest::Sha256, identity::PublicKey},
    gateway::identity::from_pem,
};

/// Fingerprints of all that was given. None: nothing was.
pub(super) fn read(given: &[String]) -> Result<Option<Vec<Sha256>>, String> {
    let read: Result<Vec<Vec<Sha256>>, String> = given.iter().map(|text| of(text)).collect();
    read.map(|keys| (!given.is_empty()).then(|| keys.concat()))
}

fn of(text: &str) -> Result<Vec<Sha256>, String> {
    let path = Path::new(text);
    if path.is_dir() {
        return of_folder(path);
    }
    if let Some(key) = said(text) {
        return Ok(vec![key]);
    }
    of_file(path).map(|key| vec![key])
}

fn of_folder(dir: &Path) -> Result<Vec<Sha256>, String> {
    let unreadable = |e: std::io::Error| format!("--key {}: {e}", dir.display());
    let mut keys = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.extension().is_some_and(|e| e == "pub") {
            keys.push(of_file(&path)?);
        }
    }
    if keys.is_empty() {
        return Err(format!("--key {}: there is no *.pub file in it", dir.display()));
    }
    Ok(keys)
}

fn of_file(path: &Path) -> Result<Sha256, String> {
    let name = path.display();
    let bytes = std::fs::read(path).map_err(|e| match e.kind() {
        std::io::ErrorKind::NotFound => {
            format!("--key {name}: that is neither a file, a fingerprint (64 hexadecimal digits) nor a key (base64)")
        }
        _ => format!("--key {name}: {e}"),
    })?;
    let key = from_pem(&bytes).map(|key| key.fingerprint());
    let key = key.or_else(|| said(std::str::from_utf8(&bytes).ok()?.trim()));
    key.ok_or_else(|| format!("--key {name}: it holds no Ed25519 public key (PEM, base64, or its fingerprint)"))
}

/// A fingerprint, or a key in base64.
fn said(text: &str) -> Option<Sha256> {
    let key = || text.parse::<PublicKey>().ok().map(|key| key.fingerprint());
    text.to_ascii_lowercase().parse().ok().or_else(key)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::district::identity::Identity;

    #[test]
    fn a_key_is_known_by_its_file_its_folder_its_text_and_its_fingerprint() {
        let dir = tempfile::tempdir().unwrap();
        let key = Identity::from_pkcs8(&Identity::generate().unwrap()).unwrap().public();
        let fingerprint = key.fingerprint();
        let file = |name: &str, text: &str| {
            let path = dir.path().join(name);
            std::fs::write(&path, text).unwrap();
            path.display().to_string()
        };
        let texts = [
            fingerprint.to_string(),
            fingerprint.to_string().to_uppercase(),
            key.to_string(),
            file("a.pub", &key.pem()),
            file("b.txt", &format!("{key}\n")),
            file("c.txt", &format!("{fingerprint}\n")),
            dir.path().display().to_string(),
        ];
        for text in texts {
            assert_eq!(read(std::slice::from_ref(&text)), Ok(Some(vec![fingerprint])), "{text}");
        }
        assert_eq!(read(&[]), Ok(None));
        let empty = dir.path().join("empty");
        std::fs::create_dir(&empty).unwrap();
        for none in ["no-such-file", empty.to_str().unwrap(), &file("d.pub", "nothing")] {
            assert!(read(&[key.to_string(), none.to_owned()]).is_err(), "{none}");
        }
    }
}
