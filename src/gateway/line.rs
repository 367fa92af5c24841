//! One call at one unit: its speaker plays what is true and says what the operator says, and it is written down who spoke
//! when.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::{sync::watch, time::MissedTickBehavior};
use tracing::{info, warn};

use super::{exchange::Exchange, feeds::Feeds};
use crate::{
    call::{
        announce::{Announcer, Order},
        state::Input,
        talkback::{self, Encoding, Link, Prompts, Speaker, Way},
    },
    district::{
        call::{CallEvent, CallState, Spoke},
        clock::{Mono, Utc},
        ids::CameraId,
        inventory::{Button, SpeakerCodec, Voice as Talkback},
    },
    host::{clock, scope::Scope},
    media::{
        loudness::Meter,
        ring::{Read, Reader, Start},
        voice::{Spurt, Voice},
    },
};

/// How often a line looks at what is true, and while somebody has the floor, at who speaks.
const LOOK: Duration = Duration::from_millis(250);
const LISTEN: Duration = Duration::from_millis(40);

/// What a line works with.
pub(super) struct Line {
    pub button: Arc<Button>,
    pub feeds: Feeds,
    pub exchange: Exchange,
    /// The call, as it changes.
    pub call: watch::Receiver<CallEvent>,
    /// Of a unit that hears its own speaker: set while its sound is kept from the operators.
    pub hushed: Option<Arc<AtomicBool>>,
}

/// The speaker of a unit, where it has one that is not a screen's.
pub(super) fn speaker(button: &Button, prompts: &Arc<Prompts>, scope: &Scope) -> Option<Speaker> {
    let way = match (&button.voice, &button.unit) {
        (Talkback::Backchannel, Some(source)) => Way::Onvif(Box::new(source.clone())),
        (Talkback::Rtp { host, port, codec }, _) => {
            let encoding = match codec {
                SpeakerCodec::Pcmu => Encoding::Pcmu,
                SpeakerCodec::Pcma => Encoding::Pcma,
                SpeakerCodec::Opus => Encoding::Opus,
            };
            Way::Rtp { host: host.clone(), port: *port, encoding }
        }
        _ => return None,
    };
    let settings = talkback::Settings { way, volume: button.volume as f32, prompts: prompts.clone() };
    Some(talkback::start(button.id.as_str(), settings, scope))
}

impl Line {
    /// Serves the unit until the call is over, or the gateway stops.
    pub async fn run(self, speaker: Option<Speaker>, stopping: impl Future<Output = ()>) {
        tokio::select! {
            () = stopping => {}
            () = self.serve(speaker) => {}
        }
    }

    async fn serve(mut self, speaker: Option<Speaker>) {
        if self.exchange.screen_stands(&self.button.id) {
            let incident = self.call.borrow().incident;
            self.exchange.tell(incident, Input::Unit(true)).await;
        }
        let mut announcer = Announcer::default();
        let mut link = speaker.as_ref().map(Speaker::link);
        let mut speaking = speaker.as_ref().map(Speaker::speaking);
        let mut ears = Ears::new(&self);
        let mut tick = tokio::time::interval(LISTEN);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut looked = clock::mono();
        // Whether the operator is.
        let mut heard = false;
        loop {
            let event = self.call.borrow_and_update().clone();
            if let Some(speaker) = &speaker {
                let floor = event.call.state == CallState::Answered;
                if std::mem::replace(&mut heard, floor) != floor {
                    speaker.voice(self.feeds.voice(&self.button.id).filter(|_| floor).map(|i| i.ring().clone()));
                }
                match announcer.next(&event.call, event.call.reached, clock::mono()) {
                    Some(Order::Play(prompt, again)) => speaker.play(prompt, again),
                    Some(Order::Quiet) => speaker.quiet(),
                    None => {}
                }
            }
            if event.call.state == CallState::Ended {
                break;
            }
            // Until it is due to look again, or something happens.
            loop {
                let talks = event.call.speaker.is_some();
                tokio::select! {
                    changed = self.call.changed() => {
                        if changed.is_err() {
                            return;
                        }
                        break;
                    }
                    Some(up) = changed(&mut link) => self.linked(&event, &up).await,
                    Some(speaks) = changed(&mut speaking) => self.hush(speaks),
                    _ = tick.tick(), if talks => {
                        for spoke in ears.hear(&self, &event) {
                            self.exchange.tell(event.incident, Input::Spoke(spoke)).await;
                        }
                    }
                    () = tokio::time::sleep_until(clock::deadline(looked + LOOK)) => {}
                }
                if clock::mono() >= looked + LOOK {
                    looked = clock::mono();
                    break;
                }
            }
        }
        self.hush(false);
        let incident = self.call.borrow().incident;
        for spoke in ears.finish() {
            self.exchange.tell(incident, Input::Spoke(spoke)).await;
        }
        if speaker.is_some() {
            self.exchange.tell(incident, Input::Unit(false)).await;
        }
    }

