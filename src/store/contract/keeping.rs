//! What is kept of a call: holds and erasures exclude each other, and what is erased is gone, and only that.

use super::*;
use crate::store::{ERASE, Expired, JobRow, Retention, Scope};
use std::time::Duration;

fn ended() -> CallRow {
    CallRow {
        status: CallStatus::Ended,
        end_time: Some(Wall::from_micros(1_704_110_500_000_000)),
        recording: Some("recordings/x.wav".into()),
        ..call(TENANT)
    }
}

fn erase(row: &CallRow, scope: Scope) -> [Write; 2] {
    let call_id = row.call_id;
    let job = JobRow::new(ERASE, TENANT, call_id, Wall::now(), Wall::now());
    [Write::Erase { call_id, scope }, Write::Job(Box::new(job))]
}

fn erased(row: &CallRow, scope: Scope) -> Write {
    Write::Erased {
        call_id: row.call_id,
        scope,
    }
}

fn hold(row: &CallRow, held: bool) -> Write {
    Write::Hold {
        call_id: row.call_id,
        held,
    }
}

async fn refused(store: &dyn Store, writes: impl Into<Vec<Write>>) {
    let fault = store.commit(batch(writes)).await.unwrap_err();
    assert_eq!(fault.kind, Kind::Conflict, "{fault}");
}

/// Messages, events and jobs that are there of a call.
async fn left(store: &dyn Store, row: &CallRow) -> (usize, usize, Vec<String>) {
    let jobs = store.jobs(JobFilter {
        limit: 200,
        ..JobFilter::default()
    });
    let kinds = jobs.await.unwrap().into_iter().filter(|j| j.call_id == row.call_id);
    (
        store.messages(TENANT, row.call_id).await.unwrap().len(),
        store.events(TENANT, Some(row.call_id), 0, 100).await.unwrap().len(),
        kinds.map(|j| j.kind).collect(),
    )
}

pub(in crate::store) async fn a_held_call_is_not_erased_and_one_that_is_being_erased_not_held(bench: &dyn Bench) {
    let store = bench.open();
    let (row, live) = (ended(), call(TENANT));
    must(&*store, [new_call(&row), new_call(&live), hold(&row, true)]).await;
    assert!(read(&*store, &row).await.legal_hold);
    for scope in Scope::EACH {
        refused(&*store, erase(&row, scope)).await;
        refused(&*store, erase(&live, scope)).await;
    }
    assert_eq!(left(&*store, &row).await, (0, 0, vec![]));
    must(&*store, [hold(&row, false)]).await;
    must(&*store, erase(&row, Scope::Audio)).await;
    refused(&*store, [hold(&row, true)]).await;
    refused(&*store, erase(&row, Scope::All)).await;
    must(&*store, [erased(&row, Scope::Audio)]).await;
    must(&*store, [hold(&row, true)]).await;
    let found = read(&*store, &row).await;
    assert_eq!((found.recording, found.legal_hold), (None, true));
}

pub(in crate::store) async fn what_is_erased_is_gone_and_nothing_else_is(bench: &dyn Bench) {
    let store = bench.open();
    let (row, other) = (ended(), ended());
    for row in [&row, &other] {
        let after = JobRow::after_call(row, Wall::now(), Wall::now());
        let said = message(row.call_id, 1);
        let writes = [
            new_call(row),
            Write::Message(Box::new(said)),
            event(row, "{}"),
            Write::Job(Box::new(after)),
        ];
        must(&*store, writes).await;
    }
    must(&*store, erase(&row, Scope::Audio)).await;
    assert_eq!(left(&*store, &row).await.2.len(), 2, "files may still be written");
    must(&*store, [erased(&row, Scope::Audio)]).await;
    assert_eq!(left(&*store, &row).await.0, 1, "words stay");
    // The job of the erasure before gives way to that of the next, and no other job sees the words again.
    must(&*store, erase(&row, Scope::Text)).await;
    assert_eq!(left(&*store, &row).await.2, [ERASE]);
    must(&*store, [erased(&row, Scope::Text)]).await;
    assert_eq!(left(&*store, &row).await, (0, 0, vec![ERASE.to_owned()]));
    assert_eq!(read(&*store, &row).await.customer_number, row.customer_number);
    // Late news of the call, which still has in memory what was read out of it.
    let late = json!({ "extracted": { "name": "Ada" }, "vendor_duration_s": 7 });
    let late = change(row.call_id, |c| c.metadata = Some(late));
    must(&*store, [late]).await;
    let metadata = read(&*store, &row).await.metadata;
    assert_eq!(
        (metadata.get("extracted"), &metadata["vendor_duration_s"]),
        (None, &json!(7))
    );

    must(&*store, erase(&row, Scope::All)).await;
    let page = store.calls(
        TENANT,
        CallFilter {
            limit: 9,
            ..CallFilter::default()
        },
    );
    assert_eq!(page.await.unwrap().calls.len(), 1, "it is hidden at once");
    assert_eq!(store.call(TENANT, row.call_id.as_str()).await.unwrap(), None);
    drop(store);
    let store = bench.open();
    must(&*store, [erased(&row, Scope::All)]).await;
    assert_eq!(left(&*store, &row).await, (0, 0, vec![]));
    let again = store.commit(batch([erased(&row, Scope::All)])).await.unwrap_err();
    assert_eq!(again.kind, Kind::NotFound);
    assert_eq!(left(&*store, &other).await, (1, 1, vec!["files".to_owned()]));
    let next = must(&*store, [event(&other, "{}")]).await;
    assert_eq!(next, [3], "ids of events go on");
}

