//! What every engine must do with phone numbers and agents.

use super::*;
use crate::store::{AgentRow, NumberRow, Source};

fn number(tenant: TenantId, number: &str) -> NumberRow {
    NumberRow {
        id: NumberId::new(),
        tenant_id: tenant,
        source: Source::Api,
        number: number.into(),
        vendor: "acme".into(),
        display_name: "Support 'line' \u{1f600}".into(),
        agent_id: None,
        status: "active".into(),
        settings: json!({"sid": "acme1", "retries": 3}),
        secrets: Some("0011aabb.c2VhbGVk".into()),
        created_at: Wall::from_micros(1_704_110_400_000_001),
        updated_at: Wall::from_micros(1_704_110_400_000_002),
    }
}

fn agent(tenant: Option<TenantId>, name: &str) -> AgentRow {
    AgentRow {
        id: AgentId::new(),
        tenant_id: tenant,
        source: if tenant.is_some() { Source::Api } else { Source::Config },
        name: name.into(),
        settings: json!({"kind": "scripted", "rules": [{"phrases": ["hi"], "reply": "hello"}]}),
        created_at: Wall::from_micros(1_704_110_400_000_003),
        updated_at: Wall::from_micros(1_704_110_400_000_003),
    }
}

fn put(row: &NumberRow) -> Write {
    Write::Number(Box::new(row.clone()))
}

fn hire(row: &AgentRow) -> Write {
    Write::Agent(Box::new(row.clone()))
}

pub(in crate::store) async fn numbers_and_agents_read_back_whole_and_are_replaced_by_id(bench: &dyn Bench) {
    let store = bench.open();
    let desk = agent(Some(TENANT), "desk");
    let mut line = NumberRow {
        agent_id: Some(desk.id),
        ..number(TENANT, "+15550100")
    };
    must(&*store, [hire(&desk), put(&line)]).await;
    assert_eq!(store.numbers(Some(TENANT)).await.unwrap(), std::slice::from_ref(&line));
    assert_eq!(store.agents(Some(TENANT)).await.unwrap(), std::slice::from_ref(&desk));
    line = NumberRow {
        status: "paused".into(),
        settings: serde_json::Value::Null,
        secrets: None,
        source: Source::Config,
        updated_at: Wall::from_micros(1_704_110_500_000_000),
        ..line
    };
    let desk = AgentRow {
        name: "front desk".into(),
        ..desk
    };
    must(&*store, [put(&line), hire(&desk)]).await;
    drop(store);
    let store = bench.open();
    assert_eq!(store.numbers(None).await.unwrap(), [line]);
    assert_eq!(store.agents(None).await.unwrap(), [desk]);
}

pub(in crate::store) async fn a_vendors_number_and_a_tenants_agent_name_are_there_once(bench: &dyn Bench) {
    let store = bench.open();
    must(
        &*store,
        [put(&number(TENANT, "+15550100")), hire(&agent(Some(TENANT), "desk"))],
    )
    .await;
    let elsewhere = NumberRow {
        vendor: "other".into(),
        ..number(OTHER, "+15550100")
    };
    let names = [agent(Some(OTHER), "desk"), agent(None, "desk")];
    must(&*store, [put(&elsewhere), hire(&names[0]), hire(&names[1])]).await;
    for again in [
        put(&number(OTHER, "+15550100")),
        hire(&agent(Some(TENANT), "desk")),
        hire(&agent(None, "desk")),
    ] {
        let refused = store.commit(batch([again])).await.unwrap_err();
        assert_eq!(refused.kind, Kind::Conflict);
    }
    assert_eq!(store.numbers(None).await.unwrap().len(), 2);
    assert_eq!(store.agents(None).await.unwrap().len(), 3);
}

pub(in crate::store) async fn a_tenant_reads_its_own_numbers_and_agents_alone(bench: &dyn Bench) {
    let store = bench.open();
    let (ours, theirs) = (number(TENANT, "+15550100"), number(OTHER, "+15550200"));
    let (desk, everyones) = (agent(Some(OTHER), "desk"), agent(None, "echo"));
    must(&*store, [put(&ours), put(&theirs), hire(&desk), hire(&everyones)]).await;
    assert_eq!(store.numbers(Some(TENANT)).await.unwrap(), [ours]);
    assert_eq!(store.numbers(Some(OTHER)).await.unwrap(), [theirs]);
    assert_eq!(store.agents(Some(TENANT)).await.unwrap(), []);
    assert_eq!(store.agents(Some(OTHER)).await.unwrap(), [desk]);
    assert_eq!(store.numbers(Some(TenantId(3))).await.unwrap(), []);
}

pub(in crate::store) async fn an_agent_that_is_gone_leaves_its_numbers_without(bench: &dyn Bench) {
    let store = bench.open();
    let desk = agent(Some(TENANT), "desk");
    let line = NumberRow {
        agent_id: Some(desk.id),
        ..number(TENANT, "+15550100")
    };
    must(&*store, [hire(&desk), put(&line)]).await;
    must(&*store, [Write::AgentGone(desk.id)]).await;
    assert_eq!(store.agents(None).await.unwrap(), []);
    assert_eq!(store.numbers(None).await.unwrap()[0].agent_id, None);
    must(&*store, [Write::NumberGone(line.id)]).await;
    assert_eq!(store.numbers(None).await.unwrap(), []);
    for gone in [Write::AgentGone(desk.id), Write::NumberGone(line.id)] {
        assert_eq!(store.commit(batch([gone])).await.unwrap_err().kind, Kind::NotFound);
    }
    let orphan = store.commit(batch([put(&line)])).await.unwrap_err();
    assert_eq!(orphan.kind, Kind::Conflict, "its agent is not there");
}
