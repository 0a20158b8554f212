//! Calls served by speech services: a real daemon, simulated callers, and the services' stand-ins on real sockets.

use crate::{
    daemon::{Daemon, PATIENCE, place, sidetone},
    minds::double::{self, Double},
};
use sidetone::{
    audio::g711,
    speech::{
        double::{Fault, Make, Server},
        stt::{self, fake},
        tts,
    },
};
use std::time::Duration;

pub(crate) const KEY: &str = "a-key-of-the-test";

pub(crate) async fn stand_in(double: Option<Make>) -> Server {
    let double = double.expect("a service has a stand-in");
    Server::open(([127, 0, 0, 1], 0).into(), double(KEY)).await.unwrap()
}

/// A daemon whose calls are heard and answered by Deepgram, with offline engines behind it.
async fn daemon(ears: &Server, mouths: &Server) -> Daemon {
    let config = format!(
        r#"
[speech.stt.deepgram]
url = "{}"
[speech.tts.deepgram]
url = "{}"
[agents.desk]
kind = "scripted"
stt = "deepgram"
tts = "deepgram"
stt_fallback = "fake"
tts_fallback = "fake"
barge_in_after = "0s"
[[agents.desk.rules]]
phrases = ["tone of 500 Hz"]
reply = "five it was"
[calls]
default_agent = "desk"
"#,
        ears.url(),
        mouths.url(),
    );
    Daemon::start(&["--dev"], &config, &[("DEEPGRAM_API_KEY", KEY)]).await
}

/// Half a second of silence, a burst of this frequency, and the silence that ends it.
pub(crate) fn says(hz: u32) -> Vec<i16> {
    let mut samples = vec![0; 4000];
    samples.extend(fake::phrase((hz - 400) / 100, 420, 8000));
    samples
}

/// The frequencies of the bursts in what a caller heard.
pub(crate) fn bursts(samples: &[i16]) -> Vec<u32> {
    let (mut bursts, mut found) = (fake::Bursts::new(8000), Vec::new());
    bursts.push(samples, |f| found.push(f));
    bursts.finish(|f| found.push(f));
    let ended = found.into_iter().filter_map(|f| match f {
        fake::Found::Ended(burst) => Some(burst.hz),
        _ => None,
    });
    ended.collect()
}

/// The frequencies that words are spoken as.
pub(crate) fn tones(text: &str) -> Vec<u32> {
    text.split_whitespace()
        .flat_map(|word| bursts(&tts::fake::word(word)))
        .collect()
}

#[tokio::test]
async fn a_call_is_heard_and_answered_by_services() {
    let ears = stand_in(stt::deepgram::DESCRIPTOR.double).await;
    let mouths = stand_in(tts::deepgram::DESCRIPTOR.double).await;
    let daemon = daemon(&ears, &mouths).await;
    let mut frontend = daemon.frontend().await;
    let spoken = says(500);
    let call = place(daemon.plan("+15550002001", spoken.clone(), Duration::from_secs(3)));
    let heard = frontend.until("customer_transcript", |m| m["is_final"] == true).await;
    assert_eq!(heard["transcript"], "tone of 500 Hz", "{heard}");
    let outcome = call.await.unwrap().unwrap();
    assert_eq!(bursts(&outcome.heard), tones("five it was"));

    // The vendor's own codes reach the service, not one of them changed.
    let mut codes = vec![0; spoken.len()];
    g711::ulaw_encode(&spoken, &mut codes);
    let heard = ears.heard();
    let [heard] = &heard[..] else {
        panic!("one session, not {}", heard.len())
    };
    let from = heard.windows(codes.len()).position(|w| w == codes);
    assert!(from.is_some(), "{} bytes heard, {} spoken", heard.len(), codes.len());
    let metrics = daemon.scrape().await;
    let passed = r#"sidetone_speech_ears_total{backend="deepgram",audio="passed_through"} 1"#;
    assert!(metrics.contains(passed), "{metrics}");
    assert_eq!((ears.complaints(), mouths.complaints()), (vec![], vec![]));
    assert!(!daemon.log().contains(KEY));
}

