//! What every engine must do, as tests over the [`Store`] trait. An engine runs them with [`run_contract`] and a [`Bench`] of its own.

use super::*;
use crate::base::{fault::Kind, ids::MessageId};
use serde_json::json;
use std::sync::Arc;

mod jobs;
mod keeping;
mod roster;
mod tenants;
pub(super) use jobs::*;
pub(super) use keeping::*;
pub(super) use roster::*;
pub(super) use tenants::*;

/// A place for one database, empty at first.
pub(super) trait Bench {
    /// Opens the database, as a start of the daemon does. The store before must be closed or dropped.
    fn open(&self) -> Arc<dyn Store>;
}

/// Makes a test of every case of the contract. `$bench` makes a new [`Bench`].
macro_rules! run_contract {
    ($bench:expr) => {
        $crate::store::contract::run_contract!($bench;
            a_batch_is_applied_in_order_and_reads_back_whole
            a_batch_with_a_fault_changes_nothing
            a_webhook_seen_before_voids_its_batch
            sixty_four_copies_of_a_webhook_act_once
            a_refused_batch_leaves_its_neighbours_alone
            a_call_is_found_by_either_id
            the_pending_id_gives_way_to_the_vendors
            a_vendors_id_is_that_of_one_call_of_a_tenant
            a_status_never_moves_back
            late_news_still_updates_facts
            no_query_crosses_tenants
            pages_stay_whole_while_calls_arrive
            calls_are_filtered_by_status
            calls_are_found_by_what_is_known_of_them
            a_foreign_cursor_is_refused
            messages_come_in_order_with_what_became_of_them
            event_ids_are_dense_and_each_tenants_own
            events_are_read_from_where_a_frontend_left
            committers_keep_their_own_order
            a_dropped_future_does_not_undo_its_commit
            what_was_acknowledged_survives_a_crash
            open_calls_are_closed_at_their_last_known_time
            ids_are_not_reused_after_a_crash
            a_closed_store_refuses_and_closes_again
            numbers_and_agents_read_back_whole_and_are_replaced_by_id
            a_vendors_number_and_a_tenants_agent_name_are_there_once
            a_tenant_reads_its_own_numbers_and_agents_alone
            an_agent_that_is_gone_leaves_its_numbers_without
            a_tenant_is_made_once_and_reads_back_as_it_was_changed
            what_belongs_to_a_tenant_brings_an_active_one_without_settings
            a_key_reads_back_is_revoked_by_id_and_shares_its_hash_with_none
            a_job_is_queued_once_and_found_when_it_is_due
            a_job_is_taken_by_one_and_survives_whoever_dies_with_it
            a_call_that_was_left_open_gets_its_job
            a_held_call_is_not_erased_and_one_that_is_being_erased_not_held
            what_is_erased_is_gone_and_nothing_else_is
            calls_expire_by_their_tenants_rule
        );
    };
    ($bench:expr; $($name:ident)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                $crate::store::contract::$name(&$bench).await
            }
        )*
    };
}
pub(super) use run_contract;

const TENANT: TenantId = TenantId(1);
const OTHER: TenantId = TenantId(2);

/// A call that just arrived.
pub(super) fn call(tenant: TenantId) -> CallRow {
    let call_id = CallId::new();
    CallRow {
        call_id,
        call_sid: format!("pending:{call_id}"),
        session_id: call_id.to_string(),
        vendor: "acme".into(),
        inbound: true,
        customer_number: "sip:alice@example.com".into(),
        organization_number: "+15550100".into(),
        status: CallStatus::Incoming,
        end_reason: None,
        start_time: Wall::from_micros(1_704_110_400_000_001),
        answered_at: None,
        end_time: None,
        duration: None,
        tenant_id: tenant,
        agent: "front desk".into(),
        recording: None,
        legal_hold: false,
        metadata: json!({"closed_without_stop": true, "n": [1, 2.5, null]}),
    }
}

pub(super) fn message(call_id: CallId, seq: i64) -> MessageRow {
    MessageRow {
        message_id: MessageId::new(),
        call_id,
        seq,
        message_type: "transcript",
        content: format!("words {seq}; 'quoted' \u{1f600}"),
        sender_type: Sender::Customer,
        sender_name: None,
        confidence: Some(0.5),
        detected_language: Some("en".into()),
        delivery: None,
        heard_ms: None,
        created_at: Wall::from_micros(1_704_110_400_000_000 + seq),
    }
}

