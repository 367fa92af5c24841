//! What headquarters pulls of a camera: what is held and what is not, recordings of any interval and of an incident as
//! files, stills.

mod choice;
mod holdings;
mod plan;
mod reel;

pub use holdings::Holdings;
pub(super) use holdings::is_asked;
pub(super) use plan::Source;
pub use plan::Unreeled;
pub use reel::Reel;
