//! Turns of a call between a recogniser, a language model and a synthesizer that each take their time: where the time goes, what a
//! freeze of the daemon costs, what an interruption leaves.

use crate::{
    backends::{bursts, says, stand_in, tones},
    daemon::{Daemon, place},
    minds::double::{Act, Double},
};
use serde_json::Value;
use sidetone::{
    sim::caller::Outcome,
    speech::{double::Server, stt, tts},
};
use std::time::Duration;

/// How long the stand-ins take: the 99th percentile of a live recogniser from the end of speech to its words, less what the
/// stand-in waits for silence itself; a model's first token; a synthesizer's first audio.
const STT: Duration = Duration::from_millis(250);
const LLM: Duration = Duration::from_millis(375);
const TTS: Duration = Duration::from_millis(100);
/// Silence after which the stand-in takes speech for ended.
const ENDPOINTING: Duration = Duration::from_millis(100);

/// A long answer: every word is heard as a tone of its own, 0.27 s long.
pub(crate) const LONG: &str = "one two three four five six seven eight nine ten eleven twelve";

/// A daemon whose agent stands between stand-ins.
pub(crate) struct Desk {
    pub(crate) ears: Server,
    mouths: Server,
    pub(crate) model: Double,
    pub(crate) daemon: Daemon,
}

impl Desk {
    pub(crate) async fn open(more: &str) -> Self {
        let ears = stand_in(stt::deepgram::DESCRIPTOR.double).await;
        let mouths = stand_in(tts::deepgram::DESCRIPTOR.double).await;
        let model = Double::open("anthropic").await;
        let backends = format!(
            "[speech.stt.deepgram]\nurl = \"{}\"\n[speech.tts.deepgram]\nurl = \"{}\"\n{}",
            ears.url(),
            mouths.url(),
            model.section().replace("400ms", "5s"),
        );
        let agent = "[agents.desk]\nkind = \"pipeline\"\nllm = \"anthropic\"\nstt = \"deepgram\"\ntts = \"deepgram\"\n";
        let config = format!("{agent}{more}\n[calls]\ndefault_agent = \"desk\"\n{backends}");
        let daemon = Daemon::start(&["--dev"], &config, &[("DEEPGRAM_API_KEY", crate::backends::KEY)]).await;
        Self {
            ears,
            mouths,
            model,
            daemon,
        }
    }

    /// What is on record of the only call.
    pub(crate) async fn record(&self) -> Value {
        let calls = self.daemon.json("/api/calls/history").await;
        let id = calls["data"][0]["id"].as_str().unwrap_or_else(|| panic!("{calls}"));
        self.daemon.json(&format!("/api/calls/{id}")).await["data"].clone()
    }

    pub(crate) fn in_order(&self) {
        assert_eq!((self.ears.complaints(), self.mouths.complaints()), (vec![], vec![]));
    }
}

/// The same burst several times, with this much silence after each.
pub(crate) fn asks(times: usize, pause_ms: usize) -> Vec<i16> {
    let mut samples = Vec::new();
    for _ in 0..times {
        samples.extend(says(500));
        samples.resize(samples.len() + 8 * pause_ms, 0);
    }
    samples
}

/// What was heard without the breaks in it.
pub(crate) fn without_gaps(outcome: &Outcome) -> Vec<i16> {
    let mut heard = outcome.heard.clone();
    for gap in outcome.report.gaps.iter().rev() {
        let from = (gap.at_ms * 8) as usize;
        let to = (from + (gap.ms * 8) as usize).min(heard.len());
        heard.drain(from..to);
    }
    heard
}

const SEGMENTS: [&str; 6] = ["stt_ms", "wait_ms", "llm_ms", "sentence_ms", "tts_ms", "playout_ms"];

#[tokio::test]
async fn the_segments_of_a_turn_hold_what_each_backend_took_and_sum_to_the_whole() {
    let desk = Desk::open("").await;
    desk.ears.take_time(STT);
    desk.mouths.take_time(TTS);
    desk.model.will([(); 5].map(|()| Act::Slow(LLM, "From nine to five.")));
    let call = place(desk.daemon.plan("+15550601", asks(5, 2500), Duration::from_secs(2)));
    call.await.unwrap().unwrap();
    let record = desk.record().await;
    let turns = record["metadata"]["turns"].as_array().unwrap().clone();
    assert_eq!(turns.len(), 5, "{record}");
    let backends = (STT + ENDPOINTING + LLM + TTS).as_millis() as u64;
    println!("{} | total | ours", SEGMENTS.join(" | "));
    for turn in &turns {
        let of = |segment: &str| turn[segment].as_u64().unwrap();
        let total = of("total_ms");
        assert_eq!(SEGMENTS.iter().map(|s| of(s)).sum::<u64>(), total, "{turn}");
        let least = [("stt_ms", STT), ("llm_ms", LLM), ("tts_ms", TTS)];
        for (segment, took) in least {
            assert!(u128::from(of(segment)) + 1 >= took.as_millis(), "{segment}: {turn}");
        }
        assert!(total + 1 >= backends, "{turn}");
        let shown: Vec<_> = SEGMENTS.iter().map(|s| of(s).to_string()).collect();
        println!("{} | {total} | {}", shown.join(" | "), total.saturating_sub(backends));
    }
    desk.in_order();
}