pub(super) fn new_call(row: &CallRow) -> Write {
    Write::Call(Box::new(row.clone()))
}

pub(super) fn change(call_id: CallId, f: impl FnOnce(&mut CallChange)) -> Write {
    let mut c = CallChange {
        call_id: Some(call_id),
        ..CallChange::default()
    };
    f(&mut c);
    Write::CallChange(Box::new(c))
}

pub(super) fn event(row: &CallRow, payload: &str) -> Write {
    Write::Event {
        tenant: row.tenant_id,
        call_id: row.call_id,
        payload: payload.into(),
    }
}

fn seen(key: &str) -> Write {
    Write::Seen {
        vendor: "acme",
        key: key.into(),
    }
}

pub(super) fn batch(writes: impl Into<Vec<Write>>) -> Batch {
    Batch { writes: writes.into() }
}

async fn must(store: &dyn Store, writes: impl Into<Vec<Write>>) -> Vec<i64> {
    match store.commit(batch(writes)).await.expect("committed") {
        Committed::Done { event_ids } => event_ids,
        Committed::Duplicate => panic!("duplicate"),
    }
}

async fn read(store: &dyn Store, row: &CallRow) -> CallRow {
    let found = store.call(row.tenant_id, row.call_id.as_str()).await.unwrap();
    found.expect("the call is there")
}

pub(super) async fn a_batch_is_applied_in_order_and_reads_back_whole(bench: &dyn Bench) {
    let store = bench.open();
    let mut row = call(TENANT);
    let said = message(row.call_id, 1);
    let ids = must(
        &*store,
        [
            seen("k"),
            new_call(&row),
            change(row.call_id, |c| {
                c.status = Some(CallStatus::Answered);
                c.answered_at = Some(Wall::from_micros(5));
                c.agent = Some("a person".into());
            }),
            Write::Message(Box::new(said.clone())),
            event(&row, "{}"),
            change(row.call_id, |c| c.status = Some(CallStatus::InProgress)),
            event(&row, "[]"),
        ],
    )
    .await;
    assert_eq!(ids, [1, 2]);
    row.status = CallStatus::InProgress;
    row.answered_at = Some(Wall::from_micros(5));
    row.agent = "a person".into();
    assert_eq!(read(&*store, &row).await, row);
    assert_eq!(store.messages(TENANT, row.call_id).await.unwrap(), [said]);
}

pub(super) async fn a_batch_with_a_fault_changes_nothing(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let stranger = message(CallId::new(), 1);
    let writes = [
        seen("k"),
        new_call(&row),
        event(&row, "{}"),
        Write::Message(Box::new(stranger)),
    ];
    let fault = store.commit(batch(writes)).await.unwrap_err();
    assert_eq!(fault.kind, Kind::NotFound, "{fault}");
    assert_eq!(store.call(TENANT, row.call_id.as_str()).await.unwrap(), None);
    assert_eq!(store.events(TENANT, None, 0, 10).await.unwrap(), []);
    assert_eq!(must(&*store, [seen("k"), new_call(&row), event(&row, "{}")]).await, [1]);
}

pub(super) async fn a_webhook_seen_before_voids_its_batch(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    must(&*store, [seen("k"), new_call(&row)]).await;
    let again = batch([
        change(row.call_id, |c| c.status = Some(CallStatus::Ended)),
        event(&row, "{}"),
        seen("k"),
    ]);
    assert_eq!(store.commit(again).await, Ok(Committed::Duplicate));
    assert_eq!(read(&*store, &row).await.status, CallStatus::Incoming);
    assert_eq!(store.events(TENANT, None, 0, 10).await.unwrap(), []);
    let same_key_elsewhere = Write::Seen {
        vendor: "other",
        key: "k".into(),
    };
    must(&*store, [same_key_elsewhere]).await;
}

