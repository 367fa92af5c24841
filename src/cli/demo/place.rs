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
        let found = fs::symlink_metadata(&home)?;
        if !found.is_dir() || found.uid() != rustix::process::getuid().as_raw() {
            return Err(io::Error::other(format!("{} is somebody else's; remove it", home.display())));
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
    let config = home().join("current").join("district.toml");
    config.exists().then_some(config)
}

fn home() -> PathBuf {
    std::env::temp_dir().join(format!("chowki-demo-{}", rustix::process::getuid().as_raw()))
}
