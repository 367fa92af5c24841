//! Where a mirror is kept: a directory, or an object store. In a directory a recording grows under another name until it is
//! whole, and is gone on with where it stopped; to a store it goes in pieces of a minute, each at once.

use std::{
    io::{self, SeekFrom},
    path::{Path, PathBuf},
};

use bytes::{Bytes, BytesMut};
use tokio::{
    fs,
    io::{AsyncReadExt as _, AsyncSeekExt as _, AsyncWriteExt as _},
};

use super::client::Unpulled;
use crate::{media::manifest::sha256, uplink::objects::Store};

/// A recording in a directory, and one in a store, cover so much.
const HOUR_US: i64 = 3_600_000_000;
const MINUTE_US: i64 = 60_000_000;

/// Where things go.
pub(super) enum Place {
    /// A directory.
    Directory(PathBuf),
    /// An object store.
    Store(Box<Store>),
}

impl Place {
    /// How much one recording covers, in microseconds.
    pub fn piece_us(&self) -> i64 {
        match self {
            Self::Directory(_) => HOUR_US,
            Self::Store(_) => MINUTE_US,
        }
    }

    /// Whether a recording goes on where it stopped.
    pub fn resumes(&self) -> bool {
        matches!(self, Self::Directory(_))
    }

    /// What is there under a name.
    pub async fn get(&self, name: &str) -> Result<Option<Bytes>, Unpulled> {
        match self {
            Self::Directory(dir) => match fs::read(dir.join(name)).await {
                Ok(bytes) => Ok(Some(bytes.into())),
                Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
                Err(e) => Err(unkept(&dir.join(name), &e)),
            },
            Self::Store(store) => store.get(name).await.map_err(|e| Unpulled::Place(e.to_string())),
        }
    }

    /// Whether these bytes are there. In a directory they are read; a store has proved them when they were put.
    pub async fn holds(&self, name: &str, size: u64, hash: &[u8; 32]) -> Result<bool, Unpulled> {
        match self {
            Self::Directory(dir) => {
                let known = fs::metadata(dir.join(name)).await.is_ok_and(|meta| meta.len() == size);
                Ok(known && self.get(name).await?.is_some_and(|bytes| sha256(&bytes) == *hash))
            }
            Self::Store(store) => {
                let held = store.head(name).await.map_err(|e| Unpulled::Place(e.to_string()))?;
                Ok(held == Some(size))
            }
        }
    }

    /// Keeps something under a name, whole or not at all.
    pub async fn put(&self, name: &str, bytes: Bytes) -> Result<(), Unpulled> {
        match self {
            Self::Directory(dir) => {
                let path = dir.join(name);
                let put = async {
                    make_folder(&path).await?;
                    let part = beside(&path, "part");
                    let mut file = fs::File::create(&part).await?;
                    file.write_all(&bytes).await?;
                    file.sync_data().await?;
                    fs::rename(&part, &path).await
                };
                put.await.map_err(|e| unkept(&path, &e))
            }
            Self::Store(store) => store.put(name, bytes).await.map_err(|e| Unpulled::Place(e.to_string())),
        }
    }

    /// A recording under a name, as far as it is there.
    pub async fn partial(&self, name: &str) -> Result<Partial<'_>, Unpulled> {
        let Self::Directory(dir) = self else {
            // The tag of what was put stands beside it.
            let whole = self.get(&format!("{name}.etag")).await?.map(|tag| String::from_utf8_lossy(&tag).into_owned());
            return Ok(Partial {
                place: self,
                name: name.into(),
                len: 0,
                tag: None,
                whole,
                grows: Grows::Here(BytesMut::new()),
            });
        };
        let path = dir.join(name);
        let read = async {
            make_folder(&path).await?;
            let whole = if fs::try_exists(&path).await? { text(&beside(&path, "etag")).await? } else { None };
            let part = beside(&path, "part");
            let mut file =
                fs::OpenOptions::new().create(true).truncate(false).read(true).write(true).open(&part).await?;
            let len = file.seek(SeekFrom::End(0)).await?;
            Ok::<_, io::Error>((whole, text(&beside(&path, "part.etag")).await?, len, file))
        };
        let (whole, tag, len, file) = read.await.map_err(|e| unkept(&path, &e))?;
        Ok(Partial { place: self, name: name.into(), len, tag, whole, grows: Grows::File(path, file) })
    }
}

/// A recording that is on its way.
pub(super) struct Partial<'a> {
    place: &'a Place,
    name: String,
    /// Bytes that are there.
    pub len: u64,
    /// Of what file.
    pub tag: Option<String>,
    /// The tag of the whole file that is there already.
    pub whole: Option<String>,
    grows: Grows,
}

enum Grows {
    File(PathBuf, fs::File),
    Here(BytesMut),
}

impl Partial<'_> {
    /// Begins anew, of the file of that tag.
    pub async fn restart(&mut self, tag: &str) -> Result<(), Unpulled> {
        (self.len, self.tag) = (0, Some(tag.to_owned()));
        match &mut self.grows {
            Grows::Here(bytes) => bytes.clear(),
            Grows::File(path, file) => {
                let begin = async {
                    file.set_len(0).await?;
                    file.seek(SeekFrom::Start(0)).await?;
                    fs::write(beside(path, "part.etag"), tag).await
                };
                begin.await.map_err(|e| unkept(path, &e))?;
            }
        }
        Ok(())
    }

    /// The next bytes.
    pub async fn append(&mut self, bytes: &Bytes) -> Result<(), Unpulled> {
        self.len += bytes.len() as u64;
        match &mut self.grows {
            Grows::Here(all) => all.extend_from_slice(bytes),
            Grows::File(path, file) => file.write_all(bytes).await.map_err(|e| unkept(path, &e))?,
        }
        Ok(())
    }

    /// What is there stays for the next time.
    pub async fn pause(&mut self) -> Result<(), Unpulled> {
        if let Grows::File(path, file) = &mut self.grows {
            file.flush().await.map_err(|e| unkept(path, &e))?;
        }
        Ok(())
    }

    /// It is whole.
    pub async fn finish(mut self, tag: &str) -> Result<(), Unpulled> {
        match &mut self.grows {
            Grows::Here(bytes) => {
                let bytes = std::mem::take(bytes).freeze();
                self.place.put(&self.name, bytes).await?;
                self.place.put(&format!("{}.etag", self.name), tag.to_owned().into()).await
            }
            Grows::File(path, file) => {
                let end = async {
                    file.flush().await?;
                    file.sync_data().await?;
                    fs::rename(beside(path, "part"), &*path).await?;
                    fs::write(beside(path, "etag"), tag).await?;
                    match fs::remove_file(beside(path, "part.etag")).await {
                        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
                        _ => Ok(()),
                    }
                };
                end.await.map_err(|e| unkept(path, &e))
            }
        }
    }
}

async fn make_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => fs::create_dir_all(parent).await,
        None => Ok(()),
    }
}

async fn text(path: &Path) -> io::Result<Option<String>> {
    match fs::File::open(path).await {
        Ok(mut file) => {
            let mut text = String::new();
            file.read_to_string(&mut text).await?;
            Ok(Some(text).filter(|text| !text.is_empty()))
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e),
    }
}

/// `name.mp4.part`: beside a file, with its name first.
fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(".");
    name.push(ending);
    path.with_file_name(name)
}

fn unkept(path: &Path, error: &io::Error) -> Unpulled {
    Unpulled::Place(format!("cannot keep {}: {error}", path.display()))
}
