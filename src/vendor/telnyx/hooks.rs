//! Telnyx's webhooks of API v2, once verified: read into neutral news.
//!
//! Deliveries overlap, repeat and overtake each other; an event's `id` stays the same over all of them.

use crate::{
    base::{
        fault::{Fault, Kind, Origin},
        time::Wall,
    },
    vendor::{CallNews, CallUpdate, EndReason, Hook, HookRequest, codec, params::words},
    wire::json,
};
use serde::Deserialize;
use std::borrow::Cow;

/// Longest value believed of a field that is stored: SIP addresses have up to 255 characters.
const MAX_VALUE: usize = 512;

#[derive(Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    data: Option<Event<'a>>,
}

#[derive(Deserialize)]
struct Event<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    event_type: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    occurred_at: Option<Cow<'a, str>>,
    #[serde(borrow)]
    payload: Option<Payload<'a>>,
}

/// Every field may be absent or null.
#[derive(Deserialize, Default)]
struct Payload<'a> {
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    call_control_id: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    client_state: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    direction: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    from: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    to: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    hangup_cause: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    failure_reason: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    digit: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    start_time: Option<Cow<'a, str>>,
    #[serde(borrow, default, deserialize_with = "json::loose_text")]
    end_time: Option<Cow<'a, str>>,
}

/// Reads a verified request.
pub(super) fn parse(request: &HookRequest<'_>) -> Result<Hook, Fault> {
    let envelope: Envelope<'_> =
        json::read(request.body).map_err(|e| malformed(format!("the body is not an event: {e}")))?;
    let event = envelope
        .data
        .ok_or_else(|| malformed("data is missing: webhooks of API v2 are expected"))?;
    let kind = value(event.event_type, "event_type")?;
    if kind.is_empty() {
        return Err(malformed("data.event_type is missing"));
    }
    let payload = event.payload.unwrap_or_default();
    let call_sid = value(payload.call_control_id, "call_control_id")?;
    if !call_sid.bytes().all(|b| b.is_ascii_graphic()) {
        return Err(malformed("call_control_id is not an id"));
    }
    let news = match &*kind {
        "call.dtmf.received" => codec::dtmf(payload.digit).map_or(CallNews::Other, CallNews::Key),
        kind => news(kind, payload.hangup_cause.as_deref()),
    };
    if call_sid.is_empty() && news != CallNews::Other {
        return Err(malformed("payload.call_control_id is missing"));
    }
    let id = value(event.id, "id")?;
    let dedup_key = match id.is_empty() {
        false => id,
        true => format!("{call_sid}:{kind}:{}", value(event.occurred_at, "occurred_at")?),
    };
    // Only `call.initiated` tells the direction. Whatever we had a hand in carries our state.
    let inbound = match payload.direction.as_deref() {
        Some(direction) => direction.starts_with("in"),
        None => payload.client_state.is_none_or(|s| s.is_empty()),
    };
    let span = |from: Option<Cow<'_, str>>, to: Option<Cow<'_, str>>| {
        let seconds = Wall::parse(&to?)?.as_secs() - Wall::parse(&from?)?.as_secs();
        u32::try_from(seconds).ok()
    };
    let update = CallUpdate {
        why: payload
            .failure_reason
            .filter(|_| news == CallNews::StreamFailed)
            .map(|why| words(&why)),
        from: value(payload.from, "from")?,
        to: value(payload.to, "to")?,
        inbound,
        news,
        dedup_key,
        duration_s: span(payload.start_time, payload.end_time).filter(|_| matches!(news, CallNews::Ended(_))),
        call_sid,
    };
    Ok(match news {
        _ if update.call_sid.is_empty() => Hook::Probe,
        CallNews::Initiated | CallNews::Ringing if inbound => Hook::Call(update),
        _ => Hook::News(update),
    })
}

fn news(kind: &str, cause: Option<&str>) -> CallNews {
    match kind {
        "call.initiated" => CallNews::Initiated,
        "call.ringing" => CallNews::Ringing,
        "call.answered" => CallNews::Answered,
        "call.hangup" | "call.terminated" => CallNews::Ended(end_reason(cause.unwrap_or("normal_clearing"))),
        "streaming.failed" => CallNews::StreamFailed,
        _ => CallNews::Other,
    }
}

/// Causes are an open set; one that is not known is a failure of somebody's.
fn end_reason(cause: &str) -> EndReason {
    match cause {
        "originator_cancel" => EndReason::Canceled,
        "timeout" | "no_answer" => EndReason::NoAnswer,
        "user_busy" => EndReason::Busy,
        "time_limit" => EndReason::Completed,
        normal if normal.starts_with("normal") => EndReason::Completed,
        _ => EndReason::Failed,
    }
}

fn value(text: Option<Cow<'_, str>>, name: &str) -> Result<String, Fault> {
    let text = text.unwrap_or_default().into_owned();
    if text.len() > MAX_VALUE {
        return Err(malformed(format!("{name} is longer than {MAX_VALUE} bytes")));
    }
    Ok(text)
}

