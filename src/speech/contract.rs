//! What every service-backed recogniser, synthesizer and service that is both keeps to, against its stand-in on a real socket, whatever
//! goes wrong.
//!
//! Iterates the registries: a backend with a stand-in is tested by being listed.

mod duplex;

use super::{
    Config, EarSpec, MouthSpec, Speech, SpeechEvent, Transcript,
    double::{Fault, Make, Server},
    stt::{self, fake},
    tts,
};
use crate::{
    audio::{
        codec,
        ring::{DownlinkRx, UplinkTx, downlink, uplink_of},
    },
    base::{
        format::{AudioFormat, Encoding},
        ids::UtteranceId,
        settings::{Catalogue, Faults, Item, Place, Section, Table, Value, show_path},
    },
};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::{sync::mpsc, time::timeout};

const KEY: &str = "a-key-of-the-contract";
const PATIENCE: Duration = Duration::from_secs(30);

/// Keys that are set where a backend has them, so that nothing takes long.
const QUICK: &[(&str, &str)] = &[
    ("key", KEY),
    ("ping_every", "100ms"),
    ("silence", "700ms"),
    ("answer", "1s"),
    ("ready", "1s"),
    ("first_audio", "1s"),
    ("limit", "5s"),
];

fn table(pairs: Vec<(String, Value)>) -> Table {
    let item = |value| Item {
        value,
        place: Place::Line(1),
    };
    pairs.into_iter().map(|(k, v)| (k, item(v))).collect()
}

/// Speech whose backend `kind.name` is served at `url`.
fn speech(kind: &str, name: &str, url: &str, more: &[(&str, &str)]) -> Speech {
    speech_of(kind, &[(name, url)], more)
}

/// Speech whose backends `kind.name` are served at these URLs.
fn speech_of(kind: &str, served: &[(&str, &str)], more: &[(&str, &str)]) -> Speech {
    let (faults, catalogue) = (Faults::default(), Catalogue::default());
    Config::read(&Section::root(&Table::new(), &faults).telling(&catalogue));
    let known: Vec<_> = catalogue.take().iter().map(|k| show_path(&k.path)).collect();
    let section = |(name, url): &(&str, &str)| {
        let here = [("url", *url)];
        let changed = |key: &&(&str, &str)| !more.iter().any(|(other, _)| *other == key.0);
        let keys = QUICK.iter().filter(changed).chain(more).chain(&here);
        let keys = keys.filter(|(key, _)| known.contains(&format!("{kind}.{name}.{key}")));
        let keys = keys.map(|(key, value)| ((*key).to_owned(), Value::String((*value).to_owned())));
        ((*name).to_owned(), Value::Table(table(keys.collect())))
    };
    let backends = table(served.iter().map(section).collect());
    let root = table(vec![(kind.to_owned(), Value::Table(backends))]);
    let config = Config::read(&Section::root(&root, &faults));
    assert_eq!(faults.take(), []);
    Speech::new(&config, 2)
}

async fn serve(double: Make, faults: &[Fault]) -> Server {
    let server = Server::open(([127, 0, 0, 1], 0).into(), double(KEY)).await.unwrap();
    server.go_wrong(faults);
    server
}

/// The recognisers behind which there is a service, and models of theirs with a protocol of their own.
fn recognisers() -> Vec<(&'static str, Make, &'static str)> {
    let listed = stt::BACKENDS.iter().filter_map(|d| Some((d.name, d.double?, "")));
    let deepgram = stt::deepgram::DESCRIPTOR
        .double
        .map(|d| ("deepgram", d, "flux-general-en"));
    listed.chain(deepgram).collect()
}

const ULAW: AudioFormat = AudioFormat {
    encoding: Encoding::Ulaw,
    rate: 8000,
};

