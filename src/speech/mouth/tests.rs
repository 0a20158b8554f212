//! Mouths over real rings on a paused clock, with the fake synthesizer.

use super::*;
use crate::{
    audio::{
        g711,
        ring::{DownlinkRx, DownlinkTx, downlink, downlink_of},
    },
    base::format::AudioFormat,
    speech::tts::fake,
};
use tokio::task::LocalSet;

const U: [UtteranceId; 5] = [
    UtteranceId(1),
    UtteranceId(2),
    UtteranceId(3),
    UtteranceId(4),
    UtteranceId(5),
];

struct Bench {
    handle: Option<mpsc::UnboundedSender<Order>>,
    shared: Arc<Shared>,
    ring: DownlinkRx,
    events: mpsc::Receiver<SpeechEvent>,
}

/// Runs a test beside a mouth whose ring holds `capacity` samples.
async fn with_mouth<F: Future<Output = ()>>(capacity: usize, test: impl FnOnce(Bench) -> F) {
    with_tts(capacity, Some(fake_tts()), test).await;
}

async fn with_tts<F: Future<Output = ()>>(capacity: usize, tts: Option<Rc<dyn Tts>>, test: impl FnOnce(Bench) -> F) {
    with_ring(downlink(8000, capacity, 64), tts, test).await;
}

async fn with_ring<F: Future<Output = ()>>(
    (tx, ring): (DownlinkTx, DownlinkRx),
    tts: Option<Rc<dyn Tts>>,
    test: impl FnOnce(Bench) -> F,
) {
    let (sender, events) = mpsc::channel(8);
    let (handle, orders) = mpsc::unbounded_channel();
    let shared = Arc::<Shared>::default();
    let speaker = Speaker {
        tts: tts.ok_or_else(|| "there is no synthesizer".to_owned()),
        backend: "fake",
        spec: MouthSpec::default(),
        ring: Outlet::new(tx),
        orders,
        shared: Arc::clone(&shared),
        news: Outbox::new(sender),
    };
    let bench = Bench {
        handle: Some(handle),
        shared,
        ring,
        events,
    };
    LocalSet::new()
        .run_until(async {
            let mouth = tokio::task::spawn_local(speaker.run());
            test(bench).await;
            let closed = tokio::time::timeout(Duration::from_secs(1), mouth).await;
            closed
                .expect("the mouth closes with its handle")
                .expect("without a panic");
        })
        .await;
}

fn fake_tts() -> Rc<dyn Tts> {
    let config = crate::speech::Config::read(&crate::base::settings::Section::root(
        &crate::base::settings::Table::new(),
        &crate::base::settings::Faults::default(),
    ));
    config
        .tts
        .iter()
        .find(|(name, _)| *name == "fake")
        .expect("shipped")
        .1
        .open()
}

impl Bench {
    fn say(&self, utterance: UtteranceId, text: &str) {
        assert!(self.shared.admit_words());
        let order = Order::Say {
            utterance,
            text: text.to_owned(),
            language: None,
        };
        self.handle.as_ref().unwrap().send(order).unwrap();
    }

    fn play(&self, utterance: UtteranceId, samples: &[i16], rate: u32, last: bool) {
        self.give(utterance, Raw::Samples(samples.to_vec(), rate), last, false);
    }

    fn give(&self, utterance: UtteranceId, raw: Raw, last: bool, speech: bool) {
        assert!(self.shared.admit_sound(&raw, if speech { SPEECH_MS } else { SOUND_MS }));
        let order = Order::Play {
            utterance,
            raw,
            last,
            speech,
        };
        self.handle.as_ref().unwrap().send(order).unwrap();
    }

