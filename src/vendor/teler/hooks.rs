//! Teler's flow requests and webhooks, once verified: read into neutral news, and answered with a flow.

use super::config::Config;
use crate::{
    base::fault::Fault,
    vendor::{
        Answer, CallNews, CallUpdate, Document, EndReason, Hook, HookKind, HookRequest,
        params::{Params, malformed, with_query},
    },
};
use serde_json::{Value, json};

/// Names of an event: of the dated envelope, and of the flat one before it.
const EVENT: &[&str] = &["type", "event"];
const CALL: &[&str] = &["call_id", "data[call_id]"];

/// Whether a request bears Teler's marks.
pub(super) fn is_teler(request: &HookRequest<'_>) -> bool {
    let Ok(params) = Params::read(request) else {
        return false;
    };
    let event = params.get(EVENT).unwrap_or_default();
    let flow = params.get(&["call_id"]).is_some() && params.get(&["from_number", "to_number"]).is_some();
    flow || ["call.", "stream.", "recording.", "leg."]
        .iter()
        .any(|p| event.starts_with(p))
}

/// Reads a verified request. At a path that receives both, an event says that it is news.
pub(super) fn parse(kind: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
    let flow = match kind {
        HookKind::Call => true,
        HookKind::Status => false,
        HookKind::Mixed => !Params::read(request)?.any("event") && !Params::read(request)?.any("type"),
    };
    if flow {
        return flow_request(request);
    }
    // Teler sends again what is not answered with 2xx, and what cannot be read now will not be readable then.
    Ok(Params::read(request)
        .and_then(|params| news(&params))
        .unwrap_or(Hook::Probe))
}

fn flow_request(request: &HookRequest<'_>) -> Result<Hook, Fault> {
    let params = Params::read(request)?;
    let call_sid = params.id(CALL)?.ok_or_else(|| malformed("call_id is missing"))?;
    Ok(Hook::Call(CallUpdate {
        why: None,
        from: params.text(&["from_number", "from"])?,
        to: params.text(&["to_number", "to"])?,
        inbound: params.get(&["direction"]) != Some("outbound"),
        news: CallNews::Ringing,
        dedup_key: format!("{call_sid}:flow"),
        duration_s: None,
        call_sid,
    }))
}

fn news(params: &Params) -> Result<Hook, Fault> {
    let event = params.text(EVENT)?;
    let Some(call_sid) = params.id(CALL)? else {
        return Ok(Hook::Probe);
    };
    let reason = params.get(&["data[reason]"]).unwrap_or_default();
    let news = match &*event {
        "call.initiated" => CallNews::Initiated,
        "call.ringing" => CallNews::Ringing,
        "call.answered" => CallNews::Answered,
        "call.completed" => CallNews::Ended(EndReason::Completed),
        "call.failed" => CallNews::Ended(match reason {
            "no_answer" | "no_user_response" => EndReason::NoAnswer,
            "busy" | "user_busy" => EndReason::Busy,
            "canceled" | "cancelled" => EndReason::Canceled,
            _ => EndReason::Failed,
        }),
        // The end of a stream is not the end of its call.
        _ => CallNews::Other,
    };
    let key = match params.id(&["id"])? {
        Some(id) => id,
        None => format!("{call_sid}:{event}"),
    };
    Ok(Hook::News(CallUpdate {
        why: None,
        from: params.text(&["data[from]", "data[from_number]"])?,
        to: params.text(&["data[to]", "data[to_number]"])?,
        // News is about calls that a flow request or we ourselves have begun.
        inbound: false,
        dedup_key: key,
        duration_s: params
            .get(&["data[duration]", "data[duration_seconds]"])
            .and_then(|d| d.parse().ok()),
        call_sid,
        news,
    }))
}

/// The flow. Its socket's URL carries what the stream does not say: the call's id here, the rate that is asked for, and the
/// length of our messages.
pub(super) fn answer(config: &Config, request: &HookRequest<'_>, answer: &Answer) -> Document {
    let body = match answer {
        Answer::Stream { url, .. } => {
            let params = Params::read(request).unwrap_or_default();
            let mut url = url.clone();
            let (rate, playback) = (config.sample_rate.to_string(), config.playback_ms.to_string());
            for (name, value) in [
                ("call", params.get(CALL).unwrap_or_default()),
                ("rate", &rate),
                ("chunk", &config.chunk_ms.to_string()),
                ("playback", &playback),
            ] {
                url = with_query(&url, name, value);
            }
            json!({
                "action": "stream",
                "ws_url": url,
                "chunk_size": config.chunk_ms,
                "sample_rate": if config.sample_rate == 16000 { "16k" } else { "8k" },
                "record": config.record,
            })
        }
        // There is no word for busy.
        Answer::Busy | Answer::HangUp => json!({ "action": "hangup" }),
    };
    json_document(&body)
}

/// What acknowledges news.
pub(super) fn receipt() -> Document {
    json_document(&json!({ "received": true }))
}