pub(super) async fn sixty_four_copies_of_a_webhook_act_once(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    must(&*store, [new_call(&row)]).await;
    let all: Vec<_> = (0..64)
        .map(|_| store.commit(batch([seen("k"), event(&row, "{}")])))
        .collect();
    let mut done = 0;
    for answer in all {
        done += i32::from(matches!(answer.await.unwrap(), Committed::Done { .. }));
    }
    assert_eq!(done, 1);
    assert_eq!(store.events(TENANT, None, 0, 100).await.unwrap().len(), 1);
}

pub(super) async fn a_refused_batch_leaves_its_neighbours_alone(bench: &dyn Bench) {
    let store = bench.open();
    let (a, b) = (call(TENANT), call(TENANT));
    let answers = [
        store.commit(batch([new_call(&a), event(&a, "1")])),
        store.commit(batch([event(&a, "void"), new_call(&a)])),
        store.commit(batch([event(&a, "void"), change(CallId::new(), |_| {})])),
        store.commit(batch([new_call(&b), event(&b, "2")])),
    ];
    let mut got = Vec::new();
    for answer in answers {
        got.push(answer.await);
    }
    assert_eq!(got[0], Ok(Committed::Done { event_ids: vec![1] }));
    assert_eq!(got[1].as_ref().unwrap_err().kind, Kind::Conflict);
    assert_eq!(got[2].as_ref().unwrap_err().kind, Kind::NotFound);
    assert_eq!(got[3], Ok(Committed::Done { event_ids: vec![2] }));
}

pub(super) async fn a_call_is_found_by_either_id(bench: &dyn Bench) {
    let store = bench.open();
    let mut row = call(TENANT);
    row.call_sid = "CA123".into();
    must(&*store, [new_call(&row)]).await;
    for id in [row.call_id.as_str(), "CA123"] {
        assert_eq!(store.call(TENANT, id).await.unwrap().as_ref(), Some(&row), "{id}");
    }
    for id in ["", "CA12", "ca123", "CA123' OR '1'='1"] {
        assert_eq!(store.call(TENANT, id).await.unwrap(), None, "{id:?}");
    }
}

pub(super) async fn the_pending_id_gives_way_to_the_vendors(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    must(&*store, [new_call(&row)]).await;
    assert!(store.call(TENANT, &row.call_sid).await.unwrap().is_some());
    let told = change(row.call_id, |c| {
        c.call_sid = Some("CA9".into());
        c.session_id = Some("CA9-1".into());
    });
    must(&*store, [told]).await;
    assert!(store.call(TENANT, &row.call_sid).await.unwrap().is_none());
    let found = store.call(TENANT, "CA9").await.unwrap().unwrap();
    assert_eq!((found.call_id, found.session_id.as_str()), (row.call_id, "CA9-1"));
}

pub(super) async fn a_vendors_id_is_that_of_one_call_of_a_tenant(bench: &dyn Bench) {
    let store = bench.open();
    let (mut a, mut again, mut c) = (call(TENANT), call(TENANT), call(TENANT));
    let (mut theirs, learned) = (call(OTHER), call(OTHER));
    for row in [&mut a, &mut again, &mut c, &mut theirs] {
        row.call_sid = "CA1".into();
    }
    c.vendor = "other".into();
    must(&*store, [new_call(&a)]).await;
    let refused = store.commit(batch([new_call(&again)])).await.unwrap_err();
    assert_eq!(refused.kind, Kind::Conflict);
    must(&*store, [new_call(&c)]).await;
    // Another tenant's account says what it likes, and takes no id away.
    must(&*store, [new_call(&theirs), new_call(&learned)]).await;
    assert_eq!(store.call(OTHER, "CA1").await.unwrap().unwrap().call_id, theirs.call_id);
    let learns = change(learned.call_id, |c| c.call_sid = Some("CA1".into()));
    assert_eq!(store.commit(batch([learns])).await.unwrap_err().kind, Kind::Conflict);
}

pub(super) async fn a_status_never_moves_back(bench: &dyn Bench) {
    let store = bench.open();
    for (n, from) in CallStatus::ALL.into_iter().enumerate() {
        for (m, to) in CallStatus::ALL.into_iter().enumerate() {
            let mut row = call(TENANT);
            row.status = from;
            must(&*store, [new_call(&row), change(row.call_id, |c| c.status = Some(to))]).await;
            let expected = CallStatus::ALL[n.max(m)];
            assert_eq!(read(&*store, &row).await.status, expected, "{from:?} to {to:?}");
        }
    }
}

