//! What is on disk, opened, and the engine brought to where it was left. The journal always comes first: presses are taken as
//! soon as it is open. The media log mostly opens as fast; where its index is lost and built anew, that goes on behind.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tracing::{error, info, warn};

use super::{Error, identity, ledger, settings, shelf, work::Work};
use crate::{
    config::{self, Config},
    district::{
        identity::Identity,
        ids::{CameraId, IncidentId},
    },
    host::scope::Scope,
    incident::engine::Engine,
    spool::{self, Evicted, Journal, JournalSettings, MediaStore, Ticket, disk::RealDisk, recovery::Report},
};

/// A start waits so long for the media log.
const PATIENCE: Duration = Duration::from_secs(1);

/// What is on disk, opened.
pub(super) struct Spool {
    pub journal: Journal,
    pub media: MediaStore,
    /// What evidence is signed with, or why it is not.
    pub identity: Result<Arc<Identity>, String>,
    /// What was removed from the disk, from now on and since it was last heard of.
    pub evictions: mpsc::Receiver<Vec<Evicted>>,
    /// Bytes of journal that were replayed.
    pub replayed: u64,
    /// Entries of the journal that had been synced and are gone.
    pub lost: u64,
    /// Where the media log is not open yet.
    pub late: Option<Late>,
}

/// Opens journal and media log, and brings the engine to where they left it.
pub(super) async fn open(config: &Config, engine: &mut Engine, scope: &Scope) -> Result<Spool, Error> {
    let (dir, settings, lookups) = (config.data.dir.clone(), settings::media(config), scope.clone());
    let opened = scope.spawn_blocking("open spool", move || -> Result<_, spool::Error> {
        let journal = spool::journal::open(&dir.join("journal"), JournalSettings::default())?;
        let media = MediaStore::begin(&dir.join("media"), settings, &lookups)?;
        // Only whoever has the journal may make a key.
        let identity = identity::open(&RealDisk, &dir, config::credentials().as_deref());
        Ok((journal, media, identity))
    });
    let Ok(opened) = opened.await else { return Err(spool::Error::Stopped.into()) };
    let ((journal, entries, found), (media, evictions, mut opening), identity) = opened?;
    info!(?found, "journal opened");
    said("journal", &found);
    let lost = found.lost.iter().map(|lost| lost.end - lost.start).sum();
    let replayed = entries.iter().map(|e| e.payload.len() as u64).sum();
    replay(engine, entries);
    let identity = signing(identity);
    let late = match tokio::time::timeout(PATIENCE, &mut opening).await {
        Ok(report) => {
            opened_media(&report?);
            replay_evidence(engine, &media).await?;
            None
        }
        Err(_) => {
            warn!("the media log is still being opened; presses are taken meanwhile, and what is recorded waits");
            Some(Late { opening, evidence: engine.evidence() })
        }
    };
    Ok(Spool { journal, media, identity, evictions, replayed, lost, late })
}

/// Presses are taken without a key as well.
fn signing(opened: Result<Identity, identity::Error>) -> Result<Arc<Identity>, String> {
    match opened {
        Ok(identity) => {
            let key = identity.public();
            info!(fingerprint = %key.fingerprint(), %key, "this box's key");
            Ok(Arc::new(identity))
        }
        Err(error) => {
            error!(%error, "this box has no key: evidence is not signed");
            Err(error.to_string())
        }
    }
}

fn opened_media(found: &Report) {
    info!(?found, "media log opened");
    said("media log", found);
}

fn said(part: &str, report: &Report) {
    if !report.is_sound() {
        error!(part, lost = ?report.lost, damage = ?report.damage,
            "the disk has lost what was synced: presses or evidence may be missing; replace the disk");
    }
}

/// Brings an engine to where journal and media log left it.
#[cfg(test)]
pub(super) async fn bring_back(
    engine: &mut Engine,
    entries: Vec<spool::Entry>,
    media: &MediaStore,
) -> Result<(), spool::Error> {
    replay(engine, entries);
    replay_evidence(engine, media).await
}

fn replay(engine: &mut Engine, entries: Vec<spool::Entry>) {
    let unread = ledger::replay(engine, entries);
    if unread > 0 {
        warn!(unread, "journal entries of another version");
    }
}

async fn replay_evidence(engine: &mut Engine, media: &MediaStore) -> Result<(), spool::Error> {
    for (incident, camera) in engine.evidence() {
        for object in media.evidence(incident, &camera).await? {
            engine.replay_evidence(incident, &camera, shelf::shown(&object.meta, object.delivered));
        }
    }
    Ok(())
}

/// A media log that is still being opened.
pub(super) struct Late {
    opening: Ticket<Report>,
    /// Whose objects the engine has not been told of.
    evidence: Vec<(IncidentId, CameraId)>,
}

impl Late {
    /// Tells the desk what there is once it is open.
    pub fn follow(self, media: MediaStore, work: mpsc::Sender<Work>, scope: &Scope) {
        let stopping = scope.stopping();
        scope.spawn("media log", async move {
            tokio::select! {
                () = stopping => {}
                () = self.tell(&media, &work) => {}
            }
        });
    }

    async fn tell(self, media: &MediaStore, work: &mpsc::Sender<Work>) {
        match self.opening.await {
            Ok(report) => opened_media(&report),
            Err(error) => return error!(%error, "the media log cannot be opened: nothing is recorded"),
        }
        for (incident, camera) in self.evidence {
            let objects = match media.evidence(incident, &camera).await {
                Ok(objects) => objects,
                Err(error) => return error!(%error, "what is held of evidence cannot be listed"),
            };
            for object in objects {
                let shown = shelf::shown(&object.meta, object.delivered);
                let told = if object.delivered { Work::Uploaded } else { Work::Stored };
                // Fails only when the desk has gone, and then nobody needs it.
                let _ = work.send(told(incident, camera.clone(), shown)).await;
            }
        }
    }
}
