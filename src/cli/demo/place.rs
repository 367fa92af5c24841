//! The demo's temporary directory: config, spool, headquarters' disk, log. One for each run; of those that run, a link
//! leads to the one that was ready last.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, MetadataExt, symlink},
    path::{Path, PathBuf},
};

/// A run's directory.
pub struct Place {
    home: PathBuf,
    dir: PathBuf,
}

/// What a run's directory is called before the process id.
const RUN: &str = "run-";
/// The link to the run that `chowki press` finds.
const LINK: &str = "current";
/// What stands in a run's directory once everything in it can be reached.
const READY: &str = "ready";
/// A run's config.
const CONFIG: &str = "district.toml";

impl Place {
    /// Makes a directory for this run, and clears away those of runs that are over.
    pub fn take() -> io::Result<Self> {
        Self::take_below(home(), std::process::id())
    }

    fn take_below(home: PathBuf, pid: u32) -> io::Result<Self> {
        match fs::DirBuilder::new().mode(0o700).create(&home) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        if !is_ours(&home) {
            let what = format!("{} is somebody else's; remove it, or set TMPDIR to another place", home.display());
            return Err(io::Error::other(what));
        }
        for run in fs::read_dir(&home)?.flatten() {
            if runs(&run.path()) == Some(false) {
                let _ = fs::remove_dir_all(run.path());
            }
        }
        let place = Self { dir: home.join(format!("{RUN}{pid}")), home };
        fs::create_dir_all(place.data())?;
        fs::create_dir_all(place.objects())?;
        Ok(place)
    }

    /// The config.
    pub fn config(&self) -> PathBuf {
        self.dir.join(CONFIG)
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
        fs::write(self.dir.join(READY), "")?;
        let fresh = self.dir.join(LINK);
        let _ = fs::remove_file(&fresh);
        symlink(&self.dir, &fresh)?;
        fs::rename(&fresh, self.home.join(LINK))
    }

    /// Removes the link if it still leads here, and the directory unless it is to be kept. Returns the directory.
    pub fn leave(self, keep: bool) -> PathBuf {
        let _ = fs::remove_file(self.dir.join(READY));
        let link = self.home.join(LINK);
        if fs::read_link(&link).is_ok_and(|to| to == self.dir) {
            let _ = fs::remove_file(&link);
        }
        if !keep {
            let _ = fs::remove_dir_all(&self.dir);
        }
        self.dir
    }
}

/// The config of the demo that became ready last of those that run now, if any does.
pub fn running_config() -> Option<PathBuf> {
    config_below(&home())
}

/// Believed only in a directory that nobody else can write to: a config says which secret files are read, and to whom
/// they are sent.
fn config_below(home: &Path) -> Option<PathBuf> {
    if !is_ours(home) {
        return None;
    }
    let ready_since = |run: &Path| {
        let since = fs::metadata(run.join(READY)).and_then(|m| m.modified()).ok()?;
        (runs(run) == Some(true)).then_some(since)
    };
    let linked = fs::read_link(home.join(LINK)).ok().filter(|run| ready_since(run).is_some());
    // The one that the link led to may be over, others not.
    let others = || fs::read_dir(home).ok()?.flatten().map(|run| run.path()).max_by_key(|run| ready_since(run));
    let run = linked.or_else(others).filter(|run| ready_since(run).is_some())?;
    Some(run.join(CONFIG))
}

/// Whether the process of a run's directory is there; `None` when it is no run's directory.
fn runs(dir: &Path) -> Option<bool> {
    let pid = dir.file_name()?.to_str()?.strip_prefix(RUN)?;
    Some(Path::new("/proc").join(pid).exists())
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
        let place = Place::take_below(home.clone(), std::process::id()).unwrap();
        assert_eq!(config_below(&home), None, "nothing there can be reached yet");
        place.announce().unwrap();
        assert_eq!(config_below(&home), Some(place.config()));
        let link = dir.path().join("link");
        symlink(&home, &link).unwrap();
        assert_eq!(config_below(&link), None, "a link may lead anywhere");
        fs::set_permissions(&home, fs::Permissions::from_mode(0o777)).unwrap();
        assert_eq!(config_below(&home), None);
    }

    #[test]
    fn the_demo_that_still_runs_is_found_when_a_later_one_has_ended() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("demo");
        // Processes that are there: this one and the first of all.
        let first = Place::take_below(home.clone(), std::process::id()).unwrap();
        first.announce().unwrap();
        let second = Place::take_below(home.clone(), 1).unwrap();
        second.announce().unwrap();
        assert_eq!(config_below(&home), Some(second.config()));
        let over = second.leave(true);
        assert!(over.exists());
        assert_eq!(config_below(&home), Some(first.config()));
        // One that was killed leaves its link behind.
        let killed = Place { dir: home.join(format!("{RUN}{}", u32::MAX)), home: home.clone() };
        fs::create_dir_all(&killed.dir).unwrap();
        killed.announce().unwrap();
        assert_eq!(config_below(&home), Some(first.config()));
        first.leave(false);
        assert_eq!(config_below(&home), None);
    }
}
