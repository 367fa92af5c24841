//! Damage of the media log.

use proptest::prelude::*;

use super::*;

#[test]
fn a_fragment_whose_bytes_changed_is_named_and_set_aside() {
    let dir = spool();
    let (path, record) = some_object(dir.path());
    flip(&path, record.end() - 5);
    let report = look(dir.path());
    assert_eq!(faults(&report), [(Severity::Damage, Kind::PayloadDamaged)]);
    let found = &report.findings[0];
    let n = number(&record).unwrap();
    assert_eq!(found.object.as_ref().map(|o| o.name.as_str()), Some(meta(n).name.as_str()));
    assert_eq!(found.bytes, Some(record.offset..record.end()));
    assert!(found.means.contains("of camera cam-1, incident") && found.means.contains("changed on the disk"));
    assert!(path.ends_with(found.file.strip_prefix("media/").unwrap()));
    // Headers are sound.
    let quick = Options { quick: true, ..options(false) };
    assert!(run(dir.path(), quick, &mut Seen::default()).unwrap().is_clean());
    let was = fs::read(&path).unwrap();
    repair(dir.path());
    assert!(!path.exists());
    assert_eq!(fs::read(path.with_extension("seg.damaged")).unwrap(), was);
    assert_eq!(notes(&look(dir.path())), [Kind::SetAside, Kind::KnownLost]);
    all_but(dir.path(), &[n]);
    assert_eq!(notes(&look(dir.path())), [Kind::SetAside]);
}

#[test]
fn damage_in_a_header_or_in_what_is_known_of_an_object_is_found_by_the_index() {
    for within in [0, 10, 20, 42, 60] {
        let dir = spool();
        let (path, record) = some_object(dir.path());
        flip(&path, record.offset + within);
        let report = look(dir.path());
        assert_eq!(faults(&report), [(Severity::Damage, Kind::RecordDamaged)], "{:#?}", report.findings);
        let n = number(&record).unwrap();
        assert_eq!(report.findings[0].object.as_ref().unwrap().name, meta(n).name);
        repair(dir.path());
        all_but(dir.path(), &[n]);
    }
}

#[test]
fn content_that_is_not_what_the_recorder_made_is_found_although_the_record_is_sound() {
    let dir = tempfile::tempdir().unwrap();
    fill_journal(dir.path());
    let (store, _) = open(dir.path());
    runtime().block_on(async {
        for number in 0..3 {
            let what = if number == 1 { Bytes::from(vec![0; payload(1).len()]) } else { payload(number) };
            store.append(meta(number), what).unwrap().await.unwrap();
        }
        store.close().await;
    });
    drop(store);
    let report = look(dir.path());
    assert_eq!(faults(&report), [(Severity::Damage, Kind::PayloadDamaged)]);
    assert!(report.findings[0].what.contains("SHA-256"));
    repair(dir.path());
}

#[test]
fn a_file_that_ends_too_early_and_one_that_is_gone_are_told_by_the_index() {
    let dir = spool();
    let path = segments(dir.path(), MEDIA).swap_remove(1);
    let all = records(&path);
    let cut = all[all.len() / 2].offset;
    truncate(&path, cut);
    let mut lost: Vec<u32> = all.iter().filter(|r| r.offset >= cut).filter_map(number).collect();
    lost.dedup();
    let report = look(dir.path());
    assert!(!lost.is_empty() && faults(&report) == vec![(Severity::Damage, Kind::ObjectGone); lost.len()]);
    assert!(report.findings[0].what.contains("ends before it"));
    repair(dir.path());
    all_but(dir.path(), &lost);

    let dir = spool();
    let path =
        segments(dir.path(), MEDIA).into_iter().rfind(|p| records(p).iter().any(|r| number(r).is_some())).unwrap();
    let mut lost: Vec<u32> = records(&path).iter().filter_map(number).collect();
    lost.dedup();
    fs::remove_file(&path).unwrap();
    let report = look(dir.path());
    assert_eq!(faults(&report), [(Severity::Damage, Kind::SegmentGone)]);
    assert!(report.findings[0].means.contains(&format!("{} of its objects", lost.len())), "{:#?}", report.findings);
    repair(dir.path());
    all_but(dir.path(), &lost);
}

#[test]
fn a_segment_of_evidence_without_its_header_loses_nothing() {
    let dir = spool();
    let (path, _) = some_object(dir.path());
    flip(&path, 17);
    assert_eq!(faults(&look(dir.path())), [(Severity::Warning, Kind::SegmentHeader)]);
    repair(dir.path());
    all_but(dir.path(), &[]);
}

fn flipped(at: prop::sample::Index) -> Result<(), TestCaseError> {
    let dir = spool();
    let all: Vec<(PathBuf, Located)> = segments(dir.path(), MEDIA)
        .into_iter()
        .flat_map(|p| records(&p).into_iter().map(move |r| (p.clone(), r)))
        .collect();
    let bytes: u64 = all.iter().map(|(_, r)| r.header.record_len()).sum();
    let mut left = at.index(bytes as usize) as u64;
    let hit = all.iter().find(|(_, r)| match left.checked_sub(r.header.record_len()) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    });
    let (path, record) = hit.unwrap();
    let place = record.offset + left;
    flip(path, place);
    let outcome = run(dir.path(), options(true), &mut Seen::default()).unwrap();
    let report = outcome.found.clone();
    let name = format!("{MEDIA}/{}", path.file_name().unwrap().to_str().unwrap());
    let covers = |f: &&Finding| f.file == name && f.bytes.as_ref().is_some_and(|b| b.contains(&place));
    let found: Vec<&Finding> = report.findings.iter().filter(covers).collect();
    prop_assert_eq!(found.len(), 1, "byte {} of {}: {:#?}", place, name, report.findings);
    prop_assert_eq!(report.findings.len(), 1);
    let lost: Vec<u32> = number(record).into_iter().collect();
    let named = found[0].object.as_ref().map(|o| o.name.clone());
    prop_assert_eq!(named, lost.first().map(|n| meta(*n).name));
    if !lost.is_empty() {
        prop_assert_eq!(found[0].severity, Severity::Damage);
    }
    prop_assert!(outcome.is_clean(), "{:#?}", outcome.repaired);
    prop_assert_eq!(found[0].repair.is_some(), outcome.repaired.is_some());
    all_but(dir.path(), &lost);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, ..ProptestConfig::default() })]

    #[test]
    fn whatever_byte_of_the_evidence_changes_is_found_and_its_record_named_and_all_else_is_there_after_a_repair(at in any::<prop::sample::Index>()) {
        flipped(at)?;
    }
}
