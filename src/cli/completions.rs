//! `chowki completions`: what a shell needs to complete our commands.

use std::process::ExitCode;

use clap::CommandFactory;
use clap_complete::Shell;

/// Print completions for a shell.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki completions bash > /etc/bash_completion.d/chowki
  chowki completions zsh > ~/.zfunc/_chowki")]
pub struct Args {
    /// Which shell.
    pub shell: Shell,
}

/// Runs `chowki completions` for the command line `C`.
pub fn run<C: CommandFactory>(args: &Args) -> ExitCode {
    clap_complete::generate(args.shell, &mut C::command(), "chowki", &mut std::io::stdout());
    ExitCode::SUCCESS
}
