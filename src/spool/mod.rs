//! Floor 1. What must survive: append-only segment files, the journal, the media log, the index over it.
//!
//! One chain of inequalities is the design: `indexed <= synced <= appended` and `delivered <= indexed`. The log is the
//! truth, sled is the index; [`recovery`] says what opening does after a crash, step by step.

mod batch;
mod chunks;
pub mod disk;
pub mod error;
pub mod fsck;
mod gone;
mod index;
mod index_files;
pub mod journal;
mod journal_writer;
mod log;
mod media_end;
pub mod media_log;
mod media_recovery;
mod media_shared;
mod media_writer;
pub mod object;
mod place;
mod queue;
mod recent;
pub mod recovery;
pub mod retention;
mod scan;
pub mod segment;
#[cfg(test)]
pub(crate) mod sim;

pub use error::Error;
pub use gone::Evicted;
pub use journal::{Entry, Health, Journal, JournalSettings};
#[cfg(test)]
pub(crate) use media_log::Stepped;
pub use media_log::{Buffer, Kept, MediaLane, MediaSettings, MediaStore, Missing, ObjectMeta, ObjectRef};
pub use queue::Ticket;
