//! The operator's page and the page of a unit with a screen, in a real browser and at a real gateway: from the press until the
//! case is closed.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::disallowed_methods, reason = "tests panic when they fail")]

#[path = "support/browser.rs"]
mod browser;
#[path = "support/gateway.rs"]
mod gateway;
mod support;

use std::{
    io::{BufRead, BufReader, Write},
    path::PathBuf,
    process::{Command, Stdio},
};

use gateway::Site;

/// A site with one unit, which has a screen.
fn site() -> Site {
    let unit = "[button.unit]\nscreen = true\ntoken_file = \"screen.token\"\n";
    Site::new().secret("screen.token", "unit-token").button("b1", unit).window(5, 5)
}

/// Runs `tests/page/{script}.mjs` at a gateway; every check is a line of what it says.
fn look(site: &Site, script: &str, tokens: &[&str]) {
    let Some(folder) = browser::scripts() else { return };
    let gateway = site.start();
    let shots = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{script}-shots"));
    let run = Command::new("node")
        .arg(format!("{script}.mjs"))
        .arg(format!("http://127.0.0.1:{}", gateway.api))
        .arg(&shots)
        .args(["b1", "unit-token"])
        .args(tokens)
        .current_dir(folder)
        .output()
        .unwrap();
    let said = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "screenshots are in {}\n{said}", shots.display());
    println!("{said}");
}

#[test]
fn a_press_at_a_screen_is_answered_at_the_page_by_keyboard_alone() {
    look(&site(), "together", &[]);
}

#[test]
fn groups_ring_one_after_another_at_their_pages_and_a_supervisor_takes_the_floor() {
    let client = |name: &str, role: &str, group: &str| {
        format!(
            "[[api.client]]\nname = \"{name}\"\nrole = \"{role}\"\ngroup = \"{group}\"\ntoken_file = \"{name}.token\"\n"
        )
    };
    let clients =
        [("Ayesha", "operator", "operators"), ("Lubna", "operator", "leaders"), ("Saleem", "supervisor", "leaders")];
    let tokens = clients.map(|(name, ..)| format!("{name}-0123456789abcdef"));
    let calls = "[call]\ngroups = [\"operators\", \"leaders\"]\nescalate_after = \"5s\"\n[api]\n";
    let site = clients.iter().zip(&tokens).fold(site().with(calls), |site, ((name, role, group), token)| {
        site.secret(&format!("{name}.token"), token).with(&client(name, role, group))
    });
    look(&site, "groups", &tokens.each_ref().map(String::as_str));
}

#[test]
fn a_screen_whose_gateway_is_away_loads_its_page_anew_and_its_press_is_not_forgotten() {
    let Some(folder) = browser::scripts() else { return };
    let site = site();
    let mut gateway = Some(site.start());
    let mut run = Command::new("node")
        .args(["away.mjs", &format!("http://127.0.0.1:{}", site.api)])
        .arg(PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("away-shots"))
        .args(["b1", "unit-token"])
        .current_dir(folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut answer = run.stdin.take().unwrap();
    for line in BufReader::new(run.stdout.take().unwrap()).lines().map_while(Result::ok) {
        println!("{line}");
        match line.as_str() {
            "gone?" => gateway.take().unwrap().kill(),
            "back?" => gateway = Some(site.start()),
            _ => continue,
        }
        writeln!(answer).unwrap();
    }
    assert!(run.wait().unwrap().success());
    let incidents = gateway.unwrap().incidents();
    assert_eq!((incidents.len(), incidents[0].press_count), (1, 1), "pressed once, taken once");
}
