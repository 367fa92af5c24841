//! Carries calls out: who has the floor is heard at the unit, and the unit plays what is true. Follows each call as the
//! engine decides it; the state of a call is not here.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
};

use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;

use super::{feeds::Feeds, line, work::Work};
use crate::{
    call::{Answered, Calls, Inlet, Progress, Refused, SessionId, Shown, Wanted, Why, state::Input, talkback::Prompts},
    district::{
        call::{CallEvent, CallState, EndReason, Party, UnitKind},
        camera::{CameraReport, CameraState},
        ids::{ButtonId, CameraId, IncidentId},
        inventory::Inventory,
    },
    host::scope::Scope,
    incident::engine::CallError,
};

/// The exchange; cheap to clone.
#[derive(Clone)]
pub struct Exchange(Arc<Shared>);

struct Shared {
    inventory: Arc<Inventory>,
    feeds: Feeds,
    prompts: Arc<Prompts>,
    /// Of each unit that hears its own speaker: set while the operator speaks there.
    hushed: HashMap<ButtonId, Arc<AtomicBool>>,
    /// None where its port could not be had.
    calls: Option<Calls>,
    work: mpsc::Sender<Work>,
    reports: mpsc::Sender<CameraReport>,
    scope: Scope,
    parties: AtomicU32,
    inner: Mutex<Inner>,
}

#[derive(Default)]
struct Inner {
    /// Operators' sessions.
    operators: HashMap<SessionId, Operator>,
    /// The session of each unit with a screen.
    screens: HashMap<ButtonId, Screen>,
    /// The incident whose call is at each unit.
    lines: HashMap<ButtonId, Line>,
}

/// An operator's session.
#[derive(Debug, Clone)]
struct Operator {
    incident: IncidentId,
    party: u32,
    /// Whether it may take the floor from another.
    supervisor: bool,
    /// Set when it is ended by its own wish.
    hung_up: Arc<AtomicBool>,
}

/// The session of a unit with a screen.
struct Screen {
    session: SessionId,
    connected: bool,
}

/// A call that is at a unit.
struct Line {
    incident: IncidentId,
    call: watch::Sender<CallEvent>,
}

/// Who asks to take part.
#[derive(Debug, Clone)]
pub struct Joining {
    /// In the call of which incident.
    pub incident: IncidentId,
    /// Who, as it goes into the record.
    pub name: String,
    /// Whether the floor is asked for.
    pub speak: bool,
    /// Whether it may take the floor from another.
    pub supervisor: bool,
    /// An earlier session of the same browser.
    pub replaces: Option<SessionId>,
}

/// An operator that takes part.
#[derive(Debug)]
pub struct Joined {
    /// The session and its answer.
    pub answered: Answered,
    /// Its number in the call.
    pub party: u32,
}

impl Exchange {
    /// An exchange over these.
    pub fn new(
        inventory: Arc<Inventory>,
        feeds: Feeds,
        (calls, prompts): (Option<Calls>, Prompts),
        (work, reports): (mpsc::Sender<Work>, mpsc::Sender<CameraReport>),
        scope: Scope,
    ) -> Self {
        let (parties, inner) = (AtomicU32::new(1), Mutex::default());
        let prompts = Arc::new(prompts);
        let half_duplex = inventory.buttons().iter().filter(|b| b.half_duplex);
        let hushed = half_duplex.map(|b| (b.id.clone(), Arc::default())).collect();
        Self(Arc::new(Shared { inventory, feeds, prompts, hushed, calls, work, reports, scope, parties, inner }))
    }

    /// What units play.
    pub fn prompts(&self) -> &Prompts {
        &self.0.prompts
    }

    /// The port of all sessions, where it could be had.
    pub fn calls(&self) -> Option<&Calls> {
        self.0.calls.as_ref()
    }

    /// Brings a unit to where its call is now. Never waits.
    pub fn follow(&self, event: &CallEvent) {
        let (button, call) = (&event.button.id, &event.call);
        let Some(inlet) = self.0.feeds.voice(button) else { return };
        inlet.give(call.speaker.as_ref().filter(|_| call.state == CallState::Answered).map(|s| s.party));
        if call.ended.as_ref().is_some_and(|ended| ended.reason == EndReason::Closed) {
            self.end_sessions(event.incident);
        }
        let mut inner = self.0.lock();
        if let Some(line) = inner.lines.get(button).filter(|line| line.incident == event.incident) {
            let over = call.state == CallState::Ended;
            let _ = line.call.send(event.clone());
            if over {
                inner.lines.remove(button);
            }
            return;
        }
        if call.state == CallState::Ended || call.unit.kind == UnitKind::None {
            return;
        }
        let Some(at) = self.0.inventory.button(button).cloned() else { return };
        let (sender, receiver) = watch::channel(event.clone());
        inner.lines.insert(button.clone(), Line { incident: event.incident, call: sender });
        drop(inner);
        let line = line::Line {
            button: at.clone(),
            feeds: self.0.feeds.clone(),
            exchange: self.clone(),
            call: receiver,
            hushed: self.0.hushed.get(button).cloned(),
        };
        let _inside = self.0.calls.as_ref().map(Calls::enter);
        let speaker = line::speaker(&at, &self.0.prompts, &self.0.scope);
        self.0.scope.spawn("line", line.run(speaker, self.0.scope.stopping()));
    }

