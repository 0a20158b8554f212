//! What a journal keeps through crashes at any byte, and what it refuses.

use super::*;
use crate::{
    base::ids::TenantId,
    store::contract::{batch, call, event, new_call},
};
use tempfile::TempDir;

fn record(group: i64) -> Record {
    let row = call(TenantId(1));
    let batch = batch([new_call(&row), event(&row, &format!("event {group}"))]);
    Record {
        group,
        at: Wall::from_micros(group),
        entries: vec![Entry::new(&batch, vec![group]).unwrap()],
    }
}

fn open(folder: &TempDir, writer: &str) -> Journal {
    Journal::open(folder.path(), writer, 1 << 20).unwrap()
}

/// Every record in order, as writer and group, and the journal empty after.
fn drain(journal: &mut Journal) -> Vec<(String, i64)> {
    let mut found = Vec::new();
    while let Some(front) = journal.front().unwrap() {
        found.extend(front.records.iter().map(|r| (front.writer.clone(), r.group)));
        journal.applied(&front).unwrap();
    }
    assert!(journal.is_empty());
    found
}

fn named(writer: &str, groups: impl IntoIterator<Item = i64>) -> Vec<(String, i64)> {
    groups.into_iter().map(|g| (writer.to_owned(), g)).collect()
}

#[test]
fn records_come_back_in_order_across_starts_and_their_files_go() {
    let folder = tempfile::tempdir().unwrap();
    let mut first = open(&folder, "writer_1");
    assert!(first.is_empty());
    (1..=100).for_each(|n| first.append(&record(n)).unwrap());
    drop(first);
    let mut second = open(&folder, "writer_2");
    (1..=3).for_each(|n| second.append(&record(n)).unwrap());
    let expected = [named("writer_1", 1..=100), named("writer_2", 1..=3)].concat();
    assert_eq!(drain(&mut second), expected);
    second.append(&record(4)).unwrap();
    assert_eq!(drain(&mut second), named("writer_2", [4]));
    drop(second);
    assert!(open(&folder, "writer_3").is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn records_that_arrive_while_others_are_applied_follow_them() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder, "writer_1");
    (1..=40).for_each(|n| journal.append(&record(n)).unwrap());
    let front = journal.front().unwrap().unwrap();
    journal.append(&record(41)).unwrap();
    journal.applied(&front).unwrap();
    let seen = front.records.len() as i64;
    assert_eq!(drain(&mut journal), named("writer_1", seen + 1..=41));
}

#[test]
fn a_file_cut_at_any_byte_keeps_the_records_before_the_cut() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder, "writer_1");
    let mut ends = Vec::new();
    for n in 1..=3 {
        journal.append(&record(n)).unwrap();
        ends.push(journal.bytes());
    }
    drop(journal);
    let path = folder.path().join("writer_1.journal");
    let whole = std::fs::read(&path).unwrap();
    for cut in 0..=whole.len() {
        std::fs::write(&path, &whole[..cut]).unwrap();
        let expected = ends.iter().filter(|end| **end <= cut as u64).count() as i64;
        assert_eq!(
            drain(&mut open(&folder, "writer_2")),
            named("writer_1", 1..=expected),
            "{cut}"
        );
    }
    assert!(!folder.path().join("writer_1.damaged").exists());
}

#[test]
fn damage_in_the_middle_is_kept_aside_and_what_was_before_it_is_used() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder, "writer_1");
    journal.append(&record(1)).unwrap();
    let end = journal.bytes() as usize;
    journal.append(&record(2)).unwrap();
    journal.append(&record(3)).unwrap();
    drop(journal);
    let path = folder.path().join("writer_1.journal");
    let mut bytes = std::fs::read(&path).unwrap();
    bytes[end + 40] ^= 1;
    std::fs::write(&path, &bytes).unwrap();
    assert_eq!(drain(&mut open(&folder, "writer_2")), named("writer_1", [1]));
    assert_eq!(std::fs::read(folder.path().join("writer_1.damaged")).unwrap(), bytes);
}

#[test]
fn the_bound_refuses_and_space_that_was_applied_is_free_again() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = Journal::open(folder.path(), "writer_1", 4000).unwrap();
    let fitted = (1..).take_while(|n| journal.append(&record(*n)).is_ok()).count();
    assert!(fitted > 1 && journal.bytes() <= 4000);
    assert_eq!(drain(&mut journal).len(), fitted);
    journal.append(&record(9)).unwrap();
}

#[test]
fn the_age_is_that_of_the_oldest_record() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = open(&folder, "writer_1");
    assert_eq!(journal.age_ms(Wall::from_micros(9_000_000)), 0);
    journal.append(&record(2_000_000)).unwrap();
    journal.append(&record(5_000_000)).unwrap();
    assert_eq!(journal.age_ms(Wall::from_micros(9_000_000)), 7000);
    drain(&mut journal);
    assert_eq!(journal.age_ms(Wall::from_micros(9_000_000)), 0);
}
