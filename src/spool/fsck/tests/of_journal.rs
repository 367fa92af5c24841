//! Damage of the journal.

use super::*;

fn journal_without(dir: &Path, lost: &[u32]) {
    let (journal, entries, report) = journal::open(&dir.join(JOURNAL), journal_settings()).unwrap();
    let expected: Vec<Entry> = (0..30).filter(|n| !lost.contains(n)).map(entry).collect();
    assert_eq!(entries, expected);
    assert!(report.is_sound(), "{report:?}");
    journal.close();
}

#[test]
fn an_entry_of_the_journal_whose_bytes_changed_is_lost_alone() {
    for within in [0, 20, 50] {
        let dir = spool();
        let path = segments(dir.path(), JOURNAL).swap_remove(1);
        let all = records(&path);
        let (first, last) = (&all[1], all.last().unwrap());
        for record in [first, last] {
            flip(&path, record.offset + within);
        }
        let report = look(dir.path());
        let kind = if within < 44 { Kind::RecordDamaged } else { Kind::PayloadDamaged };
        let mut expected = vec![(Severity::Damage, Kind::EntriesLost); 2];
        expected.extend([(Severity::Damage, kind); 2]);
        assert_eq!(faults(&report), expected, "{:#?}", report.findings);
        let was = fs::read(&path).unwrap();
        repair(dir.path());
        assert_eq!(fs::read(path.with_extension("seg.damaged")).unwrap(), was);
        let lost = [first, last].map(|r| r.header.sequence as u32 - 1);
        journal_without(dir.path(), &lost);
    }
}

#[test]
fn a_segment_of_the_journal_without_its_header_loses_nothing_and_one_that_is_gone_only_itself() {
    let all = segments(spool().path(), JOURNAL).len();
    for which in [0, 1, all - 1] {
        let dir = spool();
        flip(&segments(dir.path(), JOURNAL)[which], 30);
        assert_eq!(faults(&look(dir.path())), [(Severity::Warning, Kind::SegmentHeader)], "{which}");
        repair(dir.path());
        journal_without(dir.path(), &[]);
    }
    let dir = spool();
    let path = segments(dir.path(), JOURNAL).swap_remove(1);
    let lost: Vec<u32> = records(&path).iter().map(|r| r.header.sequence as u32 - 1).collect();
    fs::remove_file(path).unwrap();
    assert_eq!(faults(&look(dir.path())), [(Severity::Damage, Kind::EntriesLost)]);
    repair(dir.path());
    journal_without(dir.path(), &lost);
}
