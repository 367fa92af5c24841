//! The gateway as the API and the page see it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::sync::{mpsc, oneshot};

use super::{
    PATIENCE,
    board::Board,
    desk::Progress,
    exchange::{Exchange, Joined, Joining},
    feeds::Feeds,
    forwarder::Forwarded,
    hq::Headquarters,
    intervals::{Interval, Unheld},
    metrics,
    pull::{Holdings, Reel, Source, Unreeled, is_asked},
    spectators::Spectators,
    status,
    watched::Watched,
    work::Work,
};
use crate::{
    call::{
        self, Answered, Calls, SessionId, Wanted,
        state::{self, Ask, Input},
        talkback::Prompts,
    },
    config::{District, IceServer},
    district::{
        call::Party,
        clock::{Mono, Utc},
        digest::Sha256,
        identity::Identity,
        ids::{ButtonId, CameraId, IncidentId},
        incident::Incident,
        inventory::Inventory,
        press::Press,
    },
    host::{clock, scope::Scope},
    incident::{
        engine::{CallError, CommandError},
        record::Command,
    },
    intake::{self, Accepted, Intake},
    media::{
        proof::{self, Draft, Proof},
        reel::KeyFrame,
        ring::Ring,
    },
    spool::{self, Journal, MediaStore},
};

/// Why live pictures are not to be had.
#[derive(Debug, thiserror::Error)]
pub enum Unwatched {
    /// No camera of that id.
    #[error("no camera {0} in this district")]
    NoCamera(CameraId),
    /// The port for them could not be had at the start.
    #[error("the gateway has no port for live pictures; its log of the start says why")]
    NoPort,
    /// The offer cannot be answered.
    #[error(transparent)]
    Refused(#[from] call::Refused),
}

/// Why an operator cannot take part in a call.
#[derive(Debug, thiserror::Error)]
pub enum Uncalled {
    /// The call does not take her.
    #[error(transparent)]
    Call(#[from] CallError),
    /// There is no way to her browser.
    #[error(transparent)]
    Pictures(Unwatched),
}

/// A running gateway as the API sees it; cheap to clone.
#[derive(Clone)]
pub struct Facade(Arc<Shared>);

/// What it is made of.
pub(super) struct Shared {
    pub district: District,
    pub inventory: Arc<Inventory>,
    pub board: Arc<Board>,
    pub feeds: Feeds,
    pub exchange: Exchange,
    /// Who rings, one group after another.
    pub groups: Vec<String>,
    pub ice_servers: Vec<IceServer>,
    /// Where presses come in.
    pub buttons: mpsc::Sender<intake::Event>,
    pub intake: Intake,
    pub journal: Journal,
    pub media: MediaStore,
    pub watched: Watched,
    pub spectators: Arc<Spectators>,
    pub hq: Headquarters,
    pub work: mpsc::Sender<Work>,
    pub progress: Arc<Progress>,
    pub counts: Arc<Forwarded>,
    /// Entries of the journal that had been synced and were gone at the start.
    pub lost: u64,
    /// What evidence is signed with, or why it is not.
    pub identity: Result<Arc<Identity>, String>,
    pub started: Mono,
    pub scope: Scope,
}

impl Facade {
    pub(super) fn new(shared: Shared) -> Self {
        Self(Arc::new(shared))
    }

    pub(super) fn shared(&self) -> &Shared {
        &self.0
    }

    /// The district's name and bounds.
    pub fn district(&self) -> &District {
        &self.0.district
    }

    /// What stands in it.
    pub fn inventory(&self) -> &Inventory {
        &self.0.inventory
    }

    /// Signs what whoever pulls is given of an incident, as those bytes: its document, and of each camera whose evidence has
    /// ended and is all here its lists, by their names in the incident's folder. None: this box has no key.
    pub fn sign(&self, incident: &Incident, document: &[u8], lists: &[(String, Bytes)]) -> Option<Proof> {
        let identity = self.0.identity.as_ref().ok()?;
        let subject = format!("{}/incidents/{}", self.0.district.id, incident.id);
        let mut entries = proof::entries(document);
        entries.extend(lists.iter().map(|(name, bytes)| (name.clone(), Sha256::of(bytes))));
        Some(Draft { subject, revision: incident.revision, entries }.sign(clock::wall(), identity))
    }

