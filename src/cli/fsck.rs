//! `chowki fsck`: what is still there of a spool, and what is not.

mod report;

use std::{
    collections::BTreeMap,
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use serde::Serialize;

use super::{check, exit, output};
use crate::{
    config::{self, Ports},
    district::{clock::Mono, ids::IncidentId},
    gateway::ledger::RECORD,
    host::clock,
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
    eyes.clear();
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
        let colour = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
        report::text(&name, &outcome, replayed, args.repair, colour)
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

/// How often the bar is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// Its length.
const BAR: usize = 30;

/// Looks on: draws a bar on a terminal, and counts presses.
struct Eyes {
    tty: bool,
    began: Mono,
    drawn: Option<Mono>,
    /// Presses of each incident.
    incidents: BTreeMap<IncidentId, usize>,
}

impl Eyes {
    fn new() -> Self {
        let tty = std::io::stderr().is_terminal();
        Self { tty, began: clock::mono(), drawn: None, incidents: BTreeMap::new() }
    }

    fn replayed(&self) -> Replayed {
        Replayed { incidents: self.incidents.len(), presses: self.incidents.values().sum() }
    }

    fn clear(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

impl Watch for Eyes {
    fn progress(&mut self, progress: Progress) {
        let now = clock::mono();
        if !self.tty || self.drawn.is_some_and(|drawn| now.since(drawn) < DRAW) {
            return;
        }
        self.drawn = Some(now);
        let line = bar(progress, now.since(self.began));
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
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
        self.began = clock::mono();
    }
}

/// The bar: how much of all, how fast, and how long it will take.
fn bar(Progress { done, total }: Progress, after: Duration) -> String {
    let part = if total == 0 { 1.0 } else { done as f64 / total as f64 };
    let filled = (part * BAR as f64) as usize;
    let rate = done as f64 / after.as_secs_f64().max(1e-3);
    let left = if rate > 0.0 { (total.saturating_sub(done) as f64 / rate).ceil() as u64 } else { 0 };
    format!(
        "[{}{}] {:3.0}%  {} of {}  {:.0} MB/s  {}:{:02} left",
        "#".repeat(filled),
        ".".repeat(BAR - filled.min(BAR)),
        part * 100.0,
        report::size(done),
        report::size(total),
        rate / 1e6,
        left / 60,
        left % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_much_how_fast_and_how_long_it_will_take() {
        let half = bar(Progress { done: 500_000_000, total: 1_000_000_000 }, Duration::from_secs(5));
        assert_eq!(half, "[###############...............]  50%  500.0 MB of 1.0 GB  100 MB/s  0:05 left");
        assert!(
            bar(Progress { done: 0, total: 0 }, Duration::ZERO).starts_with("[##############################] 100%")
        );
    }
}
