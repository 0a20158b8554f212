//! A mouth: speaks utterances in the order given into a leg's downlink ring, whole or cut, never mixed.
//!
//! Words are synthesized piece by piece ahead of what is played; the ring takes what fits, and the mouth looks again every 20 ms
//! while it has more. Whatever began in the ring is ended there by a `last`, also when it was cut or failed, so that playout can
//! account for it. Bounded: [`UTTERANCES`] wait, [`SOUND_MS`] of raw audio, and synthesis stops [`AHEAD`] ahead of the ring.

mod preview;
#[cfg(test)]
mod tests;

use super::{
    MouthSpec, SpeechEvent,
    outbox::Outbox,
    outlet::Outlet,
    tts::{Pcm, Tts, TtsError, pieces},
};
use crate::{
    audio::{codec, resample::any::AnyResampler},
    base::{format::Encoding, ids::UtteranceId},
    metrics,
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use preview::Preview;
use std::{
    collections::VecDeque,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{
    sync::{Notify, mpsc},
    time::Instant,
};

/// Utterances of words that wait at most.
pub(super) const UTTERANCES: usize = 64;

/// Milliseconds of raw audio that wait at most.
pub(super) const SOUND_MS: usize = 60_000;

/// Milliseconds of a service's own speech that wait at most: it comes faster than it is heard.
pub(super) const SPEECH_MS: usize = 180_000;

/// The longest text of one utterance, in characters.
pub(super) const TEXT: usize = 5000;

/// Seconds of speech synthesized ahead of the ring, after which the next piece waits.
const AHEAD: usize = 10;

/// How often a full ring is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// How long raw audio may pause before others that wait take their turn.
const PAUSE: Duration = Duration::from_millis(500);

/// What a handle asks for.
#[derive(Debug)]
pub(super) enum Order {
    /// Words.
    Say {
        utterance: UtteranceId,
        text: String,
        language: Option<String>,
    },
    /// Raw audio.
    Play {
        utterance: UtteranceId,
        raw: Raw,
        last: bool,
        /// Whether it is an agent's speech, which frontends are given too.
        speech: bool,
    },
}

/// Audio as it is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Raw {
    /// Samples at a rate.
    Samples(Vec<i16>, u32),
    /// G.711 codes of a law at 8 kHz: as they are where the leg speaks that law.
    Codes(Vec<u8>, Encoding),
}

impl Raw {
    /// Every piece weighs something, so that empty ones are bounded too.
    fn ms(&self) -> usize {
        let (samples, rate) = match self {
            Self::Samples(samples, rate) => (samples.len(), *rate),
            Self::Codes(codes, _) => (codes.len(), 8000),
        };
        samples * 1000 / rate.max(1) as usize + 1
    }
}

/// What a mouth shares with its handles.
#[derive(Debug, Default)]
pub(super) struct Shared {
    floor: AtomicU32,
    cut: Notify,
    /// Utterances of words given and not finished.
    words: AtomicUsize,
    /// Milliseconds of raw audio given and not taken.
    sound_ms: AtomicUsize,
}

impl Shared {
    /// Raises the floor.
    pub(super) fn cut(&self, floor: UtteranceId) {
        self.floor.fetch_max(floor.0, Relaxed);
        self.cut.notify_one();
    }

    /// Reserves a place for an utterance of words.
    pub(super) fn admit_words(&self) -> bool {
        admit(&self.words, 1, UTTERANCES)
    }

    /// Reserves room for raw audio.
    pub(super) fn admit_sound(&self, raw: &Raw, most_ms: usize) -> bool {
        admit(&self.sound_ms, raw.ms(), most_ms)
    }
}

fn admit(used: &AtomicUsize, n: usize, most: usize) -> bool {
    used.fetch_update(Relaxed, Relaxed, |used| (used + n <= most).then_some(used + n))
        .is_ok()
}

/// An utterance that waits or is being spoken.
struct Utterance {
    id: UtteranceId,
    source: Source,
    /// Samples at the ring's rate that the ring has not taken.
    backlog: VecDeque<i16>,
    /// Whether they are codes of the ring's law, one in each place.
    coded: bool,
    to_ring: Option<(u32, AnyResampler)>,
    /// Whether the source has nothing more to give.
    exhausted: bool,
    /// Whether the ring holds, or held, something of it.
    begun: bool,
}

enum Source {
    Words(Box<Words>),
    Sound(Box<Sound>),
}

struct Words {
    pieces: VecDeque<String>,
    language: Option<String>,
    /// Chosen when its turn comes.
    voice: String,
    turn: Instant,
    synthesis: Option<Synthesis>,
    preview: Preview,
    shared: Arc<Shared>,
}

impl Drop for Words {
    fn drop(&mut self) {
        self.shared.words.fetch_sub(1, Relaxed);
    }
}

struct Sound {
    pieces: VecDeque<Piece>,
    complete: bool,
    /// When the last piece came.
    heard: Instant,
    /// For frontends, where it is an agent's speech.
    preview: Option<Preview>,
}

/// A piece of raw audio.
struct Piece {
    raw: Raw,
    shared: Arc<Shared>,
}

impl Drop for Piece {
    fn drop(&mut self) {
        self.shared.sound_ms.fetch_sub(self.raw.ms(), Relaxed);
    }
}

/// A piece of text being synthesized.
struct Synthesis {
    run: LocalBoxFuture<'static, Result<(), TtsError>>,
    audio: mpsc::Receiver<Pcm>,
}

enum Progress {
    Audio(Pcm),
    Done(Result<(), TtsError>),
}

impl Synthesis {
    fn start(tts: &Rc<dyn Tts>, text: String, voice: String) -> Self {
        let (sender, audio) = mpsc::channel(4);
        let run = Rc::clone(tts).speak(text, voice, sender);
        let run = AssertUnwindSafe(run).catch_unwind().map(|outcome| {
            outcome.unwrap_or_else(|_| {
                metrics::counter(metrics::panics_total, &[("kind", "synthesizer")]).increment(1);
                Err(TtsError::Lost("the synthesizer crashed".to_owned()))
            })
        });
        Self {
            run: run.boxed_local(),
            audio,
        }
    }

    /// Nothing is lost when the future is dropped.
    async fn progress(&mut self) -> Progress {
        tokio::select! {
            biased;
            Some(pcm) = self.audio.recv() => Progress::Audio(pcm),
            outcome = &mut self.run => Progress::Done(outcome),
        }
    }
}

impl Utterance {
    const fn new(id: UtteranceId, source: Source) -> Self {
        Self {
            id,
            source,
            backlog: VecDeque::new(),
            coded: false,
            to_ring: None,
            exhausted: false,
            begun: false,
        }
    }

    /// Appends codes to the backlog: as they are where they are the ring's, and nothing else was said.
    fn append_codes(&mut self, codes: &[u8], law: Encoding, ring: &Outlet) {
        if ring.law() == Some(law) && (self.coded || (!self.begun && self.backlog.is_empty())) {
            self.coded = true;
            self.backlog.extend(codes.iter().map(|code| i16::from(*code)));
            return;
        }
        let mut samples = vec![0; codes.len()];
        let n = codec::decode(law, codes, &mut samples).unwrap_or_default();
        self.append(&samples[..n], 8000, ring.rate());
    }

    /// Appends samples of any rate to the backlog.
    fn append(&mut self, samples: &[i16], rate: u32, ring_rate: u32) {
        if self.coded {
            metrics::dropped("tts_chunk", "not_of_its_codes", 1);
            return;
        }
        if self.to_ring.as_ref().is_none_or(|(from, _)| *from != rate) {
            self.finish_resampling();
            match AnyResampler::new(rate, ring_rate) {
                Ok(resampler) => self.to_ring = Some((rate, resampler)),
                Err(_) => {
                    metrics::dropped("tts_chunk", "bad_rate", 1);
                    return;
                }
            }
        }
        if let Some((_, resampler)) = &mut self.to_ring {
            let mut out = Vec::new();
            resampler.push(samples, &mut out);
            self.backlog.extend(out);
        }
    }

    fn finish_resampling(&mut self) {
        if let Some((_, mut resampler)) = self.to_ring.take() {
            let mut out = Vec::new();
            resampler.finish(&mut out);
            self.backlog.extend(out);
        }
    }
}

/// A mouth's task.
pub(super) struct Speaker {
    pub(super) tts: Result<Rc<dyn Tts>, String>,
    pub(super) backend: &'static str,
    pub(super) spec: MouthSpec,
    pub(super) ring: Outlet,
    pub(super) orders: mpsc::UnboundedReceiver<Order>,
    pub(super) shared: Arc<Shared>,
    pub(super) news: Outbox,
}

/// What is being said and what waits.
#[derive(Default)]
struct Speech {
    front: Option<Utterance>,
    queue: VecDeque<Utterance>,
    /// An utterance over which the ring still has to be told.
    ending: Option<UtteranceId>,
    /// The highest utterance that is over.
    over: UtteranceId,
    /// Whether the synthesizer has given audio.
    connected: bool,
}

impl Speaker {
    /// Speaks until every handle is dropped or the ring's reader is gone.
    pub(super) async fn run(mut self) {
        let mut speech = Speech::default();
        loop {
            self.obey_cut(&mut speech);
            self.advance(&mut speech);
            if self.ring.is_closed() {
                return;
            }
            let more_to_push = speech.ending.is_some() || speech.front.as_ref().is_some_and(wants_ring);
            let pause = pause_until(&speech);
            let synthesis = speech.front.as_mut().and_then(|u| match &mut u.source {
                Source::Words(words) => words.synthesis.as_mut(),
                Source::Sound(_) => None,
            });
            tokio::select! {
                biased;
                () = self.shared.cut.notified() => {}
                order = self.orders.recv() => match order {
                    Some(order) => self.accept(order, &mut speech),
                    None => return,
                },
                Some(progress) = async { Some(synthesis?.progress().await) } => self.hear(progress, &mut speech),
                () = self.news.flush(), if !self.news.is_empty() => {}
                () = tokio::time::sleep(LOOK), if more_to_push => {}
                () = tokio::time::sleep_until(pause.unwrap_or_else(Instant::now)), if pause.is_some() => {
                    speech.front.iter_mut().for_each(complete_sound);
                }
            }
        }
    }

    /// Queues what a handle asked for.
    fn accept(&mut self, order: Order, speech: &mut Speech) {
        match order {
            Order::Say {
                utterance,
                text,
                language,
            } => {
                let words = Box::new(Words {
                    pieces: pieces(&text).into(),
                    language,
                    voice: String::new(),
                    turn: Instant::now(),
                    synthesis: None,
                    preview: Preview::new(utterance),
                    shared: Arc::clone(&self.shared),
                });
                let length = text.chars().count();
                if length > TEXT {
                    let message = format!("a text of {length} characters is too long to be spoken: at most {TEXT}");
                    self.fail(utterance, message);
                    return;
                }
                speech.queue.push_back(Utterance::new(utterance, Source::Words(words)));
            }
            Order::Play {
                utterance,
                raw,
                last,
                speech: is_speech,
            } => {
                let shared = Arc::clone(&self.shared);
                let piece = Piece { raw, shared };
                let open = speech
                    .front
                    .iter_mut()
                    .chain(&mut speech.queue)
                    .find_map(|u| match &mut u.source {
                        Source::Sound(sound) if u.id == utterance && !sound.complete => Some(sound),
                        _ => None,
                    });
                if let Some(sound) = open {
                    sound.pieces.push_back(piece);
                    sound.complete = last;
                    sound.heard = Instant::now();
                } else if utterance <= speech.over {
                    metrics::dropped("sound", "utterance_over", 1);
                } else {
                    let sound = Box::new(Sound {
                        pieces: VecDeque::from([piece]),
                        complete: last,
                        heard: Instant::now(),
                        preview: is_speech.then(|| Preview::new(utterance)),
                    });
                    speech.queue.push_back(Utterance::new(utterance, Source::Sound(sound)));
                }
            }
        }
    }

    /// Drops what is below the floor.
    fn obey_cut(&mut self, speech: &mut Speech) {
        let floor = UtteranceId(self.shared.floor.load(Relaxed));
        speech.queue.retain(|u| u.id >= floor);
        if speech.front.as_ref().is_some_and(|u| u.id < floor) {
            self.abandon(speech);
        }
    }

    /// Ends the utterance in front where it stands.
    fn abandon(&mut self, speech: &mut Speech) {
        let Some(mut utterance) = speech.front.take() else {
            return;
        };
        speech.over = speech.over.max(utterance.id);
        let preview = match &mut utterance.source {
            Source::Words(words) => Some(&mut words.preview),
            Source::Sound(sound) => sound.preview.as_mut(),
        };
        if let Some(preview) = preview {
            preview.cut(&mut self.news);
        }
        if utterance.begun {
            speech.ending = Some(utterance.id);
        }
    }

    fn fail(&mut self, utterance: UtteranceId, message: String) {
        self.news.put(SpeechEvent::TtsFailed { utterance, message });
    }

    /// Does all that can be done without waiting: ends, begins, feeds and pushes.
    fn advance(&mut self, speech: &mut Speech) {
        loop {
            if let Some(utterance) = speech.ending {
                if !self.ring.has_room() {
                    return;
                }
                self.ring.push(utterance, &[], true);
                speech.ending = None;
            }
            if speech.front.is_none() {
                speech.front = speech.queue.pop_front();
                let Some(utterance) = &mut speech.front else { return };
                if let Err(error) = self.begin(utterance) {
                    self.give_up(error, speech);
                    continue;
                }
            }
            let Some(utterance) = &mut speech.front else { return };
            self.feed(utterance);
            if !self.push(utterance) {
                return;
            }
            speech.over = speech.over.max(utterance.id);
            speech.front = None;
        }
    }

    fn give_up(&mut self, error: TtsError, speech: &mut Speech) {
        let Some(id) = speech.front.as_ref().map(|u| u.id) else {
            return;
        };
        let labels = [("backend", self.backend), ("kind", error.kind())];
        metrics::counter(metrics::speech_faults_total, &labels).increment(1);
        self.abandon(speech);
        self.fail(id, error.message().to_owned());
    }

    /// An utterance's turn has come: chooses its voice.
    fn begin(&self, utterance: &mut Utterance) -> Result<(), TtsError> {
        let Source::Words(words) = &mut utterance.source else {
            return Ok(());
        };
        words.turn = Instant::now();
        let tts = self.tts.as_ref().map_err(|e| TtsError::Refused(e.clone()))?;
        let own = self.spec.language.as_str();
        let language = words.language.as_deref().filter(|l| !l.is_empty() && *l != "auto");
        // A voice speaks its own language; another one gets that language's voice.
        let voice = match language {
            Some(language) if !same_language(language, own) => "",
            _ => &self.spec.voice,
        };
        words.voice = match tts.voice(voice, language.unwrap_or(own)) {
            // Who is to speak any language speaks with another's voice rather than not at all.
            Err(TtsError::Refused(_)) if language.is_some() && matches!(own, "" | "auto") => {
                tts.voice(&self.spec.voice, "")?
            }
            voice => voice?,
        };
        Ok(())
    }

    /// Takes from the source what there is room for, or starts the next piece of text.
    fn feed(&mut self, utterance: &mut Utterance) {
        let rate = self.ring.rate();
        match &mut utterance.source {
            Source::Words(words) => {
                if words.synthesis.is_some() || utterance.exhausted {
                    return;
                }
                match (&self.tts, words.pieces.pop_front()) {
                    (Ok(tts), Some(text)) if utterance.backlog.len() < rate as usize * AHEAD => {
                        words.synthesis = Some(Synthesis::start(tts, text, words.voice.clone()));
                    }
                    (Ok(_), Some(text)) => words.pieces.push_front(text),
                    _ => {
                        words.preview.finish(&mut self.news);
                        utterance.exhausted = true;
                        utterance.finish_resampling();
                    }
                }
            }
            Source::Sound(sound) => {
                let complete = sound.complete;
                while utterance.backlog.len() < rate as usize / 5 {
                    let Source::Sound(sound) = &mut utterance.source else {
                        return;
                    };
                    let Some(piece) = sound.pieces.pop_front() else {
                        if complete && !utterance.exhausted {
                            if let Some(preview) = &mut sound.preview {
                                preview.finish(&mut self.news);
                            }
                            utterance.exhausted = true;
                            utterance.finish_resampling();
                        }
                        return;
                    };
                    if let Some(preview) = &mut sound.preview {
                        preview.add_raw(&piece.raw, &mut self.news);
                    }
                    match &piece.raw {
                        Raw::Samples(samples, from) => utterance.append(samples, *from, rate),
                        Raw::Codes(codes, law) => utterance.append_codes(codes, *law, &self.ring),
                    }
                }
            }
        }
    }

    /// Moves backlog to the ring. Returns whether the utterance is over.
    fn push(&mut self, utterance: &mut Utterance) -> bool {
        loop {
            let samples = utterance.backlog.as_slices().0;
            if samples.is_empty() {
                let end = utterance.exhausted && self.ring.has_room();
                if end {
                    self.ring.push(utterance.id, &[], true);
                }
                return end;
            }
            let last = utterance.exhausted && samples.len() == utterance.backlog.len();
            let n = match utterance.coded {
                false => self.ring.push(utterance.id, samples, last),
                true => self.ring.pass(utterance.id, samples, last),
            };
            let whole = n == samples.len();
            utterance.begun |= n > 0;
            utterance.backlog.drain(..n);
            if last && whole {
                return true;
            }
            if !whole {
                return false;
            }
            if utterance.backlog.is_empty() {
                utterance.backlog.shrink_to(self.ring.rate() as usize);
                if let Source::Sound(_) = utterance.source {
                    self.feed(utterance);
                }
            }
        }
    }

    /// News of the synthesis in front.
    fn hear(&mut self, progress: Progress, speech: &mut Speech) {
        let Some(utterance) = &mut speech.front else { return };
        let Source::Words(words) = &mut utterance.source else {
            return;
        };
        let (audio, done) = match progress {
            Progress::Audio(pcm) => (vec![pcm], None),
            Progress::Done(outcome) => {
                let rest = words
                    .synthesis
                    .take()
                    .map(|mut s| std::iter::from_fn(|| s.audio.try_recv().ok()).collect::<Vec<_>>());
                (rest.unwrap_or_default(), Some(outcome))
            }
        };
        for pcm in audio.iter().filter(|pcm| !pcm.samples.is_empty()) {
            let Source::Words(words) = &mut utterance.source else {
                return;
            };
            if words.preview.is_silent() {
                metrics::TTS_FIRST.record(words.turn.elapsed());
                if !std::mem::replace(&mut speech.connected, true) {
                    let (kind, backend) = ("tts", self.backend);
                    self.news.put(SpeechEvent::Connected { kind, backend });
                }
            }
            words.preview.add(pcm, &mut self.news);
            utterance.append(&pcm.samples, pcm.rate, self.ring.rate());
        }
        if let Some(Err(error)) = done {
            self.give_up(error, speech);
        }
    }
}

/// Whether the ring has to be looked at again for this utterance's sake.
fn wants_ring(utterance: &Utterance) -> bool {
    !utterance.backlog.is_empty() || utterance.exhausted
}

/// When raw audio that has paused must make way for others.
fn pause_until(speech: &Speech) -> Option<Instant> {
    match &speech.front.as_ref()?.source {
        Source::Sound(sound) if !sound.complete && !speech.queue.is_empty() => Some(sound.heard + PAUSE),
        _ => None,
    }
}

fn complete_sound(utterance: &mut Utterance) {
    if let Source::Sound(sound) = &mut utterance.source {
        sound.complete = true;
    }
}

/// Whether two BCP 47 tags have the same primary language; `auto` and nothing go with any.
fn same_language(a: &str, b: &str) -> bool {
    let primary = |tag: &str| tag.split(['-', '_']).next().unwrap_or_default().to_ascii_lowercase();
    let (a, b) = (primary(a), primary(b));
    a == b || b.is_empty() || b == "auto"
}
