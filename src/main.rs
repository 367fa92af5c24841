//! The `chowki` program.

fn main() -> std::process::ExitCode {
    chowki::cli::main()
}
