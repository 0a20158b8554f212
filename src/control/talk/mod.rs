//! The task of one call: takes one closed set of events in order, tells the call machine and its agent, and does what they ask for.
//!
//! It never waits for anything but the next event: commits and requests run beside it and come back as events.

mod asking;
mod clock;
mod effects;
mod extracting;
mod line;
mod thinking;

pub(super) use asking::Dial;
pub(super) use clock::Clock;
pub(super) use line::refuse_leg;

use super::{
    Listening, LiveCall, Microphone, Mute, Shared, Silence,
    call::{Ask, Call, Done, Left, Now, Words},
    directory::{Entry, lock},
    microphone::Desk,
    waterfall::Waterfall,
};
use crate::{
    agent::{Profile, mind::Mind},
    base::{
        fault::{Fault, Kind},
        format::AudioFormat,
        ids::{ConnectionId, MessageId, UtteranceId},
        time::Mono,
    },
    llm::{ChatError, Piece, ToolCall, Usage},
    media::{Arrival, LegCommand, LegEvent},
    metrics,
    speech::{
        EarHandle, Mouth, SpeechEvent,
        duplex::{DuplexHandle, Memory, News},
    },
    store::{CallStatus, Committed, Sender},
    vendor::CallUpdate,
};
use asking::Offer;
use extracting::{Extracting, Reading};
use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use line::{Line, RESEND};
use std::sync::Arc;
use thinking::Thinking;
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};

/// What others ask of a call. What is large is boxed: every call has room for a block of them.
#[derive(Debug)]
pub(super) enum Command {
    /// The vendor has news.
    Vendor(Box<CallUpdate>, Done),
    /// Tell when the vendor has taken the call.
    WhenDialed(Done),
    /// A media socket for the call; its token was used up.
    Arrival(Box<Arrival>),
    /// Words for the caller.
    Say(Box<Words>, oneshot::Sender<Result<MessageId, Fault>>),
    /// A person moves the call.
    SetStatus(CallStatus, Done),
    /// Listen in another language.
    Language(String),
    /// Stop the audio, or let it pass again; told what is stopped then.
    Mute(Mute, oneshot::Sender<Mute>),
    /// Stop the recording, or let it go on.
    Record(bool, Done),
    /// Drop what is queued at the vendor.
    Silence(Silence),
    /// Send keys.
    Digits(String, Done),
    /// Hand the call to a number.
    Transfer(String, Done),
    /// Listen in.
    Listen(oneshot::Sender<Result<Listening, Fault>>),
    /// A person takes the call from its agent, or hands it back.
    Person { takes: bool, by: String, done: Done },
    /// End the call.
    HangUp(Done),
    /// Its vendor was told that it cannot be taken.
    Refused,
    /// Its media stream came to another node: let go of it, once all is on record.
    Leave(oneshot::Sender<Result<Left, Fault>>),
    /// The daemon stops.
    Interrupt,
}

/// How a call's task ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The call is over, and all of it on record.
    Over,
    /// Another node may take the call.
    Left,
}

/// Everything that can happen to a call.
#[derive(Debug)]
enum Event {
    Command(Command),
    /// From the leg; `None` when its thread let go of it.
    Leg(Option<LegEvent>),
    /// From ear and mouth; `None` when both are closed.
    Speech(Option<SpeechEvent>),
    /// Audio of a frontend.
    Microphone(Box<Microphone>),
    /// From the ear of a frontend's microphone.
    Overheard(Option<SpeechEvent>),
    Committed(Result<Committed, Fault>),
    Asked(Ask, Result<String, Fault>),
    /// From the language model; `None` when it broke off.
    Thought(Option<Result<Piece, ChatError>>),
    /// What the web answered.
    Fetched(ToolCall, String),
    /// What was read out of the conversation.
    Extracted(Reading),
    Timeout,
}

/// One call at work.
pub(super) struct Talk {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    call: Call,
    /// The agent that the call began with.
    own: Arc<Profile>,
    /// Who serves it now: that agent, or a person.
    profile: Arc<Profile>,
    mind: Mind,
    thinking: Option<Thinking>,
    extracting: Extracting,
    waterfall: Waterfall,
    /// Utterances that may not be talked over.
    protected: Vec<UtteranceId>,
    dial: Option<Arc<Dial>>,
    offer: Arc<Offer>,
    commands: mpsc::Receiver<Command>,
    microphone: mpsc::Receiver<Box<Microphone>>,
    line: Option<Line>,
    /// The media socket: its id, the vendor's id of the stream, the format of the caller's audio.
    stream: Option<(ConnectionId, String, AudioFormat)>,
    /// How the vendor wants audio to the caller, once it streams.
    outbound: AudioFormat,
    mouth: Option<Mouth>,
    ear: Option<EarHandle>,
    /// The service that holds the conversation, where one does, and what it remembers.
    conversation: Option<DuplexHandle>,
    memory: Option<Memory>,
    /// The language that frontends asked for.
    language: Option<String>,
    speech: Option<mpsc::Receiver<SpeechEvent>>,
    desk: Desk,
    jobs: FuturesUnordered<BoxFuture<'static, Event>>,
    muted: Mute,
    /// When the keys have been played that are played in the place of what the caller says.
    keys_until: Mono,
    /// The recording is stopped.
    paused: bool,
    /// Who waits until it can be let go of.
    leaving: Option<oneshot::Sender<Result<Left, Fault>>>,
    ended: bool,
}

