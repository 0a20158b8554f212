//! Twilio's REST interface as its pages describe it, for simulation: places, changes and ends one call.

use super::ring;
use crate::{
    base::secret::Secret,
    vendor::{
        HookRequest, PeerCall, PeerOrder, PeerReply,
        desk::{knocks, refusal, wrong},
    },
    wire::form::Form,
};
use serde_json::json;

const DIAL: &[&str] = &["To", "From", "Twiml"];
const MORE: &[&str] = &[
    "Timeout",
    "StatusCallback",
    "StatusCallbackMethod",
    "StatusCallbackEvent",
];

/// Takes a request about `call`.
pub(super) fn command(call: &PeerCall, request: &HookRequest<'_>, key: Option<&Secret>) -> PeerReply {
    let fault = |status: u16, code: u32, message: &str| {
        let body = json!({ "code": code, "message": message, "more_info": "", "status": status });
        refusal(status, body.to_string())
    };
    let path = request.path_and_query.strip_prefix("/2010-04-01/Accounts/");
    let (account, path) = path.and_then(|p| p.split_once('/')).unwrap_or_default();
    if !knocks(request, None, key) {
        return fault(401, 20003, "Authenticate");
    }
    let form = Form::parse(request.body).unwrap_or_default();
    let names = form.0.iter().map(|(n, _)| &**n);
    let reply = |status, order| PeerReply {
        status,
        body: json!({ "sid": call.call_sid, "account_sid": account, "status": "queued" }).to_string(),
        order,
    };
    match path {
        "Calls.json" => {
            if let Some(wrong) = wrong(names, DIAL, MORE) {
                return fault(400, 21201, &wrong);
            }
            match ring::answered(form.get("Twiml").unwrap_or_default().as_bytes()) {
                Ok(answer) => reply(201, PeerOrder::Connect(answer)),
                Err(e) => fault(400, 12100, &e.to_string()),
            }
        }
        path if request.method == "GET" && path == format!("Calls/{}.json", call.call_sid) => {
            let told = json!({
                "sid": call.call_sid, "account_sid": account, "status": "in-progress", "duration": null, "price": null,
                "price_unit": "USD",
            });
            refusal(200, told.to_string())
        }
        path if path == format!("Calls/{}.json", call.call_sid) => match wrong(names, &[], &["Status", "Twiml"]) {
            Some(wrong) => fault(400, 20001, &wrong),
            None if form.get("Status") == Some("completed") => reply(200, PeerOrder::HangUp),
            // Another document takes the call out of its stream.
            None if form.get("Twiml").is_some() => reply(200, PeerOrder::Leave),
            None => reply(200, PeerOrder::Nothing),
        },
        _ => fault(404, 20404, "The requested resource was not found"),
    }
}