pub(super) async fn late_news_still_updates_facts(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let ended = change(row.call_id, |c| {
        c.status = Some(CallStatus::Ended);
        c.end_reason = Some(EndReason::Completed);
    });
    must(&*store, [new_call(&row), ended]).await;
    let late = change(row.call_id, |c| {
        c.status = Some(CallStatus::Answered);
        c.answered_at = Some(Wall::from_micros(7));
        c.duration = Some(3);
        c.metadata = Some(json!({"late": 1}));
        c.recording = Some("r.wav".into());
    });
    must(&*store, [late]).await;
    let found = read(&*store, &row).await;
    assert_eq!(
        (found.status, found.end_reason),
        (CallStatus::Ended, Some(EndReason::Completed))
    );
    assert_eq!(
        (found.answered_at, found.duration),
        (Some(Wall::from_micros(7)), Some(3))
    );
    assert_eq!(
        (found.metadata, found.recording.as_deref()),
        (
            json!({"closed_without_stop": true, "n": [1, 2.5, null], "late": 1}),
            Some("r.wav")
        )
    );
}

pub(super) async fn no_query_crosses_tenants(bench: &dyn Bench) {
    let store = bench.open();
    let mut row = call(TENANT);
    row.call_sid = "CA1".into();
    must(
        &*store,
        [
            new_call(&row),
            Write::Message(Box::new(message(row.call_id, 1))),
            event(&row, "{}"),
        ],
    )
    .await;
    assert_eq!(store.call(OTHER, row.call_id.as_str()).await.unwrap(), None);
    assert_eq!(store.call(OTHER, "CA1").await.unwrap(), None);
    assert_eq!(store.messages(OTHER, row.call_id).await.unwrap(), []);
    assert_eq!(store.events(OTHER, None, 0, 10).await.unwrap(), []);
    assert_eq!(store.events(OTHER, Some(row.call_id), 0, 10).await.unwrap(), []);
    let filter = CallFilter {
        limit: 10,
        ..CallFilter::default()
    };
    assert_eq!(store.calls(OTHER, filter).await.unwrap().calls, []);
}

