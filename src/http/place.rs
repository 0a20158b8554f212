//! Calls to place, end and simulate, in the words of both families of frontends: `to` or `to_number`, `agentId` or `agent`.

use super::{
    Shared, SimulateRequest,
    body::{self, Fields},
    calls::{shown, stored},
    respond::{Answer, Failure, data, done},
};
use crate::{
    access::Identity,
    base::{
        fault::{Fault, Kind},
        ids::TenantId,
        time::Wall,
    },
    control::{DialRequest, Mute},
    store::CallRow,
    vendor::{self, Descriptor},
};
use axum::extract::{Path, Request, State};
use http::StatusCode;
use serde_json::json;

/// Reads who asks and the fields of the body.
async fn read(shared: &Shared, request: Request) -> Result<(Identity, Fields), Failure> {
    let (parts, body) = request.into_parts();
    let who = parts.extensions.get::<Identity>().cloned();
    let who = who.ok_or_else(|| Fault::internal("a route that acts has no gate"))?;
    let config = &shared.config;
    let body = body::read(&parts.headers, body, config.body_bytes, config).await?;
    Ok((who, Fields::read(&parts.headers, &body)?))
}

struct Asked {
    dial: DialRequest,
    flow_url: Option<String>,
    callback: bool,
}

fn read_dial(mut fields: Fields, vendor: Option<&'static Descriptor>) -> Result<Asked, Fault> {
    let dial = DialRequest {
        to: fields.required(&["to_number", "to"])?,
        from: fields.text(&["from_number", "from"])?.unwrap_or_default(),
        vendor: match vendor {
            Some(vendor) => Some(vendor.name.to_owned()),
            None => fields.text(&["provider"])?,
        },
        agent: fields.text(&["agentId", "agent_id", "agent"])?,
    };
    let flow_url = fields.text(&["flow_url"])?;
    let callback = fields.text(&["status_callback_url"])?.is_some();
    fields.finish()?;
    if let Some(name) = dial.vendor.as_ref().filter(|n| vendor::by_name(n).is_none()) {
        let name: String = name.chars().filter(|c| !c.is_control()).take(64).collect();
        return Err(Fault::client(Kind::Invalid, format!("provider is not known: {name}")));
    }
    Ok(Asked {
        dial,
        flow_url,
        callback,
    })
}

/// `POST /api/calls/initiate`
pub(super) async fn initiate(State(shared): State<Shared>, request: Request) -> Answer {
    place(&shared, request, None).await
}

/// `POST /api/calls/{provider}/initiate`
pub(super) async fn initiate_by(vendor: &'static Descriptor, State(shared): State<Shared>, request: Request) -> Answer {
    place(&shared, request, Some(vendor)).await
}

async fn place(shared: &Shared, request: Request, vendor: Option<&'static Descriptor>) -> Answer {
    let (who, fields) = read(shared, request).await?;
    let asked = read_dial(fields, vendor)?;
    let row = shared.control.dial(who.tenant, asked.dial).await?;
    let stream_url = vendor::by_name(&row.vendor).map(|v| {
        // Without its token: whoever reads the answer needs to know where, not how to get in.
        format!("{}{}", shared.public_url.replacen("http", "ws", 1), v.stream_path)
    });
    let mut answer = json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "callId": row.call_sid,
        "status": row.status.as_str(),
        "direction": "outbound-dial",
        "provider": row.vendor,
        "from_number": row.organization_number,
        "to_number": row.customer_number,
        "flow_url": asked.flow_url,
        "streamUrl": stream_url,
        "timestamp": Wall::now(),
    });
    if asked.callback {
        answer["warnings"] = json!(["status_callback_url is not called: watch the call over the frontend socket"]);
    }
    answer["dbRecord"] = shown(&stored(row));
    Ok(done(answer, "Call initiated successfully"))
}

/// `POST /api/calls/{provider}/end`
pub(super) async fn end(vendor: &'static Descriptor, State(shared): State<Shared>, request: Request) -> Answer {
    let (who, mut fields) = read(&shared, request).await?;
    let id = fields.required(&["call_control_id", "call_id", "callId", "call_sid", "callSid", "id"])?;
    fields.finish()?;
    of_vendor(&shared, who.tenant, vendor, &id).await?;
    let row = shared.control.hang_up(who.tenant, &id).await?;
    Ok(done(ended(&row), "Call ended"))
}

/// The call of `id`, if it is one of `vendor`'s.
async fn of_vendor(shared: &Shared, tenant: TenantId, vendor: &Descriptor, id: &str) -> Result<CallRow, Fault> {
    let row = shared.control.call(tenant, id).await?.row;
    match row.vendor == vendor.name {
        true => Ok(row),
        false => Err(Fault::not_found("call")),
    }
}

