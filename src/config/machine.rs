//! This machine, as a host for a config.

use std::{
    fs,
    io::{self, Read as _},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use rustix::fs::{Access, access, statvfs};

use super::host::{DiskSpace, FileRead, Host};
use crate::district::clock::Utc;

/// Certificates and secrets are far smaller.
const LARGEST_FILE: u64 = 1 << 20;

/// Whether listening ports are tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ports {
    /// Bind each for a moment: `check`, when the gateway is not running.
    Try,
    /// Leave them alone: they are about to be bound in earnest, or the gateway is running.
    Leave,
}

/// This machine, with file names relative to a folder.
#[derive(Debug, Clone)]
pub struct Machine {
    dir: PathBuf,
    credentials: Option<PathBuf>,
    ports: Ports,
}

impl Machine {
    /// Files are looked for in `dir`, the config's folder, and before that in systemd's `$CREDENTIALS_DIRECTORY`.
    pub fn new(dir: &Path, ports: Ports) -> Self {
        Self { dir: dir.to_owned(), credentials: credentials(), ports }
    }
    /// The same with another credentials folder, or none.
    pub fn with_credentials(mut self, dir: Option<PathBuf>) -> Self {
        self.credentials = dir;
        self
    }
}

impl Host for Machine {
    fn resolve(&self, name: &str) -> PathBuf {
        let name = Path::new(name);
        if let (Some(dir), Some(file)) = (&self.credentials, name.file_name())
            && name.is_relative()
        {
            // A credential's name holds no slash: `buttons/a.password` is `a.password` there.
            let path = dir.join(file);
            if path.is_file() {
                return path;
            }
        }
        self.dir.join(name)
    }

    fn read(&self, path: &Path) -> Option<io::Result<FileRead>> {
        Some(read(path))
    }

    fn listen(&self, at: SocketAddr) -> Option<io::Result<()>> {
        (self.ports == Ports::Try).then(|| TcpListener::bind(at).map(drop))
    }

    fn disk(&self, dir: &Path) -> Option<io::Result<DiskSpace>> {
        Some(disk(dir))
    }

    fn memory(&self) -> Option<u64> {
        let text = fs::read_to_string("/proc/meminfo").ok()?;
        let line = text.lines().find(|l| l.starts_with("MemTotal:"))?;
        line.split_whitespace().nth(1)?.parse::<u64>().ok().map(|kib| kib * 1024)
    }

    fn now(&self) -> Option<Utc> {
        Some(crate::host::clock::wall())
    }
}

/// The folder of this service's credentials, where systemd gives one.
pub fn credentials() -> Option<PathBuf> {
    std::env::var_os("CREDENTIALS_DIRECTORY").filter(|d| !d.is_empty()).map(PathBuf::from)
}

fn read(path: &Path) -> io::Result<FileRead> {
    // A pipe or a device would hold the gateway up for ever.
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is not a regular file"));
    }
    let file = fs::File::open(path)?;
    let mode = file.metadata()?.permissions().mode();
    let mut bytes = Vec::new();
    file.take(LARGEST_FILE + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > LARGEST_FILE {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "it is larger than 1 MiB"));
    }
    Ok(FileRead { bytes, world_readable: mode & 0o004 != 0 })
}

/// Looks at the folder, or at the nearest one above it that is there, without making anything.
fn disk(dir: &Path) -> io::Result<DiskSpace> {
    let there = dir.ancestors().find(|p| p.symlink_metadata().is_ok());
    let there = there.filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if !fs::metadata(there)?.is_dir() {
        return Err(io::Error::new(io::ErrorKind::NotADirectory, format!("{} is not a folder", there.display())));
    }
    access(there, Access::WRITE_OK | Access::EXEC_OK)?;
    let stat = statvfs(there)?;
    Ok(DiskSpace { total: stat.f_blocks.saturating_mul(stat.f_frsize) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_wins_over_the_file_beside_the_config() {
        let (config, credentials) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        fs::create_dir(config.path().join("buttons")).unwrap();
        fs::write(config.path().join("buttons/a.password"), "beside").unwrap();
        let host = Machine::new(config.path(), Ports::Leave).with_credentials(Some(credentials.path().to_owned()));
        assert_eq!(host.resolve("buttons/a.password"), config.path().join("buttons/a.password"));
        fs::write(credentials.path().join("a.password"), "credential").unwrap();
        assert_eq!(host.resolve("buttons/a.password"), credentials.path().join("a.password"));
        assert_eq!(host.resolve("/etc/a.password"), Path::new("/etc/a.password"));
    }

    #[test]
    fn a_folder_that_can_be_made_is_measured_where_it_would_be() {
        let dir = tempfile::tempdir().unwrap();
        assert!(disk(&dir.path().join("a/b/c")).unwrap().total > 0);
        fs::write(dir.path().join("file"), "").unwrap();
        assert!(disk(&dir.path().join("file/b")).is_err());
        assert!(!dir.path().join("a").exists());
    }

    #[test]
    fn folders_devices_and_huge_files_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        assert!(read(dir.path()).is_err());
        assert!(read(Path::new("/dev/zero")).is_err());
        fs::write(dir.path().join("huge"), vec![b'x'; 2 << 20]).unwrap();
        assert_eq!(read(&dir.path().join("huge")).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
    }
}
