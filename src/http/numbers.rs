//! Phone numbers over REST, in the words of the frontends that manage them: `phoneNumber`, `linkedAgentId`, `exotelConfig`.
//!
//! A number's own account comes under its vendor's name and `Config`, such as `acmeConfig`, in the words of the vendor's
//! section of the configuration in `camelCase`. Its secrets go in and never come out.

use super::{
    Shared,
    body::{self, Ids, Typed},
    respond::{Answer, Failure, told},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        settings::json::camel_case,
        time::Wall,
    },
    control::{Line, NumberSpec},
    vendor,
};
use axum::{
    Extension, Json,
    extract::{RawQuery, Request, State},
    response::IntoResponse,
};
use schemars::{JsonSchema, Schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// A phone number of the tenant's.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct PhoneNumber {
    /// Its id: 128 random bits, because a vendor that signs nothing proves itself by knowing it.
    id: String,
    /// E.164, or a SIP address.
    phone_number: String,
    /// What people call it.
    display_name: String,
    /// Who carries it.
    provider: &'static str,
    /// Who answers it; the tenant's most recent agent when null.
    linked_agent_id: Option<String>,
    /// Where the vendor posts its calls.
    webhook_url: String,
    /// Where the vendor streams their audio, where it has one URL for all streams.
    websocket_url: String,
    /// `active` or `inactive`: its callers hear that it is busy.
    status: String,
    /// `config` where the operator wrote it, which cannot be changed here, else `api`.
    source: &'static str,
    /// Names of the secrets of its account that are kept.
    secrets: Vec<String>,
    /// When it was added.
    created_at: Wall,
    /// When it was last changed.
    updated_at: Wall,
    /// Its own account at the vendor, without the secrets, under the vendor's name and `Config`.
    #[serde(flatten)]
    account: Map<String, Value>,
}

/// The numbers of the tenant.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PhoneNumberList")]
#[serde(rename_all = "camelCase")]
pub(super) struct PhoneNumbers {
    success: bool,
    phone_numbers: Vec<PhoneNumber>,
    count: usize,
}

/// A number that was added or changed.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "PhoneNumberOutcome")]
#[serde(rename_all = "camelCase")]
pub(super) struct OnePhoneNumber {
    success: bool,
    phone_number: PhoneNumber,
    message: &'static str,
}

/// What is wanted of a number. Beside these fields its account, under the vendor's name and `Config`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(transform = accounts)]
pub(super) struct PhoneNumberBody {
    /// Which number, when one is changed: required here or in the query.
    id: Option<String>,
    /// E.164; required when a number is added, and then fixed.
    phone_number: Option<String>,
    /// What people call it.
    display_name: Option<String>,
    /// Who carries it; required when a number is added, and then fixed.
    provider: Option<String>,
    /// Id or name of the agent that answers it; null for the tenant's most recent agent.
    linked_agent_id: Option<String>,
    /// Whether it is served; the callers of one that is not hear that it is busy.
    #[schemars(extend("enum" = ["active", "inactive", null]))]
    status: Option<String>,
    /// Taken and ignored: the tenant is the credential's.
    #[serde(rename = "userId")]
    _user_id: Option<Value>,
}

/// A vendor's account stands under the vendor's name and `Config`.
fn accounts(schema: &mut Schema) {
    let Some(Value::Object(properties)) = schema.get_mut("properties") else {
        return;
    };
    for vendor in vendor::all() {
        let text = format!("Its account, in the words of `[{}]` of the configuration.", vendor.name);
        let account = serde_json::json!({ "type": ["object", "null"], "description": text });
        properties.insert(account_key(vendor.name), account);
    }
}

/// `GET /api/phone-numbers`
pub(super) async fn list(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    Ids::of_query(query.as_deref())?;
    let lines = shared.control.numbers(who.tenant);
    let phone_numbers: Vec<_> = lines.iter().map(|line| shown(&shared, line)).collect();
    let count = phone_numbers.len();
    Ok(Json(PhoneNumbers {
        success: true,
        phone_numbers,
        count,
    })
    .into_response())
}

