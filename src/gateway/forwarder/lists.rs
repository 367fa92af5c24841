//! What makes evidence play and provable at headquarters beside its objects: playlists, manifests, and each incident's
//! document. What of it is signed, `proofs` knows.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tracing::{error, info, warn};

use super::{Fate, Forwarder, ROUND, proofs::Proofs};
use crate::{
    district::{
        clock::Mono,
        correction::ClockCorrection,
        evidence::CameraEvidence,
        ids::{CameraId, IncidentId},
        incident::Incident,
        press::Progress,
    },
    gateway::shelf,
    host::clock,
    media::{
        audit::{MANIFEST, PLAYLIST},
        proof::DOCUMENT,
    },
    spool::{Kept, ObjectRef},
    uplink::objects::PutError,
};

/// A playlist is put at most this often while it grows.
pub(super) const LISTS_EVERY: Duration = Duration::from_secs(1);

/// A document is put at most this often: however fast incidents change, their copies in the store take neither the disk
/// nor the line from the presses themselves.
pub(super) const DOCUMENT_EVERY: Duration = Duration::from_millis(250);

/// What is behind at headquarters beside the objects themselves.
#[derive(Default)]
pub(super) struct Lists {
    /// Cameras whose playlist or manifest is behind.
    behind: BTreeMap<(IncidentId, CameraId), Behind>,
    /// What was last put of each incident's document, and when: its revision, and its state, which headquarters' PUBACK
    /// moves without a revision.
    documents: HashMap<IncidentId, (Mono, u64, Progress)>,
    /// When the next document may be put.
    document_due: Mono,
    /// Whether documents wait for that.
    pub more_documents: bool,
    /// Each playlist that is not finished.
    playlists: HashMap<(IncidentId, CameraId), Growing>,
    /// Objects of cameras whose lists are behind that headquarters has: those that the disk gave up for others too.
    delivered: HashMap<(IncidentId, CameraId), BTreeMap<(u32, String), ObjectRef>>,
    /// Objects that this gateway's disk has lost: nothing waits for them.
    lost: HashSet<String>,
    /// What is signed of all this.
    pub proofs: Proofs,
}

/// A playlist that is not finished. Players take one that only grows at its end, but the seconds around the press are
/// there first: it begins with what came first, and goes on for as long as nothing is missing. Once finished it has all. (A restart
/// forgets where it began: then it may begin anew.)
struct Growing {
    /// The number of its first object.
    from: u32,
    /// What it said when it was last put.
    text: String,
}

/// Of what headquarters has, what a growing playlist lists: from that number on, up to the first object that still waits;
/// nothing while an init segment waits that it needs.
fn run(there: &[ObjectRef], from: u32, waiting: &[ObjectRef]) -> Vec<ObjectRef> {
    let is_init = |o: &ObjectRef| o.meta.from >= o.meta.to;
    let end = waiting.iter().map(|o| o.meta.number).filter(|number| *number > from).min().unwrap_or(u32::MAX);
    let end = if waiting.iter().any(|o| is_init(o) && o.meta.number < from) { from } else { end };
    there.iter().filter(|o| (from..end).contains(&o.meta.number)).cloned().collect()
}

#[derive(Clone, Copy)]
enum Behind {
    /// Something was delivered since then.
    Since(Mono),
    /// The gateway was restarted: headquarters may have it all.
    AfterRestart,
}

impl Behind {
    fn due(self, now: Mono) -> bool {
        match self {
            Behind::Since(then) => now.since(then) >= LISTS_EVERY,
            Behind::AfterRestart => true,
        }
    }
}

impl Lists {
    /// After a restart: every camera whose evidence is not complete may have lists that are behind.
    pub fn after_restart(incidents: &[Arc<Incident>]) -> Self {
        let mut lists = Self { proofs: Proofs::after_start(), ..Self::default() };
        for incident in incidents {
            for evidence in &incident.evidence {
                lists.behind.insert((incident.id, evidence.camera.clone()), Behind::AfterRestart);
            }
        }
        lists
    }

    /// Takes what became of an object.
    pub fn take(&mut self, incident: IncidentId, object: ObjectRef, fate: Fate) {
        let key = (incident, object.meta.camera.clone());
        self.behind.entry(key.clone()).or_insert(Behind::Since(clock::mono()));
        match fate {
            Fate::Delivered => self.has(key, object),
            Fate::Lost => drop(self.lost.insert(object.to_string())),
        }
    }

    fn has(&mut self, key: (IncidentId, CameraId), mut object: ObjectRef) {
        object.delivered = true;
        let place = (object.meta.number, object.meta.name.clone());
        self.delivered.entry(key).or_default().insert(place, object);
    }
}

impl Forwarder {
    /// Puts the lists that are behind and due, the newest incidents' first, and no more than a round: evidence that came
    /// meanwhile goes before the rest. Whether one was put.
    pub(super) async fn put_due_lists(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        let due: Vec<_> = lists
            .behind
            .iter()
            .rev()
            .filter(|(_, b)| b.due(now))
            .take(ROUND)
            .map(|(key, behind)| (key.clone(), *behind))
            .collect();
        for (key, behind) in &due {
            let (incident, camera) = key;
            let document = self.board.incident_of(*incident);
            let found = document.as_ref().and_then(|d| Some((d, d.evidence.iter().find(|e| e.camera == *camera)?)));
            let Some((document, evidence)) = found else {
                lists.behind.remove(key);
                lists.delivered.remove(key);
                continue;
            };
            let maybe = matches!(behind, Behind::AfterRestart);
            let clock = document.pressed_at.clock_correction;
            match self.put_lists(*incident, clock, evidence, maybe, lists).await {
                Ok(true) => {
                    info!(%incident, %camera, "all evidence of this camera is at headquarters");
                    lists.behind.remove(key);
                    lists.playlists.remove(key);
                    lists.delivered.remove(key);
                }
                Ok(false) => drop(lists.behind.insert(key.clone(), Behind::Since(now))),
                Err(e @ PutError::Refused { .. }) => {
                    error!(error = %e, "left out; the rest goes on");
                    lists.behind.remove(key);
                }
                Err(e) => return Err(e),
            }
        }
        Ok(!due.is_empty())
    }

