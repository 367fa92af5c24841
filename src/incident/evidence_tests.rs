//! What documents say of evidence: counts that stay exact, revisions that stay few.

use super::{
    engine::{Engine, Outputs},
    fixtures::{at, command, engine, only, pressed, rebooted, restarted},
    record::Verb,
};
use crate::district::{
    evidence::{EvidenceObject, Gap, GapReason},
    ids::CameraId,
    press::PressKind,
};

#[test]
fn evidence_makes_at_most_one_revision_in_two_seconds_and_completes() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let (id, unit): (_, CameraId) = (only(&e), "unit-b1".parse().unwrap());
    let mut out = Outputs::default();
    for n in 0..40u64 {
        let object = EvidenceObject { name: format!("{n:05}.m4s"), size: 1, sha256: String::new(), delivered: false };
        e.evidence_stored(id, &unit, object);
        e.timeout(at(100 * n), &mut out);
    }
    assert_eq!(e.document(id).unwrap().revision, 2);
    for n in 0..40u64 {
        let object = EvidenceObject { name: format!("{n:05}.m4s"), size: 1, sha256: String::new(), delivered: true };
        e.evidence_stored(id, &unit, object);
    }
    e.evidence_ended(id, &unit, at(5_000), &mut out);
    assert!(e.document(id).unwrap().evidence[0].complete);
    let gap = Gap { from: at(0).wall, to: at(1).wall, reason: GapReason::CameraDown };
    e.evidence_gap(id, &unit, gap, &mut out);
    assert!(!e.document(id).unwrap().evidence[0].complete);
}

#[test]
fn evidence_is_told_soon_after_a_reboot_though_the_old_boot_was_longer() {
    let mut e = engine(1, 0);
    let mut out = pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let id = only(&e);
    e.delivered(id, 1, at(10), &mut out);
    let (mut e, _) = restarted("boot-2", &out.records, rebooted(5_000));
    let object = EvidenceObject { name: "00001.m4s".into(), size: 1, sha256: String::new(), delivered: false };
    e.evidence_stored(id, &"unit-b1".parse().unwrap(), object);
    let mut out = Outputs::default();
    e.timeout(rebooted(8_000), &mut out);
    assert!(out.changed.contains(&id));
}

#[test]
fn a_list_of_evidence_stays_short_and_its_counts_exact_through_evictions_and_checkpoints() {
    let mut e = engine(1, 0);
    let mut out = pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let (id, unit): (_, CameraId) = (only(&e), "unit-b1".parse().unwrap());
    let object = |n: u32, delivered| EvidenceObject {
        name: crate::media::fragment::fragment_name(n),
        size: 10,
        sha256: String::new(),
        delivered,
    };
    for n in 1..=20_000u32 {
        e.evidence_stored(id, &unit, object(n, false));
        e.evidence_stored(id, &unit, object(n, true));
    }
    e.evidence_ended(id, &unit, at(5_000), &mut out);
    let held = |e: &Engine| {
        let evidence = e.document(id).unwrap().evidence[0].clone();
        (evidence.object_count, evidence.delivered_count, evidence.bytes, evidence.complete)
    };
    assert_eq!(held(&e), (20_000, 20_000, 200_000, true));
    let evicted: Vec<_> = (1..=19_000).map(crate::media::fragment::fragment_name).collect();
    e.evidence_evicted(id, &unit, (&evicted, 190_000, at(4_000).wall), &mut out);
    assert_eq!(held(&e), (20_000, 20_000, 200_000, true), "headquarters has them all the same");
    for records in [out.records, e.snapshot()] {
        let (mut e, _) = restarted("boot-1", &records, at(6_000));
        (19_001..=20_000).for_each(|n| e.replay_evidence(id, &unit, object(n, true)));
        assert_eq!(held(&e), (20_000, 20_000, 200_000, true));
        let orders = pressed(&mut e, 1, "p2", PressKind::Panic, 7_000).orders;
        assert_eq!(orders[0].gone.fragment, 19_001, "no name is given twice");
    }
}

#[test]
fn an_object_that_is_at_headquarters_before_it_is_told_to_be_stored_is_there_once_and_in_its_place() {
    let mut e = engine(1, 0);
    pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let (id, unit): (_, CameraId) = (only(&e), "unit-b1".parse().unwrap());
    let object = |name: &str, delivered| EvidenceObject { name: name.into(), size: 10, sha256: name.into(), delivered };
    for (name, delivered) in [
        ("init.mp4", false),
        ("00002.m4s", true),
        ("00001.m4s", true),
        ("00001.m4s", false),
        ("init.mp4", true),
        ("00002.m4s", false),
        ("init-2.mp4", true),
        ("00003.m4s", false),
    ] {
        e.evidence_stored(id, &unit, object(name, delivered));
    }
    let evidence = e.document(id).unwrap().evidence[0].clone();
    let names: Vec<_> = evidence.objects.iter().map(|o| (o.name.as_str(), o.delivered)).collect();
    let wanted =
        [("init.mp4", true), ("00001.m4s", true), ("00002.m4s", true), ("init-2.mp4", true), ("00003.m4s", false)];
    assert_eq!(names, wanted);
    assert_eq!((evidence.object_count, evidence.delivered_count, evidence.bytes), (5, 4, 50));

    // Removed before it was told to be there: it is counted already.
    let mut out = Outputs::default();
    e.evidence_stored(id, &unit, object("00003.m4s", true));
    let names = ["00001.m4s", "00002.m4s", "00003.m4s", "00004.m4s"].map(String::from);
    e.evidence_stored(id, &unit, object("00005.m4s", false));
    e.evidence_evicted(id, &unit, (&names, 40, at(4_000).wall), &mut out);
    e.evidence_stored(id, &unit, object("00004.m4s", true));
    e.evidence_stored(id, &unit, object("00005.m4s", true));
    let evidence = e.document(id).unwrap().evidence[0].clone();
    let names: Vec<_> = evidence.objects.iter().map(|o| o.name.as_str()).collect();
    assert_eq!(names, ["init.mp4", "init-2.mp4", "00005.m4s"]);
    assert_eq!((evidence.object_count, evidence.delivered_count), (7, 7));
}

#[test]
fn a_restart_that_finds_the_evidence_that_was_told_tells_nothing_and_one_that_finds_more_tells_it() {
    let mut e = engine(1, 0);
    let mut out = pressed(&mut e, 1, "p1", PressKind::Panic, 0);
    let (id, unit): (_, CameraId) = (only(&e), "unit-b1".parse().unwrap());
    let object =
        |name: &str, delivered| EvidenceObject { name: name.into(), size: 1, sha256: String::new(), delivered };
    e.evidence_stored(id, &unit, object("00001.m4s", true));
    // An open one rings again, and tells that.
    e.command(command(Verb::Close, id, "c1"), at(2_000), &mut out).unwrap();
    e.timeout(at(3_000), &mut out);
    let revision = e.document(id).unwrap().revision;
    e.delivered(id, revision, at(3_100), &mut out);
    for records in [out.records, e.snapshot()] {
        for (more, told) in [(None, false), (Some("00002.m4s"), true)] {
            let mut e = engine(1, 0);
            records.iter().cloned().for_each(|r| e.replay(r));
            ["00001.m4s"].into_iter().chain(more).for_each(|n| e.replay_evidence(id, &unit, object(n, true)));
            let mut out = Outputs::default();
            e.resume(at(6_000), &mut out);
            e.timeout(at(9_000), &mut out);
            assert_eq!(out.changed.contains(&id), told, "{more:?}");
        }
    }
}
