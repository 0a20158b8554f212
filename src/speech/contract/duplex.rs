//! Conversations with every service that hears and speaks, over rings, as a call holds them.

use super::*;
use crate::{
    audio::ring::downlink_of,
    speech::{
        DuplexHandle, DuplexSpec,
        double::spoken,
        duplex::{self, Memory, News, Order, Role},
    },
};
use std::sync::{Arc, Mutex};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

const L16: AudioFormat = AudioFormat {
    encoding: Encoding::L16Le,
    rate: 8000,
};

fn services() -> Vec<(&'static str, Make)> {
    duplex::BACKENDS
        .iter()
        .filter_map(|d| Some((d.name, d.double?)))
        .collect()
}

/// What a caller's call with a service came to.
#[derive(Debug, Default)]
struct Held {
    told: Told,
    /// The words of each reply, in order.
    replies: Vec<String>,
    /// What was played of each utterance, as the ring carried it.
    played: Vec<Vec<i16>>,
    stopped: usize,
    used: u64,
}

/// A call: its rings, its conversation, and what came of it so far.
struct Call {
    ring: UplinkTx,
    down: DownlinkRx,
    handle: DuplexHandle,
    events: mpsc::Receiver<SpeechEvent>,
    held: Held,
    memory: Memory,
    floor: UtteranceId,
    last: UtteranceId,
    names: Vec<(u32, UtteranceId)>,
    /// How much of the utterance at the head was played, in samples.
    heard: usize,
}

impl Call {
    fn open(speech: &Speech, name: &str, fallback: &str, format: AudioFormat) -> Self {
        Self::open_on(0, speech, name, fallback, format)
    }

    fn open_on(lane: usize, speech: &Speech, name: &str, fallback: &str, format: AudioFormat) -> Self {
        let (ring, audio) = uplink_of(format, format.rate as usize * 5, Some(speech.bell(lane)));
        let (tx, down) = downlink_of(format, 16_000, 256);
        let (news, events) = mpsc::channel(256);
        let mouth = MouthSpec {
            backend: "fake".to_owned(),
            ..MouthSpec::default()
        };
        let mouth = speech.open_mouth(lane, mouth, tx, news.clone());
        let memory = Memory::default();
        let spec = DuplexSpec {
            backend: name.to_owned(),
            fallback: fallback.to_owned(),
            language: "en".to_owned(),
            interruptible: true,
            outbound: Some(format),
            history: memory.clone(),
            ..DuplexSpec::default()
        };
        let (handle, _ear) = speech.open_duplex(lane, spec, audio, mouth, news);
        Self {
            ring,
            down,
            handle,
            events,
            held: Held::default(),
            memory,
            floor: UtteranceId::default(),
            last: UtteranceId::default(),
            names: Vec::new(),
            heard: 0,
        }
    }

    fn take(&mut self, event: SpeechEvent) {
        match event {
            SpeechEvent::Transcript(t) if t.is_final => self.held.told.finals.push(t),
            SpeechEvent::SttFailed { message } => self.held.told.failures.push(message),
            SpeechEvent::SttRecovered => self.held.told.recoveries += 1,
            SpeechEvent::Duplex(News::Begins { reply }) => {
                self.last = self.last.next();
                self.names.push((reply, self.last));
                self.held.played.push(Vec::new());
                let utterance = Some(self.last);
                self.handle.tell(Order::Name { reply, utterance });
            }
            SpeechEvent::Duplex(News::Words { text, last: true, .. }) => self.held.replies.push(text),
            SpeechEvent::Duplex(News::Stopped { .. }) => self.held.stopped += 1,
            SpeechEvent::Duplex(News::Used { service, output, .. }) if service.ends_with("-audio") => {
                self.held.used += output;
            }
            _ => {}
        }
    }