/// Three bursts, half a second of silence before each: the samples, and what and when they are.
fn bursts(rate: u32) -> (Vec<i16>, [(String, u64, u64); 3]) {
    let mut samples = Vec::new();
    let spoken = [0, 3, 6].map(|index| {
        samples.resize(samples.len() + rate as usize / 2, 0);
        let from = samples.len() as u64 * 1000 / u64::from(rate);
        samples.extend(fake::phrase(index, 420, rate));
        (fake::words(400 + 100 * index), from, from + 420)
    });
    (samples, spoken)
}

/// What an ear told, from its first news to its end.
#[derive(Debug, Default)]
struct Told {
    finals: Vec<Transcript>,
    failures: Vec<String>,
    recoveries: usize,
}

impl Told {
    fn texts(&self) -> Vec<&str> {
        self.finals.iter().map(|t| t.text.as_str()).collect()
    }
}

/// Speaks to an ear as fast as a caller would, hangs up, and hears all its news.
async fn call(speech: &Speech, name: &str, fallback: &str, format: AudioFormat, samples: &[i16]) -> (Told, Vec<u8>) {
    let spec = EarSpec {
        fallback: fallback.to_owned(),
        ..ear(name)
    };
    call_as(speech, spec, format, samples).await
}

fn ear(name: &str) -> EarSpec {
    EarSpec {
        backend: name.to_owned(),
        language: "en".to_owned(),
        ..EarSpec::default()
    }
}