    fn hush(&self, speaks: bool) {
        self.hushed.iter().for_each(|hushed| hushed.store(speaks, Relaxed));
    }

    async fn linked(&self, event: &CallEvent, link: &Link) {
        match link {
            Link::Connecting => return,
            Link::Up(_) => info!(button = %self.button.id, "the unit's speaker is there"),
            Link::Down(why) => warn!(button = %self.button.id, %why, "the unit's speaker does not answer"),
        }
        self.exchange.tell(event.incident, Input::Unit(link.is_up())).await;
    }
}

/// The new value of what is watched. Never where there is nothing to be watched.
async fn changed<T: Clone>(watched: &mut Option<watch::Receiver<T>>) -> Option<T> {
    let Some(receiver) = watched else { return std::future::pending().await };
    if receiver.changed().await.is_ok() {
        return Some(receiver.borrow_and_update().clone());
    }
    *watched = None;
    None
}

/// Listens to both ends for who speaks.
struct Ears {
    operator: Voice,
    unit: Voice,
    /// Who has the floor.
    name: String,
    /// The unit's sound, where it is not a browser that says how loud it is.
    reader: Option<Reader>,
    meter: Meter,
    /// What was heard before that is history.
    from: Mono,
}

impl Ears {
    fn new(line: &Line) -> Self {
        let screen = line.feeds.screen(&line.button.id).is_some();
        let ring = line.feeds.ring(&CameraId::of_unit(&line.button.id)).filter(|_| !screen);
        Self {
            operator: Voice::default(),
            unit: Voice::default(),
            name: String::new(),
            reader: ring.map(|ring| ring.reader(Start::LastKey)),
            meter: Meter::default(),
            from: clock::mono(),
        }
    }

    /// Who has spoken, now that they are silent.
    fn hear(&mut self, line: &Line, event: &CallEvent) -> Vec<Spoke> {
        let now = clock::mono();
        let (id, mut spoke) = (&line.button.id, Vec::new());
        let name = event.call.speaker.as_ref().map(|s| s.name.clone()).unwrap_or_default();
        if name != self.name {
            // Another has the floor.
            spoke.extend(self.operator.finish().map(|spurt| of(&self.name, spurt)));
            self.name = name;
        }
        if let Some(inlet) = line.feeds.voice(id) {
            let level = -f32::from(inlet.loudest());
            spoke.extend(self.operator.hear(now, level, LISTEN).map(|spurt| of(&self.name, spurt)));
        }
        if let Some(inlet) = line.feeds.screen(id) {
            let level = -f32::from(inlet.loudest());
            spoke.extend(self.unit.hear(now, level, LISTEN).map(|spurt| of(UNIT, spurt)));
        }
        while let Some(read) = self.reader.as_mut().and_then(Reader::try_next) {
            let Read::Frame(frame) = read else { continue };
            if frame.arrived >= self.from
                && let Some((level, length)) = self.meter.measure(&frame)
            {
                spoke.extend(self.unit.hear(frame.arrived, level, length).map(|spurt| of(UNIT, spurt)));
            }
        }
        spoke.extend(self.unit.pass(now).map(|spurt| of(UNIT, spurt)));
        spoke
    }

    fn finish(&mut self) -> Vec<Spoke> {
        let operator = self.operator.finish().map(|spurt| of(&self.name, spurt));
        operator.into_iter().chain(self.unit.finish().map(|spurt| of(UNIT, spurt))).collect()
    }
}

/// Who speaks at a unit, whoever that is.
const UNIT: &str = "unit";

fn of(who: &str, spurt: Spurt) -> Spoke {
    let now = clock::now();
    let wall = |at: Mono| -> Utc { now.wall.before(now.mono.since(at)) };
    Spoke { who: who.to_owned(), from: wall(spurt.from), to: wall(spurt.to) }
}
