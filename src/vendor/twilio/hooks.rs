//! Twilio's webhooks, once verified: read into neutral news, and answered with TwiML.

use super::verify::{malformed, parameters};
use crate::{
    base::fault::Fault,
    vendor::{Answer, CallNews, CallUpdate, EndReason, HookKind, HookRequest, params::words},
    wire::{form::Form, xml::Escaped},
};
use http::{HeaderMap, HeaderName};
use std::fmt::Write;

static IDEMPOTENCY: HeaderName = HeaderName::from_static("i-twilio-idempotency-token");

/// Longest value believed of a parameter that is stored: SIP addresses have up to 255 characters.
const MAX_VALUE: usize = 512;

/// Reads a verified request.
pub(super) fn parse(kind: HookKind, request: &HookRequest<'_>) -> Result<CallUpdate, Fault> {
    let form = parameters(request)?;
    let call_sid = id(&form, "CallSid")?;
    let text = |name| Ok(value(&form, name)?.unwrap_or_default().to_owned());
    if kind == HookKind::Status && form.get("StreamEvent").is_some() {
        let event = required(&form, "StreamEvent")?;
        return Ok(CallUpdate {
            why: value(&form, "StreamError")?.map(words),
            dedup_key: format!("{call_sid}:{}:{event}", id(&form, "StreamSid")?),
            call_sid: call_sid.to_owned(),
            from: String::new(),
            to: String::new(),
            inbound: true,
            news: match event {
                "stream-error" => CallNews::StreamFailed,
                _ => CallNews::Other,
            },
            duration_s: None,
        });
    }
    let status = required(&form, "CallStatus")?;
    let dedup_key = match kind {
        HookKind::Call | HookKind::Mixed => {
            required(&form, "From")?;
            required(&form, "To")?;
            format!("{call_sid}:voice")
        }
        HookKind::Status => format!("{call_sid}:{status}:{}", serial(&form, request.headers)?),
    };
    let duration_s = value(&form, "CallDuration")?.and_then(|d| d.parse().ok());
    Ok(CallUpdate {
        why: None,
        call_sid: call_sid.to_owned(),
        from: text("From")?,
        to: text("To")?,
        inbound: !value(&form, "Direction")?.is_some_and(|d| d.starts_with("outbound")),
        news: news(status),
        dedup_key,
        duration_s,
    })
}

/// What tells a repeated status callback from a new one: its sequence number, which is signed; where there is none, the
/// token that Twilio's retries share, which is not.
fn serial<'a>(form: &'a Form<'_>, headers: &'a HeaderMap) -> Result<&'a str, Fault> {
    let digits = |s: &&str| (1..=20).contains(&s.len()) && s.bytes().all(|b| b.is_ascii_digit());
    if let Some(number) = value(form, "SequenceNumber")?.filter(digits) {
        return Ok(number);
    }
    let token = headers.get(&IDEMPOTENCY).and_then(|v| v.to_str().ok());
    Ok(token.filter(|t| t.len() <= 128).unwrap_or_default())
}

fn news(status: &str) -> CallNews {
    match status {
        "queued" | "initiated" => CallNews::Initiated,
        "ringing" => CallNews::Ringing,
        "in-progress" => CallNews::Answered,
        "completed" => CallNews::Ended(EndReason::Completed),
        "busy" => CallNews::Ended(EndReason::Busy),
        "failed" => CallNews::Ended(EndReason::Failed),
        "no-answer" => CallNews::Ended(EndReason::NoAnswer),
        "canceled" => CallNews::Ended(EndReason::Canceled),
        _ => CallNews::Other,
    }
}

/// The value of a parameter. The signature does not cover the order of repetitions, so differing ones have no value.
fn value<'a>(form: &'a Form<'_>, name: &str) -> Result<Option<&'a str>, Fault> {
    let mut all = form.0.iter().filter(|(n, _)| n == name).map(|(_, v)| &**v);
    let Some(first) = all.next() else { return Ok(None) };
    if all.any(|other| other != first) {
        return Err(malformed(format!("{name} is given twice")));
    }
    if first.len() > MAX_VALUE {
        return Err(malformed(format!("{name} is longer than {MAX_VALUE} bytes")));
    }
    Ok(Some(first))
}

fn required<'a>(form: &'a Form<'_>, name: &str) -> Result<&'a str, Fault> {
    value(form, name)?
        .filter(|v| !v.is_empty())
        .ok_or_else(|| malformed(format!("{name} is missing")))
}

