//! `chowki verify`: whether evidence is what its box has signed.

mod folder;
mod keys;
mod report;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

use super::{bar::Bar, exit, output, paint};
use crate::{
    district::digest::Sha256,
    media::audit::{Audit, Verdict, audit},
};

/// Prove that incidents are whole and unchanged, as they were uploaded or pulled.
///
/// Reads every file of every incident in DIR and holds it against what the box has signed: the incident's document and its
/// history, and each camera's manifest, playlist, init segments and fragments. Names the first that is not right, and all
/// others. Nothing is written.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki verify /srv/evidence/saddar/incidents/0192f3a1-...     one incident
  chowki verify --key saddar.pub /srv/evidence/saddar           all of a district, signed by that box
  chowki verify --key registered/ /srv/evidence                 a folder of public keys (*.pub)
  chowki verify --json /srv/evidence | jq '.incidents[] | select(.verdict != \"whole\")'

Without --key it says by which key evidence is signed, but nobody vouches for that key. Take it from the box itself (`chowki
identity`) or from headquarters' register, not from the store that is verified.

Exit status: 0 whole, 1 something was changed, removed or added, 2 it cannot be told (no proof, unreadable, no incident) or
the command line is wrong, 73 standard output cannot be written, 78 a --key is none.")]
pub struct Args {
    /// An incident's folder, or a folder with incidents in it.
    pub dir: PathBuf,
    /// A public key that is known to be a box's: a file, a folder of *.pub files, a fingerprint or the key itself. Several
    /// may be given.
    #[arg(long, short, value_name = "KEY")]
    pub key: Vec<String>,
    /// Print what was found as one JSON document on standard output.
    #[arg(long)]
    pub json: bool,
}

/// The JSON document. Fields are added, never changed; `version` counts what is.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    dir: String,
    verdict: Verdict,
    incidents: &'a [Verified],
}

/// An incident's folder and what was found in it.
#[derive(Serialize)]
struct Verified {
    dir: String,
    /// The first that is not right.
    first: Option<String>,
    #[serde(flatten)]
    audit: Audit,
}

/// A folder that is being written is looked at again after this: a document may be there a moment before its proof is.
const AGAIN: Duration = Duration::from_secs(1);

/// So often at most.
const LOOKS: usize = 4;

/// Runs `chowki verify`.
pub fn run(args: &Args) -> ExitCode {
    let keys = match keys::read(&args.key) {
        Ok(keys) => keys,
        Err(why) => {
            eprintln!("chowki verify: {why}");
            return exit::CONFIG.into();
        }
    };
    let dirs = match folder::incidents(&args.dir) {
        Ok(dirs) if dirs.is_empty() => {
            eprintln!("chowki verify: there is no incident in {}", args.dir.display());
            return exit::UNKNOWN.into();
        }
        Ok(dirs) => dirs,
        Err(e) => {
            eprintln!("chowki verify: {}: {e}", args.dir.display());
            return exit::UNKNOWN.into();
        }
    };
    let total = dirs.iter().map(|dir| folder::bytes(dir)).sum();
    let mut reader = Reader { bar: Bar::new(), done: 0, total };
    let verified: Vec<_> = dirs.iter().map(|dir| verify(dir, keys.as_deref(), &mut reader)).collect();
    reader.bar.clear();
    let verdict = verified.iter().map(|v| v.audit.verdict).max().unwrap_or(Verdict::Unknown);
    let text = if args.json {
        let dir = args.dir.display().to_string();
        let document = Document { version: 1, dir, verdict, incidents: &verified };
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    } else {
        report::text(&verified, verdict, paint::wanted())
    };
    let printed = output::print(&text);
    match verdict {
        Verdict::Whole => printed.err().unwrap_or(ExitCode::SUCCESS),
        Verdict::Changed => exit::FAILED.into(),
        Verdict::Unknown => exit::UNKNOWN.into(),
    }
}

/// How far reading has come.
struct Reader {
    bar: Bar,
    done: u64,
    total: u64,
}

impl Reader {
    fn read(&mut self, bytes: usize) {
        self.done += bytes as u64;
        self.bar.at(self.done, self.total.max(self.done));
    }
}

fn verify(dir: &Path, keys: Option<&[Sha256]>, reader: &mut Reader) -> Verified {
    let mut look = 1;
    let audit = loop {
        let folder = folder::read(dir, &mut |bytes| reader.read(bytes));
        let found = audit(&folder, keys);
        if found.verdict == Verdict::Whole || look == LOOKS || !folder::is_fresh(dir) {
            break found;
        }
        std::thread::sleep(AGAIN);
        if !folder::has_news(dir, &folder) {
            break found;
        }
        look += 1;
    };
    Verified { dir: dir.display().to_string(), first: audit.findings.first().map(|f| f.name.clone()), audit }
}
