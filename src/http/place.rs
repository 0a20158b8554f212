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
        time::Wall,
    },
    control::DialRequest,
    store::CallRow,
    vendor::{self, Descriptor},
};
use axum::extract::{Request, State};
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
    let known = shared.control.call(who.tenant, &id).await?.row;
    if known.vendor != vendor.name {
        return Err(Fault::not_found("call").into());
    }
    let row = shared.control.hang_up(who.tenant, &id).await?;
    Ok(done(ended(&row), "Call ended"))
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
