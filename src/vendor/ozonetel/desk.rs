//! Ozonetel's outbound interface as integrations describe it, for simulation: places one call. Its status is 200 whatever happens.

use crate::{
    base::secret::Secret,
    vendor::{HookRequest, PeerCall, PeerOrder, PeerReply, desk::wrong},
    wire::{form::Form, xml::Escaped},
};

const DIAL: &[&str] = &["api_key", "phone_no", "outbound_version", "url"];
const MORE: &[&str] = &["caller_id", "callback_url"];

/// Takes a request about `call`.
pub(super) fn command(call: &PeerCall, request: &HookRequest<'_>, key: Option<&Secret>) -> PeerReply {
    let reply = |status: &str, message: &str, order| PeerReply {
        status: 200,
        body: format!(
            "<response><status>{status}</status><message>{}</message></response>",
            Escaped(message)
        ),
        order,
    };
    let (path, query) = request.path_and_query.split_once('?').unwrap_or_default();
    let form = Form::parse(query.as_bytes()).unwrap_or_default();
    let digits = |name| {
        let number = form.get(name).unwrap_or_default();
        number.bytes().all(|b| b.is_ascii_digit())
    };
    let given = form.get("api_key").unwrap_or_default();
    let fault = if path != "/outbound/outbound.php" || request.method != "GET" {
        Some("no such service".to_owned())
    } else if key.is_some_and(|key| !key.matches(given)) {
        Some("Invalid API key".to_owned())
    } else if !digits("phone_no") || !digits("caller_id") || form.get("outbound_version") != Some("2") {
        Some("Invalid number".to_owned())
    } else {
        wrong(form.0.iter().map(|(n, _)| &**n), DIAL, MORE)
    };
    match fault {
        Some(fault) => reply("error", &fault, PeerOrder::Nothing),
        // The flow is asked for once the call is answered.
        None => reply("queued", &call.call_sid, PeerOrder::Take),
    }
}
