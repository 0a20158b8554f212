//! Ears and mouths with the real offline engines, over rings, through telephone audio: espeak-ng speaks, PocketSphinx listens.
//!
//! These need the packages espeak-ng, libpocketsphinx3 and pocketsphinx-en-us. `cargo test … speech -- --nocapture` prints the table of what
//! was recognised.

use sidetone::{
    audio::{
        g711,
        resample::any::AnyResampler,
        ring::{DownlinkRx, UplinkTx, downlink, uplink},
        tone::Noise,
    },
    base::{
        ids::UtteranceId,
        settings::{Faults, Item, Place, Section, Table, Value},
    },
    speech::{Config, EarSpec, Mouth, MouthSpec, Speech, SpeechEvent, Transcript},
};
use std::{
    io::Write as _,
    process::{Command, Stdio},
    time::{Duration, Instant},
};
use tokio::sync::mpsc;

const PHRASES: [&str; 10] = [
    "What are your opening hours?",
    "Where is your office?",
    "I want to talk to a person",
    "Goodbye",
    "How much does it cost?",
    "Please cancel my appointment",
    "Book a table for two",
    "Transfer me to billing",
    "I lost my credit card",
    "What is the status of my order?",
];

const FOREIGN: [&str; 8] = [
    "The weather in the mountains was cold and windy",
    "My brother plays the violin every evening",
    "Seven green bottles are standing on the wall",
    "The ship sailed slowly across the ocean",
    "She painted the kitchen a bright shade of yellow",
    "Elephants never forget their friends",
    "He parked the car behind the old library",
    "We had pancakes and strawberries for breakfast",
];

/// `[speech]` with these keys changed; the workers are the binary under test.
fn config(keys: &[(&str, &str, &str, Value)]) -> Config {
    let item = |value| Item {
        value,
        place: Place::Line(1),
    };
    let mut root = Table::new();
    let worker = [env!("CARGO_BIN_EXE_sidetone"), "stt-worker"].map(|s| item(Value::String(s.to_owned())));
    let worker = ("stt", "pocketsphinx", "worker_command", Value::Array(worker.to_vec()));
    for (kind, backend, key, value) in [&worker].into_iter().chain(keys) {
        let mut table = &mut root;
        for name in [kind, backend] {
            let inner = table
                .entry((*name).to_owned())
                .or_insert_with(|| item(Value::Table(Table::new())));
            let Value::Table(t) = &mut inner.value else {
                unreachable!()
            };
            table = t;
        }
        table.insert((*key).to_owned(), item(value.clone()));
    }
    let faults = Faults::default();
    let config = Config::read(&Section::root(&root, &faults));
    assert_eq!(faults.take(), []);
    config
}

fn text(value: &str) -> Value {
    Value::String(value.to_owned())
}

/// What a telephone makes of speech: 8 kHz, through μ-law.
fn telephone(samples: &[i16], rate: u32) -> Vec<i16> {
    let narrow = AnyResampler::convert(rate, 8000, samples).unwrap();
    let mut codes = vec![0; narrow.len()];
    g711::ulaw_encode(&narrow, &mut codes);
    let mut heard = vec![0; codes.len()];
    g711::ulaw_decode(&codes, &mut heard);
    heard
}

/// A sentence as a caller would say it over a telephone.
fn caller_says(voice: &str, speed: u32, words: &str) -> Vec<i16> {
    telephone(&spoken(voice, speed, words), 22_050)
}

/// A sentence at 22.05 kHz.
fn spoken(voice: &str, speed: u32, words: &str) -> Vec<i16> {
    let mut espeak = Command::new("espeak-ng")
        .args(["-v", voice, "-s", &speed.to_string(), "--stdin", "--stdout"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("espeak-ng is installed");
    espeak.stdin.take().unwrap().write_all(words.as_bytes()).unwrap();
    let wav = espeak.wait_with_output().unwrap().stdout;
    wav[44..]
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]))
        .collect()
}

/// An ear, and the caller in front of it.
struct Line {
    ring: UplinkTx,
    events: mpsc::Receiver<SpeechEvent>,
}

