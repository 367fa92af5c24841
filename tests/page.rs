//! The console page in a real browser: `tests/page/page.mjs` does the looking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

#[path = "support/browser.rs"]
mod browser;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

#[test]
fn the_console_page_works_in_a_browser() {
    let Some(folder) = browser::scripts() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page-shots");
    let run = Command::new("node").arg("page.mjs").arg(root).arg(&shots).current_dir(&folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "screenshots are in {}\n{said}", shots.display());
    println!("{said}");
}
