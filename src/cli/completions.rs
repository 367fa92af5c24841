//! `chowki completions`: what a shell needs to complete our commands.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

use super::output;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki completions bash > /etc/bash_completion.d/chowki
  chowki completions zsh > ~/.zfunc/_chowki

Exit status: 0 done, 73 standard output cannot be written.")]
pub struct Args {
    /// Which shell.
    pub shell: Shell,
}

/// Runs `chowki completions` for the command line `C`.
pub fn run<C: CommandFactory>(args: &Args) -> ExitCode {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut C::command(), "chowki", &mut script);
    output::print(&String::from_utf8_lossy(&script)).err().unwrap_or(ExitCode::SUCCESS)
}