#[tokio::test]
async fn a_daemon_that_stood_still_in_the_middle_of_a_reply_loses_no_word_of_it() {
    let desk = Desk::open(&format!("greeting = \"{LONG}\"")).await;
    let mut frontend = desk.daemon.frontend().await;
    // The caller listens to all of it, and asks then.
    let mut samples = vec![0; 40_000];
    samples.extend(asks(1, 0));
    let call = place(desk.daemon.plan("+15550602", samples, Duration::from_secs(2)));
    frontend.call_from("+15550602", "in_progress").await;
    frontend.until("agent_tts_audio", |_| true).await;
    desk.daemon.freeze(Duration::from_millis(500)).await;
    let outcome = call.await.unwrap().unwrap();
    let mut expected = tones(LONG);
    expected.extend(tones("Ok."));
    assert_eq!(bursts(&without_gaps(&outcome)), expected, "{:?}", outcome.report);
    let report = &outcome.report;
    assert_eq!((report.audio_cut_ms, report.clears, report.refused.len()), (0, 0, 0));
    // What the vendor sent meanwhile was heard too, and everything that was to be played left.
    let accounting = desk.record().await["metadata"]["accounting"].clone();
    let of = |what: &str| {
        accounting[what]
            .as_u64()
            .unwrap_or_else(|| panic!("{what}: {accounting}"))
    };
    assert_eq!(
        (of("in_dropped_full"), of("in_bad"), of("in_late")),
        (0, 0, 0),
        "{accounting}"
    );
    assert_eq!(of("in_frames"), report.frames_sent, "{accounting}");
    assert_eq!((of("out_cut"), of("out_dropped_stalled")), (0, 0), "{accounting}");
    assert_eq!(of("out_sent"), of("out_samples"), "{accounting}");
    desk.in_order();
}

#[tokio::test]
async fn nothing_of_a_reply_that_was_cut_comes_after_the_cut_and_the_model_knows_what_was_heard() {
    let desk = Desk::open("barge_in_after = \"100ms\"\nresume_after = \"0s\"").await;
    desk.model.will([Act::Say(LONG), Act::Say("Sorry.")]);
    let mut frontend = desk.daemon.frontend().await;
    let mut samples = asks(1, 1800);
    samples.extend(asks(1, 2000));
    let call = place(desk.daemon.plan("+15550603", samples, Duration::from_secs(2)));
    let cut = frontend
        .until("agent_message_status", |m| m["message"] == LONG && m["status"] == "cut")
        .await;
    let outcome = call.await.unwrap().unwrap();
    let (said, heard) = (tones(LONG), bursts(&outcome.heard));
    let (last, before) = heard.split_last().unwrap();
    assert_eq!([*last], tones("Sorry.")[..]);
    // The word in which it was cut may have been too short to be one.
    assert!(
        said.starts_with(before) && before.len() < said.len(),
        "{heard:?} of {said:?}"
    );
    assert_eq!(outcome.report.clears, 1, "{:?}", outcome.report);
    let heard_ms = cut["heard_ms"].as_u64().unwrap();
    let accounting = desk.record().await["metadata"]["accounting"].clone();
    // What left is what the vendor got: it fills up a last frame with silence.
    let (sent, got) = (
        accounting["out_sent"].as_u64().unwrap(),
        outcome.report.audio_received_ms,
    );
    let sent_ms = sent / 8;
    assert!((0..20).contains(&(got as i64 - sent_ms as i64)), "{got}: {accounting}");
    assert!(heard_ms > 0 && heard_ms < sent_ms, "{heard_ms} of {sent_ms}");
    let asked = desk.model.asked();
    let kept = asked[1]["messages"][1]["content"][0]["text"].as_str().unwrap();
    assert!(LONG.starts_with(kept) && kept.len() < LONG.len(), "{kept}");
    // A word of 270 ms is kept when it was heard to its end.
    let words = kept.split_whitespace().count() as u64;
    assert!(words <= heard_ms / 270 + 1, "{words} words in {heard_ms} ms");
    desk.in_order();
}
