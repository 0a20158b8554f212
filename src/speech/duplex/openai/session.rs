//! One conversation with the service: the caller's audio out, its answers in, through as many sessions as it takes.
//!
//! What was said and transcribed is settled, so that a session that takes over hears it no more; it is told what was said instead.
//! A session is replaced by another before it ends, at a moment when nobody speaks and nothing is being answered.

mod told;

use super::{Config, Inner, Opened, SECOND, proto};
use crate::{
    base::format::{AudioFormat, Encoding},
    metrics,
    speech::{
        Hearing,
        duplex::{Dialogue, Order, Role},
        link::{Frame, Link, LinkError, Service},
        stt::{
            SttError,
            live::{LOUD, Timeline, loudness},
        },
    },
};
use proto::{Told, Wishes};
use std::{collections::VecDeque, rc::Rc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, timeout_at},
};

/// Messages in a row that nobody can read, after which the session is broken off.
const STRANGE: u32 = 3;

/// Bytes of audio in one message.
const MOST: usize = 2 << 20;

/// How long the caller's last words may take after they are gone.
const LAST: Duration = Duration::from_secs(3);

/// Audio without speech in it is settled this much later: a beginning is told in hindsight.
const HINDSIGHT_MS: u64 = 1500;

/// How long a reply's words wait for those of the caller which it answers, so that they stand in order.
const IN_ORDER: Duration = Duration::from_secs(3);

/// A session is replaced this long before the service ends it, and if need be in the middle of a word at the last.
const BEFORE_END: Duration = Duration::from_secs(300);
const AT_LAST: Duration = Duration::from_secs(20);

/// How soon another is tried where one could not be opened.
const AGAIN: Duration = Duration::from_secs(30);

/// How soon an answer is asked for again that could not be given.
const HOLD: Duration = Duration::from_millis(250);

/// What the caller said that is not transcribed, at once.
const SAID: usize = 8;

/// Seconds of loud audio that a service should have something to say about.
const VOICE_S: u64 = 3;

/// Replies of a session that can still be cut short.
const ITEMS: usize = 32;

/// What a session is told that takes over from one that broke off in the middle of an answer.
const GO_ON: &str =
    "Your last answer was cut off by a technical fault. Go on from where it breaks off, without repeating it.";

/// Holds a conversation to the end of the audio.
pub(super) async fn converse(
    inner: &Rc<Inner>,
    dialogue: &mut Dialogue,
    hearing: &mut Hearing,
    language: &str,
) -> Result<(), SttError> {
    let path = inner.path(dialogue.spec.model.as_deref());
    let mut opened = inner.open(&path).await?;
    let mut works = false;
    loop {
        let (began, expires) = (opened.began, opened.expires);
        let config = inner.config();
        let mut link = config.service.resume(opened.line);
        let heard = hearing.format();
        let spoken = spoken(dialogue.outbound());
        let renew_at = [Some(began + config.renew_after), expires.map(|at| at - BEFORE_END)];
        let mut session = Session {
            config,
            dialogue: &mut *dialogue,
            hearing: &mut *hearing,
            language: Some(primary(language)).filter(|l| !l.is_empty() && *l != "auto"),
            heard,
            spoken,
            timeline: Timeline::default(),
            said: VecDeque::new(),
            answering: None,
            asked: None,
            begun: None,
            items: VecDeque::new(),
            generating: Vec::new(),
            calls: Vec::new(),
            in_order: Vec::new(),
            words_by: None,
            answer_by: None,
            hold_until: None,
            strange: 0,
            works,
            renew_at: renew_at.into_iter().flatten().min().unwrap_or(began),
            at_last: expires.map(|at| at - AT_LAST),
            fresh: None,
        };
        let outcome = match session.begin(&mut link).await {
            Ok(()) => session.run(&mut link, inner, &path).await,
            Err(error) => Err(error),
        };
        session.flush_words();
        // An answer of which nothing came is asked for again.
        if let Some(asked) = session.asked.take().or(session.begun.take()) {
            session.dialogue.wanted.get_or_insert(asked);
        }
        works = session.works;
        link.close();
        match outcome? {
            None => return Ok(()),
            Some(next) => {
                dialogue.break_off();
                hearing.rewind();
                opened = *next;
            }
        }
    }
}

/// What is spoken to a leg that plays this.
fn spoken(outbound: AudioFormat) -> AudioFormat {
    match outbound.encoding {
        Encoding::Ulaw | Encoding::Alaw if outbound.rate == 8000 => outbound,
        _ => AudioFormat {
            encoding: Encoding::L16Le,
            rate: super::RATE,
        },
    }
}

