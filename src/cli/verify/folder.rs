//! Incidents' folders on a disk: where they are, and what is in them. Objects are hashed piece by piece, however large.

use std::{
    collections::BTreeMap,
    fs,
    io::{self, Read as _},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest::{Context, SHA256};

use crate::{
    district::{
        digest::{Sha256, fixed},
        ids::IncidentId,
    },
    host::clock,
    media::{
        audit::{File, Folder, is_text},
        proof::{DOCUMENT, PROOF},
    },
};

/// Read at a time.
const PIECE: usize = 1 << 20;

/// No list or document of ours is larger.
const LARGEST_TEXT: u64 = 64 << 20;

/// Nobody takes longer from a document to its proof.
const FRESH: Duration = Duration::from_secs(60);

/// Incidents are not looked for deeper than this.
const DEEPEST: usize = 8;

/// Beside incidents in a store, and full of other things.
const OTHERS: [&str; 2] = ["recordings", "identity"];

/// The folders of incidents: this one, or those in it and below, in order of their names.
pub(super) fn incidents(dir: &Path) -> io::Result<Vec<PathBuf>> {
    // "." has no name of its own, and that may say that it is an incident's.
    let dir = fs::canonicalize(dir)?;
    let mut found = Vec::new();
    look(&dir, DEEPEST, &mut found)?;
    Ok(found)
}

fn look(dir: &Path, depth: usize, found: &mut Vec<PathBuf>) -> io::Result<()> {
    let named = dir.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.parse::<IncidentId>().is_ok());
    if named || dir.join(PROOF).is_file() || dir.join(DOCUMENT).is_file() {
        found.push(dir.to_owned());
        return Ok(());
    }
    let mut below = Vec::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let other = OTHERS.iter().any(|other| entry.file_name() == *other);
        if entry.file_type()?.is_dir() && !other {
            below.push(entry.path());
        }
    }
    below.sort();
    match depth.checked_sub(1) {
        Some(depth) => below.iter().try_for_each(|dir| look(dir, depth, found)),
        None => Ok(()),
    }
}

/// How many bytes are in a folder.
pub(super) fn bytes(dir: &Path) -> u64 {
    let size = |path: &PathBuf| fs::symlink_metadata(path).map_or(0, |meta| meta.len());
    files(dir).values().flatten().map(size).sum()
}

/// Everything in an incident's folder. `read` is told of each piece.
pub(super) fn read(dir: &Path, read: &mut dyn FnMut(usize)) -> Folder {
    let name = dir.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    let mut folder = Folder { name, files: BTreeMap::new() };
    // Texts first, and of these the proof: what is put meanwhile is newer than it.
    let listed = files(dir);
    let texts = [PROOF, DOCUMENT].into_iter().map(str::to_owned).chain(listed.keys().filter(|n| is_text(n)).cloned());
    let others = files(dir).into_keys().filter(|n| !is_text(n));
    let names: Vec<_> = texts.chain(others).collect();
    for name in names {
        if folder.files.contains_key(&name) {
            continue;
        }
        let path = dir.join(&name);
        match content(&path, &name, read) {
            // It has gone meanwhile, or was never there.
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            file => drop(folder.files.insert(name, file.map_err(|e| format!("it cannot be read: {e}")))),
        }
    }
    for (name, path) in listed {
        if let Err(e) = path {
            folder.files.insert(name, Err(format!("it cannot be read: {e}")));
        }
    }
    // What was being uploaded has its name now.
    folder.files.retain(|name, _| fs::symlink_metadata(dir.join(name)).is_ok());
    folder
}

/// Whether the proof or the document was written a moment ago: then somebody may be at it.
pub(super) fn is_fresh(dir: &Path) -> bool {
    let written = |name: &str| fs::metadata(dir.join(name)).and_then(|meta| meta.modified()).ok();
    let since = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let now = Duration::from_millis(clock::wall().unix_ms());
    // Of a clock that is behind too.
    [PROOF, DOCUMENT].into_iter().filter_map(written).any(|at| since(at) + FRESH >= now)
}

