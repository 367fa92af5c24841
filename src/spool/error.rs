//! What goes wrong in the spool.

use std::{io, path::PathBuf, sync::Arc};

/// Everything that goes wrong in the spool. Says what was being done, where, and what to do next.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// The disk refused an operation.
    #[error("cannot {doing} {path}: {error}{}", remedy(.error))]
    Io {
        /// What was being done, as a verb.
        doing: &'static str,
        /// To which file.
        path: PathBuf,
        /// What the system said.
        error: Arc<io::Error>,
    },
    /// Another process has this directory open.
    #[error("{0} is in use by another process; stop it first")]
    InUse(PathBuf),
    /// The spool was closed before this was durable: it may or may not be there after a restart.
    #[error("the spool was closed before this was on disk")]
    Stopped,
    /// A queue is full. For media: write a gap and go on with the next fragment.
    #[error("the spool's queue is full ({queued} of {limit} bytes wait for the disk)")]
    Full {
        /// Bytes that wait for the disk.
        queued: u64,
        /// The most that may wait.
        limit: u64,
    },
    /// One append is larger than the spool takes.
    #[error("{bytes} bytes at once are more than the {limit} that the spool takes")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The most that is taken.
        limit: u64,
    },
    /// A checkpoint is being written already; try again when its ticket has resolved.
    #[error("a checkpoint is being written already")]
    CheckpointPending,
    /// A stored record does not have the bytes that were written.
    #[error(
        "record at byte {offset} of {path} is damaged ({why}); check the disk (`dmesg`, SMART) and replace it if it goes on"
    )]
    Damaged {
        /// Which segment file.
        path: PathBuf,
        /// Where in it.
        offset: u64,
        /// What does not fit.
        why: &'static str,
    },
    /// The object is no longer held.
    #[error("{0} is no longer held: it was removed to make room")]
    Gone(String),
    /// The index refused an operation. It is set aside and rebuilt from the log.
    #[error("the index cannot {doing}: {error}; it is rebuilt from the log at the next start")]
    Index {
        /// What was being done, as a verb.
        doing: &'static str,
        /// What it said.
        error: String,
    },
}

impl Error {
    pub(super) fn io(doing: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |error| Error::Io { doing, path, error: Arc::new(error) }
    }

    /// Whether the file system said that it is full.
    pub fn is_full_disk(&self) -> bool {
        matches!(self, Error::Io { error, .. } if is_full(error))
    }
}

pub(super) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

fn remedy(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "; make room on this file system",
        io::ErrorKind::PermissionDenied => "; give the gateway's user write access",
        io::ErrorKind::ReadOnlyFilesystem => "; the file system went read-only, see the kernel's log for disk errors",
        _ => "",
    }
}
