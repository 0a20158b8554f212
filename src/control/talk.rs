//! The task of one call: takes one closed set of events in order, tells the call machine and its agent, and does what they ask for.
//!
//! It never waits for anything but the next event: commits and requests run beside it and come back as events.

use super::{
    Listening, LiveCall, Microphone, Mute, Shared, Silence,
    call::{Ask, Call, Done, Effect, Now, Words},
    directory::{Entry, lock},
    microphone::Desk,
    plan, rest,
};
use crate::{
    agent::{
        Profile,
        turn::{Act, Turn},
    },
    audio::tone::{Dtmf, DtmfKey},
    base::{
        fault::{Fault, Kind},
        format::AudioFormat,
        ids::{CallId, ConnectionId, MessageId},
        time::Mono,
    },
    llm::scripted::Action,
    media::{Arrival, LegCommand, LegEvent, LegHandle, LegSendError, monitor::monitor},
    metrics,
    record::TapTx,
    speech::{EarHandle, Mouth, SpeechEvent},
    store::{CallStatus, Committed, Sender},
    vendor::{Answer, CallAction, CallUpdate},
};
use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream::FuturesUnordered};
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tracing::{error, info, warn};

/// Commands to a leg whose shard is busy that wait to be tried again.
const MAX_UNSENT: usize = 64;
/// What a listener may be behind: a second of the widest format, both ways, as base64.
const MONITOR_BYTES: usize = 256 * 1024;
const MONITOR_PIECES: usize = 512;
/// How soon they are tried again.
const RESEND: Duration = Duration::from_millis(10);
/// In-band keys: milliseconds of tone and of silence (ITU-T Q.24 asks for 40 of each at least).
const KEY_MS: u32 = 100;

/// What others ask of a call.
#[derive(Debug)]
pub(super) enum Command {
    /// The vendor has news.
    Vendor(CallUpdate, Done),
    /// Tell when the vendor has taken the call.
    WhenDialed(Done),
    /// A media socket for the call; its token was used up.
    Arrival(Box<Arrival>),
    /// Words for the caller.
    Say(Words, oneshot::Sender<Result<MessageId, Fault>>),
    /// A person moves the call.
    SetStatus(CallStatus, Done),
    /// Listen in another language.
    Language(String),
    /// Stop the audio, or let it pass again; told what is stopped then.
    Mute(Mute, oneshot::Sender<Mute>),
    /// Drop what is queued at the vendor.
    Silence(Silence),
    /// Send keys.
    Digits(String, Done),
    /// Hand the call to a number.
    Transfer(String, Done),
    /// Listen in.
    Listen(oneshot::Sender<Result<Listening, Fault>>),
    /// End the call.
    HangUp(Done),
    /// The daemon stops.
    Interrupt,
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
    Microphone(Microphone),
    /// From the ear of a frontend's microphone.
    Overheard(Option<SpeechEvent>),
    Committed(Result<Committed, Fault>),
    Asked(Ask, Result<String, Fault>),
    Timeout,
}

/// How a call is placed.
#[derive(Clone, Debug)]
pub(super) struct Dial {
    pub(super) to: String,
    pub(super) from: String,
    pub(super) answer_url: String,
    pub(super) status_url: String,
    pub(super) ring: Duration,
}

/// What the vendor is told about a call beside what it is to do.
#[derive(Clone, Debug)]
struct Offer {
    call: CallId,
    agent: String,
    answer: Answer,
}

/// The leg of a call.
struct Line {
    handle: LegHandle,
    shard: usize,
    events: Option<mpsc::Receiver<LegEvent>>,
    unsent: VecDeque<LegCommand>,
}

