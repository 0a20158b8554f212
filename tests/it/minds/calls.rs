//! Calls that a language model answers, from a caller's tones to its words in their ear, by a real daemon and a double of the model.

use super::double::{Act, Double};
use crate::daemon::{Daemon, Frontend, PATIENCE, place, speech};
use serde_json::{Value, json};
use sidetone::{
    base::time::Mono,
    sim::caller::{CallError, Outcome},
    speech::stt::fake::phrase,
};
use std::time::Duration;
use tokio::task::JoinHandle;

/// A daemon with an agent `desk` that thinks with the double.
async fn daemon(double: &Double, more: &str) -> Daemon {
    let agent = "kind = \"pipeline\"\nlanguage = \"en\"\nstt = \"fake\"\ntts = \"fake\"\nprompt = \"You are Ada.\"\n";
    let config = format!(
        "[agents.desk]\n{agent}llm = \"{}\"\n{more}\n{}",
        double.service,
        double.section().replace("400ms", "5s")
    );
    Daemon::start(&["--dev", "--agent", "desk"], &config, &[]).await
}

/// A second of silence, then tones of these lengths with this much silence after each.
fn caller(tones: &[(u32, u32)]) -> Vec<i16> {
    let mut samples = vec![0; 8000];
    for (n, (tone_ms, pause_ms)) in (0..).zip(tones) {
        samples.extend(phrase(n, *tone_ms, 8000));
        samples.resize(samples.len() + 8 * *pause_ms as usize, 0);
    }
    samples
}

fn call(daemon: &Daemon, from: &str, samples: Vec<i16>) -> JoinHandle<Result<Outcome, CallError>> {
    place(daemon.plan(from, samples, Duration::from_millis(500)))
}