    /// The incident is closed: nobody's microphone is open for it any more.
    fn end_sessions(&self, incident: IncidentId) {
        let inner = self.0.lock();
        let of = inner.operators.iter().filter(|(_, operator)| operator.incident == incident);
        let sessions: Vec<_> = of.map(|(session, _)| session.clone()).collect();
        drop(inner);
        for session in sessions {
            self.hang_up(&session);
        }
    }

    /// Ends a live session. Whether there was one of that name.
    pub fn hang_up(&self, session: &SessionId) -> bool {
        self.0.calls.as_ref().is_some_and(|calls| calls.hang_up(session))
    }

    /// Whether a unit's screen is connected.
    pub(super) fn screen_stands(&self, button: &ButtonId) -> bool {
        self.0.lock().screens.get(button).is_some_and(|screen| screen.connected)
    }

    /// Brings to the desk what happened to a call, in order; nobody waits for what comes of it.
    pub(super) async fn tell(&self, incident: IncidentId, input: Input) {
        let (reply, _nobody) = oneshot::channel();
        // Fails only when the desk has gone.
        let _ = self.0.work.send(Work::Call(incident, input, reply)).await;
    }

    /// Brings to the desk what somebody asks of a call. None: the gateway stops.
    pub async fn ask(&self, incident: IncidentId, input: Input) -> Option<Result<(), CallError>> {
        let (reply, answer) = oneshot::channel();
        self.0.work.send(Work::Call(incident, input, reply)).await.ok()?;
        tokio::time::timeout(super::PATIENCE, answer).await.ok()?.ok()
    }

    /// Answers an operator's offer; she takes part as soon as her browser is connected.
    ///
    /// # Errors
    /// [`Refused`], when the offer cannot be answered.
    pub fn join(&self, calls: &Calls, joining: Joining, event: &CallEvent, offer: &str) -> Result<Joined, Refused> {
        let shared = &self.0;
        let party = shared.parties.fetch_add(1, Relaxed);
        let button = &event.button.id;
        let inlet = shared.feeds.voice(button).cloned();
        let voice = inlet.as_ref().map(|inlet| Shown::of(inlet.ring().clone()));
        let hushed = shared.hushed.get(button).cloned();
        let camera = event.camera.as_ref().and_then(|c| shared.feeds.shown(&c.id, hushed)).unwrap_or_default();
        let shown = camera.into_iter().chain(voice).collect();
        let wanted = Wanted { shown, sends: inlet.map(|inlet| (inlet, party)) };
        let answered = calls.begin(wanted, shared.feeds.hurry(), offer)?;
        let operator =
            Operator { incident: joining.incident, party, supervisor: joining.supervisor, hung_up: Arc::default() };
        let replaces = {
            let mut inner = shared.lock();
            inner.operators.insert(answered.session.clone(), operator.clone());
            joining.replaces.and_then(|old| inner.operators.get(&old)).map(|old| old.party)
        };
        let (exchange, session, progress) = (self.clone(), answered.session.clone(), answered.progress.clone());
        shared.scope.spawn("operator", async move {
            let stays = exchange.accompany(operator, joining.name, joining.speak, replaces, progress).await;
            exchange.0.lock().operators.remove(&session);
            if !stays {
                exchange.hang_up(&session);
            }
        });
        Ok(Joined { answered, party })
    }