pub(super) async fn pages_stay_whole_while_calls_arrive(bench: &dyn Bench) {
    let store = bench.open();
    let mut expected = Vec::new();
    for n in 0..25 {
        let mut row = call(TENANT);
        row.start_time = Wall::from_micros(1_704_110_400_000_000 + n / 5);
        must(&*store, [new_call(&row), new_call(&call(OTHER))]).await;
        expected.push(row.call_id);
    }
    expected.reverse();
    let (mut got, mut after) = (Vec::new(), None);
    loop {
        let filter = CallFilter {
            limit: 4,
            after,
            ..CallFilter::default()
        };
        let page = store.calls(TENANT, filter).await.unwrap();
        assert!(page.calls.len() <= 4);
        got.extend(page.calls.iter().map(|c| c.call_id));
        let mut newer = call(TENANT);
        newer.start_time = Wall::from_micros(1_704_110_500_000_000);
        must(&*store, [new_call(&newer)]).await;
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    assert_eq!(got, expected);
}

pub(super) async fn calls_are_filtered_by_status(bench: &dyn Bench) {
    let store = bench.open();
    for status in CallStatus::ALL {
        let mut row = call(TENANT);
        row.status = status;
        must(&*store, [new_call(&row)]).await;
    }
    for statuses in [
        vec![CallStatus::Ended],
        vec![CallStatus::Answered, CallStatus::Ringing],
        vec![CallStatus::InProgress, CallStatus::Ended],
        CallStatus::ALL.to_vec(),
    ] {
        let filter = CallFilter {
            statuses: statuses.clone(),
            limit: 100,
            ..CallFilter::default()
        };
        let page = store.calls(TENANT, filter).await.unwrap();
        assert_eq!(page.next, None);
        let mut got: Vec<_> = page.calls.iter().map(|c| c.status).collect();
        let mut expected = statuses;
        got.sort();
        expected.sort();
        assert_eq!(got, expected);
    }
}

pub(super) async fn calls_are_found_by_what_is_known_of_them(bench: &dyn Bench) {
    let store = bench.open();
    let at = |n: i64| Wall::from_micros(1_704_110_400_000_000 + n * 1_000_000);
    let mut rows = Vec::new();
    for n in 0..6 {
        let mut row = call(if n == 5 { OTHER } else { TENANT });
        row.start_time = at(n);
        row.customer_number = format!("+1555010{n}");
        row.organization_number = ["+15550200", "+15550201"][n as usize % 2].into();
        row.agent = ["desk", "night desk"][n as usize / 3].into();
        row.vendor = ["acme", "other"][n as usize % 2].into();
        let said = MessageRow {
            content: ["Where is my 100% refund?", "Call me_back, please", "back\\slash"][n as usize % 3].into(),
            ..message(row.call_id, 1)
        };
        must(&*store, [new_call(&row), Write::Message(Box::new(said))]).await;
        rows.push(row);
    }
    let find = async |narrow: &dyn Fn(&mut CallFilter)| -> Vec<usize> {
        let mut filter = CallFilter {
            limit: 2,
            ..CallFilter::default()
        };
        narrow(&mut filter);
        let mut found = Vec::new();
        loop {
            let page = store.calls(TENANT, filter.clone()).await.unwrap();
            found.extend(page.calls.iter().map(|c| rows.iter().position(|r| r == c).unwrap()));
            filter.after = page.next;
            if filter.after.is_none() {
                return found;
            }
        }
    };
    assert_eq!(find(&|_| {}).await, [4, 3, 2, 1, 0]);
    assert_eq!(find(&|f| f.from = Some(at(3))).await, [4, 3]);
    assert_eq!(find(&|f| f.until = Some(at(2))).await, [1, 0]);
    assert_eq!(find(&|f| f.number = Some("+15550103".into())).await, [3]);
    assert_eq!(find(&|f| f.number = Some("+15550201".into())).await, [3, 1]);
    assert_eq!(find(&|f| f.agent = Some("night desk".into())).await, [4, 3]);
    assert_eq!(find(&|f| f.vendor = Some("acme".into())).await, [4, 2, 0]);
    assert_eq!(find(&|f| f.text = Some("REFUND".into())).await, [3, 0]);
    assert_eq!(find(&|f| f.text = Some("100%".into())).await, [3, 0]);
    assert_eq!(find(&|f| f.text = Some("me_b".into())).await, [4, 1]);
    assert_eq!(find(&|f| f.text = Some("k\\s".into())).await, [2]);
    for none in ["1%0", "m_e", "'; DROP TABLE phone_calls; --", "me back"] {
        assert!(find(&|f| f.text = Some(none.into())).await.is_empty(), "{none}");
    }
    let narrow = |f: &mut CallFilter| {
        f.statuses = vec![CallStatus::Incoming, CallStatus::Ended];
        (f.from, f.until) = (Some(at(0)), Some(at(4)));
        f.vendor = Some("other".into());
        f.text = Some("refund".into());
        f.agent = Some("night desk".into());
        f.number = Some("+15550201".into());
    };
    assert_eq!(find(&narrow).await, [3]);
}

pub(super) async fn a_foreign_cursor_is_refused(bench: &dyn Bench) {
    let store = bench.open();
    for bad in ["", "x", "1~", "~x", "1~a b", "9999999999999999999999~x"] {
        let filter = CallFilter {
            limit: 10,
            after: Some(bad.into()),
            ..CallFilter::default()
        };
        let fault = store.calls(TENANT, filter).await.unwrap_err();
        assert_eq!(fault.kind, Kind::Malformed, "{bad:?}");
    }
}

pub(super) async fn messages_come_in_order_with_what_became_of_them(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let mut said = message(row.call_id, 2);
    said.message_type = "tts_audio";
    said.sender_type = Sender::Agent;
    said.sender_name = Some("Ada".into());
    said.delivery = Some("stored");
    let heard = message(row.call_id, 1);
    must(
        &*store,
        [
            new_call(&row),
            Write::Message(Box::new(said.clone())),
            Write::Message(Box::new(heard.clone())),
        ],
    )
    .await;
    assert_eq!(
        store.messages(TENANT, row.call_id).await.unwrap(),
        [heard.clone(), said.clone()]
    );
    let cut = Write::Delivery {
        message_id: said.message_id,
        delivery: "cut",
        heard_ms: 480,
    };
    must(&*store, [cut]).await;
    said.delivery = Some("cut");
    said.heard_ms = Some(480);
    assert_eq!(
        store.messages(TENANT, row.call_id).await.unwrap(),
        [heard, said.clone()]
    );
    for twice in [message(row.call_id, 2), MessageRow { seq: 3, ..said }] {
        let fault = store
            .commit(batch([Write::Message(Box::new(twice))]))
            .await
            .unwrap_err();
        assert_eq!(fault.kind, Kind::Conflict);
    }
}

pub(super) async fn event_ids_are_dense_and_each_tenants_own(bench: &dyn Bench) {
    let store = bench.open();
    let rows = [call(TENANT), call(OTHER)];
    must(&*store, [new_call(&rows[0]), new_call(&rows[1])]).await;
    let mut answers = Vec::new();
    for n in 0..100 {
        let row = &rows[n % 3 / 2];
        let mut writes = vec![event(row, "{}")];
        if n % 10 == 9 {
            writes.push(change(CallId::new(), |_| {})); // voids the batch
        }
        answers.push((row.tenant_id, store.commit(batch(writes))));
    }
    let mut next = [1, 1];
    for (tenant, answer) in answers {
        if let Ok(Committed::Done { event_ids }) = answer.await {
            let next = &mut next[tenant.0 as usize - 1];
            assert_eq!(event_ids, [*next]);
            *next += 1;
        }
    }
    for row in &rows {
        let ids: Vec<_> = store.events(row.tenant_id, None, 0, 1000).await.unwrap();
        let ids: Vec<_> = ids.iter().map(|e| e.id).collect();
        assert_eq!(ids, (1..next[row.tenant_id.0 as usize - 1]).collect::<Vec<_>>());
    }
}

pub(super) async fn events_are_read_from_where_a_frontend_left(bench: &dyn Bench) {
    let store = bench.open();
    let (a, b) = (call(TENANT), call(TENANT));
    must(&*store, [new_call(&a), new_call(&b)]).await;
    for n in 1..=6 {
        must(&*store, [event([&a, &b][n % 2], &n.to_string())]).await;
    }
    let read = async |call, after, limit| -> Vec<i64> {
        let events = store.events(TENANT, call, after, limit).await.unwrap();
        assert!(events.iter().all(|e| e.payload == e.id.to_string()));
        events.iter().map(|e| e.id).collect()
    };
    assert_eq!(read(None, 2, 100).await, [3, 4, 5, 6]);
    assert_eq!(read(None, 2, 3).await, [3, 4, 5]);
    assert_eq!(read(Some(b.call_id), 1, 100).await, [3, 5]);
    assert!(read(None, 6, 100).await.is_empty());
}

pub(super) async fn committers_keep_their_own_order(bench: &dyn Bench) {
    let store = bench.open();
    let rows: Vec<_> = (0..4).map(|_| call(TENANT)).collect();
    must(&*store, rows.iter().map(new_call).collect::<Vec<_>>()).await;
    let threads: Vec<_> = rows
        .iter()
        .map(|row| {
            let (store, row) = (store.clone(), row.clone());
            std::thread::spawn(move || {
                let commit = |n: i64| {
                    store.commit(batch([
                        Write::Message(Box::new(message(row.call_id, n))),
                        event(&row, &n.to_string()),
                    ]))
                };
                (1..=100).map(commit).collect::<Vec<_>>()
            })
        })
        .collect();
    for thread in threads {
        for answer in thread.join().unwrap() {
            answer.await.unwrap();
        }
    }
    let all = store.events(TENANT, None, 0, 1000).await.unwrap();
    assert_eq!(all.len(), 400);
    for row in &rows {
        let order: Vec<_> = all.iter().filter(|e| e.call_id == row.call_id).collect();
        let order: Vec<i64> = order.iter().map(|e| e.payload.parse().unwrap()).collect();
        assert_eq!(order, (1..=100).collect::<Vec<_>>());
    }
}

pub(super) async fn a_dropped_future_does_not_undo_its_commit(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    drop(store.commit(batch([new_call(&row)])));
    must(&*store, [event(&row, "{}")]).await;
    assert_eq!(read(&*store, &row).await, row);
}

pub(super) async fn what_was_acknowledged_survives_a_crash(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let said = message(row.call_id, 1);
    must(
        &*store,
        [seen("k"), new_call(&row), Write::Message(Box::new(said.clone()))],
    )
    .await;
    drop(store);
    let store = bench.open();
    assert_eq!(read(&*store, &row).await, row);
    assert_eq!(store.messages(TENANT, row.call_id).await.unwrap(), [said]);
    assert_eq!(store.commit(batch([seen("k")])).await, Ok(Committed::Duplicate));
}

pub(super) async fn open_calls_are_closed_at_their_last_known_time(bench: &dyn Bench) {
    let store = bench.open();
    let (ringing, mut live, mut over) = (call(TENANT), call(OTHER), call(TENANT));
    live.status = CallStatus::InProgress;
    live.answered_at = Some(Wall::from_micros(Wall::now().as_micros() - 90_500_000));
    over.status = CallStatus::Ended;
    over.end_reason = Some(EndReason::Completed);
    over.end_time = Some(over.start_time);
    let before = Wall::now();
    must(&*store, [new_call(&ringing), new_call(&live), new_call(&over)]).await;
    must(&*store, [Write::Message(Box::new(message(live.call_id, 1)))]).await;
    let after = Wall::now();
    drop(store);

    let store = bench.open();
    assert_eq!(store.close_open_calls().await, Ok(2));
    for row in [&ringing, &live] {
        let found = read(&*store, row).await;
        assert_eq!(
            (found.status, found.end_reason),
            (CallStatus::Ended, Some(EndReason::Interrupted))
        );
        let end = found.end_time.unwrap();
        assert!(before <= end && end <= after, "{before} {end} {after}");
        let events = store.events(row.tenant_id, None, 0, 10).await.unwrap();
        assert_eq!((events.len(), events[0].call_id), (1, row.call_id));
        let told: serde_json::Value = serde_json::from_str(&events[0].payload).unwrap();
        assert_eq!(
            (
                &told["type"],
                &told["status"],
                &told["end_reason"],
                &told["customer_number"]
            ),
            (
                &json!("call_status_update"),
                &json!("ended"),
                &json!("interrupted"),
                &json!(row.customer_number)
            )
        );
    }
    assert_eq!(read(&*store, &ringing).await.duration, Some(0));
    let lasted = read(&*store, &live).await.duration.unwrap();
    assert!((90..=95).contains(&lasted), "{lasted}");
    assert_eq!(read(&*store, &over).await, over);
    assert_eq!(store.close_open_calls().await, Ok(0));
}

pub(super) async fn ids_are_not_reused_after_a_crash(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    assert_eq!(must(&*store, [new_call(&row), event(&row, "{}")]).await, [1]);
    drop(store);
    let store = bench.open();
    assert_eq!(must(&*store, [event(&row, "{}")]).await, [2]);
    store.close().await.unwrap();
    let store = bench.open();
    assert_eq!(must(&*store, [event(&row, "{}")]).await, [3]);
}

pub(super) async fn a_closed_store_refuses_and_closes_again(bench: &dyn Bench) {
    let store = bench.open();
    let row = call(TENANT);
    let last = store.commit(batch([new_call(&row)]));
    assert_eq!(store.close().await, Ok(()));
    assert!(last.await.is_ok(), "what was queued is flushed");
    assert_eq!(
        store.commit(batch([event(&row, "{}")])).await.unwrap_err().kind,
        Kind::Unavailable
    );
    assert_eq!(store.call(TENANT, "x").await.unwrap_err().kind, Kind::Unavailable);
    assert!(!store.health().writable);
    assert_eq!(store.close().await, Ok(()));
    drop(store);
    assert_eq!(read(&*bench.open(), &row).await, row);
}
