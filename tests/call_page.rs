//! The operator's page and the page of a unit with a screen, in a real browser and at a real gateway: from the press until the
//! case is closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/gateway.rs"]
mod gateway;
mod support;

use std::{path::PathBuf, process::Command};

use gateway::Site;

#[test]
fn a_press_at_a_screen_is_answered_at_the_page_by_keyboard_alone() {
    let Some(folder) = browser::scripts() else { return };
    let unit = "[button.unit]\nscreen = true\ntoken_file = \"screen.token\"\n";
    let site = Site::new().secret("screen.token", "unit-token").button("b1", unit).window(5, 5);
    let gateway = site.start();
    let url = format!("http://127.0.0.1:{}", gateway.api);
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("together-shots");
    let run = Command::new("node")
        .args(["together.mjs", &url])
        .arg(&shots)
        .args(["b1", "unit-token"])
        .current_dir(folder)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "screenshots are in {}\n{said}", shots.display());
    println!("{said}");
}
