//! `chowki fsck`: what is still there of a spool, and what is not.

mod report;

use std::{collections::BTreeMap, path::PathBuf, process::ExitCode};

use serde::Serialize;

use super::{bar::Bar, check, exit, output, paint};
use crate::{
    config::{self, Ports},
    district::ids::IncidentId,
    gateway::ledger::RECORD,
    incident::record::Record,
    spool::{
        MediaSettings,
        fsck::{self, Options, Progress, Watch},
    },
};

/// Check the journal and the evidence of a gateway that is stopped, and repair them.
///
/// Reads every record, checks it by its checksums, and holds the index against the log. Without --repair nothing is
/// written. A repair keeps whatever has damage as *.damaged, after everything sound in it has been copied.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki fsck                                    the spool of /etc/chowki/district.toml
  chowki fsck --quick /var/lib/chowki            a data directory, headers only
  chowki fsck --repair --config district.toml
  chowki fsck --json /var/lib/chowki | jq '.found.findings[] | select(.severity == \"damage\")'

Exit status: 0 nothing but notes is left, 1 warnings or damage are left or a gateway has it open, 2 the command line is
wrong, 66 there is no spool or the config cannot be read, 73 standard output cannot be written, 78 the config has errors.")]
pub struct Args {
    /// The data directory. Left out: that of the config.
    #[arg(conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// The config whose data directory it is.
    #[arg(long, short, default_value = "/etc/chowki/district.toml")]
    pub config: PathBuf,
    /// Repair what can be repaired. Nothing that may be evidence is removed.
    #[arg(long)]
    pub repair: bool,
    /// Check headers only: faster, but a changed payload is not seen.
    #[arg(long)]
    pub quick: bool,
    /// Print what was found as one JSON document on standard output.
    #[arg(long)]
    pub json: bool,
}

/// The JSON document. Fields are added, never changed; `version` counts what is.
#[derive(Serialize)]
struct Document<'a> {
    version: u32,
    dir: &'a str,
    quick: bool,
    clean: bool,
    /// `None` when no entries were read.
    replayed: Option<Replayed>,
    #[serde(flatten)]
    outcome: &'a fsck::Outcome,
}

/// What the entries of the journal come to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
struct Replayed {
    incidents: usize,
    presses: usize,
}

/// Runs `chowki fsck`.
pub fn run(args: &Args) -> ExitCode {
    let (dir, quota) = match place(args) {
        Ok(place) => place,
        Err(code) => return code,
    };
    if !fsck::is_spool(&dir) {
        eprintln!("chowki fsck: there is no spool in {}: neither journal/ nor media/", dir.display());
        return exit::NO_INPUT.into();
    }
    let options = Options { quick: args.quick, repair: args.repair, segment_bytes: MediaSettings::segment_of(quota) };
    let mut eyes = Eyes::new();
    let outcome = fsck::run(&dir, options, &mut eyes);
    eyes.bar.clear();
    let outcome = match outcome {
        Ok(outcome) => outcome,
        Err(e) => {
            eprintln!("chowki fsck: {}", super::chain(&e));
            return exit::FAILED.into();
        }
    };
    let clean = outcome.is_clean();
    let (name, replayed) = (dir.display().to_string(), (!args.quick).then(|| eyes.replayed()));
    let text = if args.json {
        let document = Document { version: 1, dir: &name, quick: args.quick, clean, replayed, outcome: &outcome };
        serde_json::to_string_pretty(&document).unwrap_or_default() + "\n"
    } else {
        report::text(&name, &outcome, replayed, args.repair, paint::wanted())
    };
    match output::print(&text) {
        Err(code) if clean => code,
        _ if clean => ExitCode::SUCCESS,
        _ => exit::FAILED.into(),
    }
}

/// The data directory, and how large the evidence in it may become.
fn place(args: &Args) -> Result<(PathBuf, u64), ExitCode> {
    if let Some(dir) = &args.dir {
        return Ok((dir.clone(), MediaSettings::default().quota));
    }
    let loaded = config::load(&args.config, Ports::Leave).map_err(|faults| {
        check::show(&faults);
        check::exit_of(&faults)
    })?;
    Ok((loaded.config.data.dir, loaded.config.data.media_quota))
}

/// Looks on: draws a bar on a terminal, and counts presses.
struct Eyes {
    bar: Bar,
    /// Presses of each incident.
    incidents: BTreeMap<IncidentId, usize>,
}

impl Eyes {
    fn new() -> Self {
        Self { bar: Bar::new(), incidents: BTreeMap::new() }
    }

    fn replayed(&self) -> Replayed {
        Replayed { incidents: self.incidents.len(), presses: self.incidents.values().sum() }
    }
}

impl Watch for Eyes {
    fn progress(&mut self, Progress { done, total }: Progress) {
        self.bar.at(done, total);
    }

    fn entry(&mut self, kind: u8, payload: &[u8]) -> bool {
        if kind != RECORD {
            return false;
        }
        match serde_json::from_slice(payload) {
            Ok(Record::Opened(opened)) => {
                self.incidents.insert(opened.document.id, opened.document.presses.len());
            }
            Ok(Record::Joined { incident, .. }) => *self.incidents.entry(incident).or_default() += 1,
            Ok(_) => {}
            Err(_) => return false,
        }
        true
    }

    fn again(&mut self) {
        self.incidents.clear();
        self.bar.again();
    }
}
