//! What a config is checked against outside itself: files, ports, disk and memory. Pure.
//!
//! The machine itself is in `machine`; tests bring hosts of their own.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use crate::district::clock::Utc;

/// The host that a config is for. What a host does not say is not checked.
pub trait Host {
    /// The path that a file name in the config means.
    fn resolve(&self, name: &str) -> PathBuf {
        PathBuf::from(name)
    }
    /// Reads a file; `None`: this host has no files, any name will do.
    ///
    /// # Errors
    /// Whatever the system says.
    fn read(&self, _path: &Path) -> Option<io::Result<FileRead>> {
        None
    }
    /// Whether an address can be listened on now; `None`: unknown.
    fn listen(&self, _at: SocketAddr) -> Option<io::Result<()>> {
        None
    }
    /// The file system a folder is on, or would be made on; `None`: unknown.
    ///
    /// # Errors
    /// When the folder neither is there nor can be made, or cannot be written.
    fn disk(&self, _dir: &Path) -> Option<io::Result<DiskSpace>> {
        None
    }
    /// Bytes of memory; `None`: unknown.
    fn memory(&self) -> Option<u64> {
        None
    }
    /// Wall time, for certificates; `None`: unknown.
    fn now(&self) -> Option<Utc> {
        None
    }
}

/// A file that was read.
#[derive(Debug, Clone)]
pub struct FileRead {
    /// What is in it.
    pub bytes: Vec<u8>,
    /// Users of this machine beside its owner and group can read it.
    pub world_readable: bool,
}

/// A file system.
#[derive(Debug, Clone, Copy)]
pub struct DiskSpace {
    /// Its size in bytes.
    pub total: u64,
}

/// A host that knows nothing: only the text itself is checked, and secrets stay empty. For import and tests; nothing
/// can run on what it gives.
#[derive(Debug, Clone, Copy, Default)]
pub struct Nowhere;

impl Host for Nowhere {}
