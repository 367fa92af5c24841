//! A disk in memory that crashes, tears, refuses and forgets, by seed.
//!
//! It keeps apart what a process reads (`cached`) and what a power cut leaves (`durable`). Between two syncs any 512-byte
//! sector of a write may or may not reach the disk. A sync that fails forgets that pages were dirty, as Linux does.

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{self, IoSlice},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
};

use super::disk::{Disk, DiskFile, Listed};

const SECTOR: usize = 512;

#[derive(Clone)]
pub(crate) struct SimDisk(Arc<Mutex<State>>);

struct State {
    rng: fastrand::Rng,
    inodes: Vec<Inode>,
    /// Names as a process sees them.
    names: BTreeMap<PathBuf, usize>,
    /// Names as a power cut leaves them.
    durable_names: BTreeMap<PathBuf, usize>,
    pending_names: Vec<NameOp>,
    dirs: BTreeSet<PathBuf>,
    /// Operations so far that change something.
    ops: u64,
    /// At this operation the power goes.
    cut_at: Option<u64>,
    cut: bool,
    /// Of a hundred operations so many are refused.
    fault_percent: u8,
    faults: u64,
    /// Bytes of files that cannot be read any more.
    bad: Vec<(usize, std::ops::Range<u64>)>,
}

#[derive(Default, Clone)]
struct Inode {
    cached: Vec<u8>,
    durable: Vec<u8>,
    pending: Vec<Change>,
}

#[derive(Clone)]
enum Change {
    Write(u64, Vec<u8>),
    Truncate(u64),
}

#[derive(Clone)]
enum NameOp {
    Create(PathBuf, usize),
    Rename(PathBuf, PathBuf),
    Remove(PathBuf),
}

