//! `chowki token`: tokens for the API, issued and taken back while the gateway runs.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use serde_json::json;

use super::{check, exit, output};
use crate::{
    config::{self, Ports, Role},
    gateway::tokens::{self, Issued, Tokens},
    host::clock,
};

/// Issue, list and take back tokens of the API.
///
/// Only hashes are kept, in the gateway's data directory; a running gateway follows within seconds.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki token new vms --role puller --config /etc/chowki/district.toml
  chowki token list --config /etc/chowki/district.toml
  chowki token revoke vms --config /etc/chowki/district.toml

Exit status: 0 done, 1 there is no such token, 66 the config or the tokens cannot be read, 73 the tokens cannot be
written, 78 the config is faulty.")]
pub struct Args {
    #[command(subcommand)]
    what: What,
    /// The gateway's config, for its data directory.
    #[arg(long, global = true, default_value = "/etc/chowki/district.toml")]
    config: PathBuf,
    /// The gateway's data directory, instead of a config.
    #[arg(long, global = true, conflicts_with = "config")]
    data: Option<PathBuf>,
    /// Print JSON on standard output.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, clap::Subcommand)]
enum What {
    /// Issue a token. It is printed this once.
    New {
        /// Who gets it: as it stands in an incident's timeline and in the audit log.
        name: String,
        /// What it may do.
        #[arg(long, value_enum)]
        role: RoleArg,
        /// Its group of the call; the first of the config when left out.
        #[arg(long)]
        group: Option<String>,
    },
    /// Show who has tokens.
    List,
    /// Take a token back.
    Revoke {
        /// Its id, or the name of who has it.
        token: String,
    },
}

/// [`Role`], on the command line.
#[derive(Debug, Clone, Copy, clap::ValueEnum)]
enum RoleArg {
    /// Sees everything, answers, dispatches and closes.
    Operator,
    /// An operator who may also take a call from another, and reads the audit log.
    Supervisor,
    /// Reads incidents, evidence and recordings.
    Puller,
    /// Sees states and metrics.
    Engineer,
}

impl From<RoleArg> for Role {
    fn from(role: RoleArg) -> Self {
        match role {
            RoleArg::Operator => Self::Operator,
            RoleArg::Supervisor => Self::Supervisor,
            RoleArg::Puller => Self::Puller,
            RoleArg::Engineer => Self::Engineer,
        }
    }
}

/// Runs `chowki token`.
pub fn run(args: &Args) -> ExitCode {
    let data = match &args.data {
        Some(data) => data.clone(),
        None => match config::load(&args.config, Ports::Leave) {
            Ok(loaded) => loaded.config.data.dir,
            Err(faults) => {
                check::show(&faults);
                return check::exit_of(&faults);
            }
        },
    };
    let path = tokens::path(&data);
    let held = match tokens::load(&path) {
        Ok(held) => held.unwrap_or_default(),
        Err(e) => {
            eprintln!(
                "error: cannot read {}: {e}; mend the file, or remove it and issue its tokens anew",
                path.display()
            );
            return exit::NO_INPUT.into();
        }
    };
    match &args.what {
        What::New { name, role, group } => new(args, &path, held, name, (*role).into(), group.clone()),
        What::List => list(args, &held),
        What::Revoke { token } => revoke(args, &path, held, token),
    }
}

fn new(args: &Args, path: &Path, mut held: Tokens, name: &str, role: Role, group: Option<String>) -> ExitCode {
    if name.trim().is_empty() || name.chars().any(char::is_control) {
        eprintln!("error: {name:?} is no name; say who gets the token, such as \"vms\"");
        return exit::USAGE.into();
    }
    if held.all.iter().any(|t| t.name == name) {
        eprintln!("error: {name} has a token; take it back first: chowki token revoke {name:?}");
        return exit::USAGE.into();
    }
    let issued =
        held.issue(name, role, group, clock::wall()).and_then(|issued| tokens::save(path, &held).map(|()| issued));
    let (issued, token) = match issued {
        Ok(issued) => issued,
        Err(e) => return unwritten(path, &e),
    };
    let text = if args.json {
        format!("{}\n", json!({ "id": issued.id, "name": issued.name, "role": issued.role, "token": token }))
    } else {
        eprintln!("Token {} for {name}; it is shown this once:", issued.id);
        format!("{token}\n")
    };
    output::print(&text).err().unwrap_or(ExitCode::SUCCESS)
}

fn list(args: &Args, held: &Tokens) -> ExitCode {
    let row = |t: &Issued| {
        let group = t.group.as_deref().unwrap_or("-");
        format!("{:<10}{:<24}{:<12}{:<16}{}\n", t.id, t.name, t.role.name(), group, t.issued)
    };
    let text = if args.json {
        format!("{}\n", json!({ "tokens": held.all }))
    } else if held.all.is_empty() {
        "no tokens are issued; chowki token new NAME --role ROLE issues one\n".to_owned()
    } else {
        let head = format!("{:<10}{:<24}{:<12}{:<16}{}\n", "ID", "NAME", "ROLE", "GROUP", "ISSUED");
        held.all.iter().fold(head, |text, token| text + &row(token))
    };
    output::print(&text).err().unwrap_or(ExitCode::SUCCESS)
}

fn revoke(args: &Args, path: &Path, mut held: Tokens, token: &str) -> ExitCode {
    let gone = held.revoke(token);
    if gone.is_empty() {
        eprintln!("error: no token has the id or name {token:?}; chowki token list shows all");
        return exit::FAILED.into();
    }
    if let Err(e) = tokens::save(path, &held) {
        return unwritten(path, &e);
    }
    let text = if args.json {
        format!("{}\n", json!({ "revoked": gone }))
    } else {
        gone.iter().map(|t| format!("{} of {} works no more\n", t.id, t.name)).collect()
    };
    output::print(&text).err().unwrap_or(ExitCode::SUCCESS)
}

fn unwritten(path: &Path, error: &std::io::Error) -> ExitCode {
    eprintln!("error: cannot write {}: {error}; run it as the gateway's user or as root", path.display());
    exit::CANNOT_CREATE.into()
}
