//! A SQLite file moved into a real server: all of it once, and nothing into a database that holds something.

use crate::{
    base::{
        ids::{AgentId, CallId, NumberId, TenantId},
        time::Wall,
    },
    store::{
        AgentRow, CallFilter, CallStatus, Committed, Config, NumberRow, Source, Store, Write,
        contract::{batch, call, event, message, new_call},
        postgres::{PostgresStore, tests::shared},
        sqlite::SqliteStore,
        transfer::{TransferError, transfer},
    },
};
use serde_json::json;

const TENANT: TenantId = TenantId(3);

fn roster() -> (AgentRow, NumberRow) {
    let agent = AgentRow {
        id: AgentId::new(),
        tenant_id: Some(TENANT),
        source: Source::Api,
        name: "desk".into(),
        settings: json!({"kind": "human"}),
        created_at: Wall::from_micros(1_704_110_400_000_003),
        updated_at: Wall::from_micros(1_704_110_400_000_004),
    };
    let number = NumberRow {
        id: NumberId::new(),
        tenant_id: TENANT,
        source: Source::Api,
        number: "+15550100".into(),
        vendor: "acme".into(),
        display_name: "Support".into(),
        agent_id: Some(agent.id),
        status: "active".into(),
        settings: json!({"sid": "acme1"}),
        secrets: Some("0011aabb.c2VhbGVk".into()),
        created_at: Wall::from_micros(1_704_110_400_000_001),
        updated_at: Wall::from_micros(1_704_110_400_000_002),
    };
    (agent, number)
}

#[tokio::test]
async fn everything_is_moved_and_the_daemon_goes_on_where_it_stood() {
    let folder = tempfile::tempdir().unwrap();
    let (file, url, config) = (folder.path().join("a.db"), shared().database(), Config::default());
    let (agent, number) = roster();
    let (mut ended, open) = (call(TENANT), call(TENANT));
    ended.status = CallStatus::Ended;
    let said = message(ended.call_id, 1);
    let store = SqliteStore::open(&file, &config).unwrap();
    let seen = || Write::Seen {
        vendor: "acme",
        key: "k".into(),
    };
    let writes = [
        seen(),
        Write::Agent(Box::new(agent.clone())),
        Write::Number(Box::new(number.clone())),
        new_call(&ended),
        new_call(&open),
        Write::Message(Box::new(said.clone())),
        event(&ended, "{\"a\": 1}"),
    ];
    store.commit(batch(writes)).await.unwrap();
    for n in 0..500 {
        store.commit(batch([event(&ended, &n.to_string())])).await.unwrap();
    }

    // Off the test's runtime, as on the command line.
    let moving = || std::thread::scope(|s| s.spawn(|| transfer(&file, &url, &config)).join().unwrap());
    let in_use = moving().unwrap_err();
    assert!(matches!(in_use, TransferError::Open(_)), "{in_use}");
    store.close().await.unwrap();
    drop(store);
    let moved = moving().unwrap();
    // One more event: the call that was left open has ended.
    assert!(
        moved.contains(&("events", 502)) && moved.contains(&("phone_calls", 2)),
        "{moved:?}"
    );

    let target = PostgresStore::open(&url, &folder.path().join("journal"), &config).unwrap();
    assert_eq!(target.agents(None).await.unwrap(), [agent]);
    assert_eq!(target.numbers(None).await.unwrap(), [number]);
    let found = async |id: CallId| target.call(TENANT, id.as_str()).await.unwrap().unwrap();
    assert_eq!(found(ended.call_id).await, ended);
    assert_eq!(found(open.call_id).await.status, CallStatus::Ended);
    assert_eq!(target.messages(TENANT, ended.call_id).await.unwrap(), [said]);
    assert_eq!(
        target
            .calls(
                TENANT,
                CallFilter {
                    limit: 10,
                    ..CallFilter::default()
                }
            )
            .await
            .unwrap()
            .calls
            .len(),
        2
    );
    assert_eq!(
        target.events(TENANT, None, 0, 1).await.unwrap()[0].payload,
        "{\"a\": 1}"
    );
    assert_eq!(target.commit(batch([seen()])).await, Ok(Committed::Duplicate));
    let next = target.commit(batch([event(&ended, "{}")])).await;
    assert_eq!(next, Ok(Committed::Done { event_ids: vec![503] }));

    let again = moving().unwrap_err();
    assert!(
        matches!(again, TransferError::NotEmpty { table: "tenants", .. }),
        "{again}"
    );
    assert_eq!(target.agents(None).await.unwrap().len(), 1, "nothing was changed");
}
