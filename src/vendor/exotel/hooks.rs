//! Exotel's webhooks, once verified: one URL serves the applets' questions, their news and the status callbacks, told apart by
//! what the request holds and answered as it was asked.

use super::config::Config;
use crate::{
    base::fault::Fault,
    vendor::{
        Answer, CallNews, CallUpdate, Document, EndReason, Hook, HookKind, HookRequest,
        params::{Params, malformed, with_query, words},
    },
    wire::xml::Escaped,
};
use http::header;
use serde_json::json;
use std::fmt::Write;

/// Reads a verified request.
pub(super) fn parse(kind: HookKind, request: &HookRequest<'_>) -> Result<Hook, Fault> {
    let params = Params::read(request)?;
    let Some(call_sid) = params.id(&["CallSid", "call_sid"])? else {
        // Dashboards try a URL out before they keep it.
        return match params.any("Call") || params.any("Stream") {
            true => Err(malformed("CallSid is missing")),
            false => Ok(Hook::Probe),
        };
    };
    let event = params.get(&["EventType"]).unwrap_or_default().to_owned();
    let status = params.text(&["Status", "CallStatus"])?;
    let stream = params.get(&["Stream[Status]"]).map(str::to_owned);
    let ended = ended(&status);
    let news = match (&stream, ended) {
        (Some(stream), _) if has_failed(stream) => Some(CallNews::StreamFailed),
        (Some(_), None) => Some(CallNews::Other),
        (_, Some(reason)) => Some(CallNews::Ended(reason)),
        _ if event == "answered" => Some(CallNews::Answered),
        _ if event == "ringing" => Some(CallNews::Ringing),
        // The applet's own word for "your stream has begun".
        _ if event == "stream-start" || params.any("Stream[") => Some(CallNews::Other),
        _ => None,
    };
    let outbound = params.get(&["Direction"]).is_some_and(|d| d.starts_with("outbound"));
    let update = |news, key: String| {
        Ok::<_, Fault>(CallUpdate {
            why: params
                .get(&["Stream[Error]", "Stream[DetailedStatus]"])
                .filter(|_| news == CallNews::StreamFailed)
                .map(words),
            from: params.text(&["CallFrom", "From"])?,
            to: params.text(&["CallTo", "To"])?,
            inbound: !outbound,
            news,
            dedup_key: format!("{call_sid}:{key}"),
            duration_s: params
                .get(&["ConversationDuration", "DialCallDuration"])
                .and_then(|d| d.parse().ok()),
            call_sid: call_sid.clone(),
        })
    };
    match (news, kind) {
        (None, HookKind::Call | HookKind::Mixed) => Ok(Hook::Call(update(CallNews::Ringing, "call".to_owned())?)),
        (news, _) => {
            let stream_sid = params.id(&["Stream[StreamSID]", "StreamSid"])?.unwrap_or_default();
            let key = format!("{event}:{status}:{stream_sid}:{}", stream.unwrap_or_default());
            let in_progress = status == "in-progress";
            let news = news.unwrap_or(if in_progress {
                CallNews::Answered
            } else {
                CallNews::Other
            });
            Ok(Hook::News(update(news, key)?))
        }
    }
}

fn ended(status: &str) -> Option<EndReason> {
    Some(match status {
        "completed" => EndReason::Completed,
        "failed" => EndReason::Failed,
        "busy" => EndReason::Busy,
        "no-answer" => EndReason::NoAnswer,
        "canceled" | "cancelled" => EndReason::Canceled,
        _ => return None,
    })
}

fn has_failed(stream_status: &str) -> bool {
    matches!(stream_status, "failed" | "cancelled" | "canceled")
}

/// The answer: JSON with the socket's URL for an applet that resolves it, XML for a webhook that posts and wants instructions.
pub(super) fn answer(config: &Config, request: &HookRequest<'_>, answer: &Answer) -> Document {
    let accepts = request.headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if request.method == "GET" || accepts.is_some_and(|a| a.contains("application/json")) {
        return resolved(config, answer);
    }
    Document {
        status: 200,
        content_type: "application/xml; charset=utf-8",
        body: xml(config, answer),
    }
}

fn resolved(config: &Config, answer: &Answer) -> Document {
    let (status, body) = match answer {
        Answer::Stream { url, session_id, .. } => (200, json!({ "url": socket(config, url, session_id) })),
        // The applet knows no refusal. It takes an error for a stream that failed, and its flow goes on.
        Answer::Busy => (503, json!({ "error": "busy" })),
        Answer::HangUp => (404, json!({ "error": "nobody has this number" })),
    };
    Document {
        status,
        content_type: "application/json",
        body: body.to_string(),
    }
}