/// One call at work.
pub(super) struct Talk {
    shared: Arc<Shared>,
    entry: Arc<Entry>,
    call: Call,
    profile: Arc<Profile>,
    turn: Turn,
    dial: Option<Arc<Dial>>,
    offer: Arc<Offer>,
    commands: mpsc::Receiver<Command>,
    microphone: mpsc::Receiver<Microphone>,
    line: Option<Line>,
    /// The media socket: its id, the vendor's id of the stream, the format of the caller's audio.
    stream: Option<(ConnectionId, String, AudioFormat)>,
    /// How the vendor wants audio to the caller, once it streams.
    outbound: AudioFormat,
    mouth: Option<Mouth>,
    ear: Option<EarHandle>,
    /// The language that frontends asked for.
    language: Option<String>,
    speech: Option<mpsc::Receiver<SpeechEvent>>,
    desk: Desk,
    jobs: FuturesUnordered<BoxFuture<'static, Event>>,
    muted: Mute,
    ended: bool,
}

/// The receiving ends of an [`Entry`].
pub(super) struct Inbox {
    pub(super) commands: mpsc::Receiver<Command>,
    pub(super) microphone: mpsc::Receiver<Microphone>,
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
        Self {
            offer: Arc::new(offer),
            shared,
            entry,
            call,
            turn: Turn::new(&profile),
            profile,
            dial: dial.map(Arc::new),
            commands: inbox.commands,
            microphone: inbox.microphone,
            line: None,
            stream: None,
            outbound: AudioFormat::ULAW_8K,
            mouth: None,
            ear: None,
            language: None,
            speech: None,
            desk: Desk::new(),
            jobs: FuturesUnordered::new(),
            muted: Mute {
                inbound: Some(false),
                outbound: Some(false),
            },
            ended: false,
        }
    }

    /// Lives until the call is over and all of it on record.
    pub(super) async fn run(mut self) {
        self.settle(self.shared.clock.now());
        while !self.call.is_over() {
            let event = self.next().await;
            let now = self.shared.clock.now();
            self.handle(now, event);
            self.settle(now);
        }
    }

    async fn next(&mut self) -> Event {
        let resend = self.line.as_ref().is_some_and(|l| !l.unsent.is_empty());
        let resend = resend.then(|| self.shared.clock.now().mono + RESEND);
        let timeouts = [
            self.call.next_timeout(),
            self.turn.next_timeout(),
            self.desk.next_timeout(),
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
            Some(event) = self.jobs.next() => event,
            () = clock.sleep_until(due.unwrap_or_default()), if due.is_some() => Event::Timeout,
        }
    }

    fn handle(&mut self, now: Now, event: Event) {
        match event {
            Event::Command(command) => self.command(now, command),
            Event::Leg(event) => self.leg(now, event),
            Event::Speech(Some(event)) => self.heard(now, Sender::Customer, event),
            Event::Speech(None) => self.speech = None,
            Event::Microphone(audio) => self.hear_frontend(now, audio),
            Event::Overheard(Some(event)) => self.heard(now, self.desk.sender, event),
            Event::Overheard(None) => self.desk.news = None,
            Event::Committed(result) => self.call.committed(now, result),
            Event::Asked(ask, result) => self.asked(now, ask, result),
            Event::Timeout => self.timeout(now),
        }
    }

    fn command(&mut self, now: Now, command: Command) {
        match command {
            Command::Vendor(update, done) => self.call.vendor(now, &update, done),
            Command::WhenDialed(done) => self.call.when_dialed(done),
            Command::Arrival(arrival) => self.attach(now, *arrival),
            Command::Say(words, told) => {
                let _ = told.send(self.say(now, words));
            }
            Command::SetStatus(status, done) => self.call.set_status(now, status, done),
            Command::Language(language) => self.listen_in(&language),
            Command::Mute(mute, told) => {
                self.mute(mute);
                let _ = told.send(self.muted);
            }
            Command::Silence(Silence::Chunk(chunk)) if self.entry.vendor.caps.interrupt => {
                self.send_leg(LegCommand::Interrupt(chunk));
            }
            Command::Silence(_) => self.call.cut(now),
            Command::Digits(digits, done) => self.call.digits(digits, Some(done)),
            Command::Transfer(to, done) => self.call.transfer(to, Some(done)),
            Command::Listen(told) => {
                let _ = told.send(self.listen());
            }
            Command::HangUp(done) => self.call.hang_up(now, Some(done)),
            Command::Interrupt => self.call.interrupt(now),
        }
    }

    fn say(&mut self, now: Now, words: Words) -> Result<MessageId, Fault> {
        if !self.profile.kind.speaks() {
            let message = format!(
                "agent {} has no voice: the caller cannot be spoken to",
                self.profile.name
            );
            return Err(Fault::client(Kind::Conflict, message));
        }
        self.call.say(now, words).map(|(message, _)| message)
    }

    fn listen(&mut self) -> Result<Listening, Fault> {
        let not_yet = || Fault::client(Kind::Conflict, "the call has no media stream now");
        let (_, stream_id, inbound) = self
            .stream
            .clone()
            .filter(|_| self.line.is_some())
            .ok_or_else(not_yet)?;
        let (tx, audio) = monitor(MONITOR_BYTES, MONITOR_PIECES);
        self.send_leg(LegCommand::Monitor(Box::new(tx)));
        Ok(Listening {
            row: self.call.row().clone(),
            stream_id,
            inbound,
            outbound: self.outbound,
            audio,
        })
    }

    fn listen_in(&mut self, language: &str) {
        self.language = Some(language.to_owned());
        self.desk.listen_in(language);
        if let Some(ear) = &self.ear {
            ear.listen_in(language);
        }
    }

    fn attach(&mut self, now: Now, arrival: Arrival) {
        if !self.call.awaits_leg() {
            return refuse_leg(arrival.leg, 1008, "the call has its media stream", "second_stream");
        }
        let tap = self.open_recording();
        let laid = plan::lay(&self.shared.deps.speech, &self.profile, self.entry.call, &arrival, tap);
        *lock(&self.entry.leg) = Some(arrival.leg.clone());
        self.line = Some(Line {
            handle: arrival.leg,
            shard: arrival.shard,
            events: Some(laid.leg),
            unsent: VecDeque::new(),
        });
        self.send_leg(LegCommand::Plan(Box::new(laid.plan)));
        if self.muted.inbound == Some(true) || self.muted.outbound == Some(true) {
            self.mute(Mute::default());
        }
        self.speech = laid.speech;
        self.mouth = laid.mouth;
        self.ear = laid.ear;
        if let Some((ear, language)) = self.ear.as_ref().zip(self.language.as_ref()) {
            ear.listen_in(language);
        }
        self.outbound = arrival.start.outbound;
        self.stream = Some((
            arrival.connection,
            arrival.start.stream_id.clone(),
            arrival.start.inbound,
        ));
        info!(connection = %arrival.connection, stream = %arrival.start.stream_id, "media stream attached");
        self.call.attached(
            now,
            &arrival.start.call_sid,
            &arrival.start.stream_id,
            self.mouth.is_some(),
        );
        self.turn.answered();
    }

    /// Stops the audio at the relay, or lets it pass again; a call without its stream yet begins so.
    fn mute(&mut self, mute: Mute) {
        self.muted.inbound = mute.inbound.or(self.muted.inbound);
        self.muted.outbound = mute.outbound.or(self.muted.outbound);
        self.send_leg(LegCommand::Mute {
            uplink: self.muted.inbound == Some(true),
            downlink: self.muted.outbound == Some(true),
        });
    }

    fn open_recording(&mut self) -> Option<TapTx> {
        if !self.profile.record {
            return None;
        }
        let deps = &self.shared.deps;
        let file = deps.recordings.join(format!("{}.wav", self.call.row().session_id));
        match deps.recorder.open(&deps.data_root.join(&file)) {
            Ok(tap) => {
                self.call.recorded_to(file.to_string_lossy().into_owned());
                Some(tap)
            }
            Err(cause) => {
                warn!(%cause, "the call is not recorded");
                None
            }
        }
    }

    fn leg(&mut self, now: Now, event: Option<LegEvent>) {
        let over = matches!(event, None | Some(LegEvent::Ended { .. }));
        match event {
            Some(event) => self.call.leg(now, event),
            None => self.call.leg_lost(now),
        }
        if over {
            *lock(&self.entry.leg) = None;
            self.line = None;
            self.mouth = None;
            self.ear = None;
        }
    }

    fn heard(&mut self, now: Now, sender: Sender, event: SpeechEvent) {
        let words = match &event {
            SpeechEvent::Transcript(t) if t.is_final && sender == Sender::Customer => Some(t.text.clone()),
            _ => None,
        };
        self.call.speech(now, sender, event);
        if let Some(words) = words {
            self.turn.heard(now.mono, &words);
        }
    }

    fn hear_frontend(&mut self, now: Now, audio: Microphone) {
        if audio.to_caller {
            return self.desk.play(now, &mut self.call, self.mouth.as_ref(), audio);
        }
        let shard = self.line.as_ref().map_or(0, |l| l.shard);
        let speech = &self.shared.deps.speech;
        self.desk
            .hear(now, speech, shard, &self.profile, self.call.has_leg(), &audio);
    }

    fn asked(&mut self, now: Now, ask: Ask, result: Result<String, Fault>) {
        if let Err(fault) = &result {
            warn!(ask = ask.as_str(), kind = ?fault.kind, "the vendor did not do as asked");
            if matches!(ask, Ask::Transfer(_)) {
                self.turn.resume();
            }
        }
        self.call.asked(now, ask, result);
    }

    fn timeout(&mut self, now: Now) {
        self.call.timeout(now);
        self.turn.timeout(now.mono);
        self.desk.timeout(now, self.mouth.as_ref());
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
            } else if let Some(act) = self.turn.poll() {
                self.act(now, act);
            } else {
                break;
            }
        }
        self.call
            .set_ears_open(self.speech.is_some() || self.desk.news.is_some());
        if self.call.is_ended() && !std::mem::replace(&mut self.ended, true) {
            self.close();
        }
    }

    /// The call has ended: what still comes is written down, and nothing is answered.
    fn close(&mut self) {
        let row = self.call.row();
        let reason = row.end_reason.map_or("", |r| r.as_str());
        info!(reason, duration_s = row.duration, "call ended");
        metrics::counter(
            metrics::calls_ended_total,
            &[("vendor", self.entry.vendor.name), ("reason", reason)],
        )
        .increment(1);
        self.shared.pending.revoke(self.entry.call);
        self.turn.silence();
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

    fn perform(&mut self, now: Now, effect: Effect) {
        match effect {
            Effect::Commit(batch) => {
                let commit = self.shared.deps.store.commit(batch);
                self.jobs.push(commit.map(Event::Committed).boxed());
            }
            Effect::Publish(event) => self.shared.deps.bus.publish(Arc::from(event)),
            Effect::Tell(done) => {
                let _ = done.send(Ok(()));
            }
            Effect::Speak {
                utterance,
                text,
                language,
            } => {
                if !self.mouth.as_ref().is_some_and(|m| m.say(utterance, text, language)) {
                    let message = "the synthesizer's queue is full or it has stopped".to_owned();
                    self.heard(now, Sender::Agent, SpeechEvent::TtsFailed { utterance, message });
                }
            }
            Effect::Cut(floor) => {
                if let Some(mouth) = &self.mouth {
                    mouth.cut(floor);
                }
                self.send_leg(LegCommand::Cut { floor });
            }
            Effect::Over { utterance, whole } => self.turn.over(utterance, whole),
            Effect::Close { code, reason } => self.send_leg(LegCommand::Close { code, reason }),
            Effect::Ask(ask) => self.ask(now, ask),
            Effect::Sid(call_sid) => {
                self.shared.directory.learn_sid(self.entry.call, &call_sid);
                self.shared.pending.bind(self.entry.call, &call_sid);
                tracing::Span::current().record("session", self.call.row().session_id.as_str());
            }
            Effect::Created => self.created(),
            Effect::Released => self.shared.directory.release(self.entry.call),
            Effect::LengthWarning => warn!("the call is close to the longest length and will be ended"),
            Effect::Lost => metrics::dropped("message", "storage_behind", 1),
            Effect::StoreFault(fault) => error!(%fault, "a step of the call could not be stored and is lost"),
        }
    }

    fn created(&self) {
        let row = self.call.row();
        info!(
            vendor = row.vendor,
            inbound = row.inbound,
            agent = row.agent,
            "call on record"
        );
        *lock(&self.entry.shown) = Some(self.live());
    }

    fn act(&mut self, now: Now, act: Act) {
        match act {
            Act::Say(text) => {
                let words = Words {
                    text: text.clone(),
                    sender_name: Some(self.profile.name.clone()),
                    ..Words::default()
                };
                let said = match self.call.say(now, words) {
                    Ok((_, utterance)) => Some(utterance),
                    Err(fault) if fault.kind == Kind::Unavailable => self.call.say_unrecorded(text),
                    Err(_) => None,
                };
                self.turn.said(said);
            }
            Act::Do(Action::HangUp) => self.call.hang_up(now, None),
            Act::Do(Action::Handoff) => self.hand_off(now),
            Act::Do(Action::Transfer(to)) => self.call.transfer(to, None),
            Act::Do(Action::Digits(digits)) => self.call.digits(digits, None),
        }
    }

    /// Gives the call to a person: the voice stays, the rules fall silent.
    fn hand_off(&mut self, now: Now) {
        if let Some(person) = self.shared.deps.agents.get("human") {
            self.profile = person.clone();
            self.turn.silence();
            self.call.hand_off(now, &person.name, "the script said so");
        }
    }

    fn ask(&mut self, now: Now, ask: Ask) {
        let deps = &self.shared.deps;
        let carrier = &self.entry.carrier;
        let trunk = carrier.trunk.clone().filter(|t| t.can_dial());
        let sid = self.call.row().call_sid.clone();
        let request = trunk
            .as_ref()
            .and_then(|t| t.request(&sid, &action(&ask, &self.offer, self.dial.as_deref())?));
        let Some((trunk, request)) = trunk.zip(request) else {
            return self.cannot_ask(now, ask);
        };
        if ask == Ask::StartStream {
            self.shared
                .await_stream(now.mono, &self.entry, Some(sid), Duration::ZERO);
        }
        let http = deps.client(carrier.own).clone();
        let (dial, offer) = (self.dial.clone(), self.offer.clone());
        let job = async move {
            let repeatable = trunk.handling().repeatable;
            let result = rest::send(&http, request, repeatable).await.and_then(|reply| {
                let Some(action) = action(&ask, &offer, dial.as_deref()) else {
                    return Ok(String::new());
                };
                trunk.reply(&action, reply.status, &reply.body)
            });
            Event::Asked(ask, result)
        };
        self.jobs.push(job.boxed());
    }

    /// What the vendor has no command for is done here where it can be.
    fn cannot_ask(&mut self, now: Now, ask: Ask) {
        let no_command = "the vendor has no such command, or its REST credentials are missing";
        let result = match &ask {
            Ask::Digits(digits) => self.play_keys(digits),
            Ask::Enhance(_) => Ok(()),
            _ => Err(Fault::client(Kind::Conflict, no_command)),
        };
        match result {
            Ok(()) => self.call.asked(now, ask, Ok(String::new())),
            Err(fault) => self.asked(now, ask, Err(fault)),
        }
    }

    /// Keys as tones, in the caller's ear.
    fn play_keys(&mut self, digits: &str) -> Result<(), Fault> {
        const RATE: u32 = 8000;
        let Some((mouth, utterance)) = self.mouth.as_ref().zip(self.call.sound()) else {
            metrics::dropped("digits", "no_caller", 1);
            let message = "the vendor sends no keys, and nothing can be played to the caller now";
            return Err(Fault::client(Kind::Conflict, message));
        };
        let mut generator = Dtmf::new(RATE, KEY_MS, KEY_MS);
        let mut samples = Vec::new();
        for key in digits.chars().filter_map(DtmfKey::of) {
            let mut tone = [0; (RATE * 2 * KEY_MS / 1000) as usize];
            generator.press(key);
            let n = generator.fill(&mut tone);
            samples.extend_from_slice(&tone[..n]);
        }
        if mouth.play(utterance, samples, RATE, true) {
            return Ok(());
        }
        metrics::dropped("digits", "mouth_full", 1);
        Err(Fault::client(Kind::TooMany, "too much waits to be said on this call"))
    }

    fn send_leg(&mut self, command: LegCommand) {
        let Some(line) = &mut self.line else { return };
        if line.unsent.len() < MAX_UNSENT {
            line.unsent.push_back(command);
        } else {
            metrics::dropped("leg_command", "shard_full", 1);
        }
        self.resend();
    }

    fn resend(&mut self) {
        let Some(line) = &mut self.line else { return };
        while let Some(command) = line.unsent.pop_front() {
            match line.handle.try_send(command) {
                Ok(()) => {}
                Err(LegSendError::Full(command)) => return line.unsent.push_front(command),
                Err(LegSendError::Gone) => return line.unsent.clear(),
            }
        }
    }
}

