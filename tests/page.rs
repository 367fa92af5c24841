//! The console page in a real browser: `tests/page/page.mjs` does the looking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "a test")]

use std::{
    path::{Path, PathBuf},
    process::Command,
};

/// What is missing of what the browser test needs, and how to get it.
fn missing() -> Option<String> {
    let needed = [
        ("node", "apt-get install nodejs"),
        ("npm", "apt-get install npm"),
        ("chromium", "apt-get install chromium"),
        ("ffmpeg", "apt-get install ffmpeg"),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |name: &str| std::env::split_paths(&path).any(|dir| dir.join(name).exists());
    let missing: Vec<String> =
        needed.iter().filter(|(name, _)| !found(name)).map(|(name, how)| format!("{name} ({how})")).collect();
    (!missing.is_empty()).then(|| missing.join(", "))
}

#[test]
fn the_console_page_works_in_a_browser() {
    if let Some(what) = missing() {
        let skip = std::env::var("CHOWKI_SKIP_BROWSER").is_ok_and(|value| value == "1");
        assert!(skip, "missing: {what}; or set CHOWKI_SKIP_BROWSER=1 to leave this test out");
        eprintln!("SKIP: the console page is not tested, missing: {what}");
        return;
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let folder = root.join("tests/page");
    if !folder.join("node_modules/playwright-core").exists() {
        let installed =
            Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output().unwrap();
        assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
    }
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("page-shots");
    let run = Command::new("node").arg("page.mjs").arg(root).arg(&shots).current_dir(&folder).output().unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "screenshots are in {}\n{said}", shots.display());
    println!("{said}");
}
