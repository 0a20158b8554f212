//! The two files of a call: what was said, and what is to be known of it. One name each, written whole or not at all.

use super::{Config, Deps, Outcome, Wishes, cost, extract, next, webhook};
use crate::{
    base::time::Wall,
    store::{CallChange, CallRow, MessageRow, Sender, Write},
};
use serde_json::{Value, json};
use std::{
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};
use tracing::info;

/// Longest part of a file's name that is the vendor's id.
const MAX_NAME: usize = 100;

/// Writes both, and queues what follows.
pub(super) async fn run(deps: &Deps, call: &CallRow, wishes: &Wishes) -> Outcome {
    let messages = match deps.store.messages(call.tenant_id, call.call_id).await {
        Ok(messages) => messages,
        Err(fault) => return Outcome::Later(fault.to_string(), Duration::ZERO),
    };
    let extracts = wishes.schema.is_some();
    let follows = if extracts { extract::KIND } else { webhook::KIND };
    let told = wishes.webhook_url.is_some() || deps.config.webhook.url.is_some();
    let mut writes: Vec<_> = (extracts || told).then(|| next(follows, call)).into_iter().collect();
    if messages.len() < wishes.min_messages {
        return Outcome::Done(writes);
    }
    let report = report(deps, call, &messages, wishes);
    let (transcript, file) = paths(&deps.config, &deps.data_root, call);
    let texts = [
        (transcript.clone(), transcript_of(call, &messages)),
        (file, report.clone()),
    ];
    let (session, count) = (call.session_id.clone(), messages.len());
    let written = tokio::task::spawn_blocking(move || texts.iter().try_for_each(|(path, json)| put(path, json))).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Outcome::Later(format!("the files could not be written: {error}"), Duration::ZERO),
        Err(_) => return Outcome::Later("the files could not be written".to_owned(), Duration::ZERO),
    }
    info!(session, messages = count, file = %transcript.display(), "transcript_saved");
    writes.push(change(call, members(&report, &["analytics", "usage", "cost"])));
    Outcome::Done(writes)
}

/// Some members of a report.
pub(super) fn members(report: &Value, names: &[&str]) -> Value {
    let member = |name: &&str| ((*name).to_owned(), report[*name].clone());
    names.iter().map(member).collect()
}

pub(super) fn change(call: &CallRow, metadata: Value) -> Write {
    Write::CallChange(Box::new(CallChange {
        call_id: Some(call.call_id),
        metadata: Some(metadata),
        ..CallChange::default()
    }))
}

/// Writes the call's file again, with what became known since.
pub(super) fn rewrite(
    deps: &Deps,
    call: &CallRow,
    messages: &[MessageRow],
    wishes: &Wishes,
    report: &Value,
) -> io::Result<()> {
    if messages.len() < wishes.min_messages {
        return Ok(());
    }
    put(&paths(&deps.config, &deps.data_root, call).1, report)
}

/// `transcripts/call_{id}_{timestamp}_transcript.json` and `calls/call_{id}_{timestamp}.json`: the vendor's id of the call, made
/// safe, and the Unix milliseconds of its end, which no repetition changes.
pub(super) fn paths(config: &Config, data_root: &Path, call: &CallRow) -> (PathBuf, PathBuf) {
    let safe = |c: char| if c.is_ascii_alphanumeric() || c == '-' { c } else { '_' };
    let id: String = call.call_sid.chars().map(safe).take(MAX_NAME).collect();
    let at = call.end_time.unwrap_or(call.start_time).as_millis();
    let folder = |folder: &Path| data_root.join(folder);
    (
        folder(&config.transcripts).join(format!("call_{id}_{at}_transcript.json")),
        folder(&config.calls).join(format!("call_{id}_{at}.json")),
    )
}

/// Writes a file beside its place and moves it there.
fn put(path: &Path, json: &Value) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(folder)?;
    let beside = path.with_extension("part");
    let mut file = File::create(&beside)?;
    file.write_all(serde_json::to_string_pretty(json)?.as_bytes())?;
    file.write_all(b"\n")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    File::open(folder)?.sync_all()
}

fn head(call: &CallRow) -> Value {
    json!({
        "call_id": call.call_sid,
        "id": call.call_id,
        "session_id": call.session_id,
        "tenant_id": call.tenant_id.0,
        "provider": call.vendor,
        "direction": if call.inbound { "inbound" } else { "outbound" },
        "customer_number": call.customer_number,
        "organization_number": call.organization_number,
        "agent": super::first_agent(call),
        "start_time": call.start_time,
        "end_time": call.end_time,
        "duration": call.duration,
        "end_reason": call.end_reason.map(|r| r.as_str()),
    })
}

