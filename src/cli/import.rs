//! `chowki import`: an inventory sheet becomes config.

use std::{fs, path::PathBuf, process::ExitCode};

use super::{
    check::{exit_of, show},
    exit, output,
};
use crate::config::{self, Sheet};

/// Turn an inventory sheet of cameras into config.
///
/// Reads CSV with a header, or a GeoJSON FeatureCollection of Points, and prints a section for each camera. Columns or
/// properties: id, name, lat, lon (GeoJSON: the point), url, sub_url, username, password_file, transport, facing,
/// field_of_view, range, record. Usual other names of them are understood; unknown ones are left out with a warning.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki import cameras.csv >> district.toml
  chowki import cameras.geojson --output cameras.toml
  chowki check district.toml

Exit status: 0 done, 66 the sheet cannot be read, 73 the output cannot be written, 78 at least one error in the sheet.")]
pub struct Args {
    /// The sheet: .csv, .geojson or .json.
    pub file: PathBuf,
    /// Write here instead of standard output. A file that is there already is left alone.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
}

/// Runs `chowki import`.
pub fn run(args: &Args) -> ExitCode {
    let text = match config::read_text(&args.file) {
        Ok(text) => text,
        Err(faults) => {
            show(&faults);
            return exit_of(&faults);
        }
    };
    let name = args.file.display().to_string();
    let imported = match config::import(&text, &name, Sheet::of(&args.file, &text)) {
        Ok(imported) => imported,
        Err(faults) => {
            show(&faults);
            return exit_of(&faults);
        }
    };
    show(&imported.warnings);
    let Some(file) = &args.output else {
        return output::print(&imported.toml).err().unwrap_or(ExitCode::SUCCESS);
    };
    let written =
        fs::File::create_new(file).and_then(|mut file| std::io::Write::write_all(&mut file, imported.toml.as_bytes()));
    match written {
        Ok(()) => {
            eprintln!("{}: {}", file.display(), config::count(imported.cameras, "camera"));
            ExitCode::SUCCESS
        }
        Err(err) => {
            eprintln!("error: {} cannot be written: {err}; name a file that is not there yet", file.display());
            exit::CANNOT_CREATE.into()
        }
    }
}
