//! Floor 2, pure: what happens when a button is pressed. The engine decides; `gateway` carries out.
//!
//! ```text
//! Input (press, status, camera report, acknowledgement, command, evidence)
//!   └─> engine ──> Record   what the journal must hold; applying it is the only way state changes
//!              └─> Effect   what the world is told, each after the records before it are synced
//! ```

pub mod case;
pub mod cases;
pub mod engine;
pub mod link;
pub mod nearby;
pub mod record;
pub mod supervision;

#[cfg(test)]
mod call_tests;
#[cfg(test)]
mod evidence_tests;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod tests;
