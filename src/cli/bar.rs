//! How far a long look through a disk has come: a bar on a terminal.

use std::{
    io::{IsTerminal as _, Write as _},
    time::Duration,
};

use crate::{district::clock::Mono, host::clock};

/// How often it is drawn.
const DRAW: Duration = Duration::from_millis(100);
/// Its length.
const LENGTH: usize = 30;

/// The bar on standard error; nothing where that is no terminal.
pub(super) struct Bar {
    tty: bool,
    began: Mono,
    drawn: Option<Mono>,
}

impl Bar {
    /// Not drawn yet.
    pub fn new() -> Self {
        Self { tty: std::io::stderr().is_terminal(), began: clock::mono(), drawn: None }
    }

    /// So many bytes of so many are done.
    pub fn at(&mut self, done: u64, total: u64) {
        let now = clock::mono();
        if !self.tty || self.drawn.is_some_and(|drawn| now.since(drawn) < DRAW) {
            return;
        }
        self.drawn = Some(now);
        let line = line(done, total, now.since(self.began));
        let _ = write!(std::io::stderr(), "\r\x1b[K{line}");
    }

    /// It begins anew.
    pub fn again(&mut self) {
        self.began = clock::mono();
    }

    /// Takes it away.
    pub fn clear(&self) {
        if self.drawn.is_some() {
            let _ = write!(std::io::stderr(), "\r\x1b[K");
        }
    }
}

/// How much of all, how fast, and how long it will take.
fn line(done: u64, total: u64, after: Duration) -> String {
    let part = if total == 0 { 1.0 } else { (done as f64 / total as f64).min(1.0) };
    let filled = (part * LENGTH as f64) as usize;
    let rate = done as f64 / after.as_secs_f64().max(1e-3);
    let left = if rate > 0.0 { (total.saturating_sub(done) as f64 / rate).ceil() as u64 } else { 0 };
    format!(
        "[{}{}] {:3.0}%  {} of {}  {:.0} MB/s  {}:{:02} left",
        "#".repeat(filled),
        ".".repeat(LENGTH - filled.min(LENGTH)),
        part * 100.0,
        size(done),
        size(total),
        rate / 1e6,
        left / 60,
        left % 60
    )
}

/// Bytes, for people.
pub(super) fn size(bytes: u64) -> String {
    match bytes as f64 {
        n if n >= 1e9 => format!("{:.1} GB", n / 1e9),
        n if n >= 1e6 => format!("{:.1} MB", n / 1e6),
        n if n >= 1e3 => format!("{:.1} kB", n / 1e3),
        n => format!("{n} B"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bar_says_how_much_how_fast_and_how_long_it_will_take() {
        let half = line(500_000_000, 1_000_000_000, Duration::from_secs(5));
        assert_eq!(half, "[###############...............]  50%  500.0 MB of 1.0 GB  100 MB/s  0:05 left");
        assert!(line(0, 0, Duration::ZERO).starts_with("[##############################] 100%"));
    }
}
