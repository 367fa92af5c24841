//! The gateway's own state, once a second: on the board, and for headquarters whenever it differs.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Facade,
    board::{Counts, NotRecorded, Status},
    facade::Shared,
    watchdog::HANGS_AFTER,
};
use crate::{
    district::{button::Presence, camera::CameraState, clock::Utc, ids::CameraId},
    host::{clock, scope::Scope},
    spool::Health,
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A disk that takes longer than this is worth telling.
const SILENT_DISK: Duration = Duration::from_secs(1);

/// Publishes it until the scope stops.
pub(super) fn publish(facade: Facade, scope: &Scope) {
    let stopping = scope.stopping();
    scope.spawn("status", async move {
        tokio::pin!(stopping);
        // Revisions go on over restarts as wall time does; headquarters keeps the last one told in any case.
        let mut revision = clock::wall().unix_ms();
        let mut told = None;
        loop {
            let status = read(facade.shared()).await;
            if told.as_ref() != Some(&status) {
                revision += 1;
                facade.shared().hq.status(&status, revision);
                facade.shared().board.status(status.clone());
                told = Some(status);
            }
            tokio::select! {
                () = tokio::time::sleep(EVERY) => {}
                () = &mut stopping => return,
            }
        }
    });
}

async fn read(shared: &Shared) -> Status {
    let link = shared.hq.seen();
    let board = &shared.board;
    let presence =
        |b: &std::sync::Arc<crate::district::inventory::Button>| board.condition_of(&b.id).map(|c| c.presence);
    let buttons = shared.inventory.buttons();
    let cameras = board.camera_states();
    let live = cameras.iter().filter(|s| **s == CameraState::Live).count();
    let total = shared.feeds.handles().len();
    let held = shared.media.stats();
    Status {
        online: true,
        district: shared.district.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        backhaul: link.state,
        backhaul_since: link.since,
        backhaul_detail: link.detail,
        pending_documents: shared.hq.pending() + unsent(shared),
        pending_objects: usize::try_from(held.undelivered).unwrap_or(usize::MAX),
        objects_set_aside: usize::try_from(shared.counts.set_aside.load(Relaxed)).unwrap_or(usize::MAX),
        not_recorded: not_recorded(shared),
        journal: journal(shared),
        buttons: Counts {
            total: buttons.len(),
            good: buttons.iter().filter(|b| presence(b) == Some(Presence::Online)).count(),
            bad: buttons.iter().filter(|b| presence(b) == Some(Presence::Silent)).count(),
        },
        cameras: Counts { total, good: live, bad: total - live.min(total) },
        open_incidents: usize::try_from(shared.progress.open_incidents.load(std::sync::atomic::Ordering::Relaxed))
            .unwrap_or(usize::MAX),
    }
}

/// Documents that are not yet on their way; nobody waits for those of a gateway that stands alone.
fn unsent(shared: &Shared) -> usize {
    let unsent = shared.progress.documents_unsent.load(std::sync::atomic::Ordering::Relaxed);
    if shared.hq.events().is_some() { usize::try_from(unsent).unwrap_or(usize::MAX) } else { 0 }
}

/// Cameras that should be recorded now and are not, and why.
fn not_recorded(shared: &Shared) -> Vec<NotRecorded> {
    let now = clock::now();
    let disk = match &*shared.media.health().borrow() {
        Health::Failing { error, .. } => Some(format!("the disk takes nothing: {error}")),
        Health::Ok | Health::OnReserve { .. } => None,
    };
    let why = |camera: &CameraId| match shared.board.camera_state(camera) {
        _ if disk.is_some() => disk.clone().unwrap_or_default(),
        Some(CameraState::Live) => "its frames cannot be recorded; see the log".into(),
        Some(state) => format!(
            "the camera is {}",
            serde_json::to_value(state).ok().and_then(|v| Some(v.as_str()?.to_owned())).unwrap_or_default()
        ),
        None => "nothing is known of the camera".into(),
    };
    let late = shared.watched.late(now.mono).into_iter();
    // To the second: what differs is told again.
    let since = |at| Utc::from_micros(now.wall.before(now.mono.since(at)).micros() / 1_000_000 * 1_000_000);
    late.map(|(camera, at)| NotRecorded { since: since(at), why: why(&camera), camera }).collect()
}

fn journal(shared: &Shared) -> String {
    let silence = shared.progress.disk_silence();
    match &*shared.journal.health().borrow() {
        Health::Ok | Health::OnReserve { .. } if silence > SILENT_DISK => "slow: the disk does not answer".into(),
        Health::Ok if shared.lost > 0 => {
            format!("damaged: {} entries that had been synced were gone at the start", shared.lost)
        }
        Health::Ok => "ok".into(),
        Health::OnReserve { left_bytes, .. } => format!("the disk is full; {left_bytes} bytes of reserve are left"),
        Health::Failing { error, .. } => format!("failing: {error}"),
    }
}

/// Why the gateway does not do its work, if it does not.
pub(super) fn ailment(shared: &Shared) -> Option<String> {
    let idle = clock::mono().since(shared.progress.last_turn());
    if idle > HANGS_AFTER {
        return Some(format!("the desk has not turned for {} s", idle.as_secs()));
    }
    let silence = shared.progress.disk_silence();
    match &*shared.journal.health().borrow() {
        Health::Failing { error, .. } => Some(format!("the journal's disk fails: {error}")),
        _ if silence > HANGS_AFTER => Some(format!("the journal's disk has not answered for {} s", silence.as_secs())),
        Health::Ok | Health::OnReserve { .. } if shared.exchange.calls().is_none() => {
            Some("no call can be answered: the port of [webrtc] could not be had; free it and restart".into())
        }
        Health::Ok | Health::OnReserve { .. } => None,
    }
}
