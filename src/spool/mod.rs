//! Floor 1. What must survive: append-only segment files, the journal, the media log, the index over it.
//!
//! One chain of inequalities is the design: `indexed <= synced <= appended` and `delivered <= indexed`. The log is the
//! truth, sled is the index; [`recovery`] says what opening does after a crash, step by step.

pub mod disk;
pub mod error;
pub mod journal;
mod log;
mod queue;
pub mod recovery;
mod scan;
pub mod segment;

pub use error::Error;
pub use journal::{Entry, Health, Journal, JournalSettings};
pub use queue::Ticket;
