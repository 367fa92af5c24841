//! The gateway's own state, once a second: on the board, and for headquarters whenever it differs.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use super::{
    Facade,
    board::{Counts, KeyLine, NotRecorded, Status},
    facade::Shared,
    watchdog::HANGS_AFTER,
};
use crate::{
    district::{
        button::Presence,
        camera::CameraState,
        clock::{Mono, Utc},
        ids::CameraId,
    },
    host::{clock, scope::Scope},
    spool::Health,
    uplink::objects::PutError,
};

/// How often it is looked at.
const EVERY: Duration = Duration::from_secs(1);

/// A store that takes nothing for this long while the backhaul is up is an alarm.
const STORE_FAILS: Duration = Duration::from_secs(60);

/// So many cameras that are not recorded have an alarm each: a status that is retained stays short.
const NAMED: usize = 4;

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
    let set_aside = shared.counts.set_aside.load(Relaxed);
    let (not_recorded, trouble) = (not_recorded(shared), shared.counts.trouble());
    Status {
        online: true,
        district: shared.district.id.to_string(),
        version: env!("CARGO_PKG_VERSION"),
        identity: shared.identity.as_ref().ok().map(|identity| KeyLine::of(identity.public())),
        backhaul: link.state,
        backhaul_since: link.since,
        backhaul_detail: link.detail,
        pending_documents: shared.hq.pending() + unsent(shared),
        pending_objects: usize::try_from(held.undelivered).unwrap_or(usize::MAX),
        objects_set_aside: usize::try_from(set_aside).unwrap_or(usize::MAX),
        alarms: alarms(shared, &not_recorded, set_aside, trouble.as_ref(), link.state),
        store: trouble.map_or_else(|| "ok".into(), |(_, error)| error.of_the_store()),
        not_recorded,
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

/// What somebody has to do something about, here or at headquarters. The journal has a line of its own.
fn alarms(
    shared: &Shared,
    not_recorded: &[NotRecorded],
    set_aside: u64,
    trouble: Option<&(Mono, PutError)>,
    backhaul: &str,
) -> Vec<String> {
    // While the backhaul is down, that says it all.
    let lasts = |since: Mono| backhaul == "up" && clock::mono().since(since) > STORE_FAILS;
    let store = trouble.filter(|(since, error)| matches!(error, PutError::Misconfigured { .. }) || lasts(*since));
    let mut alarms: Vec<_> =
        store.iter().map(|(_, error)| format!("headquarters' store {}", error.of_the_store())).collect();
    alarms.extend(shared.identity.as_ref().err().map(|why| format!("evidence is not signed: {why}")));
    if set_aside > 0 {
        alarms.push(format!(
            "{set_aside} objects are refused by headquarters' store, or fail while others go through; the log names them"
        ));
    }
    let named = not_recorded.iter().take(NAMED);
    alarms.extend(named.map(|c| format!("camera {} is not recorded since {}: {}", c.camera, c.since, c.why)));
    if not_recorded.len() > NAMED {
        alarms.push(format!("{} more cameras are not recorded; not_recorded names them", not_recorded.len() - NAMED));
    }
    alarms
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
