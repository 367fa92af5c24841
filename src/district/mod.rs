//! Floor 0, pure: the words every room shares. Ids, places, clocks, the inventory of a district and the incident
//! document. Nothing here touches a socket, a file, a task or a system clock.

pub mod button;
pub mod call;
pub mod camera;
pub mod clock;
pub mod correction;
pub mod digest;
pub mod evidence;
pub mod hex;
pub mod identity;
pub mod ids;
pub mod incident;
pub mod inventory;
pub mod place;
pub mod press;
pub mod secret;
