//! Exotel's REST interface as its pages describe it, for simulation: places one call and tells of it.

use crate::{
    base::secret::Secret,
    vendor::{
        Answer, HookRequest, PeerCall, PeerOrder, PeerReply,
        desk::{knocks, refusal, wrong},
    },
    wire::form::Form,
};
use serde_json::{Value, json};

const DIAL: &[&str] = &["From", "CallerId", "StreamUrl", "StreamType"];
const MORE: &[&str] = &[
    "StreamName",
    "TimeLimit",
    "TimeOut",
    "CallType",
    "CustomField",
    "Record",
    "StatusCallback",
    "StatusCallbackContentType",
    "StatusCallbackEvents[]",
];
/// The longest stream URL.
const MAX_URL: usize = 600;

/// Takes a request about `call`.
pub(super) fn command(call: &PeerCall, request: &HookRequest<'_>, key: Option<&Secret>) -> PeerReply {
    let fault = |status: u16, message: &str| {
        let body =
            json!({ "RestException": { "Status": status, "Message": message, "Code": 34000 + u32::from(status) } });
        refusal(status, body.to_string())
    };
    let path = request.path_and_query.strip_prefix("/v1/Accounts/");
    let (account, path) = path.and_then(|p| p.split_once('/')).unwrap_or_default();
    if !knocks(request, None, key) {
        return fault(401, "Authentication failed");
    }
    let told = |more: Value| {
        let mut told = json!({
            "Sid": call.call_sid, "AccountSid": account, "Status": "in-progress", "Direction": "outbound-api",
            "Uri": format!("/v1/Accounts/{account}/Calls.json/{}", call.call_sid),
        });
        if let (Some(told), Value::Object(more)) = (told.as_object_mut(), more) {
            told.extend(more);
        }
        json!({ "Call": told }).to_string()
    };
    if request.method == "GET" && path == format!("Calls/{}.json", call.call_sid) {
        // Length and price are not known while it lasts.
        return refusal(
            200,
            told(json!({ "Duration": null, "Price": null, "RecordingUrl": null })),
        );
    }
    if path != "Calls/connect.json" || request.method != "POST" {
        return fault(404, "No such resource");
    }
    let form = Form::parse(request.body).unwrap_or_default();
    if let Some(wrong) = wrong(form.0.iter().map(|(n, _)| &**n), DIAL, MORE) {
        return fault(400, &wrong);
    }
    let url = form.get("StreamUrl").unwrap_or_default();
    let socket = url.starts_with("wss://") || url.starts_with("ws://");
    if !socket || url.len() > MAX_URL || form.get("StreamType") != Some("bidirectional") {
        return fault(400, "StreamUrl is not one");
    }
    let query = Form::parse(url.split_once('?').map_or("", |(_, q)| q).as_bytes()).unwrap_or_default();
    let text = |name| query.get(name).unwrap_or_default().to_owned();
    let parties = json!({
        "From": form.get("From"), "To": form.get("From"), "PhoneNumberSid": form.get("CallerId"),
    });
    PeerReply {
        status: 200,
        body: told(parties),
        order: PeerOrder::Connect(Answer::Stream {
            url: url.to_owned(),
            token: text("token"),
            status_url: form.get("StatusCallback").unwrap_or_default().to_owned(),
            session_id: text("sessionId"),
        }),
    }
}
