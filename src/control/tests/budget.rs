//! What of a turn's time is ours, on a virtual clock: a leg, its agent and its waterfall, between backends that take as long as the
//! published ones do.

use super::*;
use crate::{
    agent::{act::Act, pipeline::Pipeline},
    audio::{resample::any::AnyResampler, ring},
    base::time::Mono,
    control::waterfall::Waterfall,
    llm::{Piece, Stop, Usage},
    media::{Limits, Output, Scratch, Session},
    vendor::{Payload, Peer, PeerCall, PeerEvent, Upgrade},
};
use bytes::BytesMut;

/// From the end of speech to its final transcript, endpointing included: the 99th percentile of a live recogniser.
const STT_MS: u64 = 350;
/// To a model's first words, which here are a sentence.
const LLM_MS: u64 = 375;
/// To a synthesizer's first audio.
const TTS_MS: u64 = 100;
/// What all of ours may add.
const OURS_MS: u64 = 60;
/// When the caller stops talking.
const SPOKEN_MS: u64 = 1000;
const ANSWER: UtteranceId = UtteranceId(1);

/// A leg of the first vendor, its agent, and backends that are times on the clock.
struct Turn {
    session: Session,
    peer: Box<dyn Peer>,
    scratch: Scratch,
    ear: ring::UplinkRx,
    mouth: ring::DownlinkTx,
    events: Vec<LegEvent>,
    agent: Pipeline,
    waterfall: Waterfall,
    /// When each backend has its answer, once it was asked.
    due: [Option<u64>; 3],
    /// When the answer's first sound left for the caller.
    heard_at: Option<u64>,
}

impl Turn {
    fn begin() -> Self {
        let codec = (vendor().codec)(&Upgrade::default());
        let mut session = Session::new(Mono::ZERO, vendor().caps, codec, Limits::default());
        let mut peer = (vendor().peer)(PeerCall {
            call_sid: "CA00000000000000000000000000000001".into(),
            ..PeerCall::default()
        });
        let mut scratch = Scratch::default();
        for message in peer.open() {
            session.handle_message(Mono::ZERO, message.as_bytes(), &mut scratch);
        }
        let start = session.take_arrival().expect("a start");
        let (up, ear) = ring::uplink_of(start.inbound, 8000, None);
        let (mouth, down) = ring::downlink(8000, 16_000, 256);
        let route = Route::Relay {
            uplink: Some(up),
            downlink: Some(down),
        };
        let plan = Plan {
            call: CallId::new(),
            route,
            barge_in_after: Some(Duration::from_millis(200)),
            tap: None,
            events: mpsc::channel(1).0,
        };
        session.handle_command(Mono::ZERO, LegCommand::Plan(Box::new(plan)), &mut scratch);
        let mut agent = Pipeline::new(Arc::new(Profile::new("desk", AgentKind::Pipeline)));
        let mut waterfall = Waterfall::default();
        waterfall.hears(Mono::ZERO);
        agent.answered(Mono::ZERO);
        Self {
            session,
            peer,
            scratch,
            ear,
            mouth,
            events: Vec::new(),
            agent,
            waterfall,
            due: [None; 3],
            heard_at: None,
        }
    }

    /// A frame of 20 ms from the caller: a tone until they stop talking.
    fn hears(&mut self, ms: u64) {
        let loud = |n: i16| if n % 16 < 8 { 8000 } else { -8000 };
        let samples: Vec<i16> = (0..160).map(|n| if ms <= SPOKEN_MS { loud(n) } else { 0 }).collect();
        let mut codes = [0; 160];
        codec::encode(crate::base::format::Encoding::Ulaw, &samples, &mut codes);
        let mut text = String::new();
        self.peer.media(&codes, ms, &mut text);
        self.session
            .handle_message(Mono::from_millis(ms), text.as_bytes(), &mut self.scratch);
    }