    /// Plays out at once what comes until an utterance ends; its id and samples.
    async fn next(&mut self) -> (UtteranceId, Vec<i16>) {
        let mut heard = Vec::new();
        loop {
            let Some(span) = self.ring.peek() else {
                tokio::time::sleep(Duration::from_millis(1)).await;
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

    /// Events so far.
    async fn news(&mut self) -> Vec<SpeechEvent> {
        let mut news = Vec::new();
        while let Ok(Some(event)) = tokio::time::timeout(Duration::from_secs(1), self.events.recv()).await {
            if !matches!(event, SpeechEvent::Connected { .. }) {
                news.push(event);
            }
        }
        news
    }
}

fn words(text: &str) -> Vec<i16> {
    text.split_whitespace().flat_map(fake::word).collect()
}

#[tokio::test(start_paused = true)]
async fn who_speaks_any_language_is_not_silent_in_one_that_no_voice_knows() {
    with_mouth(4000, |mut b| async move {
        assert!(b.shared.admit_words());
        let order = Order::Say {
            utterance: U[0],
            text: "nuqneH".to_owned(),
            language: Some("xx".to_owned()),
        };
        b.handle.as_ref().unwrap().send(order).unwrap();
        assert_eq!(b.next().await, (U[0], words("nuqneH")));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn utterances_are_spoken_whole_and_in_order_through_a_small_ring() {
    with_mouth(400, |mut b| async move {
        b.say(U[0], "Good day. How are you?");
        b.say(U[1], "Fine");
        assert_eq!(b.next().await, (U[0], words("Good day. How are you?")));
        assert_eq!(b.next().await, (U[1], words("Fine")));
        assert!(b.ring.is_empty());
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn frontends_get_numbered_chunks_before_the_caller_has_heard_them() {
    with_mouth(400, |mut b| async move {
        b.say(U[0], &"word ".repeat(20));
        let mut samples = 0;
        for (n, event) in b.news().await.into_iter().enumerate() {
            let SpeechEvent::Audio {
                utterance,
                seq,
                audio,
                last,
            } = event
            else {
                panic!("{event:?}")
            };
            assert_eq!((utterance, seq as usize), (U[0], n));
            assert!(audio.len() <= 8000);
            samples += audio.len();
            assert_eq!(last, samples == 20 * 1200 && audio.is_empty());
        }
        assert_eq!(samples, 20 * 1200, "3 s, though the ring takes 50 ms");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_cut_ends_what_began_and_drops_what_waits() {
    with_mouth(400, |mut b| async move {
        b.say(U[0], &"long ".repeat(50));
        b.say(U[1], "never heard");
        tokio::time::sleep(Duration::from_millis(30)).await;
        assert_eq!(b.ring.peek().map(|s| s.utterance), Some(U[0]));
        b.shared.cut(U[2]);
        b.say(U[2], "after");
        let (first, heard) = b.next().await;
        assert_eq!(first, U[0]);
        assert!(heard.len() < 2000, "{} samples", heard.len());
        assert_eq!(b.next().await, (U[2], words("after")));
        let news = b.news().await;
        let lasts = news.iter().filter_map(|e| match e {
            SpeechEvent::Audio {
                utterance, last: true, ..
            } => Some(*utterance),
            _ => None,
        });
        assert_eq!(lasts.collect::<Vec<_>>(), [U[0], U[2]]);
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_failure_ends_the_utterance_and_the_next_is_spoken() {
    with_mouth(4000, |mut b| async move {
        b.say(U[0], "[break]");
        b.say(U[1], &format!("{}[break]", "half ".repeat(20)));
        b.say(U[2], "whole");
        let (second, heard) = b.next().await;
        assert_eq!(second, U[1], "nothing of the first was ever in the ring");
        assert!(!heard.is_empty() && words(&"half ".repeat(20)).starts_with(&heard));
        assert_eq!(b.next().await, (U[2], words("whole")));
        let failed = b.news().await.into_iter().filter_map(|e| match e {
            SpeechEvent::TtsFailed { utterance, message } => Some((utterance, message)),
            _ => None,
        });
        let failed: Vec<_> = failed.collect();
        assert_eq!(failed.iter().map(|f| f.0).collect::<Vec<_>>(), [U[0], U[1]]);
        assert!(failed[0].1.contains("told to break"));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn words_without_a_voice_fail_but_sound_is_played() {
    with_tts(4000, None, |mut b| async move {
        b.say(U[0], "hello");
        b.play(U[1], &[5; 80], 8000, true);
        assert_eq!(b.next().await, (U[1], vec![5; 80]));
        assert!(matches!(&b.news().await[..], [SpeechEvent::TtsFailed { .. }]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sound_comes_in_pieces_and_is_resampled_as_one() {
    with_mouth(8000, |mut b| async move {
        for n in 0..10 {
            b.play(U[0], &[1000; 320], 16_000, n == 9);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let (id, heard) = b.next().await;
        assert_eq!((id, heard.len()), (U[0], 1600));
        assert!(heard[40..1560].iter().all(|s| (990..1010).contains(s)), "no seam");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn sound_that_pauses_makes_way_and_does_not_come_back() {
    with_mouth(8000, |mut b| async move {
        b.play(U[0], &[1; 80], 8000, false);
        b.say(U[1], "hello");
        assert_eq!(b.next().await, (U[0], vec![1; 80]));
        b.play(U[0], &[2; 80], 8000, false);
        assert_eq!(b.next().await, (U[1], words("hello")));
        b.play(U[2], &[3; 80], 8000, true);
        assert_eq!(b.next().await, (U[2], vec![3; 80]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn queues_are_bounded_and_room_comes_back() {
    with_mouth(100, |mut b| async move {
        for _ in 0..UTTERANCES {
            b.say(U[0], "");
        }
        assert!(!b.shared.admit_words());
        for _ in 0..UTTERANCES {
            b.next().await;
        }
        assert!(b.shared.admit_words());
        let sound = |s: usize| Raw::Samples(vec![0; 8000 * s], 8000);
        assert!(!b.shared.admit_sound(&sound(61), SOUND_MS));
        b.play(U[1], &vec![0; 8000 * 59], 8000, true);
        assert!(!b.shared.admit_sound(&sound(2), SOUND_MS));
        assert!(b.shared.admit_sound(&sound(2), SPEECH_MS));
        b.next().await;
        assert!(b.shared.admit_sound(&sound(2), SOUND_MS));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn a_text_without_end_is_refused_and_an_empty_one_ends_at_once() {
    with_mouth(100, |mut b| async move {
        b.say(U[0], &"a".repeat(TEXT + 1));
        b.say(U[1], " ");
        assert_eq!(b.next().await, (U[1], vec![]));
        assert!(matches!(&b.news().await[0], SpeechEvent::TtsFailed { utterance, .. } if *utterance == U[0]));
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn another_language_gets_another_voice() {
    assert!(same_language("en-GB", "en"));
    assert!(same_language("de", "auto"));
    assert!(!same_language("de", "en-US"));
}

#[tokio::test(start_paused = true)]
async fn codes_pass_a_ring_of_their_law_unchanged_and_frontends_get_them_too() {
    let every: Vec<u8> = (0..=255).cycle().take(1600).collect();
    with_ring(downlink_of(AudioFormat::ULAW_8K, 4000, 64), None, |mut b| async move {
        b.give(U[0], Raw::Codes(every.clone(), Encoding::Ulaw), false, true);
        b.give(U[0], Raw::Codes(every.clone(), Encoding::Ulaw), true, true);
        let (utterance, heard) = b.next().await;
        let twice: Vec<i16> = every.iter().chain(&every).map(|c| i16::from(*c)).collect();
        assert!(utterance == U[0] && heard == twice, "not one code is another");
        let mut copies = Vec::new();
        while let SpeechEvent::Audio { audio, last, .. } = b.events.recv().await.unwrap() {
            copies.extend_from_slice(&audio);
            if last {
                break;
            }
        }
        assert_eq!(copies, [&every[..], &every].concat());
        // Another law is decoded on the lane; so are samples encoded.
        let mut alaw = [0; 160];
        g711::alaw_encode(&[1000; 160], &mut alaw);
        b.give(U[1], Raw::Codes(alaw.to_vec(), Encoding::Alaw), true, false);
        let (_, heard) = b.next().await;
        let mut code = [0];
        g711::ulaw_encode(&[1000], &mut code);
        let near = heard.iter().all(|c| c.abs_diff(i16::from(code[0])) <= 1);
        assert!(heard.len() == 160 && near, "{code:?} {heard:?}");
    })
    .await;
}

#[tokio::test(start_paused = true)]
async fn speech_in_codes_is_cut_like_any_other() {
    with_ring(downlink_of(AudioFormat::ULAW_8K, 800, 64), None, |mut b| async move {
        b.give(U[0], Raw::Codes(vec![1; 8000], Encoding::Ulaw), false, true);
        while b.ring.queued() < 800 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        b.shared.cut(U[1]);
        b.give(U[0], Raw::Codes(vec![2; 8000], Encoding::Ulaw), true, true);
        b.give(U[1], Raw::Codes(vec![3; 160], Encoding::Ulaw), true, true);
        let (first, heard) = b.next().await;
        assert!(first == U[0] && heard.iter().all(|c| *c == 1));
        assert_eq!(b.next().await, (U[1], vec![3; 160]), "nothing stale follows the cut");
    })
    .await;
}