async fn call_as(speech: &Speech, spec: EarSpec, format: AudioFormat, samples: &[i16]) -> (Told, Vec<u8>) {
    let (mut ring, audio) = uplink_of(format, format.rate as usize * 5, Some(speech.bell(0)));
    let (news, mut events) = mpsc::channel(256);
    let _handle = speech.open_ear(0, spec, audio, news);
    let mut codes = vec![0; format.encoding.bytes(samples.len())];
    codec::encode(format.encoding, samples, &mut codes);
    let wide: Vec<i16> = match format.encoding {
        Encoding::Ulaw | Encoding::Alaw => codes.iter().map(|c| i16::from(*c)).collect(),
        _ => samples.to_vec(),
    };
    let talk = async move {
        for frame in wide.chunks(format.samples_of_ms(20)) {
            push(&mut ring, frame);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    let listen = async {
        let mut told = Told::default();
        while let Some(event) = events.recv().await {
            match event {
                SpeechEvent::Transcript(t) if t.is_final => told.finals.push(t),
                SpeechEvent::SttFailed { message } => told.failures.push(message),
                SpeechEvent::SttRecovered => told.recoveries += 1,
                _ => {}
            }
        }
        told
    };
    let both = timeout(PATIENCE, futures_util::future::join(talk, listen)).await;
    (both.expect("an ear ends with its caller").1, codes)
}

fn push(ring: &mut UplinkTx, frame: &[i16]) {
    // An ear that gave up has closed its ring.
    if ring.push(frame) {
        ring.bell().unwrap().ring();
    }
}

#[tokio::test]
async fn every_recogniser_hears_each_word_once_and_in_its_time_whatever_goes_wrong() {
    let cases = recognisers().into_iter().flat_map(|(name, double, model)| {
        let faults = Fault::ALL.into_iter().chain([Fault::None]);
        faults.map(move |fault| async move {
            let case = format!("{name} {model} {fault:?}");
            let server = serve(double, &[fault]).await;
            let speech = speech(
                "stt",
                name,
                &server.url(),
                &[("model", model)][usize::from(model.is_empty())..],
            );
            let (samples, spoken) = bursts(8000);
            let (told, codes) = call(&speech, name, "", ULAW, &samples).await;
            assert_eq!(server.complaints(), Vec::<String>::new(), "{case}");
            if let Fault::Status(status @ (401 | 402)) = fault {
                let [message] = &told.failures[..] else {
                    panic!("{case}: {told:?}")
                };
                assert!(
                    message.contains(&status.to_string()) && !message.contains(KEY),
                    "{case}: {message}"
                );
                assert_eq!((told.recoveries, told.finals.len()), (0, 0), "{case}");
                return;
            }
            let outages = usize::from(!matches!(fault, Fault::None | Fault::Slow(_)));
            assert_eq!(
                (told.failures.len(), told.recoveries),
                (outages, outages),
                "{case}: {told:?}"
            );
            assert_eq!(
                told.texts(),
                spoken.each_ref().map(|(text, ..)| text.as_str()),
                "{case}"
            );
            for (heard, (_, from, to)) in told.finals.iter().zip(&spoken) {
                let near = |a: u64, b: u64| a.abs_diff(b) <= 400;
                // One service tells no times.
                assert!(
                    name == "elevenlabs" || near(heard.from_ms, *from) && near(heard.to_ms, *to),
                    "{case}: {heard:?} is not {from} to {to}"
                );
            }
            if fault == Fault::None && passes(name) {
                assert!(
                    server.heard() == [codes],
                    "{case}: the vendor's codes come through as they are"
                );
            }
        })
    });
    join_all(cases).await;
}

/// Whether the service takes the vendor's codec in binary messages.
fn passes(name: &str) -> bool {
    name == "deepgram"
}

#[tokio::test]
async fn another_recogniser_takes_over_and_loses_nothing() {
    let cases = recognisers().into_iter().flat_map(|(name, double, _)| {
        [503, 401].map(|status| async move {
            let server = serve(double, &[Fault::Status(status); 100]).await;
            let speech = speech("stt", name, &server.url(), &[]);
            let format = AudioFormat {
                rate: 16_000,
                encoding: Encoding::L16Le,
            };
            let (samples, spoken) = bursts(format.rate);
            let (told, _) = call(&speech, name, "fake", format, &samples).await;
            assert_eq!(
                (told.failures.len(), told.recoveries),
                (1, 1),
                "{name} {status}: {told:?}"
            );
            assert_eq!(
                told.texts(),
                spoken.each_ref().map(|(text, ..)| text.as_str()),
                "{name} {status}"
            );
        })
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_service_that_keeps_failing_is_spared_by_all_calls_together() {
    let cases = recognisers().into_iter().map(|(name, double, _)| async move {
        let server = serve(double, &[Fault::Garbage; 100]).await;
        let speech = speech("stt", name, &server.url(), &[]);
        let (samples, _) = bursts(8000);
        let calls = (0..4).map(|_| call(&speech, name, "", ULAW, &samples));
        // Alone, each call would have tried five times by then; the fifth failure of all of them opens the circuit, for longer than this.
        let _ = timeout(Duration::from_secs(4), join_all(calls)).await;
        let tried = server.connections();
        assert!((1..=8).contains(&tried), "{name}: {tried} connections");
    });
    join_all(cases).await;
}

/// The tones that words are, in Hz.
fn tones(text: &str) -> Vec<u32> {
    let mut bursts = fake::Bursts::new(8000);
    let mut found = Vec::new();
    for word in text.split_whitespace() {
        bursts.push(&tts::fake::word(word), |_| {});
        bursts.finish(|f| found.push(f));
    }
    heard(found)
}

fn heard(found: Vec<fake::Found>) -> Vec<u32> {
    let ended = found.into_iter().filter_map(|f| match f {
        fake::Found::Ended(burst) => Some(burst.hz),
        _ => None,
    });
    ended.collect()
}

/// Plays an utterance to its end, as a leg would; what was heard of it.
async fn play(ring: &mut DownlinkRx, utterance: UtteranceId, rate: u32) -> Vec<u32> {
    let (mut bursts, mut found) = (fake::Bursts::new(rate), Vec::new());
    let mut out = vec![0; rate as usize / 50];
    loop {
        if ring.peek().is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
            continue;
        }
        if ring.peek().is_some_and(|s| s.utterance < utterance) {
            ring.skip(out.len());
            continue;
        }
        assert_eq!(ring.peek().map(|s| s.utterance), Some(utterance));
        let (n, last) = ring.pop(&mut out);
        bursts.push(&out[..n], |f| found.push(f));
        if last {
            bursts.finish(|f| found.push(f));
            return heard(found);
        }
    }
}

/// A synthesizer, its stand-in, and keys of its section.
type Speaks = (&'static str, Make, &'static [(&'static str, &'static str)]);

/// The synthesizers behind which there is a service, each in every way in which it is spoken to.
fn synthesizers() -> Vec<Speaks> {
    let listed = tts::BACKENDS.iter().filter_map(|d| Some((d.name, d.double?, &[][..])));
    let more: [&[_]; 2] = [&[("transport", "rest")], &[("model", "flux-alexis-en")]];
    let deepgram = tts::deepgram::DESCRIPTOR.double;
    let deepgram = deepgram
        .into_iter()
        .flat_map(|d| more.map(|more| ("deepgram", d, more)));
    listed.chain(deepgram).collect()
}

#[tokio::test]
async fn every_synthesizer_speaks_whole_utterances_or_says_why_not() {
    let cases = synthesizers().into_iter().flat_map(|(name, double, more)| {
        let faults = Fault::ALL.into_iter().chain([Fault::None]);
        faults.map(move |fault| async move {
            let case = format!("{name} {more:?} {fault:?}");
            let server = serve(double, &[fault]).await;
            let speech = speech("tts", name, &server.url(), more);
            let (tx, mut ring) = downlink(8000, 16_000, 256);
            let (news, mut events) = mpsc::channel(256);
            let spec = MouthSpec {
                backend: name.to_owned(),
                language: "en".to_owned(),
                ..MouthSpec::default()
            };
            let mouth = speech.open_mouth(0, spec, tx, news);
            let texts = ["one two three four five six.", "seven eight. nine ten.", "eleven"];
            for (n, text) in texts.iter().enumerate() {
                assert!(mouth.say(UtteranceId(n as u32 + 1), (*text).to_owned(), None));
            }
            let works = matches!(fault, Fault::None | Fault::Slow(_));
            let work = async {
                let mut failures = Vec::new();
                if !works {
                    // What failed before its first sample has no place in the ring.
                    while failures.is_empty() {
                        match events.recv().await.expect("news") {
                            SpeechEvent::TtsFailed { utterance, message } => failures.push((utterance, message)),
                            SpeechEvent::Audio { .. } => {
                                while ring.peek().is_some_and(|s| s.utterance == UtteranceId(1)) {
                                    ring.skip(8000);
                                }
                            }
                            _ => {}
                        }
                    }
                }
                for (n, text) in texts.iter().enumerate().skip(usize::from(!works)) {
                    assert_eq!(
                        play(&mut ring, UtteranceId(n as u32 + 1), 8000).await,
                        tones(text),
                        "{case}"
                    );
                }
                failures
            };
            let failures = timeout(PATIENCE, work)
                .await
                .unwrap_or_else(|_| panic!("{case}: no end"));
            if let [(utterance, message)] = &failures[..] {
                assert_eq!(*utterance, UtteranceId(1), "{case}");
                assert!(!message.contains(KEY), "{case}: {message}");
                if let Fault::Status(status) = fault {
                    assert!(message.contains(&status.to_string()), "{case}: {message}");
                }
            }
            drop(mouth);
            while let Some(event) = timeout(PATIENCE, events.recv())
                .await
                .expect("a mouth ends with its handle")
            {
                assert!(!matches!(event, SpeechEvent::TtsFailed { .. }), "{case}: {event:?}");
            }
            assert_eq!(server.complaints(), Vec::<String>::new(), "{case}");
        })
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_synthesis_that_is_cut_ends_at_once_while_the_service_hangs() {
    for (name, double, more) in synthesizers() {
        let server = serve(double, &[Fault::Hang]).await;
        let more = [more, &[("first_audio", "20s")]].concat();
        let speech = speech("tts", name, &server.url(), &more);
        let (tx, mut ring) = downlink(8000, 16_000, 256);
        let (news, mut events) = mpsc::channel(256);
        let spec = MouthSpec {
            backend: name.to_owned(),
            language: "en".to_owned(),
            ..MouthSpec::default()
        };
        let mouth = speech.open_mouth(0, spec, tx, news);
        assert!(mouth.say(UtteranceId(1), "one two".to_owned(), None));
        let begun = async {
            while server.connections() == 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(PATIENCE, begun).await.expect("it is asked");
        mouth.cut(UtteranceId(2));
        assert!(mouth.say(UtteranceId(2), "three".to_owned(), None));
        let heard = timeout(PATIENCE, play(&mut ring, UtteranceId(2), 8000)).await;
        assert_eq!(heard.expect("the next is spoken"), tones("three"), "{name}");
        drop(mouth);
        while let Some(event) = events.recv().await {
            assert!(!matches!(event, SpeechEvent::TtsFailed { .. }), "{name}: {event:?}");
        }
    }
}

async fn until(what: &str, mut is_so: impl FnMut() -> bool) {
    let so = async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(PATIENCE, so).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test]
async fn a_session_opened_ahead_is_used_by_its_call_on_whatever_lane() {
    let cases = recognisers()
        .into_iter()
        .filter(|(name, ..)| ["deepgram", "elevenlabs"].contains(name));
    let cases = cases.map(|(name, double, model)| async move {
        let server = serve(double, &[]).await;
        let more = [("model", model)];
        let speech = speech("stt", name, &server.url(), &more[usize::from(model.is_empty())..]);
        speech.warm(1, Some((ear(name), ULAW)), None);
        until("a session is opened ahead", || server.connections() == 1).await;
        let (samples, spoken) = bursts(8000);
        let (told, codes) = call(&speech, name, "", ULAW, &samples).await;
        assert_eq!(
            told.texts(),
            spoken.each_ref().map(|(text, ..)| text.as_str()),
            "{name} {model}"
        );
        assert_eq!(server.connections(), 1, "{name} {model}");
        assert!(!passes(name) || server.heard() == [codes], "{name} {model}");
        // A call in another language has no use for such a session.
        speech.warm(1, Some((ear(name), ULAW)), None);
        until("another is opened ahead", || server.connections() == 2).await;
        let spec = EarSpec {
            language: "de".to_owned(),
            ..ear(name)
        };
        call_as(&speech, spec, ULAW, &samples).await;
        assert_eq!(
            server.connections(),
            if model.is_empty() { 3 } else { 2 },
            "{name} {model}"
        );
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name} {model}");
    });
    join_all(cases).await;
}

#[tokio::test]
async fn a_voice_opened_ahead_speaks_the_first_words() {
    for model in ["aura-2-thalia-en", "flux-alexis-en"] {
        let server = serve(tts::deepgram::DESCRIPTOR.double.unwrap(), &[]).await;
        let speech = speech("tts", "deepgram", &server.url(), &[("model", model)]);
        let spec = MouthSpec {
            backend: "deepgram".to_owned(),
            language: "en".to_owned(),
            ..MouthSpec::default()
        };
        speech.warm(1, None, Some(spec.clone()));
        until("a voice is opened ahead", || server.connections() == 1).await;
        let (tx, mut ring) = downlink(8000, 16_000, 256);
        let mouth = speech.open_mouth(0, spec, tx, mpsc::channel(256).0);
        assert!(mouth.say(UtteranceId(1), "one two three".to_owned(), None));
        let heard = timeout(PATIENCE, play(&mut ring, UtteranceId(1), 8000)).await;
        assert_eq!(heard.expect("speech"), tones("one two three"));
        assert_eq!(server.connections(), 1, "{model}");
    }
}

#[tokio::test]
async fn a_socket_that_nobody_comes_for_is_kept_open_for_a_while_and_closed() {
    use super::link::{Service, Spare};
    let server = serve(stt::deepgram::DESCRIPTOR.double.unwrap(), &[]).await;
    let url = table(vec![("url".to_owned(), Value::String(server.url()))]);
    let faults = Faults::default();
    let service = Service::read_open(&Section::root(&url, &faults), "Deepgram", "http://127.0.0.1:1");
    let path = "/v1/listen?model=nova-3&encoding=mulaw&sample_rate=8000";
    let headers = [(http::header::AUTHORIZATION, format!("Token {KEY}").parse().unwrap())];
    let link = service
        .dial(&Default::default(), path, headers.into_iter().collect())
        .await;
    service.spares.put(Spare {
        path: path.to_owned(),
        line: link.unwrap().set_aside(),
        opened: tokio::time::Instant::now(),
        spoken: (0, 0),
        nudges: 0,
    });
    let keep_alive = tokio_tungstenite::tungstenite::Message::text(r#"{"type":"KeepAlive"}"#);
    let (age, every) = (Duration::from_millis(200), Duration::from_millis(20));
    let tended = timeout(PATIENCE, service.tend(path, age, every, Some(keep_alive)));
    let lane = tokio::task::LocalSet::new();
    lane.run_until(tended).await.expect("it is let go");
    assert!(service.spares.take(path, PATIENCE).is_none());
    assert_eq!(server.complaints(), Vec::<String>::new());
}

#[tokio::test]
async fn every_service_is_asked_with_the_key_of_whose_call_it_is() {
    let keys = |name: &str| {
        [(name.to_owned(), crate::base::secret::Secret::new("another"))]
            .into_iter()
            .collect()
    };
    let cases = recognisers().into_iter().filter(|(name, ..)| *name != "vosk");
    let cases = cases.map(|(name, double, _)| async move {
        let server = serve(double, &[]).await;
        let speech = speech("stt", name, &server.url(), &[]);
        let (samples, spoken) = bursts(8000);
        let spec = EarSpec {
            keys: keys(name),
            ..ear(name)
        };
        // The operator's key does not stand in for one that is refused.
        let (told, _) = call_as(&speech, spec, ULAW, &samples).await;
        assert!(told.finals.is_empty() && told.failures.len() == 1, "{name}: {told:?}");
        assert!(!told.failures[0].contains("another"), "{name}: {told:?}");
        assert!(server.credentials().iter().all(|key| key == "another"), "{name}");
        let before = server.credentials().len();
        let (told, _) = call(&speech, name, "", ULAW, &samples).await;
        assert_eq!(told.finals.len(), spoken.len(), "{name}: {told:?}");
        assert!(server.credentials()[before..].iter().all(|key| key == KEY), "{name}");
    });
    join_all(cases).await;
    for (name, double, more) in synthesizers() {
        let server = serve(double, &[]).await;
        let speech = speech("tts", name, &server.url(), more);
        for (n, (key, accepted)) in [("another", false), (KEY, true)].into_iter().enumerate() {
            let spec = MouthSpec {
                backend: name.to_owned(),
                language: "en".to_owned(),
                keys: if accepted { Default::default() } else { keys(name) },
                ..MouthSpec::default()
            };
            let (tx, mut ring) = downlink(8000, 16_000, 256);
            let (news, mut events) = mpsc::channel(256);
            let mouth = speech.open_mouth(n, spec, tx, news);
            let before = server.credentials().len();
            assert!(mouth.say(UtteranceId(1), "one two".to_owned(), None));
            if accepted {
                let heard = timeout(PATIENCE, play(&mut ring, UtteranceId(1), 8000)).await;
                assert_eq!(heard.expect("speech"), tones("one two"), "{name}");
            } else {
                let failed = timeout(PATIENCE, events.recv()).await.expect("news");
                assert!(
                    matches!(failed, Some(SpeechEvent::TtsFailed { .. })),
                    "{name}: {failed:?}"
                );
            }
            let used = server.credentials();
            assert!(
                used.len() > before && used[before..].iter().all(|used| used == key),
                "{name}: {used:?}"
            );
        }
    }
}
