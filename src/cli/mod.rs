//! Floor 5: one file a subcommand.

mod bar;
pub mod check;
pub mod completions;
pub mod demo;
pub mod exit;
pub mod fsck;
pub mod identity;
pub mod import;
mod logging;
mod output;
mod paint;
pub mod press;
pub mod pull;
pub mod run;
pub mod schema;
pub mod token;
pub mod verify;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::host::bulkhead;

/// The edge gateway of a city district: panic buttons, cameras, headquarters.
#[derive(Debug, Parser)]
#[command(
    name = "chowki",
    version,
    propagate_version = true,
    after_help = "\
Examples:
  chowki demo                               a whole district on this machine, to look at
  chowki check /etc/chowki/district.toml    every fault of a config at once
  chowki run --config /etc/chowki/district.toml
  chowki press saddar-01                    press a button of the demo and follow it
  chowki pull --into /srv/evidence https://10.0.0.7:8443    mirror a gateway
  chowki token new vms --role puller        a token for the API
  chowki verify /srv/evidence               whether evidence is what the boxes signed

RUST_LOG=debug shows more of what happens, RUST_LOG=warn less."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    Run(run::Args),
    Demo(demo::Args),
    Press(press::Args),
    Pull(pull::Args),
    Check(check::Args),
    Fsck(fsck::Args),
    Verify(verify::Args),
    Identity(identity::Args),
    Import(import::Args),
    Schema(schema::Args),
    Token(token::Args),
    Completions(completions::Args),
}

/// Parses the command line and runs it.
pub fn main() -> ExitCode {
    bulkhead::abort_without();
    // The one crypto library of the whole binary; a second call changes nothing.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match Cli::parse().command {
        Command::Run(args) => run::run(&args),
        Command::Demo(args) => demo::run(&args),
        Command::Press(args) => press::run(&args),
        Command::Pull(args) => pull::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Fsck(args) => fsck::run(&args),
        Command::Verify(args) => verify::run(&args),
        Command::Identity(args) => identity::run(&args),
        Command::Import(args) => import::run(&args),
        Command::Schema(args) => schema::run(&args),
        Command::Token(args) => token::run(&args),
        Command::Completions(args) => completions::run::<Cli>(&args),
    }
}

/// A runtime for commands that talk to others.
fn runtime() -> std::io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("chowki").build()
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn asked_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match (signal(SignalKind::interrupt()), signal(SignalKind::terminate())) {
        (Ok(mut interrupt), Ok(mut terminate)) => {
            tokio::select! { _ = interrupt.recv() => {}, _ = terminate.recv() => {} }
        }
        _ => std::future::pending().await,
    }
}

/// An error and everything it came from, one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}
