//! Calls that a service holds by itself, speech to speech: a real daemon, simulated callers of every vendor, and the service's strict stand-in.

use crate::daemon::{Daemon, Frontend, PATIENCE, place, sidetone, speech};
use serde_json::{Value, json};
use sidetone::{
    base::format::{AudioFormat, Encoding},
    sim::{
        address::Address,
        announce,
        caller::{CallError, Opening, Outcome, Plan},
        script::Manner,
    },
    speech::{
        double::{Fault, Server, spoken},
        duplex::BACKENDS,
        stt::fake,
        tts,
    },
    vendor::{Descriptor, VENDORS},
};
use std::time::Duration;
use tokio::{task::JoinHandle, time::timeout};

const KEY: &str = "a-key-of-the-test";

async fn stand_in(name: &str) -> Server {
    let service = BACKENDS.iter().find(|d| d.name == name).unwrap();
    let double = service.double.expect("a service has a stand-in");
    Server::open(([127, 0, 0, 1], 0).into(), double(KEY)).await.unwrap()
}

/// A daemon whose calls the service holds, with more of its agent's settings.
async fn daemon(service: &Server, more: &str) -> Daemon {
    let config = format!(
        "[agents.desk]\nkind = \"realtime\"\ntts = \"fake\"\nprompt = \"You are Ada.\"\ntools = [\"hang_up\"]\n{more}\n\
         [speech.duplex.openai]\nurl = \"{}\"\n",
        service.url()
    );
    Daemon::start(&["--dev", "--agent", "desk"], &config, &[("OPENAI_API_KEY", KEY)]).await
}

/// A second of silence, then tones of these frequencies with this much silence after each, in ms.
fn tones(tones: &[(u32, usize)]) -> Vec<i16> {
    let mut samples = vec![0; 8000];
    for (hz, pause_ms) in tones {
        samples.extend(fake::phrase((hz - 400) / 100, 420, 8000));
        samples.resize(samples.len() + 8 * pause_ms, 0);
    }
    samples
}

/// The frequencies of the bursts in what a caller heard.
fn bursts(samples: &[i16], rate: u32) -> Vec<u32> {
    let (mut bursts, mut found) = (fake::Bursts::new(rate), Vec::new());
    bursts.push(samples, |f| found.push(f));
    bursts.finish(|f| found.push(f));
    let ended = found.into_iter().filter_map(|f| match f {
        fake::Found::Ended(burst) => Some(burst.hz),
        _ => None,
    });
    ended.collect()
}

fn tones_of(text: &str) -> Vec<u32> {
    let words = text.split_whitespace();
    words.flat_map(|word| bursts(&tts::fake::word(word), 8000)).collect()
}

fn call(daemon: &Daemon, vendor: &'static Descriptor, samples: Vec<i16>) -> JoinHandle<Result<Outcome, CallError>> {
    let rate = Plan::rate(vendor);
    let samples = sidetone::audio::resample::any::AnyResampler::convert(8000, rate, &samples).unwrap();
    place(Plan {
        vendor,
        daemon: Address {
            path: String::new(),
            ..daemon.url()
        },
        opening: Opening::Unannounced,
        from: announce::new_number(),
        to: "+15550000001".to_owned(),
        samples,
        manner: Manner::AsRecorded,
        format: None,
        faults: Vec::new(),
        linger: Duration::from_secs(3),
        limit: Duration::from_secs(60),
    })
}

async fn said(frontend: &mut Frontend, words: &str, status: &str) -> Value {
    frontend
        .until("agent_message_status", |m| {
            m["message"] == words && m["status"] == status
        })
        .await
}

