//! Floor 0, not pure: what the machine itself gives, and what it has room for. The only place that reads the system's
//! clocks, and the only place that spawns tasks.

pub mod bulkhead;
pub mod certificate;
pub mod clock;
pub mod doors;
pub mod ports;
pub mod scope;
mod synchronisation;
pub mod thread;
