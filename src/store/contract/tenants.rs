//! What every engine must do with tenants and their API keys.

use super::*;
use crate::{
    base::ids::KeyId,
    store::{ApiKeyRow, TenantRow},
};

const DAY: i64 = 1_704_110_400_000_000;

fn tenant(id: TenantId, name: &str) -> TenantRow {
    TenantRow {
        id,
        name: name.into(),
        active: true,
        settings: json!({"max_calls": 3, "destinations": ["+91"]}),
        created_at: Wall::from_micros(DAY),
        updated_at: Wall::from_micros(DAY + 1),
    }
}

fn key(tenant: TenantId, hash: &str) -> ApiKeyRow {
    ApiKeyRow {
        id: KeyId::new(),
        tenant_id: tenant,
        name: "build 'bot'".into(),
        prefix: "sk_abcdef".into(),
        hash: hash.into(),
        role: "viewer".into(),
        scopes: "calls ws".into(),
        created_by: "ann".into(),
        created_at: Wall::from_micros(DAY + 2),
        expires_at: Some(Wall::from_micros(DAY + 3)),
        revoked_at: None,
    }
}

fn put(row: &TenantRow) -> Write {
    Write::Tenant(Box::new(row.clone()))
}

fn hand_out(row: &ApiKeyRow) -> Write {
    Write::ApiKey(Box::new(row.clone()))
}

pub(in crate::store) async fn a_tenant_is_made_once_and_reads_back_as_it_was_changed(bench: &dyn Bench) {
    let store = bench.open();
    let mut row = tenant(TENANT, "Böt \u{1f600} Ltd");
    must(&*store, [Write::NewTenant(Box::new(row.clone()))]).await;
    let again = store.commit(batch([Write::NewTenant(Box::new(row.clone()))])).await;
    assert_eq!(again.unwrap_err().kind, Kind::Conflict);
    row = TenantRow {
        name: "other".into(),
        active: false,
        settings: serde_json::Value::Null,
        updated_at: Wall::from_micros(DAY + 5),
        ..row
    };
    must(&*store, [put(&row)]).await;
    drop(store);
    assert_eq!(bench.open().tenants().await.unwrap(), [row]);
}

pub(in crate::store) async fn what_belongs_to_a_tenant_brings_an_active_one_without_settings(bench: &dyn Bench) {
    let store = bench.open();
    let mine = tenant(OTHER, "mine");
    must(&*store, [put(&mine), new_call(&call(TENANT)), new_call(&call(OTHER))]).await;
    let all = store.tenants().await.unwrap();
    let [implied, stated] = &all[..] else { panic!("{all:?}") };
    assert_eq!(
        (implied.id, implied.active, &implied.settings),
        (TENANT, true, &serde_json::Value::Null)
    );
    assert_eq!(implied.created_at, implied.updated_at);
    assert_eq!(*stated, mine, "what was stated stays");
}

pub(in crate::store) async fn a_key_reads_back_is_revoked_by_id_and_shares_its_hash_with_none(bench: &dyn Bench) {
    let store = bench.open();
    let (mut one, other) = (key(TENANT, "aa"), key(OTHER, "bb"));
    must(&*store, [hand_out(&one), hand_out(&other)]).await;
    let twin = store.commit(batch([hand_out(&key(OTHER, "aa"))])).await;
    assert_eq!(twin.unwrap_err().kind, Kind::Conflict);
    one.revoked_at = Some(Wall::from_micros(DAY + 9));
    one.expires_at = None;
    must(&*store, [hand_out(&one)]).await;
    drop(store);
    let store = bench.open();
    assert_eq!(store.api_keys(Some(TENANT)).await.unwrap(), std::slice::from_ref(&one));
    assert_eq!(store.api_keys(Some(OTHER)).await.unwrap(), std::slice::from_ref(&other));
    assert_eq!(store.api_keys(None).await.unwrap().len(), 2);
    must(&*store, [Write::ApiKeyGone(one.id)]).await;
    let gone = store.commit(batch([Write::ApiKeyGone(one.id)])).await;
    assert_eq!(gone.unwrap_err().kind, Kind::NotFound);
    assert_eq!(store.api_keys(None).await.unwrap(), [other]);
}
