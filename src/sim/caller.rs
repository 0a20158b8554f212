//! A simulated caller: one call over real sockets, as the vendor would carry it.
//!
//! The webhook is posted and its answer document read as the vendor reads it, then the media socket is opened and fed on an
//! absolute schedule. What comes back goes through [`Playout`], so the caller hears what a caller would: marks are answered when the
//! audio before them was played, a clear silences at once.

use super::{
    address::{Address, Line as Connection},
    announce::{self, AnnounceError},
    coder::Reader,
    desk::{Asked, Desk},
    fault::{Fault, Faulty},
    pace::Pace,
    payload,
    playout::Playout,
    report::{Echo, Ended, Report, Turn},
    script::{FarEnd, Manner, Script},
};
use crate::{
    audio::{codec, resample::any::AnyResampler},
    base::{format::AudioFormat, secret::Secret, time::Mono},
    net::client::HttpClient,
    vendor::{Descriptor, Peer, PeerCall, PeerEvent, PeerOrder},
};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderName, HeaderValue};
use std::{fmt, io, net::SocketAddr, time::Duration};
use tokio::sync::{mpsc, oneshot};
use tokio_tungstenite::{
    WebSocketStream, client_async_with_config,
    tungstenite::{self, Message, client::IntoClientRequest, protocol::WebSocketConfig},
};

/// A call to place.
#[derive(Debug)]
pub struct Plan {
    /// In whose dialect.
    pub vendor: &'static Descriptor,
    /// The daemon, with the path of the media socket where the call is not announced.
    pub daemon: Address,
    /// How the daemon learns of the call.
    pub opening: Opening,
    /// The calling number.
    pub from: String,
    /// The called number.
    pub to: String,
    /// In which of [`Caps::offers`](crate::vendor::Caps::offers) the vendor sends it; its usual one when `None`.
    pub format: Option<AudioFormat>,
    /// What the caller says, at [`Plan::rate`] Hz.
    pub samples: Vec<i16>,
    /// How the caller treats the pauses in it.
    pub manner: Manner,
    /// What goes wrong on the way.
    pub faults: Vec<Fault>,
    /// The caller hangs up after this much silence from both sides.
    pub linger: Duration,
    /// The caller hangs up after this time whatever happens.
    pub limit: Duration,
}

/// How a call begins.
#[derive(Debug)]
pub enum Opening {
    /// By its media socket.
    Unannounced,
    /// By the voice webhook; its answer says where the media socket is.
    Webhook(Webhook),
    /// It is known already, and this was the answer.
    Announced {
        /// The vendor's id of the call.
        call_sid: String,
        /// The token that binds the media socket to it.
        token: String,
        /// The media socket.
        url: String,
        /// The vendor's id of the account, where the daemon knows it.
        account: Option<String>,
        /// What the vendor signs the upgrade request with.
        signature: Vec<(HeaderName, HeaderValue)>,
    },
}

/// A voice webhook.
#[derive(Debug)]
pub struct Webhook {
    /// Where the webhook is posted.
    pub address: Address,
    /// The URL as configured at the vendor, which the signature covers.
    pub signed_as: String,
    /// The account's secret: signs it, or stands in its URL.
    pub secret: Option<Secret>,
    /// What stands in its URL where the account's secret signs and does not stand there.
    pub url_secret: Option<Secret>,
    /// The vendor's id of the account; one made up when `None`.
    pub account: Option<String>,
    /// Where the vendor's REST interface is served, for vendors that answer calls by commands.
    pub rest: Option<SocketAddr>,
}

/// News of a call under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The webhook was answered.
    Announced,
    /// The stream began.
    Started(Mono),
    /// So much of the recording was sent, in ms, of so much.
    Sent(u64, u64),
    /// The far end began to be heard.
    Answering,
    /// The far end's audio was cut off.
    Cut,
    /// The stream is over.
    Ended,
}

/// Why a call could not be placed. What goes wrong later is in the report.
#[derive(Debug)]
pub enum CallError {
    /// The webhook failed.
    Announce(AnnounceError),
    /// The daemon could not be reached.
    Connect(String, io::Error),
    /// The media socket was refused.
    Refused(String),
    /// This machine has no timer for us.
    Timer(io::Error),
    /// The vendor's REST interface cannot be served there.
    Rest(SocketAddr, io::Error),
    /// The stream's URL asks the vendor for this and not for that.
    Format(AudioFormat, AudioFormat),
}

