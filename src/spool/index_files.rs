//! The index's directory: opened with care, and set aside when it is no good.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use super::{error::Error, index::Index};

/// How many indexes that were set aside are kept.
const KEEP_BROKEN: usize = 2;

/// Opens the index. A marker stands beside it meanwhile: when an earlier process died while opening it (sled may panic
/// on what it finds), it is not opened again.
pub(super) fn open(dir: &Path) -> Result<Index, String> {
    let marker = dir.join("index.opening");
    if marker.exists() {
        return Err("the process died while opening it".into());
    }
    fs::write(&marker, "").map_err(|e| format!("cannot write {}: {e}", marker.display()))?;
    let opened = Index::open(&dir.join("index")).map_err(|e| e.to_string());
    if opened.is_ok() {
        let _ = fs::remove_file(&marker);
    }
    opened
}

/// Sets the index aside and opens an empty one.
pub(super) fn fresh(dir: &Path, why: &str) -> Result<Index, Error> {
    let path = dir.join("index");
    if path.exists() {
        let aside = set_aside(dir, &path).map_err(Error::io("set aside", &path))?;
        tracing::error!(why, aside = %aside.display(), "the index is built anew from the log");
    }
    let index = Index::open(&path)?;
    let _ = fs::remove_file(dir.join("index.opening"));
    Ok(index)
}

fn set_aside(dir: &Path, path: &Path) -> std::io::Result<PathBuf> {
    let mut broken: BTreeSet<u64> = BTreeSet::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let number: Option<u64> =
            name.to_str().and_then(|n| n.strip_prefix("index.broken-")).and_then(|n| n.parse().ok());
        broken.extend(number);
    }
    let name = |n: u64| dir.join(format!("index.broken-{n}"));
    let aside = name(broken.last().map_or(1, |n| n + 1));
    fs::rename(path, &aside)?;
    let surplus = (broken.len() + 1).saturating_sub(KEEP_BROKEN);
    for old in broken.into_iter().take(surplus) {
        let _ = fs::remove_dir_all(name(old));
    }
    Ok(aside)
}