fn transcript_of(call: &CallRow, messages: &[MessageRow]) -> Value {
    let mut transcript = head(call);
    transcript["conversation"] = conversation(messages);
    transcript
}

/// Who said what, in order.
pub(super) fn conversation(messages: &[MessageRow]) -> Value {
    let said = |m: &MessageRow| {
        json!({
            "role": m.sender_type.as_str(),
            "name": m.sender_name,
            "text": m.content,
            "timestamp": m.created_at,
            "confidence": m.confidence,
            "language": m.detected_language,
            "delivery": m.delivery,
            "heard_ms": m.heard_ms,
        })
    };
    messages.iter().map(said).collect()
}

/// All that is known of a call.
pub(super) fn report(deps: &Deps, call: &CallRow, messages: &[MessageRow], wishes: &Wishes) -> Value {
    let (usage, cost) = cost::of(&deps.config, call, messages, &wishes.backends.0, &wishes.backends.1);
    let kept = |key: &str| call.metadata.get(key).cloned().unwrap_or_default();
    let mut report = head(call);
    report["recording"] = json!(call.recording);
    report["analytics"] = analytics(call, messages);
    report["usage"] = usage;
    report["cost"] = cost;
    report["extracted"] = kept("extracted");
    report["extraction"] = kept("extraction");
    report
}

fn analytics(call: &CallRow, messages: &[MessageRow]) -> Value {
    let turns = call
        .metadata
        .get("turns")
        .and_then(Value::as_array)
        .cloned()
        .unwrap_or_default();
    let mut totals: Vec<u64> = turns.iter().filter_map(|t| t["total_ms"].as_u64()).collect();
    totals.sort_unstable();
    let at = |part: usize| totals.get((totals.len().saturating_sub(1)) * part / 100);
    let agent_ms: u64 = messages.iter().filter_map(|m| m.heard_ms).map(u64::from).sum();
    json!({
        "duration": call.duration,
        "messages": messages.len(),
        "question_answers": question_answers(messages),
        "talk_ms": { "customer": call.metadata.get("customer_talk_ms").cloned().unwrap_or(json!(0)), "agent": agent_ms },
        "latency_ms": { "turns": totals.len(), "median": at(50), "p95": at(95), "worst": totals.last() },
        "turns": turns,
    })
}

/// What the caller said, and what they heard in answer.
fn question_answers(messages: &[MessageRow]) -> Vec<Value> {
    let mut pairs: Vec<(Wall, String, String)> = Vec::new();
    let mut asking = false;
    for m in messages {
        let customer = m.sender_type == Sender::Customer;
        match (customer, pairs.last_mut()) {
            (true, Some((_, question, _))) if asking => *question = format!("{question} {}", m.content),
            (true, _) => pairs.push((m.created_at, m.content.clone(), String::new())),
            (false, Some((_, _, answer))) if m.delivery != Some("failed") => {
                let space = if answer.is_empty() { "" } else { " " };
                *answer = format!("{answer}{space}{}", m.content);
            }
            (false, _) => {}
        }
        asking = customer;
    }
    let shown = |(at, question, answer): (Wall, String, String)| {
        let answer = Some(answer).filter(|a| !a.is_empty());
        json!({ "timestamp": at, "question": question, "answer": answer })
    };
    pairs.into_iter().map(shown).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ids::{CallId, MessageId};

    fn said(seq: i64, sender_type: Sender, content: &str) -> MessageRow {
        MessageRow {
            message_id: MessageId::new(),
            call_id: CallId::new(),
            seq,
            message_type: "transcript",
            content: content.to_owned(),
            sender_type,
            sender_name: None,
            confidence: None,
            detected_language: None,
            delivery: None,
            heard_ms: None,
            created_at: Wall::from_micros(seq),
        }
    }

    #[test]
    fn questions_stand_with_their_answers() {
        use Sender::{Agent, Customer};
        let messages = [
            said(1, Agent, "Welcome."),
            said(2, Customer, "Hello,"),
            said(3, Customer, "when are you open?"),
            said(4, Agent, "From nine."),
            said(5, Agent, "Until five."),
            said(6, Customer, "Thanks."),
        ];
        let pairs = question_answers(&messages);
        let shown: Vec<_> = pairs.iter().map(|p| (&p["question"], &p["answer"])).collect();
        assert_eq!(
            shown,
            [
                (&json!("Hello, when are you open?"), &json!("From nine. Until five.")),
                (&json!("Thanks."), &Value::Null),
            ]
        );
    }

    #[test]
    fn a_file_appears_whole_and_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("calls/call_x_1.json");
        for n in [1, 2] {
            put(&path, &json!({ "n": n })).unwrap();
            let read: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            assert_eq!(read["n"], n);
        }
        assert_eq!(fs::read_dir(path.parent().unwrap()).unwrap().count(), 1);
    }
}