impl SimDisk {
    pub fn new(seed: u64) -> Self {
        Self(Arc::new(Mutex::new(State {
            rng: fastrand::Rng::with_seed(seed),
            inodes: Vec::new(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            pending_names: Vec::new(),
            dirs: BTreeSet::new(),
            ops: 0,
            cut_at: None,
            cut: false,
            fault_percent: 0,
            faults: 0,
            bad: Vec::new(),
        })))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// The power goes at the `n`th operation from now.
    pub fn cut_after(&self, n: u64) {
        let mut state = self.state();
        state.cut_at = Some(state.ops + n);
    }

    /// Lets so many of a hundred operations fail.
    pub fn fail(&self, percent: u8) {
        self.state().fault_percent = percent;
    }

    pub fn faults(&self) -> u64 {
        self.state().faults
    }

    pub fn ops(&self) -> u64 {
        self.state().ops
    }

    /// From here on chance takes another course.
    pub fn reseed(&self, seed: u64) {
        self.state().rng = fastrand::Rng::with_seed(seed);
    }

    /// The power goes now.
    pub fn cut(&self) {
        self.state().cut = true;
    }

    pub fn is_cut(&self) -> bool {
        self.state().cut
    }

    /// What is there after the power cut.
    pub fn after_power_cut(&self) -> SimDisk {
        let mut state = self.state();
        let State { rng, inodes, pending_names, durable_names, dirs, .. } = &mut *state;
        let mut names = durable_names.clone();
        let reached = rng.usize(0..=pending_names.len());
        for op in &pending_names[..reached] {
            op.apply(&mut names);
        }
        let mut left = inodes.clone();
        for inode in &mut left {
            inode.settle(rng);
            inode.cached = inode.durable.clone();
        }
        let next = SimDisk::new(rng.u64(..));
        {
            let mut new = next.state();
            new.inodes = left;
            new.names = names.clone();
            new.durable_names = names;
            new.dirs = dirs.clone();
        }
        next
    }

    /// The process was killed: everything can still be read, nothing more is durable than before.
    pub fn after_kill(&self) -> SimDisk {
        let mut state = self.state();
        state.cut = false;
        state.cut_at = None;
        state.fault_percent = 0;
        drop(state);
        self.clone()
    }

    /// Flips a bit of a file, cached and durable.
    pub fn flip(&self, path: &Path, bit: u64) {
        let mut state = self.state();
        let inode = state.names[path];
        let (byte, mask) = ((bit / 8) as usize, 1 << (bit % 8));
        state.inodes[inode].cached[byte] ^= mask;
        state.inodes[inode].durable[byte] ^= mask;
    }

    /// These bytes of a file cannot be read any more.
    pub fn wear_out(&self, path: &Path, bytes: std::ops::Range<u64>) {
        let mut state = self.state();
        let inode = state.names[path];
        state.bad.push((inode, bytes));
    }
}

impl NameOp {
    fn apply(&self, names: &mut BTreeMap<PathBuf, usize>) {
        match self {
            NameOp::Create(path, inode) => drop(names.insert(path.clone(), *inode)),
            NameOp::Remove(path) => drop(names.remove(path)),
            NameOp::Rename(from, to) => {
                if let Some(inode) = names.remove(from) {
                    names.insert(to.clone(), inode);
                }
            }
        }
    }
}

impl Change {
    fn apply(&self, data: &mut Vec<u8>) {
        match self {
            Change::Write(offset, bytes) => write(data, *offset as usize, bytes),
            Change::Truncate(len) => data.truncate(*len as usize),
        }
    }
}

fn write(data: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    if data.len() < offset + bytes.len() {
        data.resize(offset + bytes.len(), 0);
    }
    data[offset..offset + bytes.len()].copy_from_slice(bytes);
}

impl Inode {
    /// Some of what is pending reaches the disk, sector by sector; the rest is forgotten.
    fn settle(&mut self, rng: &mut fastrand::Rng) {
        let mood = rng.u8(0..4);
        for change in std::mem::take(&mut self.pending) {
            match (&change, mood) {
                (_, 0) => {}
                (_, 1) => change.apply(&mut self.durable),
                (Change::Truncate(_), _) => {
                    if rng.bool() {
                        change.apply(&mut self.durable);
                    }
                }
                (Change::Write(offset, bytes), _) => {
                    let mut at = 0;
                    while at < bytes.len() {
                        let begin = *offset as usize + at;
                        let len = (SECTOR - begin % SECTOR).min(bytes.len() - at);
                        if rng.bool() {
                            write(&mut self.durable, begin, &bytes[at..at + len]);
                        }
                        at += len;
                    }
                }
            }
        }
    }
}

impl State {
    /// Counts an operation; says whether it happens.
    fn op(&mut self) -> io::Result<()> {
        if self.cut {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.ops += 1;
        if self.cut_at.is_some_and(|at| self.ops >= at) {
            self.cut = true;
            return Err(io::Error::from_raw_os_error(5));
        }
        if self.rng.u8(0..100) < self.fault_percent {
            self.faults += 1;
            let (eio, enospc) = (5, 28);
            return Err(io::Error::from_raw_os_error(if self.rng.bool() { eio } else { enospc }));
        }
        Ok(())
    }

    fn name(&mut self, op: NameOp) {
        op.apply(&mut self.names);
        self.pending_names.push(op);
    }
}

struct SimFile {
    disk: SimDisk,
    inode: usize,
}

impl Disk for SimDisk {
    fn create_dir(&self, dir: &Path) -> io::Result<()> {
        self.state().dirs.insert(dir.to_owned());
        Ok(())
    }

    fn list(&self, dir: &Path) -> io::Result<Vec<Listed>> {
        let state = self.state();
        let inside = state.names.iter().filter(|(path, _)| path.parent() == Some(dir));
        let listed = |(path, inode): (&PathBuf, &usize)| Listed {
            name: path.file_name().unwrap().to_str().unwrap().to_owned(),
            bytes: state.inodes[*inode].cached.len() as u64,
        };
        Ok(inside.map(listed).collect())
    }

    fn create(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let mut state = self.state();
        state.op()?;
        if state.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = state.inodes.len();
        state.inodes.push(Inode::default());
        state.name(NameOp::Create(path.to_owned(), inode));
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn create_secret(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.create(path)
    }

    fn open(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        let inode = *self.state().names.get(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(SimFile { disk: self.clone(), inode }))
    }

    fn open_to_read(&self, path: &Path) -> io::Result<Arc<dyn DiskFile>> {
        self.open(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        if !state.names.contains_key(from) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(NameOp::Rename(from.to_owned(), to.to_owned()));
        Ok(())
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        if !state.names.contains_key(path) {
            return Err(io::ErrorKind::NotFound.into());
        }
        state.name(NameOp::Remove(path.to_owned()));
        Ok(())
    }

    fn sync_dir(&self, _dir: &Path) -> io::Result<()> {
        let mut state = self.state();
        state.op()?;
        let pending = std::mem::take(&mut state.pending_names);
        pending.iter().for_each(|op| op.apply(&mut state.durable_names));
        // What no name leads to any more takes no memory.
        let State { names, durable_names, inodes, .. } = &mut *state;
        let named: BTreeSet<usize> = names.values().chain(durable_names.values()).copied().collect();
        let lost = inodes.iter_mut().enumerate().filter(|(i, _)| !named.contains(i));
        lost.for_each(|(_, inode)| *inode = Inode::default());
        Ok(())
    }

    fn free(&self, _dir: &Path) -> io::Result<u64> {
        Ok(u64::MAX)
    }

    fn lock(&self, _dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        Ok(Box::new(()))
    }

    fn lock_to_read(&self, dir: &Path) -> io::Result<Box<dyn Send + Sync>> {
        self.lock(dir)
    }
}

impl SimFile {
    fn change(&self, change: Change) {
        let mut state = self.disk.state();
        let inode = &mut state.inodes[self.inode];
        change.apply(&mut inode.cached);
        inode.pending.push(change);
    }
}

impl DiskFile for SimFile {
    fn size(&self) -> io::Result<u64> {
        Ok(self.disk.state().inodes[self.inode].cached.len() as u64)
    }

    fn read_at(&self, buf: &mut [u8], offset: u64) -> io::Result<usize> {
        let state = self.disk.state();
        let end = offset + buf.len() as u64;
        if state.bad.iter().any(|(inode, bad)| *inode == self.inode && bad.start < end && offset < bad.end) {
            return Err(io::Error::from_raw_os_error(5));
        }
        let data = &state.inodes[self.inode].cached;
        let from = data.get(offset as usize..).unwrap_or_default();
        let n = from.len().min(buf.len());
        buf[..n].copy_from_slice(&from[..n]);
        Ok(n)
    }

    fn write_at(&self, bufs: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let mut bytes = Vec::new();
        bufs.iter().for_each(|buf| bytes.extend_from_slice(buf));
        let result = {
            let mut state = self.disk.state();
            let result = state.op();
            // A write may be short, and one that the power cut or an error interrupts is partly there.
            let n =
                if result.is_err() || state.rng.u8(0..4) == 0 { state.rng.usize(0..=bytes.len()) } else { bytes.len() };
            bytes.truncate(n);
            result
        };
        let n = bytes.len();
        self.change(Change::Write(offset, bytes));
        match result {
            Err(e) => Err(e),
            Ok(()) if n == 0 => Err(io::ErrorKind::Interrupted.into()),
            Ok(()) => Ok(n),
        }
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.disk.state().op()?;
        self.change(Change::Truncate(len));
        Ok(())
    }

    fn allocate(&self, _len: u64) -> io::Result<()> {
        self.disk.state().op()
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.disk.state();
        let result = state.op();
        if state.cut {
            return result;
        }
        let State { rng, inodes, .. } = &mut *state;
        let inode = &mut inodes[self.inode];
        match &result {
            Ok(()) => inode.pending.drain(..).collect::<Vec<_>>().iter().for_each(|c| c.apply(&mut inode.durable)),
            Err(_) => inode.settle(rng),
        }
        result
    }
}
