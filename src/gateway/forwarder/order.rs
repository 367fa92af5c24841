//! Which object is put next, and which rest: places on the line, lanes and their turns.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    time::Duration,
};

use super::{Fate, Forwarder, ROUND, Shared};
use crate::{
    district::clock::Mono,
    host::clock,
    spool::{MediaLane, ObjectRef},
    uplink::turns::Turns,
};

/// Objects under way at a time; one place is kept for evidence.
pub(super) const AT_ONCE: usize = 4;

/// An object that failed this often while others went through rests a while, and does not hold up the rest.
const FAILURES: u32 = 3;

/// A lane in which nothing waited is looked at again after this, evidence as soon as the bell rings.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// What is under way and what comes next.
#[derive(Default)]
pub(super) struct Line {
    turns: Turns<3>,
    /// Taken from the log, by lane, while the bell has rung so often.
    pub candidates: [VecDeque<ObjectRef>; 3],
    rung: u64,
    /// When nothing was found to wait in a lane.
    empty: [Option<Mono>; 3],
    /// On their way; those without a lane are in the store, and that is being written down.
    pub busy: HashMap<String, Option<MediaLane>>,
    /// Objects that rest, until when.
    pub set_aside: HashMap<String, Mono>,
    /// How often an object failed while others went through.
    pub failed: HashMap<String, u32>,
    /// Objects that this gateway's disk has lost, as far as that was told.
    pub lost: HashSet<String>,
    /// When something last went through.
    pub worked: Mono,
    /// After failures: nothing is begun before this, and how long the next wait is.
    pub paused: Option<(Mono, Duration)>,
}

impl Line {
    /// Counts a failure of an object while others went through; whether it has had its chances.
    pub fn fails(&mut self, name: &str) -> bool {
        let failed = self.failed.entry(name.to_owned()).or_default();
        *failed += 1;
        *failed >= FAILURES && self.failed.remove(name).is_some()
    }

    fn has_place(&self, lane: MediaLane) -> bool {
        let below = self.busy.values().flatten().filter(|l| **l > MediaLane::Evidence).count();
        self.busy.values().flatten().count() < AT_ONCE && (lane == MediaLane::Evidence || below < AT_ONCE - 1)
    }
}

impl Forwarder {
    /// The most urgent object for which there is a place.
    pub(super) async fn next(&self, line: &mut Line, shared: &Shared) -> Option<ObjectRef> {
        let now = clock::mono();
        line.set_aside.retain(|_, until| *until > now);
        if !line.has_place(MediaLane::Evidence) || line.paused.is_some_and(|(until, _)| now < until) {
            return None;
        }
        if line.rung != self.bell.rung() {
            line.rung = self.bell.rung();
            // A newer incident goes before all that was taken. In the other lanes what is new comes last.
            line.candidates[MediaLane::Evidence as usize].clear();
            line.empty[MediaLane::Evidence as usize] = None;
        }
        // Lanes that are not asked are looked at too: whether something waits there decides whose turn it is.
        for (index, lane) in MediaLane::ALL.into_iter().enumerate() {
            if line.candidates[index].is_empty() && line.empty[index].is_none_or(|at| now.since(at) >= LOOK_AGAIN) {
                line.candidates[index] = self.candidates(line, shared, lane).await;
                line.empty[index] = line.candidates[index].is_empty().then_some(now);
            }
        }
        for index in line.turns.order() {
            let lane = MediaLane::ALL[index];
            if !line.has_place(lane) {
                continue;
            }
            while let Some(object) = line.candidates[index].pop_front() {
                if object.meta.gap.is_some() {
                    shared.days().add(object, Fate::Delivered);
                    continue;
                }
                let candidates = &line.candidates;
                line.turns.took(index, object.meta.size, |lane| !candidates[lane].is_empty());
                line.busy.insert(object.to_string(), Some(lane));
                return Some(object);
            }
        }
        None
    }

    /// What waits in a lane, but for what is under way, rests, or only has to be listed.
    async fn candidates(&self, line: &Line, shared: &Shared, lane: MediaLane) -> VecDeque<ObjectRef> {
        // However many those are, as many others are looked for behind them.
        let known = line.set_aside.len() + line.busy.len() + shared.days().len();
        let pending = self.asked(self.media.pending_in(lane, ROUND + known).await).unwrap_or_default();
        let days = shared.days();
        let is_new = |object: &ObjectRef| {
            let name = object.to_string();
            !line.set_aside.contains_key(&name) && !line.busy.contains_key(&name) && !days.has(&name)
        };
        pending.into_iter().filter(is_new).take(ROUND).collect()
    }
}