/// The socket's URL with the rate and, as one of the three parameters that come back in `start`, the session.
pub(super) fn socket(config: &Config, url: &str, session_id: &str) -> String {
    let url = with_query(url, "sample-rate", &config.sample_rate.to_string());
    match session_id {
        "" => url,
        id => with_query(&url, "sessionId", id),
    }
}

fn xml(config: &Config, answer: &Answer) -> String {
    let mut out = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#);
    match answer {
        Answer::Stream { url, session_id, .. } => {
            if !config.say.is_empty() {
                let _ = write!(out, "<Say>{}</Say>", Escaped(&config.say));
            }
            let _ = write!(
                out,
                r#"<Connect><Stream url="{}"><Parameter name="sessionId" value="{}"/></Stream></Connect>"#,
                Escaped(&socket(config, url, session_id)),
                Escaped(session_id)
            );
        }
        Answer::Busy => out.push_str(r#"<Reject reason="busy"/>"#),
        Answer::HangUp => out.push_str("<Hangup/>"),
    }
    out.push_str("</Response>");
    out
}

/// What acknowledges news. A Passthru applet takes 200 for its first branch and 302 for its second: a flow can hand the
/// caller to a person when the stream has failed.
pub(super) fn receipt(request: &HookRequest<'_>) -> Document {
    let params = Params::read(request).unwrap_or_default();
    let failed = params.get(&["Stream[Status]"]).is_some_and(has_failed);
    Document {
        status: if failed { 302 } else { 200 },
        content_type: "text/plain",
        body: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        base::fault::Kind,
        vendor::{account::tests::configured, params::tests::asked},
    };

    const FORM: &str = "application/x-www-form-urlencoded";

    fn config() -> Config {
        configured(&[], Config::read).0
    }

    fn stream() -> Answer {
        Answer::Stream {
            url: "wss://relay.example.com/s?token=t".into(),
            token: "t".into(),
            status_url: "https://relay.example.com/st".into(),
            session_id: "c1-<9>".into(),
        }
    }

    fn read(method: &str, path: &str, kind: &str, body: &str) -> Result<Hook, Fault> {
        asked(method, path, kind, body, |r| parse(HookKind::Mixed, r))
    }

    #[test]
    fn a_call_is_announced_in_every_way() {
        let json = include_str!("testdata/webhook.json");
        for (method, path, kind, body) in [
            ("POST", "/w", FORM, include_str!("testdata/webhook.form").trim()),
            ("POST", "/w", "application/json", json),
            (
                "GET",
                "/w?CallSid=c1&CallFrom=%2B15550100&CallTo=%2B15550101&Direction=incoming",
                "",
                "",
            ),
            ("GET", "/w?CallSid=c1&From=%2B15550100&To=%2B15550101", "", ""),
        ] {
            let Ok(Hook::Call(update)) = read(method, path, kind, body) else {
                panic!("{method} {path} {body}")
            };
            let said = (&*update.call_sid, &*update.from, &*update.to, update.inbound);
            assert_eq!(said, ("c1", "+15550100", "+15550101", true));
            assert_eq!((update.news, &*update.dedup_key), (CallNews::Ringing, "c1:call"));
        }
        assert_eq!(read("GET", "/w", "", ""), Ok(Hook::Probe));
        assert_eq!(read("GET", "/w?CallFrom=1", "", "").unwrap_err().kind, Kind::Malformed);
        assert_eq!(
            read("GET", "/w?CallSid=a%0Ab", "", "").unwrap_err().kind,
            Kind::Malformed
        );
    }

    #[test]
    fn passthru_and_status_callbacks_are_news_in_every_encoding() {
        let boundary = "multipart/form-data; boundary=----x";
        for (method, path, kind, body, news) in [
            (
                "GET",
                include_str!("testdata/passthru.url").trim(),
                "",
                "",
                CallNews::Other,
            ),
            (
                "GET",
                "/w?CallSid=c1&Stream%5BStatus%5D=failed&Stream%5BError%5D=3009",
                "",
                "",
                CallNews::StreamFailed,
            ),
            (
                "GET",
                "/w?CallSid=c1&Stream=%7B%22Status%22%3A%22cancelled%22%7D",
                "",
                "",
                CallNews::StreamFailed,
            ),
            (
                "POST",
                "/w",
                "application/json",
                r#"{"CallSid":"c1","EventType":"stream-start","StreamSid":"s"}"#,
                CallNews::Other,
            ),
            (
                "POST",
                "/w",
                "application/json",
                include_str!("testdata/status.json"),
                CallNews::Ended(EndReason::NoAnswer),
            ),
            (
                "POST",
                "/w",
                FORM,
                "CallSid=c1&Status=busy&EventType=terminal",
                CallNews::Ended(EndReason::Busy),
            ),
            (
                "POST",
                "/w",
                FORM,
                "CallSid=c1&Status=failed",
                CallNews::Ended(EndReason::Failed),
            ),
            (
                "POST",
                "/w",
                FORM,
                "CallSid=c1&CallStatus=canceled",
                CallNews::Ended(EndReason::Canceled),
            ),
            (
                "POST",
                "/w",
                FORM,
                "CallSid=c1&EventType=answered&Status=in-progress",
                CallNews::Answered,
            ),
            (
                "POST",
                "/w",
                boundary,
                &include_str!("testdata/status.multipart")
                    .replace("\r\n", "\n")
                    .replace('\n', "\r\n"),
                CallNews::Ended(EndReason::Completed),
            ),
        ] {
            let Ok(Hook::News(update)) = read(method, path, kind, body) else {
                panic!("{path} {body}")
            };
            assert_eq!((update.news, &*update.call_sid), (news, "c1"), "{path} {body}");
        }
        let in_progress = "CallSid=c1&From=1&To=2&Status=in-progress";
        assert!(matches!(read("POST", "/w", FORM, in_progress), Ok(Hook::Call(_))));
        let status = asked("POST", "/w", FORM, in_progress, |r| parse(HookKind::Status, r));
        assert!(matches!(status, Ok(Hook::News(u)) if u.news == CallNews::Answered));
    }

    #[test]
    fn a_repetition_has_the_key_of_the_first_and_other_news_another() {
        let key = |body: &str| match read("POST", "/w", FORM, body) {
            Ok(Hook::News(update)) => update.dedup_key,
            other => panic!("{other:?}"),
        };
        let one = key("CallSid=c1&Status=busy&EventType=terminal");
        assert_eq!(one, key("CallSid=c1&Status=busy&EventType=terminal&DateUpdated=later"));
        assert_ne!(one, key("CallSid=c1&Status=failed&EventType=terminal"));
        assert_ne!(
            key("CallSid=c1&Stream[Status]=completed"),
            key("CallSid=c1&Stream[Status]=failed")
        );
    }

    #[test]
    fn the_answer_is_in_the_words_of_the_question() {
        let (config, url) = (
            config(),
            "wss://relay.example.com/s?token=t&sample-rate=8000&sessionId=c1-%3C9%3E",
        );
        let post = asked("POST", "/w", FORM, "CallSid=c1", |r| answer(&config, r, &stream()));
        assert_eq!(post.content_type, "application/xml; charset=utf-8");
        assert_eq!(
            post.body,
            format!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Say>Hello! Please wait...</Say><Connect><Stream url=\"{}\">\
                 <Parameter name=\"sessionId\" value=\"c1-&lt;9&gt;\"/></Stream></Connect></Response>",
                url.replace('&', "&amp;")
            )
        );
        let get = asked("GET", "/w?CallSid=c1", "", "", |r| answer(&config, r, &stream()));
        assert_eq!(
            (get.status, get.content_type, get.body),
            (200, "application/json", format!("{{\"url\":\"{url}\"}}"))
        );
        for (refusal, status, verb) in [
            (Answer::Busy, 503, "<Reject reason=\"busy\"/>"),
            (Answer::HangUp, 404, "<Hangup/>"),
        ] {
            assert_eq!(
                asked("GET", "/w", "", "", |r| answer(&config, r, &refusal)).status,
                status
            );
            let xml = asked("POST", "/w", FORM, "", |r| answer(&config, r, &refusal));
            assert!(xml.body.contains(verb), "{}", xml.body);
        }
    }

    #[test]
    fn a_flow_takes_its_second_branch_when_the_stream_failed() {
        for (path, status) in [
            ("/w?CallSid=c1&Stream%5BStatus%5D=completed", 200),
            ("/w?CallSid=c1&Stream%5BStatus%5D=failed", 302),
            ("/w", 200),
        ] {
            assert_eq!(asked("GET", path, "", "", receipt).status, status, "{path}");
        }
    }
}
