//! Ozonetel's call-flow hook, once verified: one URL that is asked at every step of a call and answers with what comes next.

use super::config::Config;
use crate::{
    base::fault::Fault,
    vendor::{
        Answer, CallNews, CallUpdate, Document, EndReason, Hook, HookRequest,
        params::{Params, malformed, with_query},
    },
    wire::xml::Escaped,
};
use serde_json::{Map, Value};
use std::fmt::Write;

/// Members of what is carried along to the media socket, and characters of each.
const MAX_CARRIED: usize = 24;
const MAX_CARRIED_LENGTH: usize = 128;

/// Reads a verified request.
pub(super) fn parse(request: &HookRequest<'_>) -> Result<Hook, Fault> {
    let params = Params::read(request)?;
    let event = params.text(&["event"])?;
    // A call that we placed is known by the id that the outbound API told.
    let Some(call_sid) = params.id(&["outbound_sid", "sid", "ucid"])? else {
        return match &*event {
            // The portal's "Test URL" button sends nothing more.
            "NewCall" | "" => Ok(Hook::Probe),
            _ => Err(malformed("sid is missing")),
        };
    };
    let outbound = params.get(&["outbound_sid"]).is_some();
    let caller = params.text(&["cid_e164", "cid", "phone_no"])?;
    let called = params.text(&["called_number", "did"])?;
    let (from, to) = match outbound {
        true => (called, caller),
        false => (caller, called),
    };
    let update = |news, key: &str| CallUpdate {
        why: None,
        dedup_key: format!("{call_sid}:{key}"),
        duration_s: params.get(&["duration", "call_duration"]).and_then(|d| d.parse().ok()),
        inbound: !outbound,
        call_sid: call_sid.clone(),
        from,
        to,
        news,
    };
    Ok(match &*event {
        "NewCall" => Hook::Call(update(CallNews::Ringing, "call")),
        "Hangup" | "Disconnect" => Hook::News(update(CallNews::Ended(EndReason::Completed), &event)),
        // The final record of a call has no event.
        "" => {
            let status = params.text(&["status", "status_details"])?;
            Hook::News(update(CallNews::Ended(ended(&status)), "record"))
        }
        // The socket or a dialled leg is over, and the call stays up until the answer says what is next.
        _ => Hook::News(update(CallNews::Other, &event)),
    })
}

/// Words of the final record differ between accounts; these are what they have in common.
fn ended(status: &str) -> EndReason {
    let status = status.to_ascii_lowercase();
    let has = |word| status.contains(word);
    if has("busy") {
        EndReason::Busy
    } else if has("no_answer") || has("noanswer") || has("no answer") || has("not_answered") || has("unanswered") {
        EndReason::NoAnswer
    } else if has("fail") || has("error") || has("congestion") || has("invalid") {
        EndReason::Failed
    } else if has("cancel") {
        EndReason::Canceled
    } else {
        EndReason::Completed
    }
}

/// The call flow that connects the call to our socket, or ends it.
pub(super) fn answer(config: &Config, request: &HookRequest<'_>, answer: &Answer) -> Document {
    let Answer::Stream {
        url, token, session_id, ..
    } = answer
    else {
        // There is no word for busy.
        return xml("<hangup/>");
    };
    let params = Params::read(request).unwrap_or_default();
    let mut url = url.clone();
    if let Some(placed) = params.get(&["outbound_sid"]) {
        url = with_query(&url, "call", placed);
    }
    if config.frame_ms != 10 {
        url = with_query(&url, "frame_ms", &config.frame_ms.to_string());
    }
    let mut body = String::new();
    let _ = write!(
        body,
        r#"<stream is_sip="true" url="{}" x-uui="{}">{}</stream>"#,
        Escaped(&url),
        Escaped(&carried(&params, token, session_id)),
        Escaped(&config.sip_number)
    );
    xml(&body)
}

/// What reaches the socket as `x_headers`: what the hook was told, and what binds the stream to the call.
fn carried(params: &Params, token: &str, session_id: &str) -> String {
    let told = params
        .pairs()
        .filter(|(name, value)| *name != "secret" && name.len() + value.len() <= MAX_CARRIED_LENGTH)
        .take(MAX_CARRIED);
    let mut carried: Map<String, Value> = told.map(|(n, v)| (n.to_owned(), v.into())).collect();
    carried.insert("token".to_owned(), token.into());
    carried.insert("session_id".to_owned(), session_id.into());
    Value::Object(carried).to_string()
}

/// What acknowledges news: nothing once the call is over, its end while it is not.
pub(super) fn receipt(request: &HookRequest<'_>) -> Document {
    let params = Params::read(request).unwrap_or_default();
    match params.get(&["event"]) {
        // A test of the URL: a flow that does nothing.
        Some("NewCall") => xml(""),
        None | Some("Hangup" | "Disconnect") => Document {
            status: 200,
            content_type: "text/plain",
            body: String::new(),
        },
        Some(_) => xml("<hangup/>"),
    }
}