pub(in crate::store) async fn calls_expire_by_their_tenants_rule(bench: &dyn Bench) {
    let store = bench.open();
    let day = Duration::from_secs(86_400);
    let rule = |tenant, retention| Write::Retention { tenant, retention };
    let own = Retention {
        audio: Some(day * 30),
        text: None,
    };
    must(&*store, [rule(TENANT, Some(own)), new_call(&call(OTHER))]).await;
    let all = store.retention(None).await.unwrap();
    assert_eq!(all, [(TENANT, Some(own)), (OTHER, None)]);
    let nobody = TenantId(77);
    assert_eq!(store.retention(Some(nobody)).await.unwrap(), [(nobody, None)]);
    must(&*store, [rule(TENANT, Some(Retention::default()))]).await;
    let kept = store.retention(Some(TENANT)).await.unwrap();
    assert_eq!(kept, [(TENANT, Some(Retention::default()))], "for ever is a rule too");
    must(&*store, [rule(TENANT, None)]).await;
    assert_eq!(store.retention(Some(TENANT)).await.unwrap(), [(TENANT, None)]);

    let at = |seconds: i64| Wall::from_micros(1_704_110_500_000_000 + seconds * 1_000_000);
    let calls: Vec<_> = (0..4)
        .map(|n| CallRow {
            end_time: Some(at(n)),
            ..ended()
        })
        .collect();
    let silent = CallRow {
        recording: None,
        ..calls[0].clone()
    };
    let silent = CallRow {
        call_id: CallId::new(),
        call_sid: "silent".into(),
        ..silent
    };
    must(&*store, calls.iter().map(new_call).collect::<Vec<_>>()).await;
    must(&*store, [new_call(&silent), new_call(&call(TENANT))]).await;
    must(&*store, [hold(&calls[1], true)]).await;
    let found = async |scope, before, limit| -> Vec<CallId> {
        let tenant = TENANT;
        let which = Expired {
            tenant,
            scope,
            before,
            limit,
        };
        let found = store.expired(which).await.unwrap();
        found.into_iter().map(|c| c.call_id).collect()
    };
    assert_eq!(
        found(Scope::Audio, at(3), 9).await,
        [calls[0].call_id, calls[2].call_id]
    );
    assert_eq!(found(Scope::Audio, at(3), 1).await, [calls[0].call_id]);
    assert_eq!(found(Scope::Text, at(3), 9).await.len(), 3);
    must(&*store, erase(&calls[0], Scope::Audio)).await;
    assert_eq!(found(Scope::Audio, at(3), 9).await, [calls[2].call_id]);
    must(&*store, [erased(&calls[0], Scope::Audio)]).await;
    assert_eq!(found(Scope::Audio, at(3), 9).await, [calls[2].call_id]);
    assert_eq!(found(Scope::Text, at(3), 9).await.len(), 3);
    let foreign = Expired {
        tenant: OTHER,
        scope: Scope::Text,
        before: at(3),
        limit: 9,
    };
    assert_eq!(store.expired(foreign).await.unwrap(), []);
}
