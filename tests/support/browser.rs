//! A real browser, driven by the scripts of `tests/page`.

use std::{
    fs::File,
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

/// The folder of the scripts, with what they need installed. None: this machine has no browser, and the test may be left out.
pub fn scripts() -> Option<PathBuf> {
    if let Some(what) = missing() {
        let skip = std::env::var("CHOWKI_SKIP_BROWSER").is_ok_and(|value| value == "1");
        assert!(skip, "missing: {what}; or set CHOWKI_SKIP_BROWSER=1 to leave this test out");
        eprintln!("SKIP: not tested in a browser, missing: {what}");
        return None;
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/page");
    // One test at a time installs; tests run beside each other.
    let lock = File::open(folder.join("package-lock.json")).unwrap();
    lock.lock().unwrap();
    if !folder.join("node_modules/playwright-core").exists() {
        let installed =
            Command::new("npm").args(["ci", "--no-audit", "--no-fund"]).current_dir(&folder).output().unwrap();
        assert!(installed.status.success(), "npm ci: {}", String::from_utf8_lossy(&installed.stderr));
    }
    Some(folder)
}