impl fmt::Display for CallError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Announce(e) => write!(f, "the voice webhook failed: {e}"),
            Self::Connect(to, e) => write!(f, "cannot reach the daemon at {to}: {e}"),
            Self::Refused(why) => write!(f, "the media socket was refused: {why}"),
            Self::Timer(e) => write!(f, "no timer: {e}"),
            Self::Rest(at, e) => write!(f, "the vendor's REST interface cannot be served at {at}: {e}"),
            Self::Format(asked, wanted) => write!(
                f,
                "the daemon asks the vendor for {} at {} Hz, not for {} at {} Hz: change the vendor's section of its configuration",
                asked.encoding, asked.rate, wanted.encoding, wanted.rate
            ),
        }
    }
}

impl std::error::Error for CallError {}

/// A silence this long is a pause and no gap.
const PAUSE_MS: u64 = 1000;
/// How long after its end a call still takes commands.
const LAST_COMMANDS: Duration = Duration::from_millis(500);

/// A call that was placed: its measure and what the caller heard.
#[derive(Debug)]
pub struct Outcome {
    /// The measure.
    pub report: Report,
    /// What the caller heard from the stream's start to its end, silence included.
    pub heard: Vec<i16>,
    /// Its rate in Hz.
    pub rate: u32,
}

impl Plan {
    /// The rate in Hz at which [`Plan::samples`] must be for `vendor`.
    pub fn rate(vendor: &Descriptor) -> u32 {
        (vendor.peer)(PeerCall {
            call_sid: String::new(),
            token: None,
            from: String::new(),
            to: String::new(),
            ..PeerCall::default()
        })
        .format()
        .rate
    }
}

/// Places a call and stays until it is over. `progress` is never waited for.
pub async fn place(plan: Plan, progress: &mpsc::Sender<Progress>) -> Result<Outcome, CallError> {
    place_until(plan, progress, None).await
}

/// The same, for a call that its vendor may take elsewhere: then its stream is over.
pub(super) async fn place_until(
    plan: Plan,
    progress: &mpsc::Sender<Progress>,
    leave: Option<oneshot::Receiver<()>>,
) -> Result<Outcome, CallError> {
    let mut call = PeerCall {
        call_sid: announce::new_call_sid(),
        token: None,
        from: plan.from.clone(),
        to: plan.to.clone(),
        format: plan.format,
        ..PeerCall::default()
    };
    let mut report = Report {
        vendor: plan.vendor.name,
        call_sid: call.call_sid.clone(),
        from: plan.from.clone(),
        to: plan.to.clone(),
        ..Report::default()
    };
    let doubled = plan.faults.contains(&Fault::Duplicate);
    let mut url = None;
    let mut desk = None;
    let mut commanded = None;
    let client = match &plan.opening {
        Opening::Webhook(webhook) => webhook.address.client(),
        _ => HttpClient::new(),
    };
    let mut signatures = Vec::new();
    let mut secret = None;
    match &plan.opening {
        Opening::Unannounced => {}
        Opening::Webhook(webhook) => {
            call.account.clone_from(&webhook.account);
            call.url_secret.clone_from(&webhook.url_secret);
            let before = Mono::now();
            let mut peer = (plan.vendor.peer)(call.clone());
            if peer.by_command() {
                if let Some(at) = webhook.rest {
                    desk = Some(Desk::open(at).await.map_err(|e| CallError::Rest(at, e))?);
                }
                let told = announce::commanded(&client, &mut *peer, desk.as_mut(), webhook).await;
                url = told.map_err(CallError::Announce)?;
                commanded = Some(peer);
            } else {
                for _ in 0..=usize::from(doubled) {
                    let answer = announce::announce(&client, plan.vendor, &mut call, webhook).await;
                    url = Some(answer.map_err(CallError::Announce)?);
                }
            }
            secret = webhook.secret.as_ref();
            report.webhook_ms = Some(Mono::now().since(before).as_secs_f64() * 1000.0);
            let _ = progress.try_send(Progress::Announced);
        }
        Opening::Announced {
            call_sid,
            token,
            url: known,
            account,
            signature,
        } => {
            call.call_sid.clone_from(call_sid);
            call.token = Some(token.clone()).filter(|t| !t.is_empty());
            call.account.clone_from(account);
            report.call_sid.clone_from(call_sid);
            url = Some(known.clone());
            signatures.clone_from(signature);
        }
    }
    let mut path = match &url {
        Some(url) => path_of(url).ok_or_else(|| CallError::Refused(format!("{url} is no URL")))?,
        None => plan.daemon.path.clone(),
    };
    if path.is_empty() {
        plan.vendor.stream_path.clone_into(&mut path);
    }
    call.url.clone_from(&url);
    let peer = commanded.unwrap_or_else(|| (plan.vendor.peer)(call));
    let signed = url
        .zip(secret)
        .and_then(|(url, secret)| peer.sign_upgrade(&url, secret));
    signatures.extend(signed);
    let sends = peer.format();
    if let Some(wanted) = plan.format.filter(|wanted| *wanted != sends) {
        return Err(CallError::Format(sends, wanted));
    }
    let samples = AnyResampler::convert(Plan::rate(plan.vendor), sends.rate, &plan.samples);
    let samples = samples.map_err(|e| CallError::Refused(e.to_string()))?;
    let script = Script::new(&samples, sends, peer.frame_ms(), plan.manner);
    let script = script.ok_or_else(|| CallError::Refused(format!("{} cannot be written", sends.encoding)))?;
    let socket = dial(&plan.daemon, &path, signatures).await?;
    let now = Mono::now();
    let (reader, plays) = match Reader::new(peer.plays()) {
        Some((reader, linear)) => (Some(reader), linear),
        None => (None, peer.plays()),
    };
    let line = Line {
        playout: Playout::new(plays, now),
        reader,
        plays,
        started: now,
        faulty: Faulty::new(&plan.faults, now),
        faults: plan.faults,
        frame_ms: u64::from(peer.frame_ms()),
        marks: plan.vendor.caps.mark,
        peer,
        socket,
        script,
        report,
        sent: Vec::new(),
        received: Vec::new(),
        outbox: String::new(),
        last_speech_ms: 0,
        progress,
        desk,
        leave,
    };
    let (outcome, mut peer, mut desk) = line.run(plan.linger, plan.limit).await?;
    if let Opening::Webhook(webhook) = &plan.opening {
        let seconds = (outcome.report.duration_ms / 1000) as u32;
        let url = announce::status_url(plan.vendor, webhook);
        if let Some(over) = peer.conclude(&url, seconds, webhook.secret.as_ref()) {
            // The daemon may be gone already; the call is over either way.
            for _ in 0..=usize::from(doubled) {
                let _ = announce::post(&client, over.clone(), webhook).await;
            }
        }
    }
    if let Some(desk) = &mut desk {
        while let Ok(Some(asked)) = tokio::time::timeout(LAST_COMMANDS, desk.next()).await {
            asked.carry_out(&mut *peer, None);
        }
    }
    Ok(outcome)
}

