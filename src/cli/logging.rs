//! Where logs go: to a person on a terminal, or with their fields to journald when systemd started us.

use std::io::IsTerminal;

use tracing_subscriber::{EnvFilter, Layer, layer::SubscriberExt, util::SubscriberInitExt};

/// Crates below us that say at `info` what only their authors need.
const QUIET: &str = "info,rumqttd=warn,rumqttc=warn,retina=warn,str0m=error,sled=warn,object_store=warn,symphonia=off";

/// Begins logging. `to_file`: everything goes there instead, where a terminal is drawn on.
pub fn start(to_file: Option<std::fs::File>) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(QUIET));
    let journald = std::env::var_os("JOURNAL_STREAM").and_then(|_| tracing_journald::layer().ok());
    let layer = match (to_file, journald) {
        (Some(file), _) => tracing_subscriber::fmt::layer().with_ansi(false).with_writer(file).boxed(),
        (None, Some(journald)) => journald.with_field_prefix(None).boxed(),
        (None, None) => {
            let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
            tracing_subscriber::fmt::layer().with_ansi(colour).with_writer(std::io::stderr).boxed()
        }
    };
    // A second start, in a test, keeps the first.
    let _ = tracing_subscriber::registry().with(filter).with(layer).try_init();
}