    /// What the agent asks for starts the clock of whom it asks.
    fn obey(&mut self, ms: u64) {
        let now = Mono::from_millis(ms);
        while let Some(act) = self.agent.poll() {
            match act {
                Act::Ask(_) => {
                    self.waterfall.asked(now);
                    self.due[1] = Some(ms + LLM_MS);
                }
                Act::Say(_) => {
                    self.waterfall.said(now, ANSWER);
                    self.agent.said(now, Some(ANSWER));
                    self.due[2] = Some(ms + TTS_MS);
                }
                other => panic!("{other:?}"),
            }
        }
    }

    /// Lets the backends answer that are due.
    fn backends(&mut self, ms: u64) {
        let now = Mono::from_millis(ms);
        let due = |due: &mut Option<u64>| due.take_if(|at| *at <= ms).is_some();
        if due(&mut self.due[0]) {
            self.waterfall.heard(now, SPOKEN_MS);
            self.agent.heard(now, "when are you open", None);
        }
        if due(&mut self.due[1]) {
            self.waterfall.worded(now);
            self.agent.piece(now, Ok(Piece::Text("From nine to five.".into())));
            let (stop, usage) = (Stop::Said, Usage::default());
            self.agent.piece(now, Ok(Piece::End { stop, usage }));
        }
        if due(&mut self.due[2]) {
            self.waterfall.audio(now, ANSWER);
            // A service's 24 kHz becomes the telephone's 8 kHz as in a mouth.
            let mut resampler = AnyResampler::new(24_000, 8000).unwrap();
            let tone: Vec<i16> = (0..4800).map(|n| if n % 48 < 24 { 8000 } else { -8000 }).collect();
            let mut samples = Vec::new();
            resampler.push(&tone, &mut samples);
            assert_eq!(self.mouth.push(ANSWER, &samples, false), samples.len());
        }
    }

    /// What goes out: notes when the answer can be heard.
    fn speaks(&mut self, ms: u64) {
        let now = Mono::from_millis(ms);
        self.session.handle_tick(now);
        let mut out = BytesMut::new();
        while let Some(output) = self.session.poll_output(now, &mut self.scratch, &mut out) {
            let message = out.split();
            if output == Output::Text
                && let Ok(PeerEvent::Media(Payload::Base64(_))) = self.peer.read(&message)
            {
                self.heard_at.get_or_insert(ms);
            }
        }
        self.events.extend(std::iter::from_fn(|| self.session.pop_event()));
    }
}

#[test]
fn a_turn_takes_sixty_milliseconds_longer_than_its_backends_at_most() {
    let mut turn = Turn::begin();
    let (mut codes, mut taken) = ([0; 160], 0);
    let times = (0..5000).find_map(|ms| {
        if ms > 0 && ms % 20 == 0 {
            turn.hears(ms);
        }
        // The recogniser is given pieces of 20 ms, and has heard the end of the speech with the last of them.
        while turn.ear.queued() >= codes.len() {
            taken += turn.ear.pop(&mut codes) as u64;
            if taken == SPOKEN_MS * 8 {
                turn.due[0] = Some(ms + STT_MS);
            }
        }
        turn.backends(ms);
        turn.obey(ms);
        turn.agent.timeout(Mono::from_millis(ms));
        turn.obey(ms);
        turn.speaks(ms);
        let playing = turn.events.contains(&LegEvent::Playing(ANSWER));
        playing.then(|| turn.waterfall.playing(Mono::from_millis(ms), ANSWER).unwrap())
    });
    let times = times.expect("an answer");
    assert_eq!(turn.heard_at, Some(SPOKEN_MS + u64::from(times.total_ms)));
    let segments = [
        times.stt_ms,
        times.wait_ms,
        times.llm_ms,
        times.sentence_ms,
        times.tts_ms,
        times.playout_ms,
    ];
    assert_eq!(segments.iter().sum::<u32>(), times.total_ms, "{times:?}");
    let ours = u64::from(times.total_ms) - (STT_MS + LLM_MS + TTS_MS);
    assert!(ours <= OURS_MS, "{ours} ms are ours: {times:?}");
}