fn primary(language: &str) -> &str {
    language.split(['-', '_']).next().unwrap_or_default()
}

/// What the service's complaint means for its session.
pub(super) fn refusal(service: &Service, kind: &str, code: &str, message: &str) -> LinkError {
    let message: String = message.chars().filter(|c| !c.is_control()).take(200).collect();
    let what = format!("refused the session ({kind} {code}): {message}");
    match (kind, code) {
        ("server_error", _) | (_, "rate_limit_exceeded" | "session_expired") => service.lost(what),
        _ => LinkError::Refused(format!("{} {what}", service.name)),
    }
}

/// Something the caller said, or is saying.
struct Said {
    item: String,
    /// Positions of its beginning and end.
    from: u64,
    to: Option<u64>,
    text: String,
    /// Its words were told.
    told: bool,
}

/// One session.
struct Session<'a> {
    config: &'a Config,
    dialogue: &'a mut Dialogue,
    hearing: &'a mut Hearing,
    language: Option<&'a str>,
    heard: AudioFormat,
    spoken: AudioFormat,
    timeline: Timeline,
    said: VecDeque<Said>,
    /// The answer in progress.
    answering: Option<String>,
    /// An answer that was asked for and has not begun.
    asked: Option<(Option<String>, bool)>,
    /// The same once it has begun, until something of it came.
    begun: Option<(Option<String>, bool)>,
    /// Replies of this session, and those of the answer in progress.
    items: VecDeque<String>,
    generating: Vec<String>,
    /// What was asked to be done and is not: id and name.
    calls: Vec<(String, String)>,
    /// Replies whose words wait for the caller's.
    in_order: Vec<(String, Option<String>)>,
    words_by: Option<Instant>,
    /// By when an answer must have begun.
    answer_by: Option<Instant>,
    /// Until when none is asked for.
    hold_until: Option<Instant>,
    /// Messages in a row that were not understood.
    strange: u32,
    /// Whether the service has done what it is for.
    works: bool,
    renew_at: Instant,
    at_last: Option<Instant>,
    /// The session that is to follow.
    fresh: Option<Fresh>,
}

enum Fresh {
    Opening(JoinHandle<Result<Box<Opened>, LinkError>>),
    Waits(Box<Opened>),
}

enum Step {
    Frame(Frame),
    Audio(usize),
    Order(Order),
    Opened(Result<Box<Opened>, LinkError>),
    Renew,
    Again,
    WordsLate,
    AnswerLate,
    VoiceLate,
    Last,
}

/// Voice that was sent and not answered.
#[derive(Default)]
struct Unanswered {
    samples: u64,
    since: Option<Instant>,
}