/// `POST /api/calls/{provider}/{id}/mute` (`on`) and `/unmute`: audio is stopped at the relay. `direction` is `inbound` (the caller
/// is not heard), `outbound` (the caller hears silence) or `both`; without one, muting is of our side and unmuting of both.
pub(super) async fn mute(
    vendor: &'static Descriptor,
    on: bool,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, mut fields) = read(&shared, request).await?;
    let direction = fields.text(&["direction"])?;
    fields.finish()?;
    let way = |word: &str| match direction.as_deref() {
        None => (!on || word == "outbound").then_some(on),
        Some(direction) => (direction == word || direction == "both").then_some(on),
    };
    if direction
        .as_deref()
        .is_some_and(|d| !["inbound", "outbound", "both"].contains(&d))
    {
        return Err(Fault::client(Kind::Invalid, "direction is inbound, outbound or both").into());
    }
    let wanted = Mute {
        inbound: way("inbound"),
        outbound: way("outbound"),
    };
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    let muted = shared.control.mute(who.tenant, &id, wanted).await?;
    let answer = json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "callId": row.call_sid,
        "muted": { "inbound": muted.inbound, "outbound": muted.outbound },
    });
    Ok(done(answer, if on { "Call muted" } else { "Call unmuted" }))
}

/// `POST /api/calls/{provider}/{id}/digits`: keys for the far end.
pub(super) async fn digits(
    vendor: &'static Descriptor,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, mut fields) = read(&shared, request).await?;
    let digits = fields.required(&["digits"])?.to_ascii_uppercase();
    fields.finish()?;
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    shared.control.digits(who.tenant, &id, digits).await?;
    Ok(done(named(&row), "Digits sent"))
}

/// `POST /api/calls/{provider}/{id}/transfer`: hands the call to a number.
pub(super) async fn transfer(
    vendor: &'static Descriptor,
    Path(id): Path<String>,
    State(shared): State<Shared>,
    request: Request,
) -> Answer {
    let (who, mut fields) = read(&shared, request).await?;
    let to = fields.required(&["to_number", "to"])?;
    fields.finish()?;
    let row = of_vendor(&shared, who.tenant, vendor, &id).await?;
    shared.control.transfer(who.tenant, &id, to).await?;
    Ok(done(named(&row), "Call transferred"))
}

fn named(row: &CallRow) -> serde_json::Value {
    json!({ "id": row.call_id, "call_id": row.call_sid, "callId": row.call_sid, "status": row.status.as_str() })
}

fn ended(row: &CallRow) -> serde_json::Value {
    json!({
        "id": row.call_id,
        "call_id": row.call_sid,
        "callId": row.call_sid,
        "status": row.status.as_str(),
        "end_reason": row.end_reason.map(|r| r.as_str()),
        "duration": row.duration,
    })
}

/// `POST /api/calls/simulate`
pub(super) async fn simulate(State(shared): State<Shared>, request: Request) -> Answer {
    let (who, mut fields) = read(&shared, request).await?;
    let request = SimulateRequest {
        vendor: fields.text(&["provider", "vendor"])?,
        from: fields.text(&["from_number", "from"])?,
        to: fields.text(&["to_number", "to"])?,
        text: fields.text(&["text", "message"])?,
    };
    fields.finish()?;
    let Some(simulate) = &shared.simulate else {
        return Err(Failure::with_status(
            StatusCode::NOT_FOUND,
            "simulation is not offered here",
        ));
    };
    let row = simulate.simulate(who.tenant, request).await?;
    Ok(data(shown(&stored(row))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::{HeaderMap, header};

    fn asked(body: &str) -> Result<Asked, Fault> {
        let mut headers = HeaderMap::new();
        headers.insert(header::CONTENT_TYPE, "application/json".parse().unwrap());
        read_dial(Fields::read(&headers, body.as_bytes()).unwrap(), None)
    }

    #[test]
    fn both_families_of_frontends_place_calls() {
        let first = r#"{"from_number":"+918065193776","to_number":"+916360154904","flow_url":"https://x.example/flow","status_callback_url":""}"#;
        let second = r#"{"to":"+916360154904","from":"+918065193776","agentId":"support"}"#;
        for body in [first, second] {
            let asked = asked(body).unwrap();
            assert_eq!(
                (asked.dial.to.as_str(), asked.dial.from.as_str()),
                ("+916360154904", "+918065193776")
            );
            assert!(!asked.callback);
        }
        assert_eq!(asked(second).unwrap().dial.agent.as_deref(), Some("support"));
    }

    #[test]
    fn what_cannot_be_placed_is_named() {
        for (body, why) in [
            ("{}", "to_number is required"),
            (r#"{"to":"+1","provider":"acme"}"#, "provider is not known: acme"),
            (r#"{"to":"+1","tenant_id":2}"#, "unknown field: tenant_id"),
        ] {
            assert_eq!(asked(body).err().unwrap().message, why);
        }
    }
}
