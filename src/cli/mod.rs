//! Floor 5: one file a subcommand.

pub mod check;
pub mod demo;
pub mod exit;
pub mod import;
pub mod schema;
