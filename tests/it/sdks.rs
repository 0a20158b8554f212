//! What our clients and the services' stand-ins say to each other, read by the services' official SDKs, so that the two sides of a
//! protocol that are written here are not wrong together.
//!
//! `SDKS_PYTHON` names a Python that has the packages of `scripts/sdks.txt`; without it nothing is checked. `scripts/test` sees to it.

use crate::{
    backends::{self, says, stand_in},
    daemon::{Daemon, place},
    minds::double::Double,
};
use serde_json::{Value, json};
use sidetone::speech::{double::Make, stt, tts};
use std::{path::Path, process::Command, time::Duration};

/// Who serves a call, by what the SDKs' check calls them.
struct Served {
    stt: (&'static str, &'static str, Option<Make>),
    tts: (&'static str, &'static str, Option<Make>),
    llm: &'static str,
}

/// The section of a speech service, with a model where one is named.
fn section(kind: &str, (name, model, _): &(&str, &str, Option<Make>), url: &str) -> String {
    let model = match *model {
        "" => String::new(),
        model => format!("model = \"{model}\"\n"),
    };
    let path = if *name == "openai" { "/v1" } else { "" };
    let key = backends::KEY;
    format!("[speech.{kind}.{name}]\nurl = \"{url}{path}\"\nkey = \"{key}\"\n{model}")
}

/// How the check calls a service: its kind and name, and its protocol where it has two.
fn named(kind: &str, (name, model, _): &(&str, &str, Option<Make>)) -> String {
    let protocol = if model.starts_with("flux") { ".flux" } else { "" };
    format!("{kind}.{name}{protocol}")
}

/// A call, and all that was said about it.
async fn exchanged(served: &Served) -> Vec<Value> {
    let (ears, mouths) = (stand_in(served.stt.2).await, stand_in(served.tts.2).await);
    let model = Double::open(served.llm).await;
    let agent = format!(
        "[agents.desk]\nkind = \"pipeline\"\nlanguage = \"en\"\nstt = \"{}\"\ntts = \"{}\"\nllm = \"{}\"\n[calls]\ndefault_agent = \"desk\"\n",
        served.stt.0, served.tts.0, served.llm
    );
    let backends = [
        section("stt", &served.stt, &ears.url()),
        section("tts", &served.tts, &mouths.url()),
        model.section().replace("400ms", "5s"),
    ];
    let daemon = Daemon::start(&["--dev"], &(agent + &backends.concat()), &[]).await;
    let mut samples = says(500);
    samples.resize(samples.len() + 16_000, 0);
    let call = place(daemon.plan("+15550701", samples, Duration::from_secs(2)));
    call.await.unwrap().unwrap();
    let mut all = Vec::new();
    for (name, server) in [(named("stt", &served.stt), ears), (named("tts", &served.tts), mouths)] {
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
        for (by_service, text) in server.exchanged() {
            let by = if by_service { "service" } else { "client" };
            let message: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{name}: {text}"));
            all.push(json!({ "service": name, "by": by, "message": message }));
        }
    }
    let name = format!("llm.{}", served.llm);
    let (asked, said) = (model.asked(), model.said());
    all.extend(
        asked
            .iter()
            .map(|m| json!({ "service": name, "by": "client", "message": m })),
    );
    all.extend(
        said.iter()
            .map(|m| json!({ "service": name, "by": "service", "message": m })),
    );
    all
}

#[tokio::test]
async fn the_services_official_sdks_understand_both_sides() {
    let Ok(python) = std::env::var("SDKS_PYTHON") else {
        return println!("not checked: SDKS_PYTHON names no Python with the SDKs");
    };
    let deepgram = (stt::deepgram::DESCRIPTOR.double, tts::deepgram::DESCRIPTOR.double);
    let calls = [
        Served {
            stt: ("deepgram", "", deepgram.0),
            tts: ("deepgram", "", deepgram.1),
            llm: "anthropic",
        },
        Served {
            stt: ("deepgram", "flux-general-en", deepgram.0),
            tts: ("deepgram", "flux-alexis-en", deepgram.1),
            llm: "openai",
        },
        Served {
            stt: ("elevenlabs", "", stt::elevenlabs::DESCRIPTOR.double),
            tts: ("elevenlabs", "", tts::elevenlabs::DESCRIPTOR.double),
            llm: "gemini",
        },
        Served {
            stt: ("openai", "", stt::openai::DESCRIPTOR.double),
            tts: ("openai", "", tts::openai::DESCRIPTOR.double),
            llm: "anthropic",
        },
    ];
    let mut all = Vec::new();
    for served in &calls {
        all.extend(exchanged(served).await);
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("messages.json");
    std::fs::write(&file, Value::from(all).to_string()).unwrap();
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/check-sdks");
    let checked = Command::new(python).arg(script).arg(&file).output().unwrap();
    let said = String::from_utf8_lossy(&checked.stdout).into_owned() + &String::from_utf8_lossy(&checked.stderr);
    assert!(checked.status.success(), "{said}");
    println!("{said}");
}