/// Until the double was asked so often: the question.
async fn asked(double: &Double, n: usize) -> Value {
    let deadline = Mono::now() + PATIENCE;
    loop {
        if let Some(question) = double.asked().get(n - 1) {
            return question.clone();
        }
        assert!(
            Mono::now() < deadline,
            "the model was asked {} times, not {n}",
            double.asked().len()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// What the model was told: who said what.
fn turns(question: &Value) -> Vec<(String, String)> {
    let texts = |content: &Value| -> String {
        let parts = content.as_array().into_iter().flatten();
        parts.filter_map(|p| p["text"].as_str()).collect::<Vec<_>>().join(" ")
    };
    let messages = question["messages"].as_array().unwrap();
    let turn = |m: &Value| (m["role"].as_str().unwrap().to_owned(), texts(&m["content"]));
    messages.iter().map(turn).collect()
}

async fn heard(frontend: &mut Frontend, words: &str) -> Value {
    frontend
        .until("agent_message_status", |m| {
            m["message"] == words && m["status"] == "heard"
        })
        .await
}

#[tokio::test]
async fn a_model_answers_a_call_sentence_by_sentence_and_hangs_up_after_its_goodbye() {
    let double = Double::open("anthropic").await;
    let daemon = daemon(&double, "greeting = \"Welcome.\"").await;
    double.will([
        Act::Say("From nine. Until five."),
        Act::Call("Good bye.", "hang_up", json!({})),
    ]);
    let mut frontend = daemon.frontend().await;
    let placed = call(&daemon, "+15550401", caller(&[(400, 3000), (400, 6000)]));
    let id = frontend.call_from("+15550401", "in_progress").await;
    for words in ["Welcome.", "From nine.", "Until five.", "Good bye."] {
        heard(&mut frontend, words).await;
    }
    let ended = frontend.until("call_status_update", |m| m["status"] == "ended").await;
    assert_eq!(ended["end_reason"], "completed");
    let second = turns(&asked(&double, 2).await);
    let expected = [
        "user …",
        "assistant Welcome.",
        "user tone of 400 Hz",
        "assistant From nine. Until five.",
        "user tone of 500 Hz",
    ];
    let told: Vec<_> = second.iter().map(|(who, text)| format!("{who} {text}")).collect();
    assert_eq!(told, expected);
    assert!(
        asked(&double, 1).await["system"]
            .as_str()
            .unwrap()
            .ends_with("You are Ada.")
    );
    placed.await.unwrap().unwrap();

    let record = daemon.json(&format!("/api/calls/{id}")).await;
    let metadata = &record["data"]["metadata"];
    let turns = metadata["turns"].as_array().unwrap_or_else(|| panic!("{record}"));
    assert_eq!(turns.len(), 2);
    for turn in turns {
        let segments = ["stt_ms", "wait_ms", "llm_ms", "sentence_ms", "tts_ms", "playout_ms"];
        let sum: u64 = segments.iter().map(|s| turn[s].as_u64().unwrap()).sum();
        assert_eq!(turn["total_ms"], sum);
    }
    assert_eq!(metadata["llm_usage"]["anthropic"], json!({ "input": 22, "output": 14 }));
    assert!(daemon.scrape().await.contains("sidetone_turn_seconds_count 2"));
}

#[tokio::test]
async fn a_caller_who_cuts_in_is_answered_by_a_model_that_knows_what_they_heard() {
    let double = Double::open("anthropic").await;
    let daemon = daemon(&double, "").await;
    let long = "This sentence has a good many words so that it takes the caller some time to hear them all.";
    double.will([Act::Say(long), Act::Say("Sorry.")]);
    let mut frontend = daemon.frontend().await;
    let mut samples = caller(&[(400, 1500)]);
    samples.extend(speech(daemon.folder(), "no no stop it"));
    samples.extend(vec![0; 24000]);
    let placed = call(&daemon, "+15550402", samples);
    let cut = frontend
        .until("agent_message_status", |m| m["message"] == long && m["status"] == "cut")
        .await;
    assert!(cut["heard_ms"].as_u64().unwrap() > 300, "{cut}");
    heard(&mut frontend, "Sorry.").await;
    let told = turns(&asked(&double, 2).await);
    assert_eq!((told.len(), told[1].0.as_str()), (3, "assistant"), "{told:?}");
    let kept = &told[1].1;
    assert!(
        long.starts_with(kept.as_str()) && kept.len() < long.len() && !kept.is_empty(),
        "{kept}"
    );
    placed.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_person_takes_a_call_and_hands_it_back_to_an_agent_that_knows() {
    let double = Double::open("anthropic").await;
    let daemon = daemon(&double, "").await;
    let mut frontend = daemon.frontend().await;
    let placed = call(&daemon, "+15550403", caller(&[(400, 3000), (400, 3000), (400, 3000)]));
    let id = frontend.call_from("+15550403", "in_progress").await;
    heard(&mut frontend, "Ok.").await;
    let reply = daemon.post(&format!("/api/calls/{id}/takeover"), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    frontend.until("call_handoff", |m| m["agent"] == "human").await;
    frontend
        .send(&json!({ "type": "agent_message", "call_id": id, "message": "I am Bob." }))
        .await;
    heard(&mut frontend, "I am Bob.").await;
    frontend
        .until("customer_transcript", |m| {
            m["is_final"] == true && m["transcript"] == "tone of 500 Hz"
        })
        .await;
    assert_eq!(double.asked().len(), 1, "the agent is silent");
    let reply = daemon.post(&format!("/api/calls/{id}/handback"), &json!({})).await;
    assert_eq!(reply.status, 200);
    frontend.until("call_handoff", |m| m["agent"] == "desk").await;
    let told = turns(&asked(&double, 2).await);
    assert!(
        told.iter()
            .any(|(who, text)| who == "assistant" && text.contains("I am Bob.")),
        "{told:?}"
    );
    placed.await.unwrap().unwrap();
    let record = daemon.json(&format!("/api/calls/{id}")).await;
    let handoffs = record["data"]["metadata"]["handoffs"].as_array().unwrap();
    assert_eq!(
        (&handoffs[0]["to"], &handoffs[1]["to"]),
        (&json!("human"), &json!("desk")),
        "{handoffs:?}"
    );
    assert!(handoffs.iter().all(|h| h["by"].is_string()), "{handoffs:?}");
}

#[tokio::test]
async fn rules_stand_for_a_model_offline_and_a_model_that_fails_is_excused() {
    let double = Double::open("anthropic").await;
    let rules = "[[agents.offline.rules]]\nphrases = [\"when are you open\"]\nreply = \"From nine. Until five.\"\n";
    let offline = "[agents.offline]\nkind = \"pipeline\"\nlanguage = \"en\"\nstt = \"fake\"\ntts = \"fake\"\n";
    let numbers = "[[numbers]]\nnumber = \"+15550000001\"\nvendor = \"twilio\"\nagent = \"offline\"\n";
    let daemon = daemon(&double, &format!("apology = \"Sorry.\"\n{offline}{rules}{numbers}")).await;
    let mut frontend = daemon.frontend().await;
    let placed = call(&daemon, "+15550404", caller(&[(400, 3000)]));
    heard(&mut frontend, "Until five.").await;
    placed.await.unwrap().unwrap();
    assert!(double.asked().is_empty());

    double.will([Act::Status(500)]);
    let mut plan = daemon.plan("+15550405", caller(&[(400, 3000)]), Duration::from_millis(500));
    plan.to = "+15550000002".to_owned();
    let placed = place(plan);
    let fault = frontend.until("telephony_error", |_| true).await;
    assert_eq!(fault["error_code"], "CONNECTION_FAILED", "{fault}");
    heard(&mut frontend, "Sorry.").await;
    placed.await.unwrap().unwrap();
}