    /// Tells the desk of an operator's session as it comes and goes. Whether the call took it.
    async fn accompany(
        &self,
        operator: Operator,
        name: String,
        speak: bool,
        replaces: Option<u32>,
        mut progress: watch::Receiver<Progress>,
    ) -> bool {
        let Operator { incident, party, hung_up, .. } = operator;
        let come = progress.wait_for(|p| *p != Progress::Connecting).await.map(|p| *p);
        if !matches!(come, Ok(Progress::Connected)) {
            return true;
        }
        let party_of = Party { party, name };
        let arrived = |speak| Input::Arrived { party: party_of.clone(), speak, replaces };
        let mut taken = self.ask(incident, arrived(speak)).await;
        if speak && matches!(taken, Some(Err(_))) {
            // Another was faster.
            taken = self.ask(incident, arrived(false)).await;
        }
        if matches!(taken, Some(Err(_))) {
            return false;
        }
        let gone = progress.wait_for(|p| matches!(p, Progress::Ended(_))).await.map(|p| *p);
        if self.0.scope.is_stopping() {
            // After the start it rings again, and says why.
            return true;
        }
        let hung_up = hung_up.load(Relaxed) && matches!(gone, Ok(Progress::Ended(Why::HungUp)));
        self.tell(incident, Input::Gone { party, hung_up }).await;
        true
    }

    /// An operator hangs up. Whether there was one in that session.
    pub fn leave(&self, session: &SessionId) -> bool {
        let operator = self.0.lock().operators.get(session).cloned();
        let Some((operator, calls)) = operator.zip(self.0.calls.as_ref()) else { return false };
        operator.hung_up.store(true, Relaxed);
        calls.hang_up(session)
    }

    /// Whose session that is: the incident, the party, and whether it may take the floor from another.
    pub fn operator(&self, session: &SessionId) -> Option<(IncidentId, u32, bool)> {
        self.0.lock().operators.get(session).map(|o| (o.incident, o.party, o.supervisor))
    }

    /// Answers the offer of a unit with a screen. A session that it has already ends.
    ///
    /// # Errors
    /// [`Refused`], when the offer cannot be answered.
    pub fn screen(&self, calls: &Calls, button: &ButtonId, offer: &str) -> Result<Answered, Refused> {
        let shared = &self.0;
        let party = shared.parties.fetch_add(1, Relaxed);
        let inlet = shared.feeds.screen(button).cloned();
        let voice = shared.feeds.voice(button).map(|inlet| Shown::of(inlet.ring().clone()));
        let sends = inlet.as_ref().map(|inlet| (inlet.clone(), party));
        let wanted = Wanted { shown: voice.into_iter().collect(), sends };
        let answered = calls.begin(wanted, (), offer)?;
        let now = Screen { session: answered.session.clone(), connected: false };
        let before = shared.lock().screens.insert(button.clone(), now);
        if let Some(before) = &before {
            calls.hang_up(&before.session);
        }
        let stood = before.is_some_and(|before| before.connected);
        let (exchange, button, session) = (self.clone(), button.clone(), answered.session.clone());
        let progress = answered.progress.clone();
        shared.scope.spawn("screen", async move {
            exchange.keep_screen((button, session), stood, inlet, party, progress).await
        });
        Ok(answered)
    }

    async fn keep_screen(
        &self,
        (button, session): (ButtonId, SessionId),
        stood: bool,
        inlet: Option<Arc<Inlet>>,
        party: u32,
        mut progress: watch::Receiver<Progress>,
    ) {
        // The one before it is no more, and this one is not there yet.
        let line = self.0.lock().lines.get(&button).map(|line| line.incident);
        if let Some(incident) = line.filter(|_| stood) {
            self.tell(incident, Input::Unit(false)).await;
        }
        let come = progress.wait_for(|p| *p != Progress::Connecting).await.map(|p| *p);
        if matches!(come, Ok(Progress::Connected)) && self.screen_changed(&button, &session, true).await {
            info!(%button, "a unit's screen is connected");
            inlet.iter().for_each(|inlet| inlet.give(Some(party)));
            self.report(&button, CameraState::Live, "its page is open").await;
        }
        let _ = progress.wait_for(|p| matches!(p, Progress::Ended(_))).await;
        if !self.0.scope.is_stopping() && self.screen_changed(&button, &session, false).await {
            self.report(&button, CameraState::Unreachable, "its page is not open").await;
        }
    }

    /// Whether that is still the unit's session; tells its call.
    async fn screen_changed(&self, button: &ButtonId, session: &SessionId, connected: bool) -> bool {
        let incident = {
            let mut inner = self.0.lock();
            let Some(screen) = inner.screens.get_mut(button).filter(|s| s.session == *session) else { return false };
            screen.connected = connected;
            if !connected {
                inner.screens.remove(button);
            }
            inner.lines.get(button).map(|line| line.incident)
        };
        if let Some(incident) = incident {
            self.tell(incident, Input::Unit(connected)).await;
        }
        true
    }

    async fn report(&self, button: &ButtonId, state: CameraState, detail: &str) {
        let camera = CameraId::of_unit(button);
        let _ = self.0.reports.send(CameraReport { camera, state, detail: detail.into() }).await;
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