/// The receiving ends of an [`Entry`].
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) microphone: mpsc::Receiver<Box<Microphone>>,
}

impl Talk {
    /// A call that is about to begin.
    pub(super) fn new(
        shared: Arc<Shared>,
        entry: Arc<Entry>,
        inbox: Inbox,
        call: Call,
        profile: Arc<Profile>,
        dial: Option<Dial>,
    ) -> Self {
        let offer = Offer {
            call: entry.call,
            agent: profile.name.clone(),
            answer: shared.stream_answer(&entry),
        };
        let tenant = entry.tenant;
        Self {
            offer: Arc::new(offer),
            shared,
            entry,
            call,
            mind: Mind::new(&profile),
            own: profile.clone(),
            profile,
            thinking: None,
            extracting: Extracting::default(),
            waterfall: Waterfall::default(),
            protected: Vec::new(),
            dial: dial.map(Arc::new),
            commands: inbox.commands,
            microphone: inbox.microphone,
            line: None,
            stream: None,
            outbound: AudioFormat::ULAW_8K,
            mouth: None,
            ear: None,
            conversation: None,
            memory: None,
            language: None,
            speech: None,
            desk: Desk::new(tenant),
            jobs: FuturesUnordered::new(),
            keys_until: Mono::ZERO,
            paused: false,
            leaving: None,
            muted: Mute {
                inbound: Some(false),
                outbound: Some(false),
            },
            ended: false,
        }
    }

    /// Lives until the call is over and all of it on record, or let go of.
    pub(super) async fn run(&mut self) -> End {
        self.settle(self.shared.clock.now());
        while !self.call.is_over() {
            if self.has_left() {
                return End::Left;
            }
            let event = self.next().await;
            let now = self.shared.clock.now();
            self.handle(now, event);
            self.settle(now);
        }
        End::Over
    }

    /// Lets go of the call, if that is wanted and it can be by now.
    fn has_left(&mut self) -> bool {
        match self.leaving.take() {
            Some(told) if !self.call.may_leave() => {
                let _ = told.send(Err(Fault::client(
                    Kind::Conflict,
                    "the call has its stream, or is over",
                )));
                false
            }
            Some(told) if self.call.is_settled() => told.send(Ok(self.call.left())).is_ok(),
            waiting => {
                self.leaving = waiting;
                false
            }
        }
    }

    async fn next(&mut self) -> Event {
        let resend = self.line.as_ref().is_some_and(|l| !l.unsent.is_empty());
        let resend = resend.then(|| self.shared.clock.now().mono + RESEND);
        let timeouts = [
            self.call.next_timeout(),
            self.mind.next_timeout(),
            self.desk.next_timeout(),
            self.extracting.next_timeout(),
            resend,
        ];
        let due = timeouts.into_iter().flatten().min();
        let clock = self.shared.clock;
        let leg = self.line.as_mut().and_then(|l| l.events.as_mut());
        tokio::select! {
            Some(command) = self.commands.recv() => Event::Command(command),
            event = receive(leg) => Event::Leg(event),
            event = receive(self.speech.as_mut()) => Event::Speech(event),
            Some(audio) = self.microphone.recv() => Event::Microphone(audio),
            event = receive(self.desk.news.as_mut()) => Event::Overheard(event),
            piece = think(self.thinking.as_mut()) => Event::Thought(piece),
            Some(event) = self.jobs.next() => event,
            () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => Event::Timeout,
        }
    }

    fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Command(command) => self.command(now, command),
            Event::Leg(event) => self.leg(now, event),
            Event::Speech(Some(event)) => self.heard(now, Sender::Customer, event),
            Event::Speech(None) => {
                self.speech = None;
                self.call.settle_answers(now);
            }
            Event::Microphone(audio) => self.hear_frontend(now, *audio),
            Event::Overheard(Some(event)) => self.heard(now, self.desk.sender, event),
            Event::Overheard(None) => self.desk.news = None,
            Event::Committed(result) => self.call.committed(now, result),
            Event::Asked(ask, result) => self.asked(now, ask, result),
            Event::Thought(piece) => self.thought(now, piece),
            Event::Fetched(call, content) => self.mind.fetched(now.mono, call, content),
            Event::Extracted(reading) => self.extracted(reading),
            Event::Timeout => self.timeout(now),
        }
    }

    fn command(&mut self, now: Now, command: Command) {
        match command {
            Command::Vendor(update, done) => self.call.vendor(now, &update, done),
            Command::WhenDialed(done) => self.call.when_dialed(done),
            Command::Arrival(arrival) => self.attach(now, *arrival),
            Command::Say(words, told) => {
                let _ = told.send(self.say(now, *words));
            }
            Command::SetStatus(status, done) => self.call.set_status(now, status, done),
            Command::Language(language) => self.listen_in(&language),
            Command::Record(on, done) => {
                let _ = done.send(self.record(on));
            }
            Command::Mute(mute, told) => {
                self.mute(mute);
                let _ = told.send(self.muted);
            }
            Command::Silence(Silence::Chunk(chunk)) if self.entry.vendor.caps.interrupt => {
                self.send_leg(LegCommand::Interrupt(chunk));
            }
            Command::Silence(_) => self.call.cut(now),
            Command::Digits(digits, done) => self.call.digits(digits, Some(done)),
            Command::Transfer(to, done) => match self.shared.may_call(self.entry.tenant, &to) {
                Ok(()) => self.call.transfer(to, Some(done)),
                Err(fault) => drop(done.send(Err(fault))),
            },
            Command::Listen(told) => {
                let _ = told.send(self.listen());
            }
            Command::Person { takes, by, done } => self.person(now, takes, by, done),
            Command::HangUp(done) => self.call.hang_up(now, Some(done)),
            Command::Refused => self.call.refused(now),
            Command::Leave(told) => {
                if self.call.may_leave() {
                    self.call.give_words_up(now);
                }
                self.leaving = Some(told);
            }
            Command::Interrupt => self.call.interrupt(now),
        }
    }

    fn person(&mut self, now: Now, takes: bool, by: String, done: Done) {
        let cannot = match () {
            () if self.call.is_ended() => Some("the call has ended"),
            () if takes && !self.own.kind.speaks() => Some("the agent has no voice that a person could use"),
            () => None,
        };
        if let Some(why) = cannot {
            let _ = done.send(Err(Fault::client(Kind::Conflict, why)));
            return;
        }
        match takes {
            true => self.take_over(now, Some(by)),
            false => self.hand_back(now, by),
        }
        self.call.when_durable(done);
    }

    fn say(&mut self, now: Now, words: Words) -> Result<MessageId, Fault> {
        if !self.profile.kind.speaks() {
            let message = format!(
                "agent {} has no voice: the caller cannot be spoken to",
                self.profile.name
            );
            return Err(Fault::client(Kind::Conflict, message));
        }
        let text = (self.has_person() || self.mind.is_service()).then(|| words.text.clone());
        let said = self.call.say(now, words).map(|(message, _)| message)?;
        if let Some(text) = text {
            self.mind.person_said(&text);
        }
        Ok(said)
    }

    fn listen_in(&mut self, language: &str) {
        self.language = Some(language.to_owned());
        self.desk.listen_in(language);
        if let Some(ear) = &self.ear {
            ear.listen_in(language);
        }
    }

    /// News of the service that holds the conversation.
    fn conversed(&mut self, now: Now, news: News) {
        match &news {
            News::Stopped { to_ms } => {
                self.waterfall.heard(now.mono, *to_ms);
                self.waterfall.asked(now.mono);
            }
            News::Words { utterance, text, last } => {
                // The agent's own words, also while a person has the call.
                let name = last.then(|| self.own.name.clone());
                self.call.answer_words(now, *utterance, text, name);
            }
            News::Used { service, input, output } => {
                let (input, output) = (*input, *output);
                self.call.thought(service, Usage { input, output });
            }
            News::Begins { .. } => self.waterfall.worded(now.mono),
            News::Wants(_) | News::Answered => {}
        }
        self.mind.news(now.mono, news);
    }

    fn heard(&mut self, now: Now, sender: Sender, event: SpeechEvent) {
        let customer = sender == Sender::Customer;
        let event = match event {
            SpeechEvent::Duplex(news) => return self.conversed(now, news),
            SpeechEvent::SttFailed { message } if customer && self.mind.is_service() => {
                self.call.mind_failed(now, message);
                return self.mind.failed(now.mono);
            }
            SpeechEvent::SttRecovered if customer && self.mind.is_service() => return self.call.mind_works(),
            event => event,
        };
        let words = match &event {
            SpeechEvent::Transcript(words) if customer => Some(words.clone()),
            SpeechEvent::Connected { kind, backend } => {
                // A service that holds the conversation sits in a recogniser's place.
                let kind = if customer && self.mind.is_service() && *kind == "stt" {
                    "realtime"
                } else {
                    kind
                };
                info!(backend, kind, "backend_connected");
                None
            }
            SpeechEvent::Started if customer => {
                self.mind.began(now.mono);
                None
            }
            SpeechEvent::Audio {
                utterance, audio, last, ..
            } => {
                self.waterfall.audio(now.mono, *utterance);
                // μ-law at 8 kHz: eight bytes a millisecond.
                self.mind.audio(*utterance, audio.len() as u32 / 8, *last);
                None
            }
            _ => None,
        };
        if let SpeechEvent::Transcript(words) = &event
            && words.is_final
            && !words.text.trim().is_empty()
        {
            let characters = words.text.chars().count();
            info!(sender = sender.as_str(), characters, "transcript_final");
            self.extract_soon(now.mono);
        }
        self.call.speech(now, sender, event);
        let Some(words) = words else { return };
        if words.is_final && !words.text.trim().is_empty() && !self.mind.is_service() {
            self.waterfall.heard(now.mono, words.to_ms);
        }
        self.mind
            .heard(now.mono, &words.text, words.is_final, words.language.as_deref());
    }

    fn hear_frontend(&mut self, now: Now, audio: Microphone) {
        if audio.to_caller {
            let mouth = self.mouth.as_ref().filter(|_| self.profile.kind.speaks());
            return self.desk.play(now, &mut self.call, mouth, audio);
        }
        let shard = self.line.as_ref().map_or(0, |l| l.shard);
        let speech = &self.shared.deps.speech;
        let has_leg = self.call.has_leg();
        if let Err(message) = self.desk.hear(now, speech, shard, &self.profile, has_leg, &audio) {
            self.call.unheard(now, message);
        }
    }

    fn asked(&mut self, now: Now, ask: Ask, result: Result<String, Fault>) {
        if let Err(fault) = &result {
            warn!(ask = ask.as_str(), kind = ?fault.kind, "the vendor did not do as asked");
            if matches!(ask, Ask::Transfer(_)) {
                self.mind.not_done(now.mono);
            }
        }
        self.call.asked(now, ask, result);
    }

    fn timeout(&mut self, now: Now) {
        self.call.timeout(now);
        self.mind.timeout(now.mono);
        self.desk.timeout(now, self.mouth.as_ref());
        self.extract(now.mono);
        self.resend();
    }

    /// Does what machine and agent ask for until they ask for nothing.
    fn settle(&mut self, now: Now) {
        loop {
            if self.call.take_changed() {
                self.show();
            }
            if let Some(effect) = self.call.poll() {
                self.perform(now, effect);
            } else if let Some(act) = self.mind.poll() {
                self.act(now, act);
            } else {
                break;
            }
        }
        self.call
            .set_ears_open(self.speech.is_some() || self.desk.news.is_some());
        if self.call.is_ended() && !std::mem::replace(&mut self.ended, true) {
            self.close(now);
        }
    }

    /// The call has ended: what still comes is written down, and nothing is answered.
    fn close(&mut self, now: Now) {
        let row = self.call.row();
        let reason = row.end_reason.map_or("", |r| r.as_str());
        let lasted = self.call.lasted(now.mono);
        info!(reason, call_duration_ms = lasted.as_millis() as u64, "call_ended");
        metrics::counter(
            metrics::calls_ended_total,
            &[("vendor", self.entry.vendor.name), ("reason", reason)],
        )
        .increment(1);
        self.shared.pending.revoke(self.entry.call);
        self.mind.pause();
        self.thinking = None;
        self.desk.close();
    }

    fn show(&self) {
        if let Some(shown) = lock(&self.entry.shown).as_mut() {
            *shown = self.live();
        }
    }

    fn live(&self) -> LiveCall {
        let stream = self.stream.as_ref();
        LiveCall {
            row: self.call.row().clone(),
            connection: stream.map(|(connection, ..)| *connection),
            stream: stream.map(|(_, id, format)| (id.clone(), *format)),
        }
    }
}

async fn think(thinking: Option<&mut Thinking>) -> Option<Result<Piece, ChatError>> {
    match thinking {
        Some(thinking) => thinking.answer.next().await,
        None => std::future::pending().await,
    }
}

async fn receive<T>(from: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}
