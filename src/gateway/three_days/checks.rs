//! What must be true at the end of a run.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use super::{
    cameras::{Sent, frames_in},
    headquarters::camera_of,
    machine::{AFTER, BEFORE, Machine},
    world::World,
};
use crate::{
    district::{
        clock::Utc,
        digest::Sha256,
        evidence::{Gap, GapReason},
        ids::{CameraId, IncidentId},
        inventory::RecordPolicy,
        press::Progress,
    },
    gateway::shelf,
    media::{
        audit::MANIFEST,
        proof::{DOCUMENT, PROOF, Proof},
    },
};

/// A gap is told to the frame before and after it, and a shorter one is jitter.
const JITTER: Duration = Duration::from_millis(1_100);
/// An outage that lasted so long was found out.
const CERTAIN: Duration = Duration::from_secs(27);
/// A gateway that is started with so little of an outage left may know nothing of it.
const LATE: Duration = Duration::from_secs(25);
/// So long memory reaches back.
const KEPT: Duration = Duration::from_secs(60);
/// So much of a recording is in memory alone at a time: a chunk of two frames, and what it waits for the disk.
const MEMORY: Duration = Duration::from_millis(1_500);

/// Frames and words about gaps, of one camera, for one purpose.
#[derive(Default)]
struct Account {
    frames: BTreeMap<usize, u32>,
    gaps: Vec<(Gap, u64)>,
}

impl Account {
    fn told(&self, sent: &Sent) -> bool {
        let near = |g: &(Gap, u64)| g.0.from.before(JITTER) <= sent.captured && sent.captured <= g.0.to.after(JITTER);
        self.gaps.iter().any(near)
    }
}

fn secs(at: Duration) -> f64 {
    at.as_secs_f64()
}

/// A summary of what happened.
pub fn seen(world: &World) -> String {
    let held = world.hq.held();
    let frames: usize = world.cameras.iter().map(|c| c.sent.len()).sum();
    format!(
        "{} presses, {} incidents, {} outages, {} restarts, {frames} frames, {} fragments at headquarters, {} puts, {} refused, {} KiB written, {} of them again, {} steps",
        world.presses.len(),
        held.incidents.len(),
        world.outages.len(),
        world.down.len(),
        held.fragments.len(),
        held.puts,
        held.refused,
        world.written >> 10,
        world.carried >> 10,
        world.steps.get(),
    )
}

/// Everything.
pub async fn all(world: &World, machine: &Machine) {
    presses(world);
    let (recordings, evidence) = accounts(world, machine).await;
    for (camera, account) in &recordings {
        let sent = &world.cameras.iter().find(|c| c.id == *camera).unwrap().sent;
        once(camera.as_str(), account);
        apart(camera.as_str(), account, sent);
    }
    outages(world, &recordings);
    windows(world, &evidence);
    written(world, machine, &recordings);
    proofs(world).await;
}

/// What the box has signed of each incident is what is there.
async fn proofs(world: &World) {
    let there = world.hq.texts("").await;
    let documents: Vec<_> = there.keys().filter(|name| name.ends_with(DOCUMENT)).collect();
    assert!(documents.len() >= world.hq.held().incidents.len() / 2, "{} documents", documents.len());
    for document in documents {
        let folder = document.strip_suffix(DOCUMENT).unwrap();
        let bytes = there.get(&format!("{folder}{PROOF}")).unwrap_or_else(|| panic!("no proof beside {document}"));
        let proof = Proof::read(bytes).unwrap_or_else(|e| panic!("{document}: {e}"));
        assert_eq!(proof.key, world.hq.identity.public());
        for (name, hash) in proof.draft().entries.iter().filter(|(name, _)| !name.contains('#')) {
            assert_eq!(Sha256::of(&there[&format!("{folder}{name}")]), *hash, "{name} of {folder}, signed {proof:?}");
        }
        let manifests = there.keys().filter_map(|name| name.strip_prefix(folder)).filter(|n| n.ends_with(MANIFEST));
        manifests.for_each(|name| assert!(proof.of(name).is_some(), "{name} of {folder} is not signed"));
    }
}

/// Each acknowledged press is in one incident at headquarters.
fn presses(world: &World) {
    let held = world.hq.held();
    for pressed in &world.presses {
        assert!(pressed.acknowledged, "{} has no PUBACK", pressed.id);
        let has =
            |d: &&crate::district::incident::Incident| d.presses.iter().any(|p| p.press.as_ref() == Some(&pressed.id));
        let all: Vec<_> = held.incidents.values().filter(has).collect();
        // One of which headquarters heard while the disk refused it may have been forgotten.
        let known: Vec<_> = all.iter().filter(|d| d.state > Progress::Received).collect();
        assert_eq!(
            known.len(),
            1,
            "{} is in {:?}",
            pressed.id,
            all.iter().map(|d| (d.id, d.state)).collect::<Vec<_>>()
        );
    }
    for document in held.incidents.values().filter(|d| d.state > Progress::Received) {
        assert_eq!(document.state, Progress::Closed, "{}", document.id);
    }
}

