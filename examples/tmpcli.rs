use clap::Parser;
#[derive(Parser)]
enum C {
    Check(chowki::cli::check::Args),
    Import(chowki::cli::import::Args),
    Schema(chowki::cli::schema::Args),
}
fn main() -> std::process::ExitCode {
    match C::parse() {
        C::Check(a) => chowki::cli::check::run(&a),
        C::Import(a) => chowki::cli::import::run(&a),
        C::Schema(a) => chowki::cli::schema::run(&a),
    }
}