async fn heard(frontend: &mut Frontend, words: &str) -> Value {
    frontend
        .until("customer_transcript", |m| {
            m["is_final"] == true && m["transcript"] == words
        })
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_greets_answers_and_hangs_up_on_a_leg_of_every_vendor() {
    for vendor in VENDORS {
        let service = stand_in("openai").await;
        let daemon = daemon(&service, "greeting = \"Welcome.\"\nrecord = true").await;
        let mut frontend = daemon.frontend().await;
        let caller = tones(&[(500, 4000), (2000, 4000)]);
        let placed = call(&daemon, vendor, caller.clone());
        let begun = frontend
            .until("call_status_update", |m| m["status"] == "in_progress")
            .await;
        let id = begun["call_id"].as_str().unwrap().to_owned();
        said(&mut frontend, "Welcome.", "stored").await;
        said(&mut frontend, "Welcome.", "heard").await;
        heard(&mut frontend, "tone of 500 Hz").await;
        let answer = "you said tone of 500 Hz";
        let chunk = frontend
            .until("agent_tts_audio", |m| {
                m["message"]
                    .as_str()
                    .is_some_and(|t| answer.starts_with(t) && !t.is_empty())
            })
            .await;
        assert_eq!(chunk["encoding"], "MULAW", "{chunk}");
        said(&mut frontend, answer, "heard").await;
        // This tone has the service ask for the first tool.
        heard(&mut frontend, "tone of 2000 Hz").await;
        let ended = frontend.until("call_status_update", |m| m["status"] == "ended").await;
        assert_eq!(ended["end_reason"], "completed", "{vendor:?}");
        let outcome = placed.await.unwrap().unwrap();
        let mut expected = tones_of("Welcome.");
        expected.extend(tones_of(answer));
        assert_eq!(bursts(&outcome.heard, outcome.rate), expected, "{vendor:?}");
        assert_eq!(service.complaints(), Vec::<String>::new(), "{vendor:?}");

        let messages = daemon.json(&format!("/api/calls/{id}/messages")).await;
        let told = messages["data"].as_array().unwrap().iter();
        let told: Vec<_> = told
            .map(|m| format!("{}: {} ({})", m["sender_type"], m["content"], m["delivery"]).replace('"', ""))
            .collect();
        let record = [
            "agent: Welcome. (heard)",
            "customer: tone of 500 Hz (null)",
            "agent: you said tone of 500 Hz (heard)",
            "customer: tone of 2000 Hz (null)",
        ];
        assert_eq!(told, record, "{vendor:?}");
        let record = daemon.json(&format!("/api/calls/{id}")).await;
        let metadata = &record["data"]["metadata"];
        let turns = metadata["turns"].as_array().unwrap_or_else(|| panic!("{record}"));
        assert_eq!(turns.len(), 1, "{vendor:?}: {turns:?}");
        for turn in turns {
            let segments = ["stt_ms", "wait_ms", "llm_ms", "sentence_ms", "tts_ms", "playout_ms"];
            let sum: u64 = segments.iter().map(|s| turn[s].as_u64().unwrap()).sum();
            assert_eq!(turn["total_ms"], sum);
        }
        // Three answers: the greeting, the reply, the tool.
        let used = &metadata["llm_usage"];
        assert_eq!(used["openai-realtime"], json!({ "input": 30, "output": 12 }), "{used}");
        assert_eq!(
            used["openai-realtime-audio"],
            json!({ "input": 90, "output": 48 }),
            "{used}"
        );
        assert_eq!(
            used["openai-transcription"],
            json!({ "input": 8, "output": 10 }),
            "{used}"
        );

        // The vendor's G.711 passes as it is, both ways; anything else is made to fit.
        let format = vendor.caps.inbound;
        let is_codes = matches!(format.encoding, Encoding::Ulaw | Encoding::Alaw) && format.rate == 8000;
        let way = if is_codes { "passed_through" } else { "resampled" };
        let metric =
            format!(r#"sidetone_duplex_sessions_total{{backend="openai-realtime",heard="{way}",spoken="{way}"}} 1"#);
        assert!(daemon.scrape().await.contains(&metric), "{vendor:?}: {metric}");
        if is_codes {
            passes_unread(format, &caller, answer, &service, &outcome);
        }
        assert!(!daemon.log().contains(KEY) && !daemon.log().contains("tone of"));
    }
}

/// Not one code of either side was changed on its way.
fn passes_unread(format: AudioFormat, caller: &[i16], answer: &str, service: &Server, outcome: &Outcome) {
    let mut codes = vec![0; caller.len()];
    sidetone::audio::codec::encode(format.encoding, caller, &mut codes);
    let heard = service.heard();
    let heard = heard.iter().max_by_key(|h| h.len()).unwrap();
    // The call may end before all of it was said; a second of silence and two tones were.
    let said = &codes[..8000 + 4320 + 32_000 + 3360];
    assert!(heard.windows(said.len()).any(|w| w == said), "the caller's codes");
    let codes = spoken(answer, format);
    let mut expected = vec![0; codes.len()];
    let _ = sidetone::audio::codec::decode(format.encoding, &codes, &mut expected);
    assert!(
        outcome.heard.windows(expected.len()).any(|w| w == expected),
        "the service's codes"
    );
}

#[tokio::test]
async fn a_caller_who_cuts_in_stops_it_and_the_record_and_the_service_know_what_was_heard() {
    let service = stand_in("openai").await;
    let long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen";
    let daemon = daemon(&service, &format!("greeting = \"{long}\"")).await;
    let mut frontend = daemon.frontend().await;
    // Half a second of greeting, then a voice.
    let mut samples = vec![0; 8000];
    samples.extend(speech(daemon.folder(), "no no stop it"));
    samples.extend(vec![0; 32_000]);
    let placed = call(&daemon, VENDORS[0], samples);
    let cut = said(&mut frontend, long, "cut").await;
    let heard_ms = cut["heard_ms"].as_u64().unwrap();
    assert!((300..3000).contains(&heard_ms), "{cut}");
    let answer = frontend
        .until("agent_message_status", |m| {
            m["status"] == "heard" && m["message"].as_str().is_some_and(|t| t.starts_with("you said"))
        })
        .await;
    let outcome = placed.await.unwrap().unwrap();
    assert_eq!(
        service.complaints(),
        Vec::<String>::new(),
        "never more than was sent is truncated"
    );
    // Nothing of the greeting comes after the answer began.
    let answer = tones_of(answer["message"].as_str().unwrap());
    let all = bursts(&outcome.heard, outcome.rate);
    assert!(all.ends_with(&answer), "{all:?} ends with {answer:?}");
    let greeting = all.len() - answer.len();
    assert!(greeting < 16 && all[..greeting.saturating_sub(1)] == tones_of(long)[..greeting.saturating_sub(1)]);
}

#[tokio::test]
async fn a_person_takes_a_call_from_it_and_hands_it_back() {
    let service = stand_in("openai").await;
    let daemon = daemon(&service, "").await;
    let mut frontend = daemon.frontend().await;
    let placed = call(&daemon, VENDORS[0], tones(&[(400, 4000), (500, 4000), (600, 4000)]));
    let begun = frontend
        .until("call_status_update", |m| m["status"] == "in_progress")
        .await;
    let id = begun["call_id"].as_str().unwrap().to_owned();
    said(&mut frontend, "you said tone of 400 Hz", "heard").await;
    let reply = daemon.post(&format!("/api/calls/{id}/takeover"), &json!({})).await;
    assert_eq!(reply.status, 200, "{}", String::from_utf8_lossy(&reply.body));
    frontend.until("call_handoff", |m| m["agent"] == "human").await;
    frontend
        .send(&json!({ "type": "agent_message", "call_id": id, "message": "I am Bob." }))
        .await;
    said(&mut frontend, "I am Bob.", "heard").await;
    heard(&mut frontend, "tone of 500 Hz").await;
    let reply = daemon.post(&format!("/api/calls/{id}/handback"), &json!({})).await;
    assert_eq!(reply.status, 200);
    frontend.until("call_handoff", |m| m["agent"] == "desk").await;
    // What is unanswered is answered now, and then the rest.
    said(&mut frontend, "well", "heard").await;
    said(&mut frontend, "you said tone of 600 Hz", "heard").await;
    placed.await.unwrap().unwrap();
    assert_eq!(service.complaints(), Vec::<String>::new());
    let messages = daemon.json(&format!("/api/calls/{id}/messages")).await;
    let said: Vec<_> = messages["data"]
        .as_array()
        .unwrap()
        .iter()
        .map(|m| m["content"].clone())
        .collect();
    let expected = [
        "tone of 400 Hz",
        "you said tone of 400 Hz",
        "I am Bob.",
        "tone of 500 Hz",
        "well",
        "tone of 600 Hz",
        "you said tone of 600 Hz",
    ];
    assert_eq!(said, expected);
}

#[tokio::test]
async fn an_outage_is_told_once_and_another_service_goes_on_with_what_was_said() {
    let (away, there) = (stand_in("openai").await, stand_in("compatible").await);
    away.go_wrong(&[Fault::Status(503); 50]);
    let other = format!(
        "realtime_fallback = \"compatible\"\n[speech.duplex.compatible]\nurl = \"{}\"\nkey = \"{KEY}\"",
        there.url()
    );
    let daemon = daemon(&away, &other).await;
    let mut frontend = daemon.frontend().await;
    let placed = call(&daemon, VENDORS[0], tones(&[(500, 4000)]));
    let mut told = Vec::new();
    let answered = timeout(PATIENCE, async {
        loop {
            let message = frontend.next().await.expect("an open socket");
            match message["type"].as_str().unwrap_or_default() {
                "telephony_error" => told.push(message["error_code"].clone()),
                "agent_message_status" if message["status"] == "heard" => return message,
                _ => {}
            }
        }
    });
    let answered = answered.await.expect("another service answers");
    assert_eq!(answered["message"], "you said tone of 500 Hz");
    assert_eq!(told, ["CONNECTION_FAILED"], "once");
    placed.await.unwrap().unwrap();
    assert_eq!(there.complaints(), Vec::<String>::new());
    let metrics = daemon.scrape().await;
    let failover = r#"sidetone_speech_failovers_total{backend="compatible-realtime"} 1"#;
    assert!(metrics.contains(failover), "{metrics}");
}

#[test]
fn what_a_realtime_agent_lacks_is_a_fault_that_names_it() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sidetone.toml");
    let agents = "[agents.a]\nkind = \"realtime\"\ninterrupt_words = 2\n[agents.b]\nkind = \"realtime\"\nrealtime = \"nobody\"\n";
    std::fs::write(&path, agents).unwrap();
    let mut check = sidetone();
    check.arg("check-config").arg("--config").arg(&path);
    let checked = check.env_remove("OPENAI_API_KEY").output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert_eq!(checked.status.code(), Some(78), "{said}");
    for part in [
        "speech.duplex.openai.key, or the environment variable OPENAI_API_KEY",
        "no backend \"nobody\" (one of openai, compatible)",
        "interrupted by speech, not by words",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}