fn xml(inside: &str) -> Document {
    Document {
        status: 200,
        content_type: "text/xml; charset=utf-8",
        body: format!(r#"<?xml version="1.0" encoding="UTF-8"?><response>{inside}</response>"#),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::fault::Kind,
        vendor::{account::tests::configured, params::tests::asked},
        wire::xml::Element,
    };

    const NEW_CALL: &str = include_str!("testdata/newcall.url");

    fn read(path: &str) -> Result<Hook, Fault> {
        asked("GET", path.trim(), "", "", parse)
    }

    fn news(path: &str) -> CallNews {
        match read(path) {
            Ok(Hook::News(update)) => update.news,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn a_new_call_names_both_parties() {
        let Ok(Hook::Call(update)) = read(NEW_CALL) else {
            panic!("no call")
        };
        let said = (&*update.call_sid, &*update.from, &*update.to, update.inbound);
        assert_eq!(said, ("21275806501458167", "+919800000001", "918000000000", true));
    }

    #[test]
    fn a_placed_call_is_known_by_the_id_of_the_outbound_api() {
        let path = format!("{}&outbound_sid=343", NEW_CALL.trim());
        let Ok(Hook::Call(update)) = read(&path) else {
            panic!("no call")
        };
        let said = (&*update.call_sid, &*update.from, &*update.to, update.inbound);
        assert_eq!(said, ("343", "918000000000", "+919800000001", false));
    }

    #[test]
    fn every_event_has_its_news_and_a_test_of_the_url_is_no_call() {
        for (path, expect) in [
            (
                "/h?event=Hangup&sid=1&process=stream",
                CallNews::Ended(EndReason::Completed),
            ),
            ("/h?event=Disconnect&sid=1", CallNews::Ended(EndReason::Completed)),
            ("/h?event=Stream&sid=1", CallNews::Other),
            ("/h?event=Dial&sid=1", CallNews::Other),
            ("/h?event=GotDTMF&sid=1&data=5", CallNews::Other),
            ("/h?sid=1&status=BUSY", CallNews::Ended(EndReason::Busy)),
            ("/h?sid=1&status=NoAnswer", CallNews::Ended(EndReason::NoAnswer)),
            ("/h?sid=1&status=call+failed", CallNews::Ended(EndReason::Failed)),
            ("/h?sid=1&status=cancelled", CallNews::Ended(EndReason::Canceled)),
            (
                "/h?sid=1&status=answered&duration=7",
                CallNews::Ended(EndReason::Completed),
            ),
        ] {
            assert_eq!(news(path), expect, "{path}");
        }
        assert_eq!(read("/h?event=NewCall"), Ok(Hook::Probe));
        assert_eq!(read("/h?event=Hangup").unwrap_err().kind, Kind::Malformed);
        assert_eq!(read("/h?event=NewCall&sid=a%20b").unwrap_err().kind, Kind::Malformed);
    }

    #[test]
    fn the_flow_carries_what_the_socket_needs_and_survives_quotes() {
        let (config, _) = configured(&[("sip_number", "524431"), ("frame_ms", "20")], Config::read);
        let stream = Answer::Stream {
            url: "wss://relay.example.com/ws?token=t".into(),
            token: "t".into(),
            status_url: String::new(),
            session_id: "s-1".into(),
        };
        let path = format!("{}&outbound_sid=343&operator=%22A%26B%27%3C&secret=w", NEW_CALL.trim());
        let document = asked("GET", &path, "", "", |r| answer(&config, r, &stream));
        let root = Element::parse(&document.body).unwrap();
        let tag = &root.children[0];
        assert_eq!((&*root.name, &*tag.name, &*tag.text), ("response", "stream", "524431"));
        assert_eq!(tag.attribute("is_sip"), Some("true"));
        let url = "wss://relay.example.com/ws?token=t&call=343&frame_ms=20";
        assert_eq!(tag.attribute("url"), Some(url));
        let carried: Value = serde_json::from_str(tag.attribute("x-uui").unwrap()).unwrap();
        assert_eq!(
            (&carried["token"], &carried["operator"]),
            (&"t".into(), &"\"A&B'<".into())
        );
        assert_eq!(
            (&carried["secret"], &carried["cid"]),
            (&Value::Null, &"919800000001".into())
        );
        for refusal in [Answer::Busy, Answer::HangUp] {
            let document = asked("GET", &path, "", "", |r| answer(&config, r, &refusal));
            assert!(document.body.ends_with("<response><hangup/></response>"));
        }
    }

    #[test]
    fn a_call_that_is_still_up_after_its_stream_is_ended() {
        let body = |path: &str| asked("GET", path, "", "", receipt).body;
        assert!(body("/h?event=Stream&sid=1").contains("<hangup/>"));
        assert!(body("/h?event=NewCall").ends_with("<response></response>"));
        assert_eq!(body("/h?event=Hangup&sid=1") + &body("/h?sid=1&status=x"), "");
    }
}
