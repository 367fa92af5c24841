//! What headquarters holds, as a proof that it is what was sent.
//!
//! A file is read back, from the disk if the system lets us, and compared. S3 answers a put with an ETag: the MD5 of
//! what it stored, unless a key service encrypts it, or the service makes ETags in a way of its own. So an ETag that
//! is not the MD5 proves nothing yet: the object is read back, and its bytes decide. When they were right
//! three times in a row and no ETag ever, the ETags say nothing and are believed no more, until one is an MD5 again.

use std::{
    collections::BTreeMap,
    path::Path as FilePath,
    sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
};

use bytes::Bytes;
use futures::StreamExt;
use md5::{Digest, Md5};
use object_store::{ObjectStoreExt, PutResult, path::Path};
use rustix::fs::{Advice, fadvise};
use tokio::io::AsyncReadExt;
use tracing::warn;

use super::{
    answers::Encrypted,
    objects::{Kind, PutError, Store, classify, directory, parse},
};

/// So many objects in a row whose bytes were right and whose ETag was not their MD5 say that ETags are something else.
const ODD: u32 = 3;

/// More objects of a folder are not listed: no recording has so many.
const MOST: usize = 100_000;

/// An object at headquarters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// Its size in bytes.
    pub size: u64,
    /// Its MD5, where headquarters says it: an S3 service whose ETag was the MD5 of what was last put in this run.
    pub md5: Option<[u8; 16]>,
}

/// What was learnt in this run about a service's ETags.
#[derive(Debug, Default)]
pub(super) struct ETags {
    /// Whether one was the MD5 of what was put.
    matched: AtomicBool,
    /// How many in a row were not, although the bytes were right.
    odd: AtomicU32,
}

impl ETags {
    /// Whether they are MD5s, as far as is known.
    fn are_md5(&self) -> bool {
        self.matched.load(Relaxed) && self.odd.load(Relaxed) == 0
    }
}

impl Store {
    /// The objects in a folder and below it, by the names they were put under. One question for all of them, or one for
    /// each thousand; each has a deadline.
    pub async fn holds(&self, folder: &str) -> Result<BTreeMap<String, Held>, PutError> {
        let path = parse(folder)?;
        let store = self.within(folder, 0, self.store(folder)).await?;
        let known = matches!(&self.kind, Kind::S3(_, etags) if etags.are_md5());
        let mut listing = store.list(Some(&path));
        let mut held = BTreeMap::new();
        loop {
            let next = async { Ok(listing.next().await) };
            let Some(object) = self.within(folder, 0, next).await? else { return Ok(held) };
            let object = object.map_err(|error| classify(folder, &error))?;
            if held.len() == MOST {
                let why = format!("it holds more than {MOST} objects");
                return Err(PutError::Refused { name: folder.to_owned(), why });
            }
            let md5 = object.e_tag.as_deref().filter(|_| known).and_then(md5_in);
            held.insert(object.location.into(), Held { size: object.size, md5 });
        }
    }

    /// Whether headquarters holds exactly these bytes under this name: by its ETag, or else by reading it back. Where we
    /// may not ask, it does not: S3 refuses, to who may not list, to say that there is none.
    pub async fn has(&self, name: &str, bytes: &Bytes) -> Result<bool, PutError> {
        let path = parse(name)?;
        let ask = async {
            let found = self.store(name).await?.head(&path).await;
            found.map_err(|error| classify(name, &error))
        };
        let there = match self.within(name, 0, ask).await {
            Ok(there) => there,
            Err(PutError::Misconfigured { .. } | PutError::Refused { .. }) => return Ok(false),
            Err(later) => return Err(later),
        };
        if there.size != bytes.len() as u64 {
            return Ok(false);
        }
        let is_s3 = matches!(self.kind, Kind::S3(..));
        match there.e_tag.as_deref().filter(|_| is_s3).and_then(md5_in) {
            Some(md5) if md5 == <[u8; 16]>::from(Md5::digest(bytes)) => Ok(true),
            _ => Ok(self.get(name).await?.is_some_and(|held| held == *bytes)),
        }
    }