fn id<'a>(form: &'a Form<'_>, name: &str) -> Result<&'a str, Fault> {
    let id = required(form, name)?;
    let ok = |b: u8| b.is_ascii_alphanumeric() || b"-_.:".contains(&b);
    if id.len() > 128 || !id.bytes().all(ok) {
        return Err(malformed(format!("{name} is not an id")));
    }
    Ok(id)
}

/// The TwiML document for an answer.
///
/// `<Connect>` ends when our side closes the socket or dies; the `<Hangup/>` after it then ends the call, where the
/// alternative is a caller who waits for nobody. The token travels in the URL's path and as `<Parameter>`, because a
/// `<Stream>` URL cannot carry a query; name and value of a parameter stay far below Twilio's 500 characters.
pub(super) fn twiml(answer: &Answer) -> String {
    let mut out = String::from(r#"<?xml version="1.0" encoding="UTF-8"?><Response>"#);
    match answer {
        Answer::Stream {
            url, token, status_url, ..
        } => {
            let _ = write!(out, r#"<Connect><Stream url="{}""#, Escaped(url));
            if !status_url.is_empty() {
                let _ = write!(
                    out,
                    r#" statusCallback="{}" statusCallbackMethod="POST""#,
                    Escaped(status_url)
                );
            }
            out.push('>');
            if !token.is_empty() {
                let _ = write!(out, r#"<Parameter name="token" value="{}"/>"#, Escaped(token));
            }
            out.push_str("</Stream></Connect><Hangup/>");
        }
        Answer::Busy => out.push_str(r#"<Reject reason="busy"/>"#),
        Answer::HangUp => out.push_str("<Hangup/>"),
    }
    out.push_str("</Response>");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{fault::Kind, time::Wall};

    fn request(kind: HookKind, body: &str, token: Option<&str>) -> Result<CallUpdate, Fault> {
        let mut headers = HeaderMap::new();
        if let Some(token) = token {
            headers.insert(&IDEMPOTENCY, token.parse().unwrap());
        }
        let request = HookRequest {
            method: "POST",
            path_and_query: "/x?CallSid=ignored",
            headers: &headers,
            body: body.as_bytes(),
            public_base: "",
            by_number: false,
            client: None,
            received_at: Wall::default(),
        };
        parse(kind, &request)
    }

    const VOICE: &str = include_str!("testdata/voice.form");
    const STATUS: &str = include_str!("testdata/status.form");
    const STREAM: &str = include_str!("testdata/stream-status.form");

    #[test]
    fn a_voice_webhook_is_a_ringing_call() {
        let update = request(HookKind::Call, VOICE, None).unwrap();
        let expect = CallUpdate {
            why: None,
            call_sid: "CA00000000000000000000000000000002".into(),
            from: "+15550100".into(),
            to: "+15550101".into(),
            inbound: true,
            news: CallNews::Ringing,
            dedup_key: "CA00000000000000000000000000000002:voice".into(),
            duration_s: None,
        };
        assert_eq!(update, expect);
    }

    #[test]
    fn a_get_is_read_from_its_query() {
        let request = HookRequest {
            method: "GET",
            path_and_query: &format!("/x?{VOICE}"),
            headers: &HeaderMap::new(),
            body: b"CallSid=ignored",
            public_base: "",
            by_number: false,
            client: None,
            received_at: Wall::default(),
        };
        assert_eq!(parse(HookKind::Call, &request).unwrap().from, "+15550100");
    }

    #[test]
    fn a_status_callback_is_news_with_a_length_and_a_number() {
        let update = request(HookKind::Status, STATUS, None).unwrap();
        assert_eq!(update.news, CallNews::Ended(EndReason::Completed));
        assert_eq!(update.duration_s, Some(42));
        assert!(!update.inbound);
        assert_eq!(update.dedup_key, "CA00000000000000000000000000000002:completed:3");
    }

    #[test]
    fn every_status_has_its_news_and_an_unknown_one_changes_nothing() {
        for (status, news) in [
            ("queued", CallNews::Initiated),
            ("initiated", CallNews::Initiated),
            ("ringing", CallNews::Ringing),
            ("in-progress", CallNews::Answered),
            ("completed", CallNews::Ended(EndReason::Completed)),
            ("busy", CallNews::Ended(EndReason::Busy)),
            ("failed", CallNews::Ended(EndReason::Failed)),
            ("no-answer", CallNews::Ended(EndReason::NoAnswer)),
            ("canceled", CallNews::Ended(EndReason::Canceled)),
            ("on-hold", CallNews::Other),
        ] {
            let body = format!("CallSid=CA1&CallStatus={status}");
            assert_eq!(request(HookKind::Status, &body, None).unwrap().news, news, "{status}");
        }
    }

    #[test]
    fn a_retry_has_the_key_of_the_first_try() {
        let key = |body: &str, token| request(HookKind::Status, body, token).unwrap().dedup_key;
        let numbered = "CallSid=CA1&CallStatus=ringing&SequenceNumber=1";
        assert_eq!(key(numbered, Some("t1")), key(numbered, None));
        assert_ne!(
            key(numbered, None),
            key("CallSid=CA1&CallStatus=ringing&SequenceNumber=2", None)
        );
        let bare = "CallSid=CA1&CallStatus=ringing";
        assert_eq!(key(bare, Some("t1")), key(bare, Some("t1")));
        assert_ne!(key(bare, Some("t1")), key(bare, Some("t2")));
        assert_eq!(
            key("CallSid=CA1&CallStatus=ringing&SequenceNumber=a%0Ab", Some("t1")),
            key(bare, Some("t1"))
        );
    }

    #[test]
    fn a_stream_callback_tells_of_a_failed_stream_alone() {
        let update = request(HookKind::Status, STREAM, None).unwrap();
        assert_eq!(update.news, CallNews::StreamFailed);
        assert!(
            update
                .dedup_key
                .ends_with(":MZ00000000000000000000000000000003:stream-error")
        );
        let started = STREAM.replace("stream-error", "stream-started");
        assert_eq!(request(HookKind::Status, &started, None).unwrap().news, CallNews::Other);
    }

    #[test]
    fn a_signed_request_without_what_it_needs_is_malformed() {
        for body in [
            "",
            "CallStatus=ringing&From=1&To=2",
            "CallSid=&CallStatus=ringing&From=1&To=2",
            "CallSid=CA1CallStatusringing&From=1&To=2",
            "CallSid=CA1&CallStatus=ringing&From=1",
            "CallSid=CA1&CallStatus=ringing&To=1",
            "CallSid=CA1&CallSid=CA2&CallStatus=ringing&From=1&To=2",
            "CallSid=CA%0A1&CallStatus=ringing&From=1&To=2",
            "CallSid=CA1&CallStatus=ringing&From=%ff&To=2",
        ] {
            assert_eq!(
                request(HookKind::Call, body, None).unwrap_err().kind,
                Kind::Malformed,
                "{body}"
            );
        }
        let long = format!("CallSid=CA1&CallStatus=ringing&To=2&From={}", "1".repeat(MAX_VALUE + 1));
        assert_eq!(request(HookKind::Call, &long, None).unwrap_err().kind, Kind::Malformed);
        assert_eq!(
            request(HookKind::Status, "CallSid=CA1", None).unwrap_err().kind,
            Kind::Malformed
        );
        assert_eq!(
            request(HookKind::Status, "CallSid=CA1&StreamEvent=stream-error", None)
                .unwrap_err()
                .kind,
            Kind::Malformed
        );
    }

    #[test]
    fn answers_are_whole_documents_whatever_they_carry() {
        let answer = Answer::Stream {
            url: "wss://h/s/t?a=1&b=\"".into(),
            token: "t<".into(),
            status_url: "https://h/st".into(),
            session_id: "s".into(),
        };
        assert_eq!(
            twiml(&answer),
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?><Response><Connect><Stream url=\"wss://h/s/t?a=1&amp;b=&quot;\" \
             statusCallback=\"https://h/st\" statusCallbackMethod=\"POST\"><Parameter name=\"token\" value=\"t&lt;\"/>\
             </Stream></Connect><Hangup/></Response>"
        );
        let bare = Answer::Stream {
            url: "wss://h/s".into(),
            token: String::new(),
            status_url: String::new(),
            session_id: String::new(),
        };
        assert!(twiml(&bare).contains("<Connect><Stream url=\"wss://h/s\"></Stream></Connect><Hangup/>"));
        assert!(twiml(&Answer::Busy).ends_with("<Response><Reject reason=\"busy\"/></Response>"));
        assert!(twiml(&Answer::HangUp).ends_with("<Response><Hangup/></Response>"));
    }
}
