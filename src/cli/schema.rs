//! `chowki schema`: JSON Schemas of everything that goes in and out.

use std::process::ExitCode;

use schemars::{JsonSchema, schema_for};
use serde_json::Value as Json;

use super::output;
use crate::{
    config,
    district::{
        button::{ButtonCondition, ButtonStatus},
        clock::Utc,
        ids::PressId,
        incident::Incident,
        press::{PressKind, StateMessage},
    },
    incident::record::Command,
    media::proof::Proof,
};

/// Print a JSON Schema (draft 2020-12).
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  chowki schema config > chowki.schema.json
  chowki schema incident | jq '.properties | keys'

For completion in an editor, begin a config with this line (Taplo, VS Code's Even Better TOML):
  #:schema ./chowki.schema.json

Exit status: 0 done, 73 standard output cannot be written.")]
pub struct Args {
    /// Of what.
    #[arg(value_enum)]
    pub name: Name,
}

/// What there is a schema of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Name {
    /// The config file.
    Config,
    /// An incident, as headquarters gets it.
    Incident,
    /// A press, as a button publishes it on buttons/{id}/press.
    Press,
    /// What a button says of itself on buttons/{id}/status.
    Status,
    /// What a button is told on buttons/{id}/state.
    State,
    /// The supervised condition of a button, as headquarters gets it.
    Button,
    /// A command of headquarters.
    Command,
    /// What a box signs of an incident, as it lies beside it.
    Proof,
}

/// What a button publishes on `buttons/{id}/press`. Every field may be left out; an empty payload is a panic press.
#[derive(JsonSchema)]
#[schemars(title = "Press")]
#[allow(dead_code, reason = "only its schema is used")]
struct PressPayload {
    /// The device's own id for this press: resent with the same id until it is answered.
    press: Option<PressId>,
    /// When it was pressed, by the device's clock.
    at: Option<Utc>,
    /// What it is about; panic when left out.
    kind: Option<PressKind>,
}

/// The schema of that name.
pub fn schema(name: Name) -> Json {
    match name {
        Name::Config => config::schema(),
        Name::Incident => schema_for!(Incident).into(),
        Name::Press => schema_for!(PressPayload).into(),
        Name::Status => schema_for!(ButtonStatus).into(),
        Name::State => schema_for!(StateMessage).into(),
        Name::Button => schema_for!(ButtonCondition).into(),
        Name::Command => schema_for!(Command).into(),
        Name::Proof => schema_for!(Proof).into(),
    }
}

/// Runs `chowki schema`.
pub fn run(args: &Args) -> ExitCode {
    output::print(&format!("{:#}\n", schema(args.name))).err().unwrap_or(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::ValueEnum as _;

    use super::*;

    #[test]
    fn every_schema_says_what_it_is_and_which_draft() {
        for name in Name::value_variants() {
            let schema = schema(*name);
            assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema", "{name:?}");
            assert!(schema["title"].is_string() && schema["properties"].is_object(), "{name:?}: {schema}");
        }
    }
}