/// Path and query. The vendor would go where the URL says; here the daemon we were told stands for its host.
fn path_of(url: &str) -> Option<String> {
    let uri: http::Uri = url.parse().ok()?;
    Some(uri.path_and_query()?.as_str().to_owned())
}

async fn dial(
    daemon: &Address,
    path: &str,
    signatures: Vec<(HeaderName, HeaderValue)>,
) -> Result<WebSocketStream<Box<dyn Connection>>, CallError> {
    let mut request = daemon
        .at("ws", path)
        .into_client_request()
        .map_err(|e| CallError::Refused(e.to_string()))?;
    request
        .headers_mut()
        .extend(signatures.into_iter().map(|(name, value)| (Some(name), value)));
    let authority = daemon.authority();
    let line = daemon.dial().await.map_err(|e| CallError::Connect(authority, e))?;
    let config = WebSocketConfig::default().read_buffer_size(4096);
    match client_async_with_config(request, line, Some(config)).await {
        Ok((socket, _)) => Ok(socket),
        Err(tungstenite::Error::Http(response)) => Err(CallError::Refused(response.status().to_string())),
        Err(e) => Err(CallError::Refused(e.to_string())),
    }
}

/// The next command, if any can come.
async fn commands(desk: Option<&mut Desk>) -> Option<Asked> {
    match desk {
        Some(desk) => desk.next().await,
        None => std::future::pending().await,
    }
}

/// Returns when the vendor takes the call elsewhere.
async fn told(leave: Option<&mut oneshot::Receiver<()>>) {
    match leave {
        Some(leave) => {
            if leave.await.is_err() {
                std::future::pending().await
            }
        }
        None => std::future::pending().await,
    }
}