    /// That S3 holds what was put, by its answer; and if that does not say so, by what it gives back.
    pub(super) async fn prove(
        &self,
        name: &str,
        bytes: &Bytes,
        answer: &PutResult,
        etags: &ETags,
    ) -> Result<(), PutError> {
        let Some(told) = answer.e_tag.as_deref().and_then(md5_in) else { return Ok(()) };
        if told == <[u8; 16]>::from(Md5::digest(bytes)) {
            etags.matched.store(true, Relaxed);
            etags.odd.store(0, Relaxed);
            return Ok(());
        }
        if answer.extensions.get::<Encrypted>().is_some() {
            etags.odd.store(ODD, Relaxed);
            return Ok(());
        }
        if etags.odd.load(Relaxed) >= ODD {
            return Ok(());
        }
        match self.get(name).await {
            Ok(Some(held)) if held == *bytes => {
                warn!(name, "headquarters holds what was sent, but its ETag is not the MD5 of it");
                etags.odd.fetch_add(1, Relaxed);
                Ok(())
            }
            Ok(_) => Err(other_bytes(name, "")),
            Err(error @ PutError::Later { .. }) => Err(error),
            // We may not read: then an ETag that was right before is the only witness.
            Err(_) if etags.matched.load(Relaxed) => Err(other_bytes(name, ", going by its ETag")),
            Err(_) => Ok(()),
        }
    }

    /// That the file holds what was put.
    pub(super) async fn prove_file(
        &self,
        name: &str,
        dir: &FilePath,
        path: &Path,
        bytes: &[u8],
    ) -> Result<(), PutError> {
        let store = directory(name, dir).await?;
        let file = store.path_to_filesystem(path).map_err(|error| classify(name, &error))?;
        let read = async {
            let mut file = tokio::fs::File::open(file).await?;
            // It is synced. Without the copy that was kept in memory, the disk itself has to answer; a file system that
            // cannot forget answers from memory.
            let _ = fadvise(&file, 0, None, Advice::DontNeed);
            let mut held = Vec::with_capacity(bytes.len());
            file.read_to_end(&mut held).await?;
            Ok::<_, std::io::Error>(held)
        };
        match read.await {
            Ok(held) if held == bytes => Ok(()),
            Ok(_) => Err(other_bytes(name, "")),
            Err(error) => {
                Err(PutError::Later { name: name.to_owned(), why: format!("it cannot be read back: {error}") })
            }
        }
    }
}

fn other_bytes(name: &str, how: &str) -> PutError {
    let why = format!("headquarters holds other bytes than were sent{how}");
    PutError::Later { name: name.to_owned(), why }
}

/// The MD5 that an ETag may be. That of an object in several parts has a `-`, and is none.
fn md5_in(e_tag: &str) -> Option<[u8; 16]> {
    let hex = e_tag.trim_matches('"').as_bytes();
    if hex.len() != 32 {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut md5 = [0; 16];
    for (byte, pair) in md5.iter_mut().zip(hex.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(md5)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::uplink::objects;

    #[test]
    fn only_an_etag_of_32_digits_is_an_md5() {
        let md5 = "d41d8cd98f00b204e9800998ecf8427e";
        let empty = <[u8; 16]>::from(Md5::digest(b""));
        assert_eq!(md5_in(&format!("\"{md5}\"")), Some(empty));
        assert_eq!(md5_in(&md5.to_uppercase()), Some(empty));
        for other in ["", "\"\"", "W/\"d41d8cd98f00b204e9800998ecf8427e\"", "d41d8cd98f00b204e9800998ecf8-12", "x"] {
            assert_eq!(md5_in(other), None, "{other}");
        }
        assert_eq!(md5_in("d41d8cd98f00b204e9800998ecf842-2"), None);
    }

    #[tokio::test]
    async fn a_file_that_is_not_what_was_written_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let store = objects::open(&objects::Settings::new(format!("file://{}", dir.path().display()))).unwrap();
        let (name, bytes) = ("a/1.m4s", Bytes::from_static(b"as sent"));
        store.put(name, bytes.clone()).await.unwrap();
        let prove = || async { store.prove_file(name, dir.path(), &parse(name).unwrap(), &bytes).await };
        prove().await.unwrap();
        for other in [&b"as senT"[..], b"as sent, and more", b""] {
            std::fs::write(dir.path().join(name), other).unwrap();
            let error = prove().await.unwrap_err();
            assert!(matches!(error, PutError::Later { .. }) && error.to_string().contains("other bytes"), "{error}");
        }
        std::fs::remove_file(dir.path().join(name)).unwrap();
        assert!(prove().await.unwrap_err().to_string().contains("cannot be read back"));
    }
}