fn json_document(body: &Value) -> Document {
    Document {
        status: 200,
        content_type: "application/json",
        body: body.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::fault::Kind,
        vendor::{account::tests::configured, params::tests::asked},
    };

    const FLOW: &str = include_str!("testdata/flow.json");
    const FLAT: &str = include_str!("testdata/webhook-2025-08-01.json");
    const ENVELOPE: &str = include_str!("testdata/webhook-2026-06-01.json");

    fn read(kind: HookKind, body: &str) -> Result<Hook, Fault> {
        asked("POST", "/x", "application/json", body, |r| parse(kind, r))
    }

    #[test]
    fn a_flow_request_is_a_call_either_way_round() {
        for kind in [HookKind::Call, HookKind::Mixed] {
            let Ok(Hook::Call(update)) = read(kind, FLOW) else {
                panic!("no call")
            };
            let said = (&*update.call_sid, &*update.from, &*update.to, update.inbound);
            assert_eq!(said, ("call_123456789", "+918000000000", "+919800000001", true));
        }
        let outbound = FLOW.replace("inbound", "outbound");
        assert!(matches!(read(HookKind::Call, &outbound), Ok(Hook::Call(u)) if !u.inbound));
        assert_eq!(read(HookKind::Call, "{}").unwrap_err().kind, Kind::Malformed);
        assert_eq!(read(HookKind::Call, "{").unwrap_err().kind, Kind::Malformed);
    }

    #[test]
    fn both_versions_of_a_webhook_say_the_same() {
        for kind in [HookKind::Status, HookKind::Mixed] {
            for (body, call, seconds) in [(FLAT, "call-uuid", Some(42)), (ENVELOPE, "cs_1", Some(42))] {
                let Ok(Hook::News(update)) = read(kind, body) else {
                    panic!("{body}")
                };
                assert_eq!((&*update.call_sid, update.duration_s), (call, seconds));
                assert_eq!(update.news, CallNews::Ended(EndReason::Completed));
            }
        }
        let key = |body: &str| match read(HookKind::Status, body) {
            Ok(Hook::News(update)) => update.dedup_key,
            other => panic!("{other:?}"),
        };
        assert_eq!(key(ENVELOPE), "evt_1");
        assert_eq!(key(FLAT), "call-uuid:call.completed");
    }

    #[test]
    fn every_event_has_its_news_and_what_cannot_be_read_is_acknowledged() {
        let event = |event: &str, reason: &str| {
            let body = json!({ "event": event, "data": { "call_id": "c", "reason": reason } });
            match read(HookKind::Status, &body.to_string()) {
                Ok(Hook::News(update)) => update.news,
                other => panic!("{other:?}"),
            }
        };
        for (name, reason, news) in [
            ("call.initiated", "", CallNews::Initiated),
            ("call.ringing", "", CallNews::Ringing),
            ("call.answered", "", CallNews::Answered),
            ("call.failed", "no_answer", CallNews::Ended(EndReason::NoAnswer)),
            ("call.failed", "user_busy", CallNews::Ended(EndReason::Busy)),
            ("call.failed", "canceled", CallNews::Ended(EndReason::Canceled)),
            ("call.failed", "carrier_error", CallNews::Ended(EndReason::Failed)),
            ("stream.completed", "", CallNews::Other),
            ("leg.answered", "", CallNews::Other),
        ] {
            assert_eq!(event(name, reason), news, "{name} {reason}");
        }
        for odd in [
            "{",
            "[]",
            "{}",
            r#"{"event":"call.completed"}"#,
            r#"{"event":"x","call_id":"a b"}"#,
        ] {
            assert_eq!(read(HookKind::Status, odd), Ok(Hook::Probe), "{odd}");
        }
    }

    #[test]
    fn the_flow_has_the_five_keys_and_a_url_that_says_the_rest() {
        let stream = Answer::Stream {
            url: "wss://relay.example.com/media-stream?token=t".into(),
            token: "t".into(),
            status_url: String::new(),
            session_id: "s-1".into(),
        };
        let said = |pairs: &[(&str, &str)], a: &Answer| -> Value {
            let (config, _) = configured(pairs, Config::read);
            let document = asked("POST", "/flow", "application/json", FLOW, |r| answer(&config, r, a));
            serde_json::from_str(&document.body).unwrap()
        };
        let url = "wss://relay.example.com/media-stream?token=t&call=call_123456789";
        assert_eq!(
            said(&[], &stream),
            json!({"action":"stream","ws_url":format!("{url}&rate=8000&chunk=500&playback=500"),"chunk_size":500,"sample_rate":"8k","record":true})
        );
        let other = said(
            &[("chunk_size", "20"), ("sample_rate", "16000"), ("record", "false")],
            &stream,
        );
        assert_eq!(
            (&other["chunk_size"], &other["sample_rate"], &other["record"]),
            (&json!(20), &json!("16k"), &json!(false))
        );
        for refusal in [Answer::Busy, Answer::HangUp] {
            assert_eq!(said(&[], &refusal), json!({"action":"hangup"}));
        }
    }

    #[test]
    fn its_marks_are_told_from_others() {
        for (body, teler) in [
            (FLOW, true),
            (FLAT, true),
            (ENVELOPE, true),
            (r#"{"CallSid":"c"}"#, false),
            ("{", false),
        ] {
            assert_eq!(asked("POST", "/x", "application/json", body, is_teler), teler, "{body}");
        }
    }
}
