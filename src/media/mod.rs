//! Floor 0, pure: encoded media. Frames as cameras send them, the ring that keeps the last of them, CMAF fragments,
//! audio for players, playlists and manifests.

pub mod frame;
pub mod ring;