/// A call on the line.
struct Line<'a> {
    peer: Box<dyn Peer>,
    socket: WebSocketStream<Box<dyn Connection>>,
    script: Script,
    /// Length of the vendor's messages.
    frame_ms: u64,
    /// Whether the vendor is sent marks.
    marks: bool,
    faults: Vec<Fault>,
    /// What is on its way to the daemon.
    faulty: Faulty,
    playout: Playout,
    /// Reads what is played, where its encoding has a memory.
    reader: Option<Reader>,
    /// What is played, once read.
    plays: AudioFormat,
    started: Mono,
    report: Report,
    /// Everything sent and received, encoded, to find an echo.
    sent: Vec<u8>,
    received: Vec<u8>,
    outbox: String,
    last_speech_ms: u64,
    progress: &'a mpsc::Sender<Progress>,
    /// Where commands arrive while the call lasts.
    desk: Option<Desk>,
    /// Told when the vendor takes the call elsewhere.
    leave: Option<oneshot::Receiver<()>>,
}

impl Line<'_> {
    async fn run(
        mut self,
        linger: Duration,
        limit: Duration,
    ) -> Result<(Outcome, Box<dyn Peer>, Option<Desk>), CallError> {
        let mut pace = Pace::every(Duration::from_millis(self.frame_ms)).map_err(CallError::Timer)?;
        self.started = Mono::now();
        self.playout = Playout::new(self.plays, self.started);
        self.faulty = Faulty::new(&self.faults, self.started);
        let _ = self.progress.try_send(Progress::Started(self.started));
        self.report.ended = match self.converse(&mut pace, linger, limit).await {
            Ok(ended) => ended,
            Err(_) => Ended::Lost,
        };
        let now = Mono::now();
        self.playout.advance(now);
        self.report.duration_ms = now.millis_since(self.started);
        if matches!(self.report.ended, Ended::Caller | Ended::Limit | Ended::Vendor) {
            // The daemon may be gone already; the call is over either way.
            let _ = tokio::time::timeout(Duration::from_secs(2), self.hang_up()).await;
        }
        let _ = self.progress.try_send(Progress::Ended);
        Ok(self.outcome())
    }

    async fn converse(
        &mut self,
        pace: &mut Pace,
        linger: Duration,
        limit: Duration,
    ) -> Result<Ended, tungstenite::Error> {
        for message in self.peer.open() {
            self.socket.send(Message::text(message)).await?;
        }
        if self.faults.contains(&Fault::WrongRate)
            && let Some(stray) = self.peer.stray()
        {
            self.socket.send(Message::text(stray)).await?;
        }
        loop {
            let now = Mono::now();
            let stall = self.faulty.stalled_until(now);
            let due = [self.playout.next_mark(), self.faulty.next_due(), stall];
            let due = due.into_iter().flatten().min().map(|at| at.since(now));
            tokio::select! {
                ticks = pace.tick() => {
                    for _ in 0..ticks? {
                        self.send_frame().await?;
                    }
                    let now = Mono::now();
                    if now.since(self.started) >= limit {
                        return Ok(Ended::Limit);
                    }
                    if self.is_over(now, linger) {
                        return Ok(Ended::Caller);
                    }
                }
                Some(asked) = commands(self.desk.as_mut()) => {
                    // A hung-up call's socket is closed by the daemon, too.
                    if asked.carry_out(&mut *self.peer, None) == PeerOrder::Leave {
                        return Ok(Ended::Vendor);
                    }
                }
                () = told(self.leave.as_mut()) => return Ok(Ended::Vendor),
                () = tokio::time::sleep(due.unwrap_or_default()), if due.is_some() => {}
                message = self.socket.next(), if stall.is_none() => match message {
                    Some(Ok(Message::Text(text))) => self.hear(text.as_bytes()),
                    Some(Ok(Message::Close(frame))) => {
                        let code = frame.as_ref().map_or(1005, |f| f.code.into());
                        let said = frame.map(|f| f.reason.to_string());
                        self.report.close_reason = said.filter(|reason| !reason.is_empty());
                        let _ = self.socket.close(None).await;
                        return Ok(Ended::Daemon(code));
                    }
                    Some(Ok(Message::Binary(_))) => self.refuse("a binary message"),
                    Some(Ok(_)) => {}
                    Some(Err(e)) => return Err(e),
                    None => return Ok(Ended::Lost),
                },
            }
            let now = Mono::now();
            while let Some(message) = self.faulty.pop(now) {
                self.socket.send(Message::text(message)).await?;
            }
            self.playout.advance(now);
            while let Some(name) = self.playout.pop_mark() {
                self.report.marks += 1;
                let message = self.peer.mark(&name);
                self.socket.send(Message::text(message)).await?;
            }
        }
    }

    async fn send_frame(&mut self) -> Result<(), tungstenite::Error> {
        let now = Mono::now();
        self.playout.advance(now);
        let at_ms = self.report.frames_sent * self.frame_ms;
        let due = self.started + Duration::from_millis(at_ms + self.frame_ms);
        let late = now.since(due).as_micros() as u64;
        self.report.send_late_max_us = self.report.send_late_max_us.max(late);
        let frame = self.script.next(FarEnd {
            last_sound_ms: self.playout.last_sound_ms(),
            playing: self.playout.has_sound(),
        });
        let (begins, ends) = (frame.begins, frame.ends);
        self.outbox.clear();
        self.peer.media(frame.audio, at_ms, &mut self.outbox);
        self.sent.extend_from_slice(frame.audio);
        self.faulty.push(now, &self.outbox);
        self.report.frames_sent += 1;
        if begins.is_some() {
            self.report.turns.push(Turn {
                from_ms: at_ms,
                ..Turn::default()
            });
        }
        if ends.is_some()
            && let Some(turn) = self.report.turns.last_mut()
        {
            turn.to_ms = at_ms + self.frame_ms;
            self.last_speech_ms = turn.to_ms;
        }
        let (sent, total) = self.script.progress_ms();
        let _ = self.progress.try_send(Progress::Sent(sent, total));
        Ok(())
    }

    fn hear(&mut self, message: &[u8]) {
        let now = Mono::now();
        self.playout.advance(now);
        let at_ms = now.millis_since(self.started);
        match self.peer.read(message) {
            Ok(PeerEvent::Media(payload)) => match payload::decode(payload) {
                Some(audio) => match &mut self.reader {
                    Some(reader) => {
                        let audio = reader.read(&audio);
                        self.hear_audio(&audio, at_ms);
                    }
                    None => self.hear_audio(&audio, at_ms),
                },
                None => self.refuse("audio that cannot be decoded"),
            },
            Ok(PeerEvent::Mark(name)) => self.playout.mark(name),
            Ok(PeerEvent::Clear) => {
                self.report.clears += 1;
                self.report.audio_cut_ms += self.playout.clear();
                let _ = self.progress.try_send(Progress::Cut);
            }
            Ok(PeerEvent::Other) => {}
            Err(e) => self.refuse(&e.to_string()),
        }
    }

    fn hear_audio(&mut self, audio: &[u8], at_ms: u64) {
        self.report.messages_received += 1;
        self.report.first_audio_ms.get_or_insert(at_ms);
        if self.playout.is_idle() {
            let _ = self.progress.try_send(Progress::Answering);
            if let Some(turn) = self.report.turns.last_mut()
                && turn.to_ms > 0
            {
                turn.answered_after_ms.get_or_insert(at_ms.saturating_sub(turn.to_ms));
            }
        }
        self.received.extend_from_slice(audio);
        self.playout.push(audio);
    }

    /// Notes what the vendor would refuse; a flood of it is cut short.
    fn refuse(&mut self, why: &str) {
        if self.report.refused.len() < 100 {
            self.report.refused.push(why.to_owned());
        }
    }

    fn is_over(&self, now: Mono, linger: Duration) -> bool {
        let now_ms = now.millis_since(self.started);
        let last = self.playout.last_sound_ms().unwrap_or(0).max(self.last_speech_ms);
        let quiet = !self.playout.has_sound() && now_ms >= last + linger.as_millis() as u64;
        self.script.is_over() && quiet
    }

    async fn hang_up(&mut self) -> Result<(), tungstenite::Error> {
        for message in self.faulty.drain() {
            self.socket.send(Message::text(message)).await?;
        }
        let stop = self.peer.stop();
        if !stop.is_empty() && !self.faulty.drops_stop() {
            self.socket.send(Message::text(stop)).await?;
        }
        self.socket.close(None).await?;
        while let Some(message) = self.socket.next().await {
            message?;
        }
        Ok(())
    }

    fn outcome(mut self) -> (Outcome, Box<dyn Peer>, Option<Desk>) {
        let format = self.plays;
        let width = format.encoding.sample_bytes();
        let mut heard = vec![0; self.playout.heard().len() / width];
        // A whole number of samples by construction.
        let _ = codec::decode(format.encoding, self.playout.heard(), &mut heard);
        self.report.gaps = self.playout.gaps().to_vec();
        if !self.marks {
            // Without marks the end of an utterance cannot be told from a gap.
            self.report.gaps.retain(|gap| gap.ms < PAUSE_MS);
        }
        self.report.echo = Echo::find(&self.sent, &self.received);
        self.report.audio_received_ms = (self.received.len() / width) as u64 * 1000 / u64::from(format.rate);
        let outcome = Outcome {
            report: self.report,
            heard,
            rate: format.rate,
        };
        (outcome, self.peer, self.desk)
    }
}
