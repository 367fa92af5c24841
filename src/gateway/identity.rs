//! Where the box's key is: made at the first start, and the same from then on.
//!
//! It is written under another name, synced, given its own name, and the folder is synced before anybody is told of it: a
//! crash leaves the whole key or none, and never another one than was told. Where systemd gives a credential
//! ([`CREDENTIAL`]), that is the key, and none is made. Whoever holds the spool's lock calls this.

use std::{
    io::{self, IoSlice},
    path::{Path, PathBuf},
};

use rustls_pki_types::{PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, pem::PemObject as _};

use crate::{
    district::identity::{Identity, KeyError, PublicKey},
    spool::disk::{Disk, read_up_to, write_all_at},
};

/// The name of systemd's credential: PKCS#8, as DER or PEM.
pub const CREDENTIAL: &str = "chowki-identity";

/// The folder in the data directory, and the files in it.
const FOLDER: &str = "identity";
const SECRET: &str = "key.pk8";
const PUBLIC: &str = "key.pub";

/// What is being written.
const UNFINISHED: &str = ".new";

/// Keys are far smaller.
const LARGEST: usize = 16 << 10;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or the folder.
    #[error("{}: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file holds something else. It is never replaced: what it signed could not be told from what others did.
    #[error("{}: {source}; restore it from a copy, or remove it and have headquarters register the new key", path.display())]
    Damaged {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: KeyError,
    },
    /// No key can be made.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// The box's key, from systemd's credentials or the data directory; made where there is none. Its public half is beside it.
pub fn open(disk: &dyn Disk, data: &Path, credentials: Option<&Path>) -> Result<Identity, Error> {
    let dir = data.join(FOLDER);
    disk.create_dir(&dir).map_err(at(&dir))?;
    let identity = match credential(credentials)? {
        Some(identity) => identity,
        None => own(disk, &dir)?,
    };
    let (public, path) = (identity.public().pem(), dir.join(PUBLIC));
    if read(disk, &path)?.as_deref() != Some(public.as_bytes()) {
        write(disk, &path, public.as_bytes(), |disk, path| disk.create(path))?;
    }
    Ok(identity)
}

/// The public half of a data directory's key. None: no gateway has made one yet.
pub fn public(disk: &dyn Disk, data: &Path) -> Result<Option<PublicKey>, Error> {
    let path = data.join(FOLDER).join(PUBLIC);
    let Some(pem) = read(disk, &path)? else { return Ok(None) };
    let key = from_pem(&pem).ok_or_else(|| KeyError::NotAKey("no public key in PEM".into()));
    key.map(Some).map_err(|source| Error::Damaged { path, source })
}

/// The public key in a PEM file.
pub fn from_pem(pem: &[u8]) -> Option<PublicKey> {
    PublicKey::from_spki(&SubjectPublicKeyInfoDer::from_pem_slice(pem).ok()?)
}

fn credential(dir: Option<&Path>) -> Result<Option<Identity>, Error> {
    let Some(path) = dir.map(|dir| dir.join(CREDENTIAL)) else { return Ok(None) };
    match std::fs::read(&path) {
        Ok(bytes) => parse(&bytes, path).map(Some),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(at(&path)(e)),
    }
}

fn own(disk: &dyn Disk, dir: &Path) -> Result<Identity, Error> {
    let path = dir.join(SECRET);
    let found = match read(disk, &path)? {
        Some(found) => found,
        None => {
            let made = Identity::generate()?;
            write(disk, &path, &made, |disk, path| disk.create_secret(path))?;
            made
        }
    };
    // Its name may be known to the system alone: to a run that could not sync it.
    disk.sync_dir(dir).map_err(at(dir))?;
    parse(&found, path)
}

fn parse(bytes: &[u8], path: PathBuf) -> Result<Identity, Error> {
    let identity = match PrivatePkcs8KeyDer::from_pem_slice(bytes) {
        Ok(der) => Identity::from_pkcs8(der.secret_pkcs8_der()),
        Err(_) => Identity::from_pkcs8(bytes),
    };
    identity.map_err(|source| Error::Damaged { path, source })
}

/// A file, whole. None: there is none.
fn read(disk: &dyn Disk, path: &Path) -> Result<Option<Vec<u8>>, Error> {
    let file = match disk.open_to_read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        file => file.map_err(at(path))?,
    };
    let mut bytes = vec![0; LARGEST];
    let length = read_up_to(&*file, &mut bytes, 0).map_err(at(path))?;
    bytes.truncate(length);
    Ok(Some(bytes))
}

type Create = fn(&dyn Disk, &Path) -> io::Result<std::sync::Arc<dyn crate::spool::disk::DiskFile>>;

