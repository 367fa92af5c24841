//! The gateway's pages in a real browser, against a gateway of canned answers: the scripts of `tests/page` do the looking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

#[path = "support/browser.rs"]
mod browser;

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// Runs `tests/page/{script}.mjs`; every check is a line of what it says.
fn look(script: &str) {
    let Some(folder) = browser::scripts() else { return };
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{script}-shots"));
    let file = format!("{script}.mjs");
    let run = Command::new("node").arg(file).arg(root).arg(&shots).current_dir(&folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "screenshots are in {}\n{said}", shots.display());
    println!("{said}");
}

#[test]
fn the_console_page_works_in_a_browser() {
    look("page");
}

#[test]
fn an_operator_answers_talks_holds_hands_over_and_hangs_up() {
    look("call");
}

#[test]
fn the_page_works_in_both_languages_by_keyboard_alone_and_on_a_wall() {
    look("language");
}

#[test]
fn the_page_of_a_unit_says_only_what_is_true_and_forgets_no_press() {
    look("unit");
}