    /// 20 ms pass: the caller says this, and hears what there is.
    async fn tick(&mut self, frame: &[i16]) {
        push(&mut self.ring, frame);
        while let Ok(event) = self.events.try_recv() {
            self.take(event);
        }
        let mut out = vec![0; frame.len()];
        let mut room = out.len();
        while room > 0 {
            let Some(span) = self.down.peek() else { break };
            if span.utterance < self.floor {
                self.down.skip(room);
                continue;
            }
            let (n, last) = self.down.pop(&mut out[..room]);
            room -= n;
            self.heard += n;
            let at = span.utterance.0 as usize - 1;
            self.held.played[at].extend(&out[..n]);
            if last {
                self.over(span.utterance, true);
            }
            if n == 0 && !last {
                break;
            }
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    fn over(&mut self, utterance: UtteranceId, whole: bool) {
        let heard_ms = std::mem::take(&mut self.heard) as u32 / 8;
        if let Some((reply, _)) = self.names.iter().find(|(_, u)| *u == utterance) {
            let reply = *reply;
            self.handle.tell(Order::Over { reply, whole, heard_ms });
        }
    }

    async fn says(&mut self, wide: &[i16]) {
        for frame in wide.chunks(160) {
            self.tick(frame).await;
        }
    }

    /// Says nothing until something is so.
    async fn until(&mut self, what: &str, mut so: impl FnMut(&Self) -> bool) {
        let quiet = silence(self.ring.format());
        let within = timeout(PATIENCE, async {
            while !so(self) {
                self.tick(&quiet).await;
            }
        });
        let came = within.await.is_ok();
        assert!(came, "{what} did not come: {:?}", self.held);
    }

    /// Hangs up.
    async fn end(self) -> Held {
        let Self {
            ring, mut events, held, ..
        } = self;
        drop(ring);
        let mut held = held;
        while let Some(event) = timeout(PATIENCE, events.recv()).await.expect("it ends with its caller") {
            match event {
                SpeechEvent::Transcript(t) if t.is_final => held.told.finals.push(t),
                SpeechEvent::Duplex(News::Words { text, last: true, .. }) => held.replies.push(text),
                _ => {}
            }
        }
        held
    }
}

/// 20 ms in which nothing is said.
fn silence(format: AudioFormat) -> [i16; 160] {
    match format.encoding {
        Encoding::L16Le => [0; 160],
        law => [i16::from(codec::silence(law)); 160],
    }
}

/// Samples as a ring carries them, and as bytes.
fn carried(format: AudioFormat, samples: &[i16]) -> (Vec<i16>, Vec<u8>) {
    let mut bytes = vec![0; format.encoding.bytes(samples.len())];
    codec::encode(format.encoding, samples, &mut bytes);
    match format.encoding {
        Encoding::L16Le => (samples.to_vec(), bytes),
        _ => (bytes.iter().map(|c| i16::from(*c)).collect(), bytes),
    }
}

/// The tones of words, in codes of a law or samples at 8 kHz.
fn tones_of(format: AudioFormat, played: &[i16]) -> Vec<u32> {
    let mut samples = played.to_vec();
    if format.encoding != Encoding::L16Le {
        codec::decode_wide(format.encoding, &mut samples);
    }
    let (mut bursts, mut found) = (fake::Bursts::new(8000), Vec::new());
    bursts.push(&samples, |f| found.push(f));
    bursts.finish(|f| found.push(f));
    heard(found)
}

#[tokio::test]
async fn every_conversation_hears_each_word_once_and_answers_it_once_whatever_goes_wrong() {
    let cases = services().into_iter().flat_map(|(name, double)| {
        let faults = Fault::ALL.into_iter().chain([Fault::None]);
        faults.map(move |fault| async move {
            let case = format!("{name} {fault:?}");
            let server = serve(double, &[fault]).await;
            let speech = speech("duplex", name, &server.url(), &[]);
            let mut call = Call::open(&speech, name, "", ULAW);
            let (samples, said) = bursts(8000);
            let (wide, codes) = carried(ULAW, &samples);
            call.says(&wide).await;
            if let Fault::Status(status @ (401 | 402)) = fault {
                let held = call.end().await;
                let [message] = &held.told.failures[..] else {
                    panic!("{case}: {held:?}")
                };
                assert!(
                    message.contains(&status.to_string()) && !message.contains(KEY),
                    "{case}: {message}"
                );
                return;
            }
            call.until(&case, |c| c.held.replies.len() == 3).await;
            call.until(&case, |c| {
                c.held.played.len() == 3 && tones_of(ULAW, &c.held.played[2]).len() == 6
            })
            .await;
            let turns = {
                let history = call.memory.lock();
                history.turns().map(|(role, _)| role).collect::<Vec<_>>()
            };
            let held = call.end().await;
            assert_eq!(server.complaints(), Vec::<String>::new(), "{case}");
            let outages = usize::from(!matches!(fault, Fault::None | Fault::Slow(_)));
            assert_eq!(
                (held.told.failures.len(), held.told.recoveries),
                (outages, outages),
                "{case}: {held:?}"
            );
            let words = said.each_ref().map(|(text, ..)| text.as_str());
            assert_eq!(held.told.texts(), words, "{case}");
            for (heard, (_, from, to)) in held.told.finals.iter().zip(&said) {
                let near = |a: u64, b: u64| a.abs_diff(b) <= 400;
                let is_near = near(heard.from_ms, *from) && near(heard.to_ms, *to);
                assert!(is_near, "{case}: {heard:?} is not {from} to {to}");
            }
            let answers = words.map(|w| format!("you said {w}"));
            assert_eq!(held.replies, answers, "{case}");
            assert_eq!(turns.iter().filter(|r| **r == Role::Agent).count(), 3, "{case}");
            if fault == Fault::None {
                let [heard] = &server.heard()[..] else {
                    panic!("{case}: one session")
                };
                assert!(
                    heard.starts_with(&codes),
                    "{case}: the vendor's codes come through as they are"
                );
                for (played, answer) in held.played.iter().zip(&answers) {
                    let codes: Vec<i16> = spoken(answer, ULAW).iter().map(|c| i16::from(*c)).collect();
                    // The caller hung up in the silence behind the last word.
                    assert!(codes.starts_with(played), "{case}: and so do the service's");
                }
                assert_eq!((held.stopped, held.used), (3, 48), "{case}");
            }
        })
    });
    join_all(cases).await;
}

#[tokio::test]
async fn samples_are_made_to_fit_where_a_leg_speaks_no_codec_of_the_service() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let speech = speech("duplex", name, &server.url(), &[]);
        let mut call = Call::open(&speech, name, "", L16);
        let (samples, said) = bursts(8000);
        call.says(&samples).await;
        call.until(name, |c| c.held.replies.len() == 3).await;
        call.until(name, |c| {
            let last = c.held.played.get(2).map(|p| tones_of(L16, p));
            last.is_some_and(|t| t == tones(&format!("you said {}", said[2].0)))
        })
        .await;
        let held = call.end().await;
        assert_eq!(
            held.told.texts(),
            said.each_ref().map(|(text, ..)| text.as_str()),
            "{name}"
        );
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
        // 24 kHz in 16 bits: six bytes for each sample of the call.
        let heard = server.heard()[0].len();
        assert!(heard > samples.len() * 6, "{name}: {heard}");
    }
}