/// A request that is Telnyx's and cannot be acted on.
fn malformed(what: impl Into<Cow<'static, str>>) -> Fault {
    Fault::new(Origin::Vendor, Kind::Malformed, what)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hook(body: &str) -> Result<Hook, Fault> {
        parse(&HookRequest {
            method: "POST",
            path_and_query: "/telnyx/webhook",
            headers: &http::HeaderMap::new(),
            body: body.as_bytes(),
            public_base: "",
            by_number: false,
            client: None,
            received_at: Wall::default(),
        })
    }

    fn read(body: &str) -> Result<CallUpdate, Fault> {
        match hook(body)? {
            Hook::Call(update) | Hook::News(update) => Ok(update),
            Hook::Probe => panic!("of no call: {body}"),
        }
    }

    const EVENTS: &str = include_str!("testdata/webhooks.jsonl");
    const SEED: &str = include_str!("testdata/seed-webhook.json");

    #[test]
    fn a_whole_call_is_told_in_order() {
        assert!(matches!(hook(EVENTS.lines().next().unwrap()), Ok(Hook::Call(_))));
        let outgoing = EVENTS.lines().next().unwrap().replace("incoming", "outgoing");
        assert!(
            matches!(hook(&outgoing), Ok(Hook::News(_))),
            "a call of ours wants no answer"
        );
        let told: Vec<_> = EVENTS.lines().map(|l| read(l).unwrap()).collect();
        let news: Vec<_> = told.iter().map(|u| u.news).collect();
        let other = CallNews::Other;
        let over = CallNews::Ended(EndReason::Completed);
        assert_eq!(
            news,
            [
                CallNews::Initiated,
                CallNews::Answered,
                other,
                CallNews::Key('1'),
                CallNews::StreamFailed,
                other,
                over
            ]
        );
        let expect = CallUpdate {
            why: None,
            call_sid: "v3:T02llQxIyaRkhfRKxgAP8nY511EhFLizdvdUKJiSw8d6A9BborherQ".into(),
            from: "+15550100".into(),
            to: "+15550101".into(),
            inbound: true,
            news: CallNews::Initiated,
            dedup_key: "0ccc7b54-4df3-4bca-a65a-3da1ecc777f0".into(),
            duration_s: None,
        };
        assert_eq!(told[0], expect);
        assert!(
            told.iter()
                .all(|u| u.call_sid == expect.call_sid && !u.dedup_key.is_empty())
        );
        assert!(!told[1].inbound, "what carries our state we had a hand in");
        assert_eq!(told[6].duration_s, Some(42));
        assert_eq!(told[4].why.as_deref(), Some("connection_failed"));
        assert!(told.iter().filter(|u| u.why.is_some()).count() == 1);
        let odd = EVENTS
            .lines()
            .nth(3)
            .unwrap()
            .replace(r#""digit":"1""#, r#""digit":"flash""#);
        assert_eq!(read(&odd).unwrap().news, other);
    }

    #[test]
    fn the_seeds_webhook_without_an_id_is_read_and_recognised_again() {
        let update = read(SEED).unwrap();
        assert_eq!((update.news, update.call_sid.as_str()), (CallNews::Answered, "call-id"));
        assert_eq!(update.dedup_key, read(SEED).unwrap().dedup_key);
        let later = SEED.replace("call.answered", "call.hangup");
        assert_ne!(update.dedup_key, read(&later).unwrap().dedup_key);
    }

    #[test]
    fn every_cause_has_its_reason() {
        for (cause, reason) in [
            ("normal_clearing", EndReason::Completed),
            ("time_limit", EndReason::Completed),
            ("originator_cancel", EndReason::Canceled),
            ("timeout", EndReason::NoAnswer),
            ("no_answer", EndReason::NoAnswer),
            ("user_busy", EndReason::Busy),
            ("call_rejected", EndReason::Failed),
            ("not_found", EndReason::Failed),
            ("unspecified", EndReason::Failed),
            ("brand_new", EndReason::Failed),
        ] {
            assert_eq!(news("call.hangup", Some(cause)), CallNews::Ended(reason), "{cause}");
        }
        assert_eq!(news("call.terminated", None), CallNews::Ended(EndReason::Completed));
    }

    #[test]
    fn an_event_that_concerns_no_call_is_taken_and_changes_nothing() {
        for body in [
            r#"{"data":{"event_type":"conference.created","id":"1","payload":{}}}"#,
            r#"{"data":{"event_type":"brand.new","payload":null}}"#,
        ] {
            assert_eq!(hook(body), Ok(Hook::Probe));
        }
    }

    #[test]
    fn what_is_no_event_is_malformed() {
        let long = format!(
            r#"{{"data":{{"event_type":"call.initiated","payload":{{"call_control_id":"v3:a","from":"{}"}}}}}}"#,
            "1".repeat(MAX_VALUE + 1)
        );
        for body in [
            "",
            "[]",
            "{}",
            r#"{"event_type":"call_initiated","call_control_id":"x"}"#,
            r#"{"data":{"payload":{"call_control_id":"v3:a"}}}"#,
            r#"{"data":{"event_type":"call.answered","payload":{}}}"#,
            r#"{"data":{"event_type":"call.answered","payload":{"call_control_id":"a b"}}}"#,
            &long,
        ] {
            assert_eq!(hook(body).unwrap_err().kind, Kind::Malformed, "{body}");
        }
    }
}
