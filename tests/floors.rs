//! The floors of the house: a file imports only from floors below its own, rooms of floor 1 do not import each other,
//! and a file marked pure names no task, socket, file or system clock.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

const FLOORS: [(&str, u8); 16] = [
    ("cli", 5),
    ("api", 4),
    ("rtsp", 4),
    ("gateway", 3),
    ("incident", 2),
    ("intake", 1),
    ("camera", 1),
    ("call", 1),
    ("spool", 1),
    ("uplink", 1),
    ("cabinet", 1),
    ("config", 1),
    ("district", 0),
    ("media", 0),
    ("wire", 0),
    ("host", 0),
];

/// Rooms that are pure as a whole. On the other floors a file says so in its first doc line: "... Pure."
const PURE_ROOMS: [&str; 4] = ["district", "media", "wire", "incident"];

/// What a pure file must not name, and what it says instead.
const IMPURE: [(&str, &str); 11] = [
    ("tokio", "a pure file waits for nothing: return what is to be done, let the shell around it do it"),
    ("std::net::Tcp", "no sockets"),
    ("std::net::Udp", "no sockets"),
    ("std::fs", "no files: take the bytes as an argument"),
    ("File::", "no files: take the bytes as an argument"),
    ("SystemTime", "no system clock: take `Now`"),
    ("Instant", "no system clock: take `Mono`"),
    ("host::clock", "no system clock: take `Now`"),
    ("host::scope", "no tasks"),
    ("std::thread", "no threads"),
    ("std::env", "no environment: take settings"),
];

fn sources(dir: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// The code of a file without comments, and without its tests at the end.
fn code(text: &str) -> String {
    let body = text.split("#[cfg(test)]\nmod ").next().unwrap_or(text);
    body.lines().map(|l| l.split("//").next().unwrap_or("")).collect::<Vec<_>>().join("\n")
}

/// The rooms that a file names: `crate::room`, and every `room` of `use crate::{room::..., room::...}`.
fn rooms_named(code: &str) -> Vec<String> {
    let mut rooms = Vec::new();
    for (at, _) in code.match_indices("crate::") {
        let rest = &code[at + "crate::".len()..];
        if let Some(group) = rest.strip_prefix('{') {
            rooms.extend(heads_of(group));
        } else {
            rooms.push(word(rest));
        }
    }
    rooms
}

/// The first words of the comma-separated paths in a brace group, at its own depth.
fn heads_of(group: &str) -> Vec<String> {
    let (mut depth, mut fresh, mut heads) = (1, true, Vec::new());
    for (i, c) in group.char_indices() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => fresh = true,
            c if fresh && depth == 1 && !c.is_whitespace() => {
                heads.push(word(&group[i..]));
                fresh = false;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
    }
    heads
}

fn word(text: &str) -> String {
    text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
}

fn faults(room: &str, path: &str, text: &str) -> Vec<String> {
    let floors: BTreeMap<_, _> = FLOORS.into();
    let code = code(text);
    let mut faults = Vec::new();
    if let Some(&own) = floors.get(room) {
        for named in rooms_named(&code) {
            match floors.get(named.as_str()) {
                _ if named == room => {}
                Some(&floor) if floor < own => {}
                // Within floor 0, media and host use district's words.
                Some(0) if own == 0 && named == "district" => {}
                Some(&floor) => faults.push(format!(
                    "{path}: `{room}` (floor {own}) imports `{named}` (floor {floor}): move what they share down, or let `gateway` pass it"
                )),
                None => faults.push(format!("{path}: `crate::{named}` is no room of the house")),
            }
        }
    }
    let first = text.lines().take_while(|l| l.starts_with("//!")).collect::<Vec<_>>();
    let paragraph = first.split(|l| l.trim() == "//!").next().unwrap_or_default().join(" ");
    if PURE_ROOMS.contains(&room) || paragraph.trim_end().ends_with("Pure.") {
        for (name, remedy) in IMPURE {
            let mentions =
                code.match_indices(name).any(|(i, _)| !code[..i].ends_with(|c: char| c.is_alphanumeric() || c == '_'));
            if mentions {
                faults.push(format!("{path} is pure and names `{name}`: {remedy}"));
            }
        }
    }
    faults
}

#[test]
fn a_file_imports_only_from_floors_below_its_own_and_a_pure_file_decides_without_the_world() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    sources(&src, &mut files);
    assert!(files.len() > 20, "the scan found only {} files", files.len());
    let mut all = Vec::new();
    for file in files {
        let inside = file.strip_prefix(&src).unwrap();
        let room = inside.iter().next().unwrap().to_str().unwrap();
        if file.parent() == Some(&src) {
            continue;
        }
        // Test-only files of a room may use what they like.
        if inside.ends_with("tests.rs") || inside.ends_with("fixtures.rs") {
            continue;
        }
        all.extend(faults(room, &inside.display().to_string(), &fs::read_to_string(&file).unwrap()));
    }
    assert!(all.is_empty(), "\n{}", all.join("\n"));
}

#[test]
fn the_scan_sees_each_kind_of_fault() {
    let see = |room, text| faults(room, "x.rs", text).len();
    assert_eq!(see("intake", "use crate::gateway::x;"), 1);
    assert_eq!(see("intake", "use crate::{\n district::{a, b},\n spool::Journal,\n};"), 1);
    assert_eq!(see("intake", "use crate::{district::clock::Now, host::scope};"), 0);
    assert_eq!(see("media", "use crate::host::clock;"), 2);
    assert_eq!(see("uplink", "//! Lanes.\n//! Pure.\nuse tokio::time;"), 1);
    assert_eq!(see("uplink", "//! Lanes.\nuse tokio::time;"), 0);
    assert_eq!(see("gateway", "fn f() { crate::api::go() }"), 1);
    assert_eq!(see("gateway", "// crate::api is above\nuse crate::nowhere::x;"), 1);
}
