//! The demo's temporary directory: config, spool, headquarters' disk, log. One for each run, the latest known by a link.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// A run's directory.
pub struct Place {
    dir: PathBuf,
    link: PathBuf,
}

impl Place {
    /// Makes a directory for this run, and clears away those of runs that are over.
    pub fn take() -> io::Result<Self> {
        let home = home();
        match fs::DirBuilder::new().mode(0o700).create(&home) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if !is_ours(&home) {
            let what = format!("{} is somebody else's; remove it, or set TMPDIR to another place", home.display());
            return Err(io::Error::other(what));
        }
        for run in fs::read_dir(&home)?.flatten() {
            let name = run.file_name();
            let pid = name.to_str().and_then(|n| n.strip_prefix("run-"));
            if pid.is_some_and(|pid| !Path::new("/proc").join(pid).exists()) {
                let _ = fs::remove_dir_all(run.path());
            }
        }
        let place = Self { dir: home.join(format!("run-{}", std::process::id())), link: home.join("current") };
        fs::create_dir_all(place.data())?;
        fs::create_dir_all(place.objects())?;
        Ok(place)
    }

    /// The config.
    pub fn config(&self) -> PathBuf {
        self.dir.join("district.toml")
    }
    /// The gateway's spool.
    pub fn data(&self) -> PathBuf {
        self.dir.join("data")
    }
    /// Headquarters' object store.
    pub fn objects(&self) -> PathBuf {
        self.dir.join("headquarters").join("evidence")
    }
    /// The log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("chowki.log")
    }
    /// A file beside the config.
    pub fn file(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Makes this the run that `chowki press` finds.
    pub fn announce(&self) -> io::Result<()> {
        let fresh = self.link.with_extension(std::process::id().to_string());
        let _ = fs::remove_file(&fresh);
        symlink(&self.dir, &fresh)?;
        fs::rename(&fresh, &self.link)
    }

    /// Removes the link, and the directory unless it is to be kept. Returns the directory.
    pub fn leave(self, keep: bool) -> PathBuf {
        if fs::read_link(&self.link).is_ok_and(|to| to == self.dir) {
            let _ = fs::remove_file(&self.link);
        }
        if !keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
        self.dir
    }
}

/// The config of the demo that runs now, if one does.
pub fn running_config() -> Option<PathBuf> {
    config_below(&home())
}

/// Believed only in a directory that nobody else can write to: a config says which secret files are read, and to whom
/// they are sent.
fn config_below(home: &Path) -> Option<PathBuf> {
    let config = home.join("current").join("district.toml");
    (is_ours(home) && config.exists()).then_some(config)
}

/// Whether a path is a directory of ours that nobody else may write to.
fn is_ours(path: &Path) -> bool {
    let ours = |m: fs::Metadata| m.is_dir() && m.uid() == rustix::process::getuid().as_raw() && m.mode() & 0o022 == 0;
    fs::symlink_metadata(path).is_ok_and(ours)
}

fn home() -> PathBuf {
    std::env::temp_dir().join(format!("chowki-demo-{}", rustix::process::getuid().as_raw()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_demo_that_somebody_else_could_have_written_is_not_believed() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("demo");
        fs::create_dir_all(home.join("current")).unwrap();
        fs::write(home.join("current").join("district.toml"), "").unwrap();
        fs::set_permissions(&home, fs::Permissions::from_mode(0o700)).unwrap();
        assert!(config_below(&home).is_some());
        let link = dir.path().join("link");
        symlink(&home, &link).unwrap();
        assert_eq!(config_below(&link), None, "a link may lead anywhere");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(config_below(&home), None);
    }
}