/// `POST /api/phone-numbers`
pub(super) async fn add(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, ids, spec) = read(&shared, request).await?;
    ids.none_of_new("a number")?;
    let line = shared.control.add_number(who.tenant, spec).await?;
    Ok(one(&shared, &line, "Phone number added"))
}

/// `PUT /api/phone-numbers`
pub(super) async fn change(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, ids, spec) = read(&shared, request).await?;
    let line = shared.control.change_number(who.tenant, &ids.one()?, spec).await?;
    Ok(one(&shared, &line, "Phone number changed"))
}

/// `DELETE /api/phone-numbers?id=`
pub(super) async fn remove(
    State(shared): State<Shared>,
    Extension(who): Extension<Identity>,
    RawQuery(query): RawQuery,
) -> Answer {
    let id = Ids::of_query(query.as_deref())?.one()?;
    shared.control.remove_number(who.tenant, &id).await?;
    Ok(told("Phone number deleted"))
}

async fn read(shared: &Shared, request: Request) -> Result<(Identity, Ids, NumberSpec), Failure> {
    let ids = Ids::of_query(request.uri().query())?;
    let (who, mut fields) = body::object(shared, request).await?;
    let mut accounts = Vec::new();
    for vendor in vendor::all() {
        if let Some(account) = fields.remove(&account_key(vendor.name)).filter(|a| !a.is_null()) {
            accounts.push((vendor.name, account));
        }
    }
    let Typed { value: body, fields } = body::typed::<PhoneNumberBody>(fields)?;
    let account = match (accounts.pop(), accounts.is_empty()) {
        (None, _) => None,
        (Some((name, Value::Object(account))), true) => Some((name, account)),
        (Some((name, _)), true) => {
            return Err(Fault::client(Kind::Invalid, format!("{} is not an object", account_key(name))).into());
        }
        (Some(_), false) => return Err(Fault::client(Kind::Invalid, "a number has one account").into()),
    };
    let agent = fields.contains_key("linkedAgentId").then_some(body.linked_agent_id);
    let spec = NumberSpec {
        number: body.phone_number,
        vendor: body.provider,
        display_name: body.display_name.filter(|name| !name.is_empty()),
        agent: agent.map(|a| a.filter(|id| !id.is_empty())),
        status: body.status,
        account,
    };
    let in_body = body.id.filter(|id| !id.is_empty());
    Ok((who, Ids { in_body, ..ids }, spec))
}

fn account_key(vendor: &str) -> String {
    format!("{vendor}Config")
}

fn one(shared: &Shared, line: &Line, message: &'static str) -> axum::response::Response {
    Json(OnePhoneNumber {
        success: true,
        phone_number: shown(shared, line),
        message,
    })
    .into_response()
}

fn shown(shared: &Shared, line: &Line) -> PhoneNumber {
    let (row, base) = (&line.row, &shared.public_url);
    let account = row.settings.as_object().map(|settings| {
        let settings: Map<_, _> = settings.iter().map(|(k, v)| (camel_case(k), v.clone())).collect();
        (account_key(line.vendor.name), settings.into())
    });
    PhoneNumber {
        id: row.id.to_string(),
        phone_number: row.number.clone(),
        display_name: row.display_name.clone(),
        provider: line.vendor.name,
        linked_agent_id: row.agent_id.map(|id| id.to_string()),
        webhook_url: format!("{base}{}/{}", vendor::NUMBER_HOOK, row.id),
        websocket_url: format!("{}{}/{}", base.replacen("http", "ws", 1), vendor::NUMBER_STREAM, row.id),
        status: row.status.clone(),
        source: row.source.as_str(),
        secrets: line.secrets.clone(),
        created_at: row.created_at,
        updated_at: row.updated_at,
        account: account.into_iter().collect(),
    }
}