type Recordings = BTreeMap<CameraId, Account>;
type Evidence = BTreeMap<(IncidentId, CameraId), Account>;

async fn accounts(world: &World, machine: &Machine) -> (Recordings, Evidence) {
    let (mut recordings, mut evidence) = (Recordings::new(), Evidence::new());
    let mut count = |name: &str, numbers: &[usize], recordings: &mut Recordings| {
        let camera = camera_of(name);
        let account = match name.split('/').nth(1) {
            Some("recordings") => recordings.entry(camera).or_default(),
            _ => evidence.entry((name.split('/').nth(2).unwrap().parse().unwrap(), camera)).or_default(),
        };
        numbers.iter().for_each(|n| *account.frames.entry(*n).or_default() += 1);
    };
    let mut listed = BTreeSet::new();
    for (name, list) in world.hq.lists("coverage.json").await {
        let folder = name.strip_suffix("coverage.json").unwrap();
        listed.extend(list["objects"].as_object().unwrap().keys().map(|file| format!("{folder}{file}")));
    }
    for (name, numbers) in &world.hq.held().fragments {
        // What a crash left unlisted goes again, or counts as gone.
        if !name.contains("/recordings/") || listed.contains(name) {
            count(name, numbers, &mut recordings);
        }
    }
    // What headquarters refuses for good is still here.
    for object in machine.media.pending(usize::MAX).await.unwrap() {
        let meta = &object.meta;
        let name = format!("{}/{}", shelf::folder(&"saddar".parse().unwrap(), meta.kept, &meta.camera), meta.name);
        if let Some(missing) = meta.gap {
            panic!("nobody heard that {name} is missing until {}: {missing:?} {object:?}", meta.to);
        }
        assert!(world.hq.refuses(&name), "{name} waits");
        let bytes = machine.media.read(&object).await.unwrap();
        count(&name, &frames_in(&bytes, &meta.camera), &mut recordings);
    }
    for (name, list) in world.hq.lists("coverage.json").await {
        let account = recordings.entry(camera_of(&name)).or_default();
        for gap in list["gaps"].as_array().unwrap() {
            let bytes = gap["bytes"].as_u64().unwrap();
            account.gaps.push((serde_json::from_value(gap.clone()).unwrap(), bytes));
        }
    }
    for document in world.hq.held().incidents.values() {
        for camera in &document.evidence {
            let account = evidence.entry((document.id, camera.camera.clone())).or_default();
            account.gaps.extend(camera.gaps.iter().map(|gap| (gap.clone(), 0)));
        }
    }
    (recordings, evidence)
}

fn once(what: &str, account: &Account) {
    let twice: Vec<_> = account.frames.iter().filter(|(_, n)| **n > 1).collect();
    assert!(twice.is_empty(), "{what}: {} frames are there twice, the first {:?}", twice.len(), twice.first());
}

/// What is said to be missing is not there.
fn apart(what: &str, account: &Account, sent: &[Sent]) {
    for (gap, _) in account.gaps.iter().filter(|(gap, _)| gap.reason != GapReason::PacketsLost) {
        let inside = |at: Utc| gap.from.after(JITTER) < at && at < gap.to.before(JITTER);
        let both: Vec<_> = account.frames.keys().filter(|n| inside(sent[**n].captured)).collect();
        assert!(both.is_empty(), "{what}: {gap:?} and {} frames of it, the first {:?}", both.len(), sent[*both[0]]);
    }
}

/// What cameras sent around outages, and always, is there or told.
fn outages(world: &World, recordings: &Recordings) {
    let none = Account::default();
    for camera in &world.cameras {
        let account = recordings.get(&camera.id).unwrap_or(&none);
        let certain = || world.outages.iter().filter(|o| o.end - o.start >= CERTAIN);
        let early = RecordPolicy::AROUND - Duration::from_secs(2);
        let around = |o: &&Range<Duration>, s: &Sent| o.start.saturating_sub(early) <= s.at && s.at <= o.end + early;
        // A run that was started when it was over, or just before, knows nothing of an outage.
        let unknown = |o: &Range<Duration>, s: &Sent| {
            let late = |d: &Range<Duration>| o.start < d.end && o.end < d.end + LATE && s.at + MEMORY >= d.start;
            // Nor was what memory held kept before an outage was found out.
            let early = |d: &Range<Duration>| d.start < o.start + CERTAIN && s.at <= d.start && d.start <= s.at + KEPT;
            world.down.iter().any(|d| late(d) || early(d))
        };
        // What was in memory when the gateway was killed is told by the next run, if its clock goes on from there; what a
        // camera sent before it fell silent stays in memory until it comes back.
        let gone = |s: &Sent| world.down.iter().any(|d| s.at <= d.start && d.start <= s.at + MEMORY);
        let rebooted = |s: &Sent| world.set.iter().any(|at| s.at <= *at && *at <= s.at + Duration::from_secs(60));
        let last = camera.sent.last().map_or(Duration::ZERO, |s| s.at);
        let kept = |s: &Sent| {
            let kept = camera.always || certain().any(|o| around(&o, s) && !unknown(o, s));
            kept && s.at + MEMORY < last && !(gone(s) && rebooted(s))
        };
        let frames = camera.sent.iter().enumerate();
        let lost = |(n, s): &(usize, &Sent)| kept(s) && !account.frames.contains_key(n) && !account.told(s);
        nothing_lost(camera.id.as_str(), world, account, frames.filter(lost).map(|(_, s)| *s).collect());
    }
}