/// Whether the proof or the document is another one than was read.
pub(super) fn has_news(dir: &Path, folder: &Folder) -> bool {
    let differs = |name: &str| {
        let known = folder.files.get(name).and_then(|file| file.as_ref().ok()).map(|file| file.sha256);
        let now = content(&dir.join(name), name, &mut |_| {}).ok().map(|file| file.sha256);
        known != now
    };
    differs(PROOF) || differs(DOCUMENT)
}

/// Every file below a folder by its name from there; and folders that cannot be listed.
fn files(dir: &Path) -> BTreeMap<String, io::Result<PathBuf>> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![(String::new(), dir.to_owned())];
    while let Some((prefix, dir)) = dirs.pop() {
        let entries = match fs::read_dir(&dir).and_then(Iterator::collect::<io::Result<Vec<_>>>) {
            Ok(entries) => entries,
            Err(e) => {
                found.insert(prefix.trim_end_matches('/').to_owned(), Err(e));
                continue;
            }
        };
        for entry in entries {
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                dirs.push((name + "/", entry.path()));
            } else {
                found.insert(name, Ok(entry.path()));
            }
        }
    }
    found
}

fn content(path: &Path, name: &str, read: &mut dyn FnMut(usize)) -> io::Result<File> {
    // A link leads elsewhere, a pipe never ends.
    if !fs::symlink_metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
    }
    let mut file = fs::File::open(path)?;
    if is_text(name) {
        let mut bytes = Vec::new();
        file.take(LARGEST_TEXT + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > LARGEST_TEXT {
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 64 MiB"));
        }
        read(bytes.len());
        return Ok(File { size: bytes.len() as u64, sha256: Sha256::of(&bytes), text: Some(bytes) });
    }
    let (mut hash, mut size, mut piece) = (Context::new(&SHA256), 0, vec![0; PIECE]);
    loop {
        match file.read(&mut piece) {
            Ok(0) => break,
            Ok(n) => {
                hash.update(&piece[..n]);
                size += n as u64;
                read(n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(File { size, sha256: Sha256::new(fixed(hash.finish().as_ref())), text: None })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "01920000-0000-7000-8000-000000000001";

    #[test]
    fn incidents_are_found_wherever_they_lie_and_an_empty_one_too() {
        let dir = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(dir.path()).unwrap();
        let make = |name: &str, file: &str| {
            fs::create_dir_all(root.join(name)).unwrap();
            if !file.is_empty() {
                fs::write(root.join(name).join(file), "x").unwrap();
            }
            root.join(name)
        };
        let empty = make(&format!("saddar/incidents/{ID}"), "");
        let copied = make("copies/from the bazaar", PROOF);
        make("saddar/recordings/cam-1/2026-11-27", PROOF);
        make("saddar/identity", "a.pub");
        assert_eq!(incidents(&root).unwrap(), [copied, empty.clone()]);
        assert_eq!(incidents(&empty).unwrap(), [empty]);
        assert!(incidents(&root.join("none")).is_err());
        assert!(incidents(&root.join("saddar/identity")).unwrap().is_empty());
    }

    #[test]
    fn what_is_large_is_hashed_and_not_kept_and_what_is_no_file_is_not_read() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("cam-1")).unwrap();
        let large = vec![7; PIECE + 3];
        fs::write(dir.path().join("cam-1/00001.m4s"), &large).unwrap();
        fs::write(dir.path().join("cam-1/manifest.json"), "{}").unwrap();
        std::os::unix::fs::symlink("/dev/zero", dir.path().join("cam-1/00002.m4s")).unwrap();
        let mut bytes = 0;
        let folder = read(dir.path(), &mut |n| bytes += n);
        assert_eq!(bytes, large.len() + 2);
        let file = |name: &str| folder.files[name].clone();
        let wanted = File { size: large.len() as u64, sha256: Sha256::of(&large), text: None };
        assert_eq!(file("cam-1/00001.m4s"), Ok(wanted));
        assert_eq!(file("cam-1/manifest.json").unwrap().text.as_deref(), Some(b"{}".as_slice()));
        assert!(file("cam-1/00002.m4s").unwrap_err().contains("no regular file"));
        assert_eq!(folder.files.len(), 3);
        assert!(!has_news(dir.path(), &folder));
        fs::write(dir.path().join(DOCUMENT), "new").unwrap();
        assert!(has_news(dir.path(), &folder));
    }
}
