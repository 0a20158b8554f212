//! Jobs: queued once, taken once, found when they are due, and queued for calls that a dead process left open.

use super::*;
use crate::store::{AFTER_CALL, JobFilter, JobRow, JobState};

const SECOND: i64 = 1_000_000;

fn later(at: Wall, seconds: i64) -> Wall {
    Wall::from_micros(at.as_micros() + seconds * SECOND)
}

fn queued(job: &JobRow) -> Write {
    Write::Job(Box::new(job.clone()))
}

fn all() -> JobFilter {
    JobFilter {
        limit: 10,
        ..JobFilter::default()
    }
}

pub(in crate::store) async fn a_job_is_queued_once_and_found_when_it_is_due(bench: &dyn Bench) {
    let store = bench.open();
    let (mine, other) = (call(TENANT), call(OTHER));
    let now = Wall::now();
    let mut soon = JobRow::after_call(&mine, now, later(now, 10));
    soon.payload = json!({ "tries": [1, "x"] });
    let due = JobRow::after_call(&other, now, now);
    must(
        &*store,
        [new_call(&mine), new_call(&other), queued(&soon), queued(&due)],
    )
    .await;
    let again = JobRow {
        payload: json!({}),
        ..soon.clone()
    };
    must(&*store, [queued(&again)]).await;
    let found = |filter| store.jobs(filter);
    assert_eq!(found(all()).await.unwrap(), [due.clone(), soon.clone()]);
    let by = |at| JobFilter {
        state: Some(JobState::Queued),
        due_by: Some(at),
        ..all()
    };
    assert_eq!(found(by(now)).await.unwrap().as_slice(), std::slice::from_ref(&due));
    assert_eq!(found(by(later(now, 10))).await.unwrap().len(), 2);
    let one = JobFilter { limit: 1, ..all() };
    assert_eq!(found(one).await.unwrap(), [due]);
    let mine = JobFilter {
        tenant: Some(TENANT),
        ..all()
    };
    assert_eq!(found(mine).await.unwrap().as_slice(), std::slice::from_ref(&soon));
    let foreign = JobFilter {
        tenant: Some(OTHER),
        id: Some(soon.id),
        ..all()
    };
    assert_eq!(found(foreign).await.unwrap(), []);
}

pub(in crate::store) async fn a_job_is_taken_by_one_and_survives_whoever_dies_with_it(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let now = Wall::now();
    let job = JobRow::after_call(&row, now, now);
    must(&*store, [new_call(&row), queued(&job)]).await;
    let take = || Write::JobMove(Box::new(job.moved(JobState::Queued, 1, later(now, 30), None)));
    let (one, two) = (store.commit(batch([take()])), store.commit(batch([take()])));
    assert!(matches!(one.await, Ok(Committed::Done { .. })));
    assert_eq!(two.await, Ok(Committed::Duplicate));
    drop(store);

    let store = bench.open();
    let taken = store.jobs(all()).await.unwrap().remove(0);
    assert_eq!((taken.attempts, taken.due_at), (1, later(now, 30)));
    // The batch is whole: what the late mover wrote beside its move is void too.
    let late = Write::JobMove(Box::new(job.moved(JobState::Done, 1, now, None)));
    let wrote = store.commit(batch([event(&row, "{}"), late])).await;
    assert_eq!(wrote, Ok(Committed::Duplicate));
    assert_eq!(store.events(TENANT, None, 0, 10).await.unwrap(), []);
    let buried = taken.moved(JobState::Buried, 1, now, Some("refused".to_owned()));
    must(&*store, [Write::JobMove(Box::new(buried))]).await;
    let buried = store.jobs(all()).await.unwrap().remove(0);
    assert_eq!(
        (buried.state, buried.error.as_deref()),
        (JobState::Buried, Some("refused"))
    );
}

pub(in crate::store) async fn a_call_that_was_left_open_gets_its_job(bench: &dyn Bench) {
    let store = bench.open();
    let (open, ending) = (call(TENANT), call(TENANT));
    let now = Wall::now();
    let put_off = JobRow::after_call(&ending, now, later(now, 60));
    must(&*store, [new_call(&open), new_call(&ending), queued(&put_off)]).await;
    drop(store);
    let store = bench.open();
    assert_eq!(store.close_open_calls().await, Ok(2));
    let jobs = store.jobs(all()).await.unwrap();
    assert_eq!(jobs.len(), 2);
    assert!(jobs.iter().all(|j| j.kind == AFTER_CALL && j.state == JobState::Queued));
    assert_eq!((jobs[0].call_id, &jobs[1]), (open.call_id, &put_off));
}