/// Says what was lost, and what else was so near that it may have to do with it.
fn nothing_lost(what: &str, world: &World, account: &Account, lost: Vec<Sent>) {
    let Some(first) = lost.first() else { return };
    let until =
        lost.iter().take_while(|s| s.at < first.at + Duration::from_secs(600)).last().map_or(first.at, |s| s.at);
    let near = |at: &Duration| *at + Duration::from_secs(1_000) > first.at && *at < until + Duration::from_secs(1_000);
    let gap = |g: &(Gap, u64)| {
        let from = first.at.as_secs_f64() + (g.0.from.micros() - first.captured.micros()) as f64 / 1e6;
        let lasts = g.0.to.since(g.0.from).as_secs_f64();
        format!("{from:.1}+{lasts:.1} {:?} {}", g.0.reason, g.1)
    };
    let gaps: Vec<_> = account
        .gaps
        .iter()
        .filter(|g| g.0.from.since(first.captured).as_secs() < 1_000 && first.captured.since(g.0.to).as_secs() < 1_000)
        .map(gap)
        .collect();
    panic!(
        "{what}: nobody says anything of {} frames, {:.1} to {:.1} ({:?}); outages {:?}, down {:?}, clock set {:?}, gaps {gaps:#?}",
        lost.len(),
        first.at.as_secs_f64(),
        until.as_secs_f64(),
        first,
        world.outages.iter().filter(|o| near(&o.start) || near(&o.end)).collect::<Vec<_>>(),
        world.down.iter().filter(|o| near(&o.start) || near(&o.end)).collect::<Vec<_>>(),
        world.set.iter().filter(|at| near(at)).collect::<Vec<_>>(),
    );
}

/// What cameras sent around presses is there or told.
fn windows(world: &World, evidence: &Evidence) {
    let held = world.hq.held();
    for pressed in world.presses.iter().filter(|p| p.sendings == 1) {
        let has =
            |d: &&crate::district::incident::Incident| d.presses.iter().any(|p| p.press.as_ref() == Some(&pressed.id));
        let document = held.incidents.values().find(has).unwrap();
        let (from, to) = (pressed.sent.saturating_sub(BEFORE), pressed.sent + AFTER);
        // In another boot a window means what the clock on the wall says.
        if world.set.iter().any(|at| from <= *at && *at <= to) {
            continue;
        }
        for linked in document.evidence.iter() {
            let Some(camera) = world.cameras.iter().find(|c| c.id == linked.camera) else { continue };
            let what = format!("{} of {} at {:.1}", camera.id, document.id, secs(pressed.sent));
            let account = &evidence[&(document.id, camera.id.clone())];
            once(&what, account);
            let frames = camera.sent.iter().enumerate().filter(|(_, s)| from <= s.at && s.at <= to);
            let lost: Vec<_> = frames.filter(|(n, s)| !account.frames.contains_key(n) && !account.told(s)).collect();
            nothing_lost(&what, world, account, lost.iter().map(|(_, s)| **s).collect());
            let evicted = account.gaps.iter().any(|(gap, _)| gap.reason == GapReason::Evicted);
            assert!(!evicted, "{what}: evidence was removed before headquarters had it");
        }
    }
}

/// The disk is written little more than what is kept, but for evidence that is written again on a full one.
fn written(world: &World, machine: &Machine, recordings: &Recordings) {
    let held = world.hq.held();
    let gone: BTreeSet<(Utc, u64)> =
        recordings.values().flat_map(|a| &a.gaps).map(|(gap, bytes)| (gap.from, *bytes)).collect();
    let kept = held.bytes.values().sum::<u64>() + gone.iter().map(|(_, bytes)| bytes).sum::<u64>();
    let carried = world.carried + machine.stepped.carried();
    let written = world.written + machine.stepped.written() - carried;
    assert!(written * 100 <= kept * 105, "{written} bytes written for {kept}, and {carried} again");
}