impl Session<'_> {
    fn wishes(&self) -> Wishes<'_> {
        let (config, spec) = (self.config, &self.dialogue.spec);
        Wishes {
            shape: config.shape,
            instructions: &spec.instructions,
            voice: if spec.voice.is_empty() {
                &config.voice
            } else {
                &spec.voice
            },
            speed: config.speed,
            heard: self.heard,
            spoken: self.spoken,
            transcription: &config.transcription,
            language: self.language,
            noise_reduction: config.noise_reduction,
            turns: &config.turns,
            answers: !self.dialogue.paused,
            interrupts: spec.interruptible && !self.dialogue.paused,
            tools: &spec.tools,
            max_tokens: config.max_tokens,
        }
    }

    /// Asks for the session and tells it what was said before.
    async fn begin(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        link.send(self.wishes().session()).await?;
        let by = Instant::now() + self.config.ready;
        loop {
            let frame = timeout_at(by, link.next()).await;
            let frame = frame.unwrap_or_else(|_| Err(link.service.late("session as asked for", self.config.ready)))?;
            let text = match frame {
                Frame::Text(text) => text,
                Frame::Binary(_) => return Err(link.service.strange("a binary message")),
                Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
            };
            match proto::read(&text) {
                Ok(Told::Updated) => break,
                Ok(Told::Complaint { kind, code, message }) => {
                    return Err(refusal(link.service, &kind, &code, &message));
                }
                Ok(_) => {}
                Err(what) => self.count_strange(what, link.service)?,
            }
        }
        let way = |passes| if passes { "passed_through" } else { "resampled" };
        let is_codes = |format: AudioFormat| format.encoding != Encoding::L16Le;
        let labels = [
            ("backend", self.config.labels.text),
            ("heard", way(is_codes(self.heard))),
            ("spoken", way(is_codes(self.spoken))),
        ];
        metrics::counter(metrics::duplex_sessions_total, &labels).increment(1);
        let (said, unanswered, broken) = {
            let mut history = self.dialogue.memory().lock();
            let said: Vec<_> = history
                .turns()
                .map(|(role, words)| proto::said(self.config.shape, role, words))
                .collect();
            (said, history.is_unanswered(), history.take_broken())
        };
        for message in said {
            link.send(message).await?;
        }
        if !self.dialogue.paused && self.dialogue.wanted.is_none() {
            if broken {
                self.dialogue.wanted = Some((Some(GO_ON.to_owned()), true));
            } else if unanswered {
                self.dialogue.wanted = Some((None, true));
            }
        }
        Ok(())
    }

    /// To the end of the audio (`None`), or until another session takes over.
    async fn run(
        &mut self,
        link: &mut Link<'_>,
        inner: &Rc<Inner>,
        path: &str,
    ) -> Result<Option<Box<Opened>>, LinkError> {
        let (least, most) = (self.heard.rate as usize / 50, self.heard.rate as usize / 5);
        let mut audio = Vec::new();
        let mut unanswered = Unanswered::default();
        let mut last_by: Option<Instant> = None;
        loop {
            self.ask(link).await?;
            if let Some(next) = self.takes_over() {
                return Ok(Some(next));
            }
            let now = Instant::now();
            let voice_by = unanswered.since.map(|since| since + self.config.answer);
            let at = |time: Option<Instant>| tokio::time::sleep_until(time.unwrap_or(now));
            let renews = self.fresh.is_none() && last_by.is_none();
            let looks = matches!(self.fresh, Some(Fresh::Waits(_)));
            let step = tokio::select! {
                biased;
                frame = link.next() => Step::Frame(frame?),
                order = self.dialogue.next() => Step::Order(order),
                n = self.hearing.read_bytes(most, &mut audio), if last_by.is_none() => Step::Audio(n),
                opened = opening(&mut self.fresh) => Step::Opened(opened),
                () = at(Some(self.renew_at)), if renews => Step::Renew,
                () = tokio::time::sleep(SECOND), if looks => continue,
                () = at(self.hold_until), if self.hold_until.is_some() => Step::Again,
                () = at(self.words_by), if self.words_by.is_some() => Step::WordsLate,
                () = at(self.answer_by), if self.answer_by.is_some() => Step::AnswerLate,
                () = at(voice_by), if voice_by.is_some() => Step::VoiceLate,
                () = at(last_by), if last_by.is_some() => Step::Last,
            };
            match step {
                Step::Frame(frame) => {
                    unanswered = Unanswered::default();
                    match frame {
                        Frame::Text(text) => self.read(&text, link).await?,
                        Frame::Binary(_) => self.count_strange("a binary message", link.service)?,
                        Frame::Closed { .. } if last_by.is_some() => return Ok(None),
                        Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
                    }
                    if last_by.is_some() && self.said.is_empty() {
                        return Ok(None);
                    }
                }
                Step::Order(order) => self.obey(order, link).await?,
                Step::Audio(n) => {
                    let held = audio.len() / self.heard.encoding.sample_bytes();
                    if n > 0 && held < least {
                        continue;
                    }
                    if held > 0 {
                        if loudness(self.heard.encoding, &audio) > LOUD * LOUD {
                            unanswered.samples += held as u64;
                            if unanswered.samples > u64::from(self.heard.rate) * VOICE_S {
                                unanswered.since.get_or_insert(now);
                            }
                        }
                        link.send(proto::append(&audio)).await?;
                        audio.clear();
                        self.timeline.sent(held as u64, self.hearing.position());
                        self.settle();
                    }
                    if n == 0 {
                        if self.said.is_empty() {
                            return Ok(None);
                        }
                        if self.said.iter().any(|s| s.to.is_none()) {
                            link.send(proto::commit()).await?;
                        }
                        last_by = Some(Instant::now() + LAST);
                    }
                }
                Step::Opened(Ok(opened)) => self.fresh = Some(Fresh::Waits(opened)),
                Step::Opened(Err(error)) => {
                    let (LinkError::Refused(reason) | LinkError::Lost(reason)) = error;
                    tracing::warn!(reason, "a conversation's next session could not be opened");
                    self.fresh = None;
                    self.renew_at = Instant::now() + AGAIN;
                }
                Step::Renew => {
                    let (inner, path) = (Rc::clone(inner), path.to_owned());
                    let opening = tokio::task::spawn_local(async move { inner.dial(&path).await.map(Box::new) });
                    self.fresh = Some(Fresh::Opening(opening));
                }
                Step::Again => self.hold_until = None,
                Step::WordsLate => self.flush_words(),
                Step::AnswerLate => return Err(link.service.late("answer", self.config.answer)),
                Step::VoiceLate => return Err(link.service.late("sign of hearing what was said", self.config.answer)),
                Step::Last => return Ok(None),
            }
        }
    }

    /// The session that is to follow, once it may.
    fn takes_over(&mut self) -> Option<Box<Opened>> {
        let Some(Fresh::Waits(opened)) = &mut self.fresh else {
            return None;
        };
        if !opened.line.is_quiet(false) {
            // It was closed while it waited.
            self.fresh = None;
            self.renew_at = Instant::now() + AGAIN;
            return None;
        }
        let quiet = self.said.is_empty()
            && self.answering.is_none()
            && self.asked.is_none()
            && self.dialogue.wanted.is_none()
            && self.calls.is_empty()
            && !self.dialogue.is_speaking();
        let at_last = self.at_last.is_some_and(|at| Instant::now() >= at);
        if !quiet && !at_last {
            return None;
        }
        match self.fresh.take() {
            Some(Fresh::Waits(opened)) => Some(opened),
            _ => None,
        }
    }

    /// Asks for an answer that is wanted, as soon as no other is being given.
    async fn ask(&mut self, link: &mut Link<'_>) -> Result<(), LinkError> {
        let busy = self.answering.is_some() || self.asked.is_some() || self.hold_until.is_some();
        if busy || self.dialogue.paused {
            return Ok(());
        }
        let Some((how, tools)) = self.dialogue.wanted.take() else {
            return Ok(());
        };
        link.send(proto::respond(how.as_deref(), tools)).await?;
        self.asked = Some((how, tools));
        self.answer_by = Some(Instant::now() + self.config.answer);
        Ok(())
    }

    async fn obey(&mut self, order: Order, link: &mut Link<'_>) -> Result<(), LinkError> {
        match order {
            Order::Name { reply, utterance } => self.dialogue.name(reply, utterance),
            Order::Over { reply, whole, heard_ms } => {
                let Some(cut) = self.dialogue.over(reply, whole, heard_ms) else {
                    return Ok(());
                };
                if let Some(answer) = self.answering.as_ref().filter(|_| self.generating.contains(&cut.item)) {
                    link.send(proto::cancel(answer)).await?;
                }
                // Another session's replies are known to this one as words alone.
                if self.items.contains(&cut.item) {
                    let message = match cut.heard_ms {
                        0 => proto::delete(&cut.item),
                        ms => proto::truncate(&cut.item, ms),
                    };
                    link.send(message).await?;
                }
            }
            Order::Respond { how, tools } => self.dialogue.wanted = Some((how, tools)),
            Order::Result { id, content } => {
                let Some(at) = self.calls.iter().position(|(call, _)| *call == id) else {
                    return Ok(());
                };
                let (_, name) = self.calls.swap_remove(at);
                link.send(proto::result(&id, &content)).await?;
                self.dialogue
                    .note(Role::Note, &format!("The tool {name} answered: {content}"));
            }
            Order::Note(text) => {
                link.send(proto::said(self.config.shape, Role::Agent, &text)).await?;
                self.dialogue.note(Role::Agent, &text);
            }
            Order::Pause(paused) => {
                self.dialogue.paused = paused;
                self.answer_by = None;
                link.send(self.wishes().turns_only()).await?;
                if paused {
                    self.dialogue.wanted = None;
                    if let Some(answer) = &self.answering {
                        link.send(proto::cancel(answer)).await?;
                    }
                } else if self.dialogue.memory().lock().is_unanswered() {
                    self.dialogue.wanted = Some((None, true));
                }
            }
        }
        Ok(())
    }
}

/// The session that is being opened.
async fn opening(fresh: &mut Option<Fresh>) -> Result<Box<Opened>, LinkError> {
    match fresh {
        Some(Fresh::Opening(task)) => match task.await {
            Ok(outcome) => outcome,
            Err(_) => Err(LinkError::Lost("the task that opened it crashed".to_owned())),
        },
        _ => std::future::pending().await,
    }
}
