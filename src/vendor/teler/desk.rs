//! Teler's REST interface as its OpenAPI description has it, for simulation: places, transfers and ends one call, and
//! presses its keys.

use crate::{
    base::{phone::is_e164, secret::Secret},
    vendor::{
        HookRequest, PeerCall, PeerOrder, PeerReply,
        desk::{refusal, wrong},
    },
    wire::json,
};
use serde_json::{Map, Value, json};

const TRANSFER: &[&str] = &[
    "mode",
    "timeout",
    "record",
    "ringback",
    "dial_music",
    "confirm_sound",
    "on_failure",
];
const DIAL: &[&str] = &["from_number", "to_number", "flow_url", "status_callback_url"];

/// Takes a request about `call`.
pub(super) fn command(call: &PeerCall, request: &HookRequest<'_>, key: Option<&Secret>) -> PeerReply {
    let fault =
        |status: u16, message: &str| refusal(status, json!({ "success": false, "message": message }).to_string());
    let header = |name: &str| request.headers.get(name).and_then(|v| v.to_str().ok());
    let given = header("x-api-key").unwrap_or_default();
    if given.is_empty() || key.is_some_and(|key| !key.matches(given)) {
        return fault(403, "Forbidden");
    }
    if request.method == "GET" {
        let id = request.path_and_query.strip_prefix("/api/v1/voice/calls/");
        let told = json!({
            "id": call.call_sid, "account_id": "acc_1", "state": "answered", "direction": "outbound", "properties": {},
            "created_at": "2026-01-01T00:00:00Z", "legs": [],
        });
        return match id == Some(&*call.call_sid) {
            true => refusal(200, told.to_string()),
            false => fault(404, "Not found"),
        };
    }
    let Ok(body) = json::read::<Map<String, Value>>(request.body) else {
        return fault(400, "the body is not a JSON object");
    };
    let Some(path) = request.path_and_query.strip_prefix("/api/v1/voice/calls/") else {
        return fault(404, "Not found");
    };
    let invalid = |message: &str| {
        let errors = [json!({ "loc": ["body"], "msg": message, "type": "value_error" })];
        let body = json!({ "success": false, "message": "Validation failed", "errors": errors });
        refusal(422, body.to_string())
    };
    let names = body.keys().map(String::as_str);
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default();
    if path == "initiate" {
        if let Some(wrong) = wrong(names, DIAL, &["record"]) {
            return invalid(&wrong);
        }
        let urls = ["flow_url", "status_callback_url"].map(text);
        let bad = |u: &&str| !u.starts_with("https://") && !u.starts_with("http://");
        if urls.iter().any(bad) || !is_e164(text("from_number")) || !is_e164(text("to_number")) {
            return invalid("a number or URL is not one");
        }
        let data = json!({
            "id": call.call_sid, "from_number": text("from_number"), "to_number": text("to_number"),
            "status_callback_url": urls[1], "record": body.get("record"),
        });
        return PeerReply {
            status: 202,
            body: json!({ "message": "Call initiated successfully", "data": data }).to_string(),
            // The flow is asked for once the call is answered.
            order: PeerOrder::Take,
        };
    }
    let of_call = path.strip_prefix(&*call.call_sid).and_then(|p| p.strip_prefix('/'));
    let fault = match of_call {
        Some("hangup") => {
            let reason = text("reason").bytes();
            let mut word = reason.map(|b| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_');
            let odd = (!word.all(|is| is)).then(|| "reason is not one".to_owned());
            wrong(names, &[], &["leg_id", "reason"]).or(odd)
        }
        Some("dtmf") => {
            let key = |b: u8| b.is_ascii_digit() || matches!(b, b'*' | b'#' | b'A'..=b'D');
            let odd = text("digits").is_empty() || !text("digits").bytes().all(key);
            let odd = odd.then(|| "digits are not keys".to_owned());
            wrong(names, &["digits"], &["leg_id", "duration_ms"]).or(odd)
        }
        Some("transfer") => {
            let target = body.get("target").and_then(Value::as_object);
            let of = |name: &str| {
                target
                    .and_then(|t| t.get(name))
                    .and_then(Value::as_str)
                    .unwrap_or_default()
            };
            let fits = match of("kind") {
                "pstn" => is_e164(of("number")),
                "sip" => of("uri").starts_with("sip:"),
                _ => false,
            };
            let odd = (!fits).then(|| "target is nobody".to_owned());
            wrong(names, &["target"], TRANSFER).or(odd)
        }
        _ => return fault(404, "Not found"),
    };
    match fault {
        Some(fault) => invalid(&fault),
        None => PeerReply {
            status: 202,
            body: json!({ "request_id": "req_1" }).to_string(),
            order: match of_call {
                Some("hangup") => PeerOrder::HangUp,
                Some("transfer") => PeerOrder::Leave,
                _ => PeerOrder::Nothing,
            },
        },
    }
}