#[tokio::test]
async fn a_reply_that_is_cut_off_is_truncated_to_what_was_heard_and_no_more_of_it_comes() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let speech = speech("duplex", name, &server.url(), &[]);
        let mut call = Call::open(&speech, name, "", ULAW);
        let how = Some("Say exactly: \"one two three four five six seven eight nine ten\"".to_owned());
        call.handle.tell(Order::Respond { how, tools: true });
        call.until("half a second of the reply", |c| c.heard >= 4000).await;
        // As the call does: what is below the floor is dropped, and the conversation is told.
        let cut = call.last;
        call.floor = call.last.next();
        call.over(cut, false);
        call.until("its words", |c| !c.held.replies.is_empty()).await;
        let kept = |c: &Call| {
            let history = c.memory.lock();
            history.turns().map(|(_, text)| text.to_owned()).collect::<Vec<_>>()
        };
        call.until("what was heard of them", |c| kept(c) != c.held.replies)
            .await;
        let kept = kept(&call);
        assert!(
            matches!(&kept[..], [text] if "one two three four".starts_with(text.as_str()) && !text.is_empty()),
            "{name}: {kept:?}"
        );
        let (wide, _) = carried(ULAW, &fake::phrase(0, 420, 8000));
        call.says(&wide).await;
        call.until("the next reply", |c| {
            c.held.played.len() == 2 && tones_of(ULAW, &c.held.played[1]).len() == 6
        })
        .await;
        let held = call.end().await;
        assert_eq!(held.replies[1], "you said tone of 400 Hz", "{name}");
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn another_service_takes_over_and_knows_what_was_said() {
    let [first, second] = services()[..] else {
        panic!("two services")
    };
    for status in [503, 401] {
        let (away, there) = (serve(first.1, &[]).await, serve(second.1, &[]).await);
        let served = [(first.0, &*away.url()), (second.0, &*there.url())];
        let speech = speech_of("duplex", &served, &[("renew_after", "1s")]);
        away.go_wrong(&[Fault::Status(status); 50]);
        let mut call = Call::open(&speech, first.0, second.0, ULAW);
        let (samples, said) = bursts(8000);
        let (wide, _) = carried(ULAW, &samples);
        call.says(&wide).await;
        call.until("three replies", |c| c.held.replies.len() == 3).await;
        let held = call.end().await;
        assert_eq!(
            held.told.texts(),
            said.each_ref().map(|(text, ..)| text.as_str()),
            "{status}"
        );
        assert_eq!(
            (held.told.failures.len(), held.told.recoveries),
            (1, 1),
            "{status}: {held:?}"
        );
        assert_eq!(there.complaints(), Vec::<String>::new(), "{status}");
    }
}