#[tokio::test]
async fn an_outage_is_told_once_and_the_call_goes_on_with_what_is_behind_it() {
    let ears = stand_in(stt::deepgram::DESCRIPTOR.double).await;
    let mouths = stand_in(tts::deepgram::DESCRIPTOR.double).await;
    ears.go_wrong(&[Fault::Status(503); 50]);
    mouths.go_wrong(&[Fault::Status(402); 50]);
    let daemon = daemon(&ears, &mouths).await;
    let mut frontend = daemon.frontend().await;
    let call = place(daemon.plan("+15550002002", says(500), Duration::from_secs(3)));
    let mut told = Vec::new();
    let heard = tokio::time::timeout(PATIENCE, async {
        loop {
            let message = frontend.next().await.expect("an open socket");
            match message["type"].as_str().unwrap_or_default() {
                "telephony_error" => told.push(message["error_code"].clone()),
                "customer_transcript" if message["is_final"] == true => return message,
                _ => {}
            }
        }
    });
    let heard = heard.await.expect("the caller is heard by another recogniser");
    assert_eq!(heard["transcript"], "tone of 500 Hz", "{heard}");
    let outcome = call.await.unwrap().unwrap();
    assert_eq!(
        told,
        ["STT_ERROR"],
        "once, and what the other synthesizer spoke is no error"
    );
    assert!(!bursts(&outcome.heard).is_empty(), "the caller is answered");
    let metrics = daemon.scrape().await;
    assert!(
        metrics.contains(r#"sidetone_speech_failovers_total{backend="fake"} 2"#),
        "{metrics}"
    );
}

#[test]
fn a_service_without_its_key_is_a_fault_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetone.toml");
    std::fs::write(
        &path,
        "[agents.a]\nkind = \"listen\"\nstt = \"deepgram\"\n[agents.b]\nkind = \"human\"\ntts = \"openai\"\n",
    )
    .unwrap();
    let mut check = sidetone();
    check.arg("check-config").arg("--config").arg(&path);
    let checked = check
        .env_remove("DEEPGRAM_API_KEY")
        .env_remove("OPENAI_API_KEY")
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    for part in [
        "speech.stt.deepgram.key",
        "DEEPGRAM_API_KEY",
        "speech.tts.openai.key",
        "OPENAI_API_KEY",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

#[tokio::test]
async fn each_call_uses_the_keys_of_whose_it_is_and_none_is_kept_or_shown_openly() {
    let ears = stand_in(stt::deepgram::DESCRIPTOR.double).await;
    let mouths = stand_in(tts::deepgram::DESCRIPTOR.double).await;
    let model = Double::open("anthropic").await;
    let config = format!(
        r#"
{}
[speech.stt.deepgram]
url = "{}"
[speech.tts.deepgram]
url = "{}"
[service_keys.2]
deepgram = "key-of-two"
anthropic = "{}"
[agents.desk]
kind = "pipeline"
llm = "anthropic"
stt = "deepgram"
tts = "deepgram"
stt_fallback = "fake"
tts_fallback = "fake"
[[numbers]]
number = "+15550000001"
vendor = "twilio"
agent = "desk"
[[numbers]]
number = "+15550000002"
vendor = "twilio"
agent = "desk"
tenant = 2
[[numbers]]
number = "+15550000003"
vendor = "twilio"
"#,
        model
            .section()
            .replace(double::KEY, "no-such-key")
            .replace("400ms", "5s"),
        ears.url(),
        mouths.url(),
        double::KEY,
    );
    let daemon = Daemon::start(&["--dev"], &config, &[("DEEPGRAM_API_KEY", KEY)]).await;
    let call = async |to: &str| {
        let (heard, spoken) = (ears.credentials().len(), mouths.credentials().len());
        let mut plan = daemon.plan("+15550002009", says(500), Duration::from_secs(2));
        plan.to = to.to_owned();
        place(plan).await.unwrap().unwrap();
        let mut used = ears.credentials()[heard..].to_vec();
        used.extend_from_slice(&mouths.credentials()[spoken..]);
        used.dedup();
        used
    };
    // The first tenant has none of its own: the operator's are used, of which one is wrong.
    assert_eq!(call("+15550000001").await, [KEY]);
    assert!(model.asked().is_empty());
    // The second has, of which Deepgram's is refused; the operator's does not stand in for it.
    assert_eq!(call("+15550000002").await, ["key-of-two"]);
    assert_eq!(model.asked().len(), 1, "the tenant's key opens the model");

    // An agent's own go before those.
    let agent = serde_json::json!({ "name": "mine", "kind": "pipeline", "llm": "anthropic", "stt": "deepgram", "tts": "deepgram",
        "sttFallback": "fake", "ttsFallback": "fake", "keys": { "deepgram": "key-of-mine", "anthropic": double::KEY } });
    let reply = daemon.post("/api/agents", &agent).await;
    let shown = String::from_utf8_lossy(&reply.body).into_owned();
    assert_eq!(reply.status, 200, "{shown}");
    assert!(shown.contains(r#""keys":["anthropic","deepgram"]"#), "{shown}");
    assert_eq!(call("+15550000003").await, ["key-of-mine"]);
    assert_eq!(model.asked().len(), 2);
    let row: String = daemon
        .database()
        .query_row("SELECT group_concat(settings) FROM agents", [], |row| row.get(0))
        .unwrap();
    let everything = [row, shown, daemon.log(), daemon.json("/api/agents").await.to_string()].concat();
    for key in [KEY, "key-of-two", "key-of-mine", double::KEY, "no-such-key"] {
        assert!(!everything.contains(key), "{key}");
    }
}
