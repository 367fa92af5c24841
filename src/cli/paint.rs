//! Colours, where there is a terminal that has them.

use std::io::IsTerminal as _;

/// What is lost or was changed.
pub(super) const RED: &str = "\x1b[1;31m";
/// What somebody should look at.
pub(super) const YELLOW: &str = "\x1b[1;33m";
/// What is worth knowing.
pub(super) const BLUE: &str = "\x1b[1;34m";
/// What is as it should be.
pub(super) const GREEN: &str = "\x1b[1;32m";
/// What is said beside it.
pub(super) const DIM: &str = "\x1b[2m";
/// The end of a colour.
pub(super) const PLAIN: &str = "\x1b[0m";

/// Whether standard output takes colours: a terminal, and nobody has said NO_COLOR.
pub(super) fn wanted() -> bool {
    std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty())
}