fn action<'a>(ask: &'a Ask, offer: &'a Offer, dial: Option<&'a Dial>) -> Option<CallAction<'a>> {
    let (call, agent, answer) = (offer.call.as_str(), offer.agent.as_str(), &offer.answer);
    Some(match ask {
        Ask::Dial => {
            let dial = dial?;
            CallAction::Dial {
                call,
                agent,
                to: &dial.to,
                from: &dial.from,
                answer,
                answer_url: &dial.answer_url,
                status_url: &dial.status_url,
                ring: dial.ring,
            }
        }
        Ask::Accept => CallAction::Accept { call, agent, answer },
        Ask::StartStream => CallAction::StartStream { answer },
        Ask::Enhance(on) => CallAction::Enhance { on: *on },
        Ask::HangUp => CallAction::HangUp,
        Ask::Transfer(to) => CallAction::Transfer { to },
        Ask::Digits(digits) => CallAction::Digits { digits },
    })
}

/// Closes a media socket that no call wants. A shard that is too busy to be told closes it at its opening deadline.
pub(super) fn refuse_leg(leg: LegHandle, code: u16, reason: &'static str, why: &'static str) {
    metrics::refused("stream", why);
    let _ = leg.try_send(LegCommand::Close { code, reason });
}

async fn receive<T>(from: Option<&mut mpsc::Receiver<T>>) -> Option<T> {
    match from {
        Some(from) => from.recv().await,
        None => std::future::pending().await,
    }
}

/// Both clocks, and sleep, on the runtime's time, which tests may turn by hand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    origin: tokio::time::Instant,
    mono: Mono,
}

impl Clock {
    /// A clock that runs from now.
    pub(super) fn new() -> Self {
        Self {
            origin: tokio::time::Instant::now(),
            mono: Mono::now(),
        }
    }

    /// Reads it.
    pub(super) fn now(&self) -> Now {
        let wall = crate::base::time::Wall::now();
        Now {
            mono: self.mono + self.origin.elapsed(),
            wall,
        }
    }

    async fn sleep_until(self, at: Mono) {
        tokio::time::sleep_until(self.origin + at.since(self.mono)).await;
    }
}
