//! The file layer: the few operations durability rests on, so that tests can put a failing disk underneath.

use std::{
    fs, io,
    io::IoSlice,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::Path,
    sync::Arc,
};

use rustix::fs::FallocateFlags;

/// A file name in a directory and its length in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// Its name.
    pub name: String,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A file system, as far as the spool needs one.
pub trait Disk: Send + Sync {
    /// Makes a directory and those above it, durably; no error when it is there.
    fn create_dir(&self, dir: &Path) -> io::Result<()>;
    /// The files of a directory, in no order.
    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>>;
    /// A new empty file; an error when the name is taken. The name is durable after [`Disk::sync_dir`].
    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// As [`Disk::create`], for a secret: for its owner alone.
    fn create_secret(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// A file that is there.
    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// A file that is there, to be read only.
    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>>;
    /// Renames within a directory; durable after [`Disk::sync_dir`].
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Removes a file; durable after [`Disk::sync_dir`].
    fn remove(&self, path: &Path) -> io::Result<()>;
    /// Makes names durable.
    fn sync_dir(&self, dir: &Path) -> io::Result<()>;
    /// Bytes free for this process on the directory's file system.
    fn free(&self, dir: &Path) -> io::Result<u64>;
    /// Takes the directory for this process until the guard is dropped; `WouldBlock` when another has it.
    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
    /// As [`Disk::lock`], but writes nothing, not even the file that is locked: without one nobody has ever been here.
    fn lock_to_read(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>>;
}

/// An open file. All offsets in bytes.
pub trait DiskFile: Send + Sync {
    /// Its length.
    fn size(&self) -> io::Result<u64>;
    /// Reads at most `buf.len()` bytes; 0 only at the end of the file.
    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize>;
    /// Writes some of the bytes and says how many, as pwritev(2).
    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;
    /// Cuts the file to `len`, and gives back space allocated beyond.
    fn truncate(&self, len: u64) -> io::Result<()>;
    /// Reserves space up to `len` without changing the length: writes below it cannot fail for want of space.
    fn allocate(&self, len: u64) -> io::Result<()>;
    /// Makes what was written durable, as fdatasync(2). After an error nothing written since the last success may be
    /// trusted, even if a later call succeeds.
    fn sync_data(&self) -> io::Result<()>;
}

/// Most slices that one pwritev(2) takes.
const MAX_SLICES: usize = 1024;

/// Bytes written at a time, up to a multiple of that in the file. For larger writes the kernel takes large pieces of memory
/// that nobody has touched lately: on a virtual machine a fifth of all that recording evidence cost. Writes that begin and
/// end anywhere have two pieces of memory for one, and take a third longer.
const WRITE: usize = 64 << 10;

/// Writes all the bytes.
pub fn write_all_at(file: &dyn DiskFile, mut bufs: &mut [IoSlice<'_>], mut offset: u64) -> io::Result<()> {
    IoSlice::advance_slices(&mut bufs, 0);
    while !bufs.is_empty() {
        match file.write_at(&some(bufs, WRITE - (offset % WRITE as u64) as usize), offset) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(n) => {
                offset += n as u64;
                IoSlice::advance_slices(&mut bufs, n);
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(())
}

/// What one write takes.
fn some<'a>(bufs: &'a [IoSlice<'_>], mut room: usize) -> Vec<IoSlice<'a>> {
    let fits = |buf: &'a IoSlice<'_>| {
        let taken: &[u8] = buf.get(..room).unwrap_or(buf);
        room -= taken.len();
        (!taken.is_empty()).then(|| IoSlice::new(taken))
    };
    bufs.iter().take(MAX_SLICES).map_while(fits).collect()
}

/// Reads until `buf` is full or the file ends; says how many bytes.
pub fn read_up_to(file: &dyn DiskFile, buf: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut done = 0;
    while done < buf.len() {
        match file.read_at(&mut buf[done..], offset + done as u64) {
            Ok(0) => break,
            Ok(n) => done += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(done)
}

/// The machine's own file system.
#[derive(Debug, Clone, Copy, Default)]
pub struct RealDisk;

impl Disk for RealDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        if dir.is_dir() {
            return Ok(());
        }
        let parent = dir.parent().filter(|p| !p.as_os_str().is_empty());
        if let Some(parent) = parent {
            self.create_dir(parent)?;
        }
        match fs::create_dir(dir) {
            Err(e) if e.kind() != io::ErrorKind::AlreadyExists => return Err(e),
            _ => {}
        }
        self.sync_dir(parent.unwrap_or(Path::new(".")))
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let mut found = Vec::new();
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if let (true, Ok(name)) = (meta.is_file(), entry.file_name().into_string()) {
                found.push(Listed { name, bytes: meta.len() });
            }
        }
        Ok(found)
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn create_secret(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let file = fs::OpenOptions::new().read(true).write(true).open(path)?;
        Ok(Arc::new(RealFile(file)))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(RealFile(fs::File::open(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn sync_dir(&self, dir: &Path) -> io::Result<()> {
        fs::File::open(dir)?.sync_all()
    }

    fn free(&self, dir: &Path) -> io::Result<u64> {
        let stat = rustix::fs::statvfs(dir)?;
        Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
    }

    fn lock(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        let path = dir.join("lock");
        taken(fs::OpenOptions::new().write(true).create(true).truncate(false).open(path)?)
    }

    fn lock_to_read(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        match fs::File::open(dir.join("lock")) {
            Ok(file) => taken(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Box::new(())),
            Err(e) => Err(e),
        }
    }
}

fn taken(file: fs::File) -> io::Result<Box<dyn Send + Sync>> {
    match file.try_lock() {
        Ok(()) => Ok(Box::new(file)),
        Err(fs::TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
        Err(fs::TryLockError::Error(e)) => Err(e),
    }
}

struct RealFile(fs::File);

impl DiskFile for RealFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.0.metadata()?.len())
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        self.0.read_at(buf, offset)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        Ok(rustix::io::pwritev(&self.0, bufs, offset)?)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.0.set_len(len)
    }

    fn allocate(&self, len: u64) -> io::Result<()> {
        match rustix::fs::fallocate(&self.0, FallocateFlags::KEEP_SIZE, 0, len) {
            // A file system without it: space is then taken as it is written.
            Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::NOSYS) => Ok(()),
            other => Ok(other?),
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.sync_data()
    }
}