    /// What is going on.
    pub fn board(&self) -> &Board {
        &self.0.board
    }

    /// Answers a browser's offer with a camera's live pictures and sound.
    ///
    /// # Errors
    /// [`Unwatched`], when it cannot have them.
    pub fn watch(&self, camera: &CameraId, offer: &str) -> Result<Answered, Unwatched> {
        let shown = self.0.feeds.shown(camera, None).ok_or_else(|| Unwatched::NoCamera(camera.clone()))?;
        Ok(self.port()?.begin(Wanted { shown, sends: None }, self.0.feeds.hurry(), offer)?)
    }

    /// The latest frames of a camera, and all that come.
    pub fn ring(&self, camera: &CameraId) -> Option<Arc<Ring>> {
        self.0.feeds.ring(camera).cloned()
    }

    /// Who watches by RTSP.
    pub fn spectators(&self) -> &Arc<Spectators> {
        &self.0.spectators
    }

    /// Ends a live session. Whether there was one of that name.
    pub fn hang_up(&self, session: &SessionId) -> bool {
        self.0.exchange.hang_up(session)
    }

    fn port(&self) -> Result<&Calls, Unwatched> {
        self.0.exchange.calls().ok_or(Unwatched::NoPort)
    }

    /// Answers an operator's offer to take part in a call.
    ///
    /// # Errors
    /// [`Uncalled`], when she cannot.
    pub fn join(&self, joining: Joining, offer: &str) -> Result<Joined, Uncalled> {
        let incident = joining.incident;
        let news = self.0.board.call_of(incident).ok_or(Uncalled::Call(CallError::NoCall(incident)))?;
        let replaces = joining.replaces.as_ref().and_then(|session| self.0.exchange.operator(session)).map(|o| o.1);
        // Asked again when her browser is connected; until then nothing is hers.
        let party = Party { party: u32::MAX, name: joining.name.clone() };
        let arrives = Input::Arrived { party, speak: joining.speak, replaces };
        state::decide(&news.event.call, arrives, &self.0.groups).map_err(CallError::from)?;
        let calls = self.port().map_err(Uncalled::Pictures)?;
        let joined = self.0.exchange.join(calls, joining, &news.event, offer);
        joined.map_err(|refused| Uncalled::Pictures(refused.into()))
    }

    /// What an operator's session asks for. `None` when there is no such session in that call, or the gateway stops.
    pub async fn ask(&self, incident: IncidentId, session: &SessionId, what: Ask) -> Option<Result<(), CallError>> {
        let (of, party, supervisor) = self.0.exchange.operator(session)?;
        if of != incident {
            return None;
        }
        self.0.exchange.ask(incident, Input::Asked { party, supervisor, what }).await
    }

    /// An operator hangs up. Whether there was one in that session.
    pub fn leave(&self, session: &SessionId) -> bool {
        self.0.exchange.leave(session)
    }

    /// Answers the offer of a unit with a screen.
    ///
    /// # Errors
    /// [`Unwatched`], when it cannot be answered.
    pub fn screen(&self, button: &ButtonId, offer: &str) -> Result<Answered, Unwatched> {
        Ok(self.0.exchange.screen(self.port()?, button, offer)?)
    }

    /// A press on the screen of a unit. Whether it is on disk; false when that took too long, or the gateway stops.
    pub async fn press(&self, press: Press) -> bool {
        let (accepted, recorded) = Accepted::pair();
        if self.0.buttons.send(intake::Event::Press { press, accepted }).await.is_err() {
            return false;
        }
        matches!(tokio::time::timeout(PATIENCE, recorded).await, Ok(Ok(true)))
    }

