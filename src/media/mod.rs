//! Floor 0, pure: encoded media. Frames as cameras send them, the ring that keeps the last of them, CMAF fragments,
//! audio for players, playlists and manifests, RTP payloads.

pub mod aac;
pub mod assembly;
pub mod audit;
mod boxes;
pub mod conceal;
pub mod fragment;
pub mod frame;
pub mod g711;
pub mod init;
mod line;
pub mod loudness;
pub mod manifest;
pub mod opus;
pub mod packets;
pub mod parcels;
pub mod piece;
pub mod playlist;
pub mod proof;
pub mod recording;
pub mod reel;
pub mod resample;
pub mod ring;
pub mod sound;
pub mod still;
pub mod voice;
pub mod wav;
