//! `chowki identity`: the key that a box signs evidence with.

use std::{path::PathBuf, process::ExitCode};

use super::{check, exit, output};
use crate::{
    config::{self, Ports},
    gateway::{board::KeyLine, identity},
    spool::disk::RealDisk,
};

/// Show the public key that this box signs evidence with, and its fingerprint.
///
/// The gateway makes the key at its first start, or takes the credential `chowki-identity` of systemd. The secret half is
/// never shown.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki identity                        of /etc/chowki/district.toml
  chowki identity --pem > saddar.pub     for headquarters' register
  chowki identity --json /var/lib/chowki | jq -r .fingerprint

Exit status: 0 done, 66 there is no key or the config cannot be read, 73 standard output cannot be written, 78 the config
has errors.")]
pub struct Args {
    /// The data directory. Left out: that of the config.
    #[arg(conflicts_with = "config")]
    pub dir: Option<PathBuf>,
    /// The config whose data directory it is.
    #[arg(long, short, default_value = "/etc/chowki/district.toml")]
    pub config: PathBuf,
    /// Print it as JSON.
    #[arg(long)]
    pub json: bool,
    /// Print the key as a PEM file.
    #[arg(long, conflicts_with = "json")]
    pub pem: bool,
}

/// Runs `chowki identity`.
pub fn run(args: &Args) -> ExitCode {
    let dir = match &args.dir {
        Some(dir) => dir.clone(),
        None => match config::load(&args.config, Ports::Leave) {
            Ok(loaded) => loaded.config.data.dir,
            Err(faults) => {
                check::show(&faults);
                return check::exit_of(&faults);
            }
        },
    };
    let key = match identity::public(&RealDisk, &dir) {
        Ok(Some(key)) => key,
        Ok(None) => {
            eprintln!("chowki identity: there is no key in {}; a gateway makes it at its first start", dir.display());
            return exit::NO_INPUT.into();
        }
        Err(e) => {
            eprintln!("chowki identity: {}", super::chain(&e));
            return exit::NO_INPUT.into();
        }
    };
    let line = KeyLine::of(key);
    let text = if args.json {
        serde_json::to_string_pretty(&line).unwrap_or_default() + "\n"
    } else if args.pem {
        key.pem()
    } else {
        format!("fingerprint  {}\nkey          {}\n", line.fingerprint, line.key)
    };
    output::print(&text).err().unwrap_or(ExitCode::SUCCESS)
}
