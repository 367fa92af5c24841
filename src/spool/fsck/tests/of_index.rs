//! An index that is gone, broken, old or was being written.

use super::*;

#[test]
fn an_index_that_is_gone_broken_or_old_loses_nothing() {
    let dir = spool();
    let (index, old) = (dir.path().join("media/index"), dir.path().join("old"));
    copy(&index, &old);
    fs::remove_dir_all(&index).unwrap();
    assert_eq!(faults(&look(dir.path())), [(Severity::Warning, Kind::IndexMissing)]);
    repair(dir.path());
    all_but(dir.path(), &[]);

    // Old: more was stored since, in many segments, and more was delivered.
    let (store, _) = open(dir.path());
    runtime().block_on(async {
        for object in held_of(&store).await.iter().filter(|o| !o.delivered) {
            store.delivered(object).unwrap().await.unwrap();
        }
        for number in OBJECTS..OBJECTS * 3 {
            store.append(meta(number), payload(number)).unwrap().await.unwrap();
        }
        store.close().await;
    });
    drop(store);
    fs::remove_dir_all(&index).unwrap();
    fs::rename(&old, &index).unwrap();
    let report = look(dir.path());
    let kinds: std::collections::BTreeSet<Kind> = faults(&report).into_iter().map(|(_, kind)| kind).collect();
    assert!(kinds.contains(&Kind::IndexLacks) && kinds.contains(&Kind::IndexStale), "{:#?}", report.findings);
    assert_eq!((report.tally.damage, report.media.objects), (0, u64::from(OBJECTS) * 3));
    repair(dir.path());

    for entry in fs::read_dir(&index).unwrap().map(|e| e.unwrap().path()).filter(|p| p.is_file()) {
        fs::write(entry, "this is no database").unwrap();
    }
    assert_eq!(faults(&look(dir.path())), [(Severity::Warning, Kind::IndexUnreadable)]);
    repair(dir.path());

    // Killed while it was opened.
    fs::write(dir.path().join("media/index.opening"), "").unwrap();
    let report = look(dir.path());
    assert!(faults(&report).is_empty() && notes(&report).contains(&Kind::IndexUnreadable), "{:?}", report.findings);
    repair(dir.path());
    let (store, _) = open(dir.path());
    assert_eq!((held(&store).len(), store.stats().undelivered), (OBJECTS as usize * 3, u64::from(OBJECTS) * 2));
}

#[test]
fn an_index_that_was_being_written_is_as_after_any_crash() {
    let dir = spool();
    let index = crate::spool::index::Index::open(&dir.path().join("media/index")).unwrap();
    let objects: Vec<_> = index.objects().map(|o| o.unwrap().1).collect();
    let newest = objects.iter().max_by_key(|o| o.at.sequence).unwrap();
    index.tear(newest);
    index.flush().unwrap();
    let report = look(dir.path());
    assert!(report.is_clean(), "{:?}", report.findings);
    assert_eq!(notes(&report), [Kind::IndexLacks]);
    // In a segment that a start does not read again it is none.
    index.tear(objects.iter().filter(|o| !o.delivered).min_by_key(|o| o.at.sequence).unwrap());
    index.flush().unwrap();
    drop(index);
    assert_eq!(faults(&look(dir.path())), [(Severity::Warning, Kind::IndexStale)]);
    repair(dir.path());
    all_but(dir.path(), &[]);
}

async fn held_of(store: &MediaStore) -> Vec<ObjectRef> {
    store.evidence(meta(0).kept.incident().unwrap(), &"cam-1".parse().unwrap()).await.unwrap()
}