/// A file, whole or not at all.
fn write(disk: &dyn Disk, path: &Path, bytes: &[u8], create: Create) -> Result<(), Error> {
    let mut name = path.as_os_str().to_owned();
    name.push(UNFINISHED);
    let unfinished = PathBuf::from(name);
    match disk.remove(&unfinished) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(at(&unfinished)(e)),
        _ => {}
    }
    let written = create(disk, &unfinished).and_then(|file| {
        write_all_at(&*file, &mut [IoSlice::new(bytes)], 0)?;
        file.sync_data()
    });
    written.map_err(at(&unfinished))?;
    disk.rename(&unfinished, path).map_err(at(path))?;
    let dir = path.parent().unwrap_or(path);
    disk.sync_dir(dir).map_err(at(dir))
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    |source| Error::File { path, source }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::PermissionsExt};

    use super::*;
    use crate::{
        district::hex,
        spool::{disk::RealDisk, sim::SimDisk},
    };

    #[test]
    fn the_first_start_makes_a_key_and_every_later_one_has_it() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        assert_eq!(public(&RealDisk, &data).unwrap(), None);
        let key = open(&RealDisk, &data, None).unwrap().public();
        assert_eq!(open(&RealDisk, &data, None).unwrap().public(), key);
        assert_eq!(public(&RealDisk, &data).unwrap(), Some(key));
        let secret = data.join("identity/key.pk8");
        assert_eq!(fs::metadata(&secret).unwrap().permissions().mode() & 0o777, 0o600);
        let mut names: Vec<_> = fs::read_dir(data.join("identity")).unwrap().map(|e| e.unwrap().file_name()).collect();
        names.sort();
        assert_eq!(names, ["key.pk8", "key.pub"]);
        // A public half that somebody changed or lost is written again.
        fs::write(data.join("identity/key.pub"), "other").unwrap();
        assert!(public(&RealDisk, &data).is_err());
        open(&RealDisk, &data, None).unwrap();
        assert_eq!(public(&RealDisk, &data).unwrap(), Some(key));
    }

    #[test]
    fn a_damaged_key_is_never_replaced() {
        let dir = tempfile::tempdir().unwrap();
        open(&RealDisk, dir.path(), None).unwrap();
        let secret = dir.path().join("identity/key.pk8");
        let whole = fs::read(&secret).unwrap();
        for damaged in [&whole[..40], b"", b"no key at all"] {
            fs::write(&secret, damaged).unwrap();
            let error = open(&RealDisk, dir.path(), None).unwrap_err();
            assert!(matches!(error, Error::Damaged { .. }), "{error}");
            assert!(!error.to_string().contains(&hex::encode(&whole)), "{error}");
            assert_eq!(fs::read(&secret).unwrap(), damaged);
        }
    }

    #[test]
    fn a_credential_is_the_key_and_none_is_made() {
        let (dir, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let sealed = Identity::generate().unwrap();
        let key = Identity::from_pkcs8(&sealed).unwrap().public();
        // A folder without this credential changes nothing.
        let own = open(&RealDisk, dir.path(), Some(credentials.path())).unwrap().public();
        assert_ne!(own, key);
        fs::write(credentials.path().join(CREDENTIAL), &sealed).unwrap();
        assert_eq!(open(&RealDisk, dir.path(), Some(credentials.path())).unwrap().public(), key);
        assert_eq!(public(&RealDisk, dir.path()).unwrap(), Some(key));
        let empty = tempfile::tempdir().unwrap();
        open(&RealDisk, empty.path(), Some(credentials.path())).unwrap();
        assert!(!empty.path().join("identity/key.pk8").exists());
        // As openssl writes it: PEM.
        let pem = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEINTuctv5E1hK1bbY8fdp+K06/nwoy/HU++CXqI9EdVhC\n-----END PRIVATE KEY-----\n";
        fs::write(credentials.path().join(CREDENTIAL), pem).unwrap();
        let key = open(&RealDisk, dir.path(), Some(credentials.path())).unwrap().public();
        assert!(
            key.pem().contains("MCowBQYDK2VwAyEAGb9ECWmEzf6FQbrBZ9w7lshQhqowtrbLDFw4rXAxZuE="),
            "RFC 8410, section 10.3"
        );
        fs::write(credentials.path().join(CREDENTIAL), "nothing").unwrap();
        assert!(open(&RealDisk, dir.path(), Some(credentials.path())).is_err());
    }

    #[test]
    fn a_power_cut_or_a_failing_disk_at_any_step_leaves_the_key_that_was_told_or_none() {
        let data = Path::new("/data");
        for seed in 0..400 {
            let mut disk = SimDisk::new(seed);
            let mut told = None;
            for start in 0..6 {
                disk.fail(if seed % 3 == 0 { 20 } else { 0 });
                disk.cut_after(1 + (seed + start * 7) % 12);
                if let Ok(identity) = open(&disk, data, None) {
                    let key = identity.public();
                    assert_eq!(*told.get_or_insert(key), key, "seed {seed}, start {start}");
                }
                disk.cut();
                disk = disk.after_power_cut();
                let keys = disk.list(&data.join("identity")).unwrap();
                assert!(keys.iter().filter(|f| f.name == "key.pk8").count() <= 1);
            }
            let key = open(&disk, data, None).unwrap().public();
            assert_eq!(*told.get_or_insert(key), key, "seed {seed}");
        }
    }

    #[test]
    fn a_run_that_could_not_sync_the_name_tells_nobody_and_the_next_one_syncs_it() {
        let data = Path::new("/data");
        for seed in 0..200 {
            let disk = SimDisk::new(seed);
            // Starts again and again without a power cut in between, while the disk fails.
            disk.fail(20);
            let told = (0..50).find_map(|_| open(&disk, data, None).ok()).unwrap().public();
            let disk = disk.after_power_cut();
            assert_eq!(open(&disk, data, None).unwrap().public(), told, "seed {seed}");
        }
    }
}
