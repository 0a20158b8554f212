//! News in the words of the frontends' protocol: what is kept with a commit for those who reconnect.
//!
//! The live hub sends the same events; its additions for one client (encodings, references) are its own.

use crate::{
    base::{ids::CallId, time::Wall},
    bus::News,
};
use serde_json::{Value, json};

/// The event as JSON, or `None` for what is merely live and never kept.
pub fn payload(call: CallId, at: Wall, news: &News) -> Option<Value> {
    let mut event = match news {
        News::Status {
            status,
            end_reason,
            customer_number,
            organization_number,
            duration,
            ..
        } => {
            let mut event = json!({
                "type": "call_status_update",
                "status": status,
                "end_reason": end_reason,
                "customer_number": customer_number,
                "organization_number": organization_number,
            });
            if let Some(seconds) = duration {
                event["duration"] = json!(seconds);
            }
            event
        }
        News::Transcript {
            text,
            sender,
            is_final: true,
            confidence,
            detected_language,
            message_id,
        } => json!({
            "type": "customer_transcript",
            "transcript": text,
            "sender": sender,
            "is_final": true,
            "confidence": confidence,
            "detected_language": detected_language,
            "message_id": message_id,
        }),
        News::MessageStatus {
            message_id,
            client_ref,
            status,
            heard_ms,
            message,
        } => json!({
            "type": "agent_message_status",
            "message_id": message_id,
            "client_ref": client_ref,
            "status": status,
            "heard_ms": heard_ms,
            "message": message,
        }),
        News::Dtmf(digit) => json!({ "type": "dtmf", "digit": digit }),
        News::Handoff { agent } => json!({ "type": "call_handoff", "agent": agent }),
        News::Transcript { is_final: false, .. } | News::TtsAudio { .. } | News::Fault { .. } => return None,
    };
    let fields = event.as_object_mut()?;
    fields.insert("call_id".to_owned(), json!(call));
    fields.insert("timestamp".to_owned(), json!(at));
    Some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_names_its_call_and_time_and_what_is_live_is_not_kept() {
        let call = CallId::new();
        let status = News::Status {
            status: "incoming",
            end_reason: None,
            customer_number: "+14155550100".into(),
            organization_number: "+14155550101".into(),
            call_sid: "sid".into(),
            inbound: true,
            duration: None,
        };
        let event = payload(call, Wall::from_micros(0), &status).unwrap();
        assert_eq!(event["type"], "call_status_update");
        assert_eq!(event["call_id"], call.as_str());
        assert_eq!(event["timestamp"], "1970-01-01T00:00:00.000Z");
        assert_eq!(event["customer_number"], "+14155550100");
        let interim = News::Transcript {
            text: "hel".into(),
            sender: "customer",
            is_final: false,
            confidence: None,
            detected_language: None,
            message_id: None,
        };
        assert_eq!(payload(call, Wall::default(), &interim), None);
    }
}