#[tokio::test]
async fn a_session_is_renewed_without_a_word_lost_or_said_twice() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let speech = speech("duplex", name, &server.url(), &[("renew_after", "1s")]);
        let mut call = Call::open(&speech, name, "", ULAW);
        let (samples, _) = bursts(8000);
        let (wide, _) = carried(ULAW, &samples);
        for round in 1..=3 {
            call.says(&wide).await;
            call.until(name, |c| c.held.replies.len() == 3 * round).await;
            call.until("another session", |_| server.connections() > round).await;
        }
        let held = call.end().await;
        let expected: Vec<_> = ["400", "700", "1000"].iter().cycle().take(9).collect();
        let expected: Vec<_> = expected.iter().map(|hz| format!("tone of {hz} Hz")).collect();
        assert_eq!(held.told.texts(), expected, "{name}");
        assert_eq!(held.told.failures, Vec::<String>::new(), "{name}: no outage is told");
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn a_person_in_its_place_is_not_talked_over_and_known_of_afterwards() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let speech = speech("duplex", name, &server.url(), &[]);
        let mut call = Call::open(&speech, name, "", ULAW);
        call.handle.tell(Order::Pause(true));
        call.handle.tell(Order::Note("I am Bob.".to_owned()));
        let (wide, _) = carried(ULAW, &fake::phrase(0, 420, 8000));
        call.says(&[&silence(ULAW)[..]; 25].concat()).await;
        call.says(&wide).await;
        call.until("its words", |c| c.held.told.finals.len() == 1).await;
        call.says(&[&silence(ULAW)[..]; 25].concat()).await;
        assert!(call.held.played.is_empty(), "{name}: it is silent");
        call.handle.tell(Order::Pause(false));
        call.until("an answer to what is unanswered", |c| c.held.replies.len() == 1)
            .await;
        let turns = call
            .memory
            .lock()
            .turns()
            .map(|(_, t)| t.to_owned())
            .collect::<Vec<_>>();
        assert_eq!(turns, ["I am Bob.", "tone of 400 Hz", "well"], "{name}");
        call.end().await;
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
    }
}

#[tokio::test]
async fn a_session_that_was_opened_ahead_is_used_on_whichever_lane_the_call_lands() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let speech = speech("duplex", name, &server.url(), &[]);
        let spec = DuplexSpec {
            backend: name.to_owned(),
            ..DuplexSpec::default()
        };
        // Nothing tells that it waits already, so a call may be quicker once or twice.
        let used = async {
            loop {
                let before = server.connections();
                speech.warm_duplex(0, spec.clone());
                while server.heard().len() == before {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
                let mut call = Call::open_on(1, &speech, name, "", ULAW);
                let (wide, _) = carried(ULAW, &fake::phrase(0, 420, 8000));
                call.says(&wide).await;
                call.until("a reply", |c| c.held.replies.len() == 1).await;
                call.end().await;
                if server.connections() == before + 1 {
                    return;
                }
            }
        };
        timeout(PATIENCE, used)
            .await
            .unwrap_or_else(|_| panic!("{name}: it never is"));
    }
}

/// A way to a service that can be cut.
struct Way {
    url: String,
    open: Arc<Mutex<Vec<AbortHandle>>>,
}

impl Way {
    async fn to(server: &Server) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let there = server.url().trim_start_matches("http://").to_owned();
        let open = Arc::<Mutex<Vec<AbortHandle>>>::default();
        let opened = Arc::clone(&open);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let there = there.clone();
                let task = tokio::spawn(async move {
                    let mut far = TcpStream::connect(there).await.unwrap();
                    let _ = copy_bidirectional(&mut near, &mut far).await;
                });
                opened.lock().unwrap().push(task.abort_handle());
            }
        });
        Self { url, open }
    }

    fn cut(&self) {
        self.open.lock().unwrap().drain(..).for_each(|task| task.abort());
    }
}

#[tokio::test]
async fn a_reply_that_breaks_off_in_the_middle_ends_there_and_is_gone_on_with() {
    for (name, double) in services() {
        let server = serve(double, &[]).await;
        let way = Way::to(&server).await;
        let speech = speech("duplex", name, &way.url, &[]);
        let mut call = Call::open(&speech, name, "", ULAW);
        // Half a minute of speech, which takes three seconds to make.
        let words = (0..100).map(|n| format!("word{n}")).collect::<Vec<_>>().join(" ");
        let how = Some(format!("Say exactly: \"{words}\""));
        call.handle.tell(Order::Respond { how, tools: true });
        call.until("a second of it", |c| c.heard >= 8000).await;
        way.cut();
        call.until("the next reply", |c| c.held.replies.len() == 2).await;
        call.until("its sound", |c| {
            c.held.played.len() == 2 && !c.held.played[1].is_empty()
        })
        .await;
        let held = call.end().await;
        let [first, second] = &held.replies[..] else {
            panic!("{held:?}")
        };
        assert!(
            words.starts_with(first.as_str()) && first.len() < words.len(),
            "{name}: {first}"
        );
        assert_eq!(second, "well", "{name}: it is asked to go on");
        assert_eq!((held.told.failures.len(), held.told.recoveries), (1, 1), "{name}");
        assert_eq!(server.complaints(), Vec::<String>::new(), "{name}");
    }
}
