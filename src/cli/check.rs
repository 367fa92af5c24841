//! `chowki check`: what is wrong with a config, all at once.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use super::{exit, output};
use crate::config::{self, Code, Fault, Ports, count};

/// Check a config and every file it names.
///
/// Prints each fault with its line, what is wrong and what to write instead. Nothing is changed or started; listening
/// ports are tried for a moment.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki check /etc/chowki/district.toml
  chowki check --no-ports /etc/chowki/district.toml   while the gateway is running
  chowki check --json district.toml | jq '.faults[].what'

Exit status: 0 no error, 66 the config cannot be read, 73 standard output cannot be written, 78 at least one error.")]
pub struct Args {
    /// The config.
    pub file: PathBuf,
    /// Print the faults as JSON on standard output.
    #[arg(long)]
    pub json: bool,
    /// Do not try the listening ports.
    #[arg(long)]
    pub no_ports: bool,
}

/// Runs `chowki check`.
pub fn run(args: &Args) -> ExitCode {
    let ports = if args.no_ports { Ports::Leave } else { Ports::Try };
    let result = config::load(&args.file, ports);
    let (faults, ok) = match &result {
        Ok(loaded) => (&loaded.warnings, true),
        Err(faults) => (faults, false),
    };
    let mut report = String::new();
    if args.json {
        report = format!("{}\n", config::render_json(faults));
    } else {
        show(faults);
    }
    if let (Ok(loaded), false) = (&result, args.json) {
        let (buttons, cameras) = (loaded.inventory.buttons().len(), loaded.inventory.cameras().len());
        let (buttons, cameras) = (count(buttons, "button"), count(cameras, "camera"));
        report = format!("{}: no errors; {buttons}, {cameras}\n", args.file.display());
    }
    let printed = output::print(&report);
    // What is wrong with the config is the answer; that it could not be printed comes second.
    if ok { printed.err().unwrap_or(ExitCode::SUCCESS) } else { exit_of(faults) }
}

/// Prints faults for people on standard error.
pub(super) fn show(faults: &[Fault]) {
    let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let _ = std::io::stderr().write_all(config::render_human(faults, colour).as_bytes());
}

/// The exit status for faults of a file.
pub(super) fn exit_of(faults: &[Fault]) -> ExitCode {
    if faults.iter().any(|fault| fault.code == Code::Unreadable) { exit::NO_INPUT.into() } else { exit::CONFIG.into() }
}