    /// The playlist; and the manifest when nothing will come any more. Whether that is so.
    pub(super) async fn put_lists(
        &self,
        incident: IncidentId,
        clock: Option<ClockCorrection>,
        evidence: &CameraEvidence,
        maybe: bool,
        lists: &mut Lists,
    ) -> Result<bool, PutError> {
        let Some(held) = self.asked(self.media.evidence(incident, &evidence.camera).await) else { return Ok(false) };
        let folder = shelf::folder(&self.district, Kept::Evidence { incident }, &evidence.camera);
        let settled = |o: &ObjectRef| o.delivered || lists.lost.contains(&o.to_string());
        let finished = evidence.ended && held.iter().all(settled);
        let key = (incident, evidence.camera.clone());
        let waiting: Vec<_> = held.iter().filter(|o| !settled(o)).cloned().collect();
        held.into_iter().filter(|o| o.delivered).for_each(|o| lists.has(key.clone(), o));
        let there: Vec<_> = lists.delivered.get(&key).into_iter().flat_map(BTreeMap::values).cloned().collect();
        if there.len() < evidence.delivered_count {
            // Delivered by an earlier run, and no longer on this disk: lists without them would take back what is known.
            warn!(%incident, camera = %evidence.camera, "headquarters has more than this disk; its lists stay");
            if maybe {
                self.look_at_lists(incident, &evidence.camera, &folder, lists).await?;
            }
            return Ok(finished);
        }
        if there.is_empty() {
            return Ok(finished);
        }
        let manifest = finished.then(|| {
            let manifest = shelf::manifest(folder.clone(), &there, evidence, clock);
            Bytes::from(serde_json::to_vec_pretty(&manifest).unwrap_or_default())
        });
        let growing = CameraEvidence { ended: finished, ..evidence.clone() };
        // (Its init segment has a lower number than the first fragment, and is named by what needs it.)
        let first = there.iter().find(|o| o.meta.from < o.meta.to).map_or(0, |o| o.meta.number);
        let from = if finished { 0 } else { lists.playlists.get(&key).map_or(first, |known| known.from) };
        let listed = if finished { there.clone() } else { run(&there, from, &waiting) };
        let text = shelf::playlist(&listed, &growing, clock);
        let playlist = Bytes::from(text.clone());
        let (playlist_name, manifest_name) = (format!("{folder}/{PLAYLIST}"), format!("{folder}/{MANIFEST}"));
        let is_news = !listed.is_empty() && lists.playlists.get(&key).is_none_or(|known| known.text != text);
        if let Some(manifest) = manifest {
            let is_there = maybe
                && self.store.has(&manifest_name, &manifest).await?
                && self.store.has(&playlist_name, &playlist).await?;
            if !is_there {
                self.store.put(&playlist_name, playlist.clone()).await?;
                self.store.put(&manifest_name, manifest.clone()).await?;
            }
            lists.proofs.lists(incident, &evidence.camera, &playlist, Some(&manifest));
        } else if is_news {
            self.store.put(&playlist_name, playlist.clone()).await?;
            lists.proofs.lists(incident, &evidence.camera, &playlist, None);
            lists.playlists.insert(key, Growing { from, text });
        }
        Ok(finished)
    }

    /// `incident.json` of an incident that changed: of new ones the newest, else the one that was put longest ago.
    /// Whether one was put.
    pub(super) async fn put_document(&self, lists: &mut Lists) -> Result<bool, PutError> {
        let now = clock::mono();
        if now < lists.document_due {
            return Ok(false);
        }
        lists.document_due = now + DOCUMENT_EVERY;
        let incidents = self.board.incidents(None, usize::MAX);
        let held: HashSet<_> = incidents.iter().map(|i| i.id).collect();
        lists.documents.retain(|id, _| held.contains(id));
        lists.proofs.keep(|id| held.contains(id));
        let put_at = |d: &Incident| match lists.documents.get(&d.id) {
            None => Some(Mono::default()),
            Some((at, revision, state)) => ((*revision, *state) != (d.revision, d.state)).then_some(*at),
        };
        let changed = incidents.iter().filter_map(|d| Some((put_at(d)?, Reverse(d.id), d)));
        lists.more_documents = false;
        let Some((_, _, document)) =
            changed.inspect(|_| lists.more_documents = true).min_by_key(|(at, id, _)| (*at, *id))
        else {
            return Ok(false);
        };
        let json = Bytes::from(serde_json::to_vec_pretty(document.as_ref()).unwrap_or_default());
        let name = format!("{}/incidents/{}/{DOCUMENT}", self.district, document.id);
        match self.store.put(&name, json.clone()).await {
            Ok(()) => lists.proofs.document(document.id, document.revision, &json),
            Err(e @ PutError::Refused { .. }) => error!(error = %e, "left out; the rest goes on"),
            Err(e) => return Err(e),
        }
        lists.documents.insert(document.id, (now, document.revision, document.state));
        if document.pressed_at.clock_correction.is_some() {
            // Its lists may be dated by the clock of before: what is there already is left.
            for evidence in &document.evidence {
                lists.behind.entry((document.id, evidence.camera.clone())).or_insert(Behind::AfterRestart);
            }
        }
        Ok(true)
    }
}
