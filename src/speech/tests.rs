//! Whole lanes on a paused clock: ears over real rings with the fake recogniser and with ones that break.

use super::{
    Config, EarHandle, EarSpec, Hearing, SpeechEvent, Transcript,
    lane::{Command, LOOK, Lane, run},
    stt::{Engine, Stt, SttError, fake},
};
use crate::{
    audio::ring::{UplinkTx, uplink},
    base::doorbell::Doorbell,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use std::{
    cell::{Cell, RefCell},
    rc::Rc,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    sync::{mpsc, watch},
    task::LocalSet,
};

type Recognisers = Vec<(&'static str, Arc<dyn Engine>)>;

/// Runs a test beside a lane with these recognisers.
async fn with_lane<F: Future<Output = ()>>(
    stt: Recognisers,
    test: impl FnOnce(mpsc::Sender<Command>, Arc<Doorbell>) -> F,
) {
    let (commands, inbox) = mpsc::channel(16);
    let bell = Arc::new(Doorbell::new());
    let config = Config {
        stt,
        tts: Vec::new(),
        ..Config::default()
    };
    LocalSet::new()
        .run_until(async {
            let lane = tokio::task::spawn_local(run(config, inbox, Arc::clone(&bell)));
            test(commands, bell).await;
            lane.await
                .expect("the lane ends with its commands and survives every panic");
        })
        .await;
}

fn shipped() -> Recognisers {
    let (table, faults) = Default::default();
    Config::read(&crate::base::settings::Section::root(&table, &faults)).stt
}

/// What comes next, besides that somebody listens.
async fn news(events: &mut mpsc::Receiver<SpeechEvent>) -> Option<SpeechEvent> {
    loop {
        let event = tokio::time::timeout(Duration::from_secs(30), events.recv());
        match event.await.expect("news in time") {
            Some(SpeechEvent::Connected { .. }) => {}
            event => return event,
        }
    }
}

struct Caller {
    ring: UplinkTx,
    events: mpsc::Receiver<SpeechEvent>,
    handle: EarHandle,
}

impl Caller {
    async fn call(commands: &mpsc::Sender<Command>, bell: &Arc<Doorbell>, backend: &str, rate: u32) -> Self {
        let (ring, audio) = uplink(rate, rate as usize, Some(Arc::clone(bell)));
        let (sender, events) = mpsc::channel(32);
        let spec = EarSpec {
            backend: backend.to_owned(),
            phrases: ["yes", "no", "opening hours"].map(str::to_owned).to_vec(),
            ..EarSpec::default()
        };
        let (handle, language) = watch::channel(String::new());
        let ear = Command::Ear {
            spec,
            audio,
            events: sender,
            language,
        };
        commands.send(ear).await.unwrap();
        let handle = EarHandle(handle);
        Self { ring, events, handle }
    }

    /// Speaks in 20 ms frames, in time.
    async fn say(&mut self, samples: &[i16]) {
        for frame in samples.chunks(self.ring.rate() as usize / 50) {
            assert!(self.ring.push(frame), "the ear keeps up");
            self.ring.bell().unwrap().ring();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn next(&mut self) -> Option<SpeechEvent> {
        news(&mut self.events).await
    }

    async fn next_final(&mut self) -> Option<String> {
        loop {
            if let SpeechEvent::Transcript(Transcript {
                text, is_final: true, ..
            }) = self.next().await?
            {
                return Some(text);
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_ear_changes_its_language_and_keeps_the_one_it_has_where_it_cannot() {
    with_lane(shipped(), |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "fake", 8000).await;
        for (wanted, heard_in) in [
            ("es", "es"),
            ("xx", "es"),
            ("es", "es"),
            ("es-MX", "es-MX"),
            ("es", "es-MX"),
        ] {
            caller.handle.listen_in(wanted);
            if wanted == "xx" {
                let told = (caller.next().await, caller.next().await);
                assert!(matches!(
                    told,
                    (Some(SpeechEvent::SttFailed { .. }), Some(SpeechEvent::SttRecovered))
                ));
            }
            caller.say(&fake::phrase(2, 200, 8000)).await;
            assert_eq!(caller.next().await, Some(SpeechEvent::Started), "{wanted}");
            let Some(SpeechEvent::Transcript(heard)) = caller.next().await else {
                panic!("a final is due")
            };
            assert_eq!(
                (heard.is_final, heard.language.as_deref()),
                (true, Some(heard_in)),
                "{wanted}"
            );
        }
        drop(caller.ring);
        assert_eq!(news(&mut caller.events).await, None);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn phrases_are_heard_at_every_ring_rate() {
    with_lane(shipped(), |commands, bell| async move {
        for rate in [8000, 16_000, 24_000, 48_000] {
            let mut caller = Caller::call(&commands, &bell, "fake", rate).await;
            caller.say(&vec![0; rate as usize]).await;
            caller.say(&fake::phrase(2, 400, rate)).await;
            assert_eq!(caller.next().await, Some(SpeechEvent::Started));
            let Some(SpeechEvent::Transcript(interim)) = caller.next().await else {
                panic!("an interim is due")
            };
            assert!(!interim.is_final);
            let Some(SpeechEvent::Transcript(heard)) = caller.next().await else {
                panic!("a final is due")
            };
            assert_eq!(
                (heard.text.as_str(), heard.is_final),
                ("opening hours", true),
                "at {rate} Hz"
            );
            assert!(
                (990..=1010).contains(&heard.from_ms) && (1390..=1420).contains(&heard.to_ms),
                "{heard:?}"
            );
        }
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn the_last_words_are_told_after_the_caller_is_gone() {
    with_lane(shipped(), |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "fake", 8000).await;
        let tone = fake::phrase(0, 200, 8000);
        caller.say(&tone[..1600]).await;
        let Caller { ring, mut events, .. } = caller;
        drop(ring);
        let mut last = None;
        while let Some(event) = events.recv().await {
            last = Some(event);
        }
        assert!(matches!(last, Some(SpeechEvent::Transcript(t)) if t.text == "yes" && t.is_final));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_outage_is_told_once_and_its_audio_is_heard_afterwards() {
    with_lane(shipped(), |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "fake", 8000).await;
        caller.say(&fake::phrase(26, 200, 8000)).await;
        assert_eq!(caller.next().await, Some(SpeechEvent::Started));
        assert!(matches!(caller.next().await, Some(SpeechEvent::SttFailed { .. })));
        caller.say(&fake::phrase(1, 100, 8000)).await;
        assert_eq!(caller.next().await, Some(SpeechEvent::SttRecovered));
        assert_eq!(caller.next_final().await.as_deref(), Some("no"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn an_unknown_recogniser_is_a_failure_that_names_the_known_ones() {
    with_lane(shipped(), |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "nemo", 8000).await;
        let Some(SpeechEvent::SttFailed { message }) = caller.next().await else {
            panic!("a failure is due")
        };
        assert!(message.contains("nemo") && message.contains("fake"), "{message}");
        assert!(caller.ring.is_closed(), "nobody listens");
    })
    .await;
}

/// What a [`Scripted`] recogniser does in its n-th session.
type Act = fn(usize) -> Result<(), SttError>;

/// Acts at the start of each session, then notes how many samples it hears.
#[derive(Debug)]
struct Scripted {
    act: Act,
    heard: Arc<Mutex<Vec<i16>>>,
}

impl Engine for Scripted {
    fn open(&self) -> Rc<dyn Stt> {
        Rc::new(Opened {
            act: self.act,
            heard: Arc::clone(&self.heard),
            sessions: Cell::new(0),
            asked: RefCell::default(),
        })
    }
}

struct Opened {
    act: Act,
    heard: Arc<Mutex<Vec<i16>>>,
    sessions: Cell<usize>,
    asked: RefCell<Vec<EarSpec>>,
}

impl Stt for Opened {
    fn rate(&self, ring: u32) -> u32 {
        ring
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        let session = self.sessions.replace(self.sessions.get() + 1);
        self.asked.borrow_mut().push(spec.clone());
        async move {
            (self.act)(session)?;
            hearing.ready().await;
            let mut out = [0; 160];
            loop {
                let n = hearing.read(&mut out).await;
                if n == 0 {
                    return Ok(());
                }
                self.heard.lock().unwrap().extend_from_slice(&out[..n]);
                hearing.settle(hearing.position());
            }
        }
        .boxed_local()
    }
}

/// Recognisers with a scripted one among them, and what that one heard.
fn scripted(act: Act) -> (Recognisers, Arc<Mutex<Vec<i16>>>) {
    let heard = Arc::default();
    let engine = Scripted {
        act,
        heard: Arc::clone(&heard),
    };
    let mut backends = shipped();
    backends.push(("scripted", Arc::new(engine)));
    (backends, heard)
}

/// Speaks 12 s to a recogniser that breaks in its first sessions; the samples spoken and heard.
async fn through_an_outage(act: Act) -> (Vec<i16>, Vec<i16>) {
    let (backends, heard) = scripted(act);
    let audio: Vec<i16> = (0..8000 * 12).map(|n| n as i16).collect();
    let spoken = audio.clone();
    with_lane(backends, |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "scripted", 8000).await;
        caller.say(&spoken).await;
        assert!(matches!(caller.next().await, Some(SpeechEvent::SttFailed { .. })));
        drop(caller.ring);
        assert_eq!(news(&mut caller.events).await, Some(SpeechEvent::SttRecovered));
        assert_eq!(news(&mut caller.events).await, None);
    })
    .await;
    let heard = heard.lock().unwrap().clone();
    (audio, heard)
}

fn away_until(session: usize, back: usize) -> Result<(), SttError> {
    if session < back {
        return Err(SttError::Lost("away".to_owned()));
    }
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_short_outage_is_lost() {
    let (spoken, heard) = through_an_outage(|session| away_until(session, 2)).await;
    assert!(heard == spoken);
}

#[tokio::test(start_paused = true)]
async fn the_last_five_seconds_of_a_long_outage_are_heard_after_it() {
    let (spoken, heard) = through_an_outage(|session| away_until(session, 10)).await;
    assert!(heard == spoken[8000 * 7..], "{} samples", heard.len());
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_told_and_closes_the_ear() {
    let (backends, _) = scripted(|_| Err(SttError::Refused("not this language".to_owned())));
    with_lane(backends, |commands, bell| async move {
        let mut caller = Caller::call(&commands, &bell, "scripted", 8000).await;
        assert!(
            matches!(caller.next().await, Some(SpeechEvent::SttFailed { message }) if message == "not this language")
        );
        assert_eq!(caller.next().await, None);
        tokio::time::sleep(LOOK * 2).await;
        assert!(caller.ring.is_closed());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_panic_is_an_outage_of_one_ear_alone() {
    let (backends, heard) = scripted(|session| if session == 0 { panic!("on purpose") } else { Ok(()) });
    with_lane(backends, |commands, bell| async move {
        let mut other = Caller::call(&commands, &bell, "fake", 8000).await;
        let mut caller = Caller::call(&commands, &bell, "scripted", 8000).await;
        assert!(matches!(caller.next().await, Some(SpeechEvent::SttFailed { .. })));
        caller.say(&[7; 1600]).await;
        assert_eq!(caller.next().await, Some(SpeechEvent::SttRecovered));
        other.say(&fake::phrase(0, 100, 8000)).await;
        assert_eq!(other.next_final().await.as_deref(), Some("yes"));
        drop(caller.ring);
        assert_eq!(news(&mut caller.events).await, None);
        assert_eq!(heard.lock().unwrap().len(), 1600);
    })
    .await;
}

#[test]
fn a_lane_is_a_thread_that_ends_when_dropped() {
    let lane = Lane::start(
        0,
        Config {
            stt: shipped(),
            tts: Vec::new(),
            ..Config::default()
        },
    );
    let (ring, audio) = uplink(8000, 8000, Some(Arc::clone(&lane.bell)));
    let (events, mut news) = mpsc::channel(4);
    let spec = EarSpec {
        backend: "fake".to_owned(),
        ..EarSpec::default()
    };
    let ear = Command::Ear {
        spec,
        audio,
        events,
        language: watch::channel(String::new()).1,
    };
    lane.commands.as_ref().unwrap().try_send(ear).unwrap();
    drop(lane);
    assert!(ring.is_closed());
    let connected = |event: &SpeechEvent| {
        matches!(
            event,
            SpeechEvent::Connected {
                kind: "stt",
                backend: "fake"
            }
        )
    };
    assert!(std::iter::from_fn(|| news.blocking_recv()).all(|event| connected(&event)));
}