impl Line {
    fn open(speech: &Speech, phrases: &[&str], free_speech: bool, language: &str) -> Self {
        let (ring, audio) = uplink(8000, 8000 * 4, Some(speech.bell(0)));
        let (sender, events) = mpsc::channel(256);
        let spec = EarSpec {
            backend: "pocketsphinx".to_owned(),
            language: language.to_owned(),
            phrases: phrases.iter().map(|p| (*p).to_owned()).collect(),
            free_speech,
            ..EarSpec::default()
        };
        speech.open_ear(0, spec, audio, sender);
        Self { ring, events }
    }

    /// Sends audio about as fast as the ear takes it.
    fn say(&mut self, samples: &[i16]) {
        for frame in samples.chunks(160) {
            let deadline = Instant::now() + Duration::from_secs(30);
            while self.ring.queued() > 1600 {
                assert!(Instant::now() < deadline, "nobody listens");
                std::thread::sleep(Duration::from_millis(1));
            }
            assert!(self.ring.push(frame));
            self.ring.bell().unwrap().ring();
        }
    }

    /// What was heard until a second of silence was.
    fn pause(&mut self) {
        self.say(&[0; 8000]);
    }

    fn next(&mut self) -> Option<SpeechEvent> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .unwrap();
        runtime.block_on(async {
            let next = tokio::time::timeout(Duration::from_secs(60), self.events.recv());
            next.await.expect("news within a minute")
        })
    }

    fn next_final(&mut self) -> Option<Transcript> {
        loop {
            match self.next()? {
                SpeechEvent::Transcript(transcript) => {
                    assert!(transcript.is_final, "there are no interims of whole utterances");
                    return Some(transcript);
                }
                SpeechEvent::Started | SpeechEvent::Connected { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    /// Hangs up; what had been recognised until the end.
    fn hang_up(self) -> Vec<Transcript> {
        let Self { ring, events } = self;
        drop(ring);
        let mut rest = Line {
            ring: uplink(8000, 1, None).0,
            events,
        };
        std::iter::from_fn(|| rest.next_final()).collect()
    }
}

/// Says each sentence in a call of its own; what it was taken for.
fn recognise(speech: &Speech, phrases: &[&str], sentences: &[(&str, u32, &str)]) -> Vec<Option<String>> {
    sentences
        .iter()
        .map(|(voice, speed, words)| {
            let mut line = Line::open(speech, phrases, false, "en-US");
            line.pause();
            line.say(&caller_says(voice, *speed, words));
            line.pause();
            let heard = line.hang_up();
            (!heard.is_empty()).then(|| heard.iter().map(|t| t.text.as_str()).collect::<Vec<_>>().join(" | "))
        })
        .collect()
}

const VOICES: [(&str, u32); 6] = [
    ("en-us", 160),
    ("en-us+f3", 160),
    ("en-us+m3", 150),
    ("en-gb", 160),
    ("en-us+f2", 175),
    ("en-us+m7", 140),
];

#[test]
fn scripted_phrases_are_recognised_and_foreign_speech_is_not_taken_for_them() {
    let speech = Speech::new(&config(&[]), 1);
    let said = |sentences: &[&'static str]| -> Vec<(&str, u32, &'static str)> {
        VOICES
            .iter()
            .flat_map(|(v, s)| sentences.iter().map(|words| (*v, *s, *words)))
            .collect()
    };
    let (scripted, foreign) = (said(&PHRASES), said(&FOREIGN));
    let heard = recognise(&speech, &PHRASES, &scripted);
    let taken = recognise(&speech, &PHRASES, &foreign);
    let right = |voice: &str| {
        let of_voice = scripted.iter().zip(&heard).filter(|((v, ..), _)| *v == voice);
        of_voice
            .filter(|((_, _, said), heard)| heard.as_deref() == Some(*said))
            .count()
    };
    let wrong = |voice: &str| {
        foreign
            .iter()
            .zip(&taken)
            .filter(|((v, ..), t)| *v == voice && t.is_some())
            .count()
    };
    for (voice, speed) in VOICES {
        let (right, wrong) = (right(voice), wrong(voice));
        println!(
            "{voice:>10} {speed} wpm: {right} of {} phrases, {wrong} of {} foreign",
            PHRASES.len(),
            FOREIGN.len()
        );
    }
    for ((voice, _, said), heard) in scripted.iter().zip(&heard).chain(foreign.iter().zip(&taken)) {
        if heard.as_deref().is_some_and(|h| h != *said) || (heard.is_none() && PHRASES.contains(said)) {
            println!("{voice:>10}: {said:?} was taken for {heard:?}");
        }
    }
    let all_right: usize = VOICES.iter().map(|(v, _)| right(v)).sum();
    let all_wrong: usize = VOICES.iter().map(|(v, _)| wrong(v)).sum();
    println!(
        "all: {all_right} of {}, {all_wrong} of {}",
        scripted.len(),
        foreign.len()
    );
    assert!(
        all_right * 100 >= scripted.len() * 95,
        "{all_right} of {}",
        scripted.len()
    );
    for (voice, _) in VOICES {
        assert!(wrong(voice) <= 2, "{voice}: {} of {}", wrong(voice), FOREIGN.len());
    }
}

#[test]
fn a_lossless_line_is_heard_as_well_as_a_telephone() {
    let speech = Speech::new(&config(&[]), 1);
    let right = |lossless: bool| {
        let heard = |words: &&&str| {
            let mut line = Line::open(&speech, &PHRASES, false, "en");
            line.pause();
            let said = spoken("en-us", 160, words);
            line.say(&match lossless {
                true => AnyResampler::convert(22_050, 8000, &said).unwrap(),
                false => telephone(&said, 22_050),
            });
            line.pause();
            line.hang_up().iter().any(|h| h.text == **words)
        };
        PHRASES.iter().filter(heard).count()
    };
    let (lossless, telephone) = (right(true), right(false));
    println!("lossless: {lossless} of {}, telephone: {telephone}", PHRASES.len());
    assert!(lossless >= telephone, "{lossless} of {telephone}");
}

#[test]
fn silence_and_noise_are_never_words() {
    let speech = Speech::new(&config(&[]), 1);
    let mut noise = Noise::new(7);
    let mut line = Line::open(&speech, &PHRASES, false, "auto");
    let mut second = vec![0; 8000];
    line.say(&vec![0; 8000 * 5]);
    for level in [-50.0, -40.0, -30.0, -20.0] {
        for n in 0..6 {
            if n % 2 == 0 {
                noise.white(level, &mut second);
            } else {
                noise.pink(level, &mut second);
            }
            line.say(&telephone(&second, 8000));
        }
        line.pause();
    }
    assert_eq!(line.hang_up(), []);
}

#[test]
fn what_is_recognised_does_not_depend_on_what_came_before() {
    let speech = Speech::new(&config(&[("stt", "pocketsphinx", "workers", Value::Int(1))]), 1);
    let mut line = Line::open(&speech, &PHRASES, false, "en");
    line.pause();
    let phrase = caller_says("en-us", 160, "Book a table for two");
    let mut heard = Vec::new();
    for other in [None, Some(FOREIGN[0]), Some(FOREIGN[5])] {
        if let Some(other) = other {
            line.say(&caller_says("en-us+f3", 160, other));
            line.pause();
        }
        line.say(&phrase);
        line.pause();
        let transcript = line.next_final().unwrap();
        assert_eq!(transcript.text, "Book a table for two");
        assert_eq!(
            (transcript.confidence, transcript.language.as_deref()),
            (None, Some("en"))
        );
        heard.push(transcript.to_ms - transcript.from_ms);
    }
    assert!(heard.iter().all(|ms| (1500..3500).contains(ms)), "{heard:?}");
    assert_eq!(line.hang_up(), []);
}

#[test]
fn words_that_no_dictionary_has_can_be_phrases() {
    let speech = Speech::new(&config(&[]), 1);
    let phrases = [
        "Connect me to Sidetone",
        "Call Brumblefitz",
        "I am at gate 24",
        "Yes",
        "No",
    ];
    let said = phrases.map(|p| ("en-us", 150, p));
    let heard = recognise(&speech, &phrases, &said);
    assert_eq!(
        heard.iter().flatten().collect::<Vec<_>>(),
        phrases.iter().collect::<Vec<_>>()
    );
}

#[test]
fn free_speech_is_transcribed_only_when_asked_for() {
    let speech = Speech::new(&config(&[]), 1);
    let mut line = Line::open(&speech, &["Goodbye"], true, "en");
    line.pause();
    line.say(&caller_says("en-us", 150, FOREIGN[1]));
    line.pause();
    let free = line.next_final().unwrap();
    assert!(!free.text.is_empty() && free.text != "Goodbye");
    assert_eq!(free.confidence, None);
    line.say(&caller_says("en-us", 150, "Goodbye"));
    line.pause();
    assert_eq!(line.next_final().unwrap().text, "Goodbye");
}

#[test]
fn an_ear_for_free_speech_alone_needs_no_phrases() {
    let speech = Speech::new(&config(&[]), 1);
    let mut line = Line::open(&speech, &[], true, "en");
    line.pause();
    line.say(&caller_says("en-us", 150, FOREIGN[0]));
    line.pause();
    assert!(!line.next_final().unwrap().text.is_empty());
}

#[test]
fn a_call_that_ends_in_the_middle_of_a_phrase_still_has_its_words() {
    let speech = Speech::new(&config(&[]), 1);
    let mut line = Line::open(&speech, &PHRASES, false, "en");
    line.pause();
    let phrase = caller_says("en-us", 160, PHRASES[0]);
    line.say(&phrase[..phrase.len() - 1600]);
    let heard = line.hang_up();
    assert_eq!(heard.iter().map(|t| t.text.as_str()).collect::<Vec<_>>(), [PHRASES[0]]);
}

#[test]
fn another_language_a_missing_library_and_a_missing_model_are_said_plainly() {
    let failure = |keys: &[(&str, &str, &str, Value)], language: &str| {
        let speech = Speech::new(&config(keys), 1);
        let mut line = Line::open(&speech, &PHRASES, false, language);
        match line.next() {
            Some(SpeechEvent::SttFailed { message }) => message,
            other => panic!("{other:?}"),
        }
    };
    let message = failure(&[], "de-DE");
    assert!(
        message.contains("English only") && message.contains("de-DE"),
        "{message}"
    );
    let library = ("stt", "pocketsphinx", "library", text("libnosuch.so.3"));
    let message = failure(&[library], "en");
    assert!(
        message.contains("libnosuch.so.3") && message.contains("libpocketsphinx3"),
        "{message}"
    );
    let model = ("stt", "pocketsphinx", "model", text("/nowhere"));
    let message = failure(&[model], "en");
    assert!(
        message.contains("/nowhere") && message.contains("pocketsphinx-en-us"),
        "{message}"
    );
}

#[test]
fn an_engine_that_outgrows_its_memory_is_an_outage() {
    let memory = ("stt", "pocketsphinx", "memory_mb", Value::Int(72));
    let speech = Speech::new(&config(&[memory]), 1);
    let mut line = Line::open(&speech, &["Goodbye"], true, "en");
    line.pause();
    line.say(&caller_says("en-us", 150, "Goodbye"));
    line.pause();
    assert_eq!(line.next_final().unwrap().text, "Goodbye", "phrases fit");
    line.say(&caller_says("en-us", 150, FOREIGN[1]));
    line.pause();
    let failed = std::iter::from_fn(|| line.next()).find(|e| !matches!(e, SpeechEvent::Started));
    assert!(matches!(failed, Some(SpeechEvent::SttFailed { .. })), "{failed:?}");
}

/// A mouth, and the caller who hears it.
struct Earpiece {
    mouth: Mouth,
    ring: DownlinkRx,
    events: mpsc::Receiver<SpeechEvent>,
}

impl Earpiece {
    fn open(speech: &Speech, language: &str) -> Self {
        let (audio, ring) = downlink(8000, 8000 * 2, 256);
        let (sender, events) = mpsc::channel(256);
        let spec = MouthSpec {
            backend: "espeak".to_owned(),
            fallback: String::new(),
            voice: String::new(),
            language: language.to_owned(),
            ..MouthSpec::default()
        };
        let mouth = speech.open_mouth(0, spec, audio, sender);
        Self { mouth, ring, events }
    }

    /// Hears until an utterance ends.
    fn hear(&mut self) -> (UtteranceId, Vec<i16>) {
        let deadline = Instant::now() + Duration::from_secs(30);
        let mut heard = Vec::new();
        loop {
            let Some(span) = self.ring.peek() else {
                assert!(Instant::now() < deadline, "nothing is said");
                std::thread::sleep(Duration::from_millis(1));
                continue;
            };
            let mut out = [0; 160];
            let (n, last) = self.ring.pop(&mut out);
            heard.extend_from_slice(&out[..n]);
            if last {
                return (span.utterance, heard);
            }
        }
    }

    fn news(&mut self) -> Vec<SpeechEvent> {
        std::iter::from_fn(|| self.events.try_recv().ok()).collect()
    }
}

#[test]
fn what_the_mouth_says_the_ear_understands() {
    let speech = Speech::new(&config(&[]), 1);
    let mouth_spec = MouthSpec {
        backend: "espeak".to_owned(),
        ..MouthSpec::default()
    };
    speech.warm(0, None, Some(mouth_spec));
    let mut earpiece = Earpiece::open(&speech, "auto");
    let mut right = 0;
    for (n, phrase) in PHRASES.iter().enumerate() {
        let id = UtteranceId(n as u32 + 1);
        assert!(earpiece.mouth.say(id, (*phrase).to_owned(), None));
        let (spoken, heard) = earpiece.hear();
        assert_eq!(spoken, id);
        let mut line = Line::open(&speech, &PHRASES, false, "auto");
        line.pause();
        line.say(&telephone(&heard, 8000));
        line.pause();
        right += usize::from(line.hang_up().iter().map(|t| t.text.as_str()).eq([*phrase]));
    }
    assert!(right >= 9, "{right} of {}", PHRASES.len());
    let chunks = earpiece.news();
    let lasts = chunks
        .iter()
        .filter(|e| matches!(e, SpeechEvent::Audio { last: true, .. }));
    assert_eq!(lasts.count(), PHRASES.len());
}

#[test]
fn languages_have_voices_and_unknown_ones_fail_by_name() {
    let speech = Speech::new(&config(&[]), 1);
    let mut earpiece = Earpiece::open(&speech, "en");
    let mut lengths = Vec::new();
    for (n, language) in ["en", "es", "fr", "de", "hi", "pt", "it"].into_iter().enumerate() {
        let id = UtteranceId(n as u32 + 1);
        assert!(earpiece.mouth.say(
            id,
            "Taxi, restaurant, hotel. 1 2 3".to_owned(),
            Some(language.to_owned())
        ));
        let (spoken, heard) = earpiece.hear();
        assert_eq!(spoken, id);
        assert!(heard.len() > 8000, "{language}: {} samples", heard.len());
        lengths.push(heard.len());
    }
    lengths.dedup();
    assert!(lengths.len() > 4, "the voices differ: {lengths:?}");
    earpiece.news();
    assert!(
        earpiece
            .mouth
            .say(UtteranceId(90), "qo'".to_owned(), Some("tlh".to_owned()))
    );
    assert!(earpiece.mouth.say(UtteranceId(91), "ok".to_owned(), None));
    assert_eq!(earpiece.hear().0, UtteranceId(91));
    let failed = earpiece.news().into_iter().find_map(|e| match e {
        SpeechEvent::TtsFailed { utterance, message } => Some((utterance, message)),
        _ => None,
    });
    let (utterance, message) = failed.expect("a failure is told");
    assert_eq!(utterance, UtteranceId(90));
    assert!(message.contains("tlh"), "{message}");
}

#[test]
fn a_missing_synthesizer_fails_each_utterance_and_nothing_else() {
    let program = ("tts", "espeak", "program", text("/nowhere/espeak-ng"));
    let speech = Speech::new(&config(&[program]), 1);
    let mut earpiece = Earpiece::open(&speech, "en");
    assert!(earpiece.mouth.say(UtteranceId(1), "hello".to_owned(), None));
    assert!(earpiece.mouth.play(UtteranceId(2), vec![9; 800], 8000, true));
    assert_eq!(earpiece.hear(), (UtteranceId(2), vec![9; 800]));
    let news = earpiece.news();
    let [SpeechEvent::TtsFailed { message, .. }] = &news[..] else {
        panic!("{news:?}")
    };
    assert!(message.contains("package espeak-ng"), "{message}");
}
