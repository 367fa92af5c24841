//! What systemd is told: READY, STOPPING, and a sign of life that is fed by the desk's own progress, not by a timer that
//! goes on turning when the desk hangs.

use std::{sync::Arc, time::Duration};

use sd_notify::NotifyState;
use tracing::{error, warn};

use super::desk::Progress;
use crate::host::{clock, scope::Scope};

/// A desk that has not turned for this long hangs. It turns at least four times a second.
pub const HANGS_AFTER: Duration = Duration::from_secs(5);

/// Says that the gateway serves.
pub fn ready() {
    say(&[NotifyState::Ready]);
}

/// Says that the gateway is stopping.
pub fn stopping() {
    say(&[NotifyState::Stopping]);
}

/// Feeds systemd's watchdog, when the unit has one, for as long as the desk turns.
pub fn feed(progress: Arc<Progress>, scope: &Scope) {
    let Some(period) = sd_notify::watchdog_enabled() else { return };
    let stopping = scope.stopping();
    scope.spawn("watchdog", async move {
        tokio::pin!(stopping);
        loop {
            tokio::select! {
                () = tokio::time::sleep(period / 3) => {}
                () = &mut stopping => return,
            }
            let idle = clock::mono().since(progress.last_turn());
            if idle < HANGS_AFTER {
                say(&[NotifyState::Watchdog]);
            } else {
                error!(?idle, "the desk hangs; systemd will restart the gateway");
            }
        }
    });
}

fn say(state: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(state) {
        warn!(error = %e, "systemd could not be told");
    }
}