    /// What units play.
    pub fn prompts(&self) -> &Prompts {
        self.0.exchange.prompts()
    }

    /// STUN and TURN servers that browsers are told of.
    pub fn ice_servers(&self) -> &[IceServer] {
        &self.0.ice_servers
    }

    /// Who rings, one group after another.
    pub fn groups(&self) -> &[String] {
        &self.0.groups
    }

    /// Where buttons connect: plain MQTT, MQTT over TLS.
    pub fn broker_addresses(&self) -> (Option<SocketAddr>, Option<SocketAddr>) {
        self.0.intake.addresses()
    }

    /// A step of headquarters, answered when it is on disk. `None` when it was not in time: the gateway is stopping, or
    /// its disk fails.
    pub async fn command(&self, command: Command) -> Option<Result<(), CommandError>> {
        let (reply, answer) = oneshot::channel();
        self.0.work.send(Work::Command(command, reply)).await.ok()?;
        tokio::time::timeout(PATIENCE, answer).await.ok()?.ok()
    }

    /// The stored evidence of a camera for an incident. Blocks on files: call from a blocking thread.
    pub fn media(&self) -> &MediaStore {
        &self.0.media
    }

    /// What is held of a camera between two moments. None: there is no such camera.
    pub async fn holdings(&self, camera: &CameraId, asked: Interval) -> Option<Result<Holdings, spool::Error>> {
        self.0.feeds.ring(camera)?;
        Some(Holdings::of(camera, asked, &self.0.media, &self.0.board).await)
    }

    /// What is held of a camera between two moments, as one file. None: there is no such camera.
    pub async fn recording(&self, camera: &CameraId, asked: Interval) -> Option<Result<Reel, Unreeled>> {
        self.0.feeds.ring(camera)?;
        let media = self.0.media.clone();
        let overlaps = |incident: &Arc<Incident>| incident.evidence.iter().any(|e| is_asked(e, camera, asked));
        let mut incidents = self.0.board.incidents(None, usize::MAX);
        incidents.retain(overlaps);
        let source = Source { media, camera: camera.clone(), incidents, buffers: true };
        Some(Reel::plan(source, asked).await)
    }

    /// The last key frame at or before a moment that is held, and when it was captured. None: there is no such camera.
    pub async fn key_frame(&self, camera: &CameraId, at: Utc) -> Option<Result<(KeyFrame, Utc), Unreeled>> {
        let asked = Interval { from: at, to: at.after(Duration::from_millis(1)) };
        Some(match self.recording(camera, asked).await? {
            Ok(reel) => reel.key_frame(at).await,
            Err(error) => Err(error),
        })
    }

    /// The evidence of a camera for an incident, as one file, and what it lacks. None: none is kept.
    pub async fn evidence(&self, id: IncidentId, camera: &CameraId) -> Option<Result<(Reel, Vec<Unheld>), Unreeled>> {
        let incident = self.0.board.incident_of(id)?;
        let evidence = incident.evidence.iter().find(|evidence| evidence.camera == *camera)?;
        // All of it, whatever the clock said.
        let asked = Interval { from: evidence.from, to: Utc::from_micros(i64::MAX) };
        let gaps = evidence.gaps.iter().map(Unheld::from).collect();
        let media = self.0.media.clone();
        let source = Source { media, camera: camera.clone(), incidents: vec![incident], buffers: false };
        Some(Reel::plan(source, asked).await.map(|reel| (reel, gaps)))
    }

    /// The scope that requests may run blocking work in.
    pub fn scope(&self) -> &Scope {
        &self.0.scope
    }

    /// Resolves when the gateway stops.
    pub fn stopping(&self) -> impl Future<Output = ()> + Send + use<> {
        self.0.scope.stopping()
    }

    /// Why the gateway does not do its work, if it does not.
    pub fn ailment(&self) -> Option<String> {
        status::ailment(&self.0)
    }

    /// All metrics, OpenMetrics text.
    pub fn metrics(&self) -> String {
        metrics::render(&self.0)
    }
}
