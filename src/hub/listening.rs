//! Calls that frontends listen to: one task for each call that anybody hears, which takes the audio from the media thread's
//! ring, writes it once in each format that is wanted, and queues it for each listener.
//!
//! A listener's queue is its own: one that does not keep up loses audio and is told so; nothing here waits for it.

use super::{
    Deps,
    audio_messages::{AudioSettings, Stream, Wanted, Writer},
    fanout::Client,
    outbox::Item,
    protocol::Class,
    viewer::Voice,
};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        ids::{CallId, TenantId},
    },
    bus::News,
    control::Listening,
    media::monitor::{MonitorSpan, Piece},
    metrics,
    record::Side,
    wire::base64,
};
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_tungstenite::tungstenite::Utf8Bytes;

/// How often a call's ring is emptied: a frame's length, so that a frame waits for one turn at most.
const TURN: Duration = Duration::from_millis(10);

/// Sides of calls that are encoded as Opus at once, for listeners who asked for it: at 30 to 210 µs a packet, this many take a core
/// at most.
const ENCODERS: usize = 128;

/// Who listens, and to what.
#[derive(Debug)]
pub(super) struct Audience {
    state: Mutex<State>,
    serial: AtomicU64,
    encoders: Arc<Semaphore>,
}

impl Default for Audience {
    fn default() -> Self {
        Self {
            state: Mutex::default(),
            serial: AtomicU64::default(),
            encoders: Arc::new(Semaphore::new(ENCODERS)),
        }
    }
}

#[derive(Debug, Default)]
struct State {
    listeners: HashMap<TenantId, Vec<Arc<Listener>>>,
    /// Calls that are being taken from.
    heard: HashSet<CallId>,
}

/// One client that listens.
#[derive(Debug)]
pub(super) struct Listener {
    serial: u64,
    tenant: TenantId,
    /// The one call; all of the tenant when `None`.
    call: Option<CallId>,
    settings: AudioSettings,
    client: Arc<Client>,
    /// It was told that it hears not everything.
    refused: AtomicBool,
}

/// A listener's place, given up when dropped.
#[derive(Debug)]
pub(super) struct Place {
    audience: Arc<Audience>,
    listener: Arc<Listener>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.audience.lock();
        if let Some(all) = state.listeners.get_mut(&self.listener.tenant) {
            all.retain(|l| l.serial != self.listener.serial);
            if all.is_empty() {
                state.listeners.remove(&self.listener.tenant);
            }
        }
    }
}

impl Audience {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A client listens from now on: to one call, or to all of its tenant, those to come too.
    pub(super) fn join(
        self: &Arc<Self>,
        deps: &Deps,
        tenant: TenantId,
        call: Option<CallId>,
        settings: AudioSettings,
        client: Arc<Client>,
    ) -> Place {
        let listener = Arc::new(Listener {
            serial: self.serial.fetch_add(1, Relaxed),
            tenant,
            call,
            settings,
            client,
            refused: AtomicBool::new(false),
        });
        self.lock().listeners.entry(tenant).or_default().push(listener.clone());
        for live in deps.control.active(tenant) {
            if live.stream.is_some() && call.is_none_or(|one| one == live.row.call_id) {
                self.hear(deps, tenant, live.row.call_id);
            }
        }
        Place {
            audience: self.clone(),
            listener,
        }
    }

    /// Notices calls that begin to stream, for ever.
    pub(super) async fn run(self: &Arc<Self>, deps: &Deps) {
        loop {
            let mut news = deps.bus.subscribe();
            while let Some(event) = news.recv().await {
                let streams = matches!(
                    event.news,
                    News::Status {
                        status: "in_progress",
                        ..
                    }
                );
                if streams && !self.of(event.tenant, event.call).is_empty() {
                    self.hear(deps, event.tenant, event.call);
                }
            }
            // Cut off for being slow: what began meanwhile is found again.
            let waiting: Vec<TenantId> = self.lock().listeners.keys().copied().collect();
            for tenant in waiting {
                for live in deps.control.active(tenant).iter().filter(|live| live.stream.is_some()) {
                    if !self.of(tenant, live.row.call_id).is_empty() {
                        self.hear(deps, tenant, live.row.call_id);
                    }
                }
            }
        }
    }

    /// Those who hear a call.
    fn of(&self, tenant: TenantId, call: CallId) -> Vec<Arc<Listener>> {
        let state = self.lock();
        let all = state.listeners.get(&tenant).into_iter().flatten();
        all.filter(|l| l.call.is_none_or(|one| one == call)).cloned().collect()
    }

    /// Begins to take a call's audio, unless that is done already.
    fn hear(self: &Arc<Self>, deps: &Deps, tenant: TenantId, call: CallId) {
        if !self.lock().heard.insert(call) {
            return;
        }
        let (audience, deps) = (self.clone(), deps.clone());
        tokio::spawn(async move {
            // Who came while the last one left is heard by another turn.
            loop {
                if let Ok(listening) = deps.control.listen(tenant, call.as_str()).await {
                    audience.follow(tenant, call, listening).await;
                }
                audience.lock().heard.remove(&call);
                let live = deps.control.active(tenant);
                let streams = live.iter().any(|l| l.row.call_id == call && l.stream.is_some());
                let wanted = streams && !audience.of(tenant, call).is_empty();
                let ours = wanted && audience.lock().heard.insert(call);
                if !ours {
                    return;
                }
                tokio::time::sleep(TURN).await;
            }
        });
    }

    /// Takes a call's audio until its stream ends or nobody listens.
    async fn follow(&self, tenant: TenantId, call: CallId, listening: Listening) {
        let mut line = Line::new(listening, self.encoders.clone());
        let mut turns = tokio::time::interval(TURN);
        turns.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let listeners = self.of(tenant, call);
            if listeners.is_empty() {
                return;
            }
            line.greet(&listeners);
            line.turn(&listeners);
            if line.listening.audio.is_over() {
                return line.farewell(&listeners);
            }
        }
    }
}

/// A writer, and the place that an encoder takes.
type Placed = (Writer, Option<OwnedSemaphorePermit>);

/// One call on its way to its listeners.
struct Line {
    listening: Listening,
    stream: Stream,
    greeted: HashSet<u64>,
    encoders: Arc<Semaphore>,
    /// What writes each side in each format, with its place where that needs one; `None` where there was no place.
    writers: HashMap<(bool, AudioFormat), Option<Placed>>,
    chunks: HashMap<(bool, Wanted), u64>,
    bytes: Vec<u8>,
    samples: Vec<i16>,
}

impl Line {
    fn new(listening: Listening, encoders: Arc<Semaphore>) -> Self {
        let row = &listening.row;
        let stream = Stream {
            stream_id: listening.stream_id.clone(),
            call_control_id: row.call_sid.clone(),
            call_id: row.call_id.to_string(),
            inbound: listening.inbound,
            outbound: listening.outbound,
        };
        Self {
            listening,
            stream,
            greeted: HashSet::new(),
            encoders,
            writers: HashMap::new(),
            chunks: HashMap::new(),
            bytes: Vec::new(),
            samples: Vec::new(),
        }
    }

    /// Tells newcomers of the stream.
    fn greet(&mut self, listeners: &[Arc<Listener>]) {
        let here: HashSet<u64> = listeners.iter().map(|l| l.serial).collect();
        if here == self.greeted {
            return;
        }
        for newcomer in listeners.iter().filter(|l| !self.greeted.contains(&l.serial)) {
            newcomer.tell(self.stream.start(&newcomer.settings).into(), Class::Event);
        }
        self.greeted = here;
        // Places of encoders that nobody hears any more are given up; who was refused one is tried again.
        self.writers.retain(|(_, format), writer| {
            let wanted = |l: &Arc<Listener>| l.settings.wanted == Wanted::Format(*format);
            writer.is_some() && (format.encoding != Encoding::Opus || listeners.iter().any(wanted))
        });
        self.ask(listeners);
    }

    /// Tells the media thread what is wanted.
    fn ask(&self, listeners: &[Arc<Listener>]) {
        let (mut raw, mut samples) = (false, false);
        for listener in listeners {
            for side in [Side::Caller, Side::Agent] {
                let hears = listener.settings.hears(side);
                let own = self.is_own(listener.settings.wanted, side);
                raw |= hears && own;
                samples |= hears && !own;
            }
        }
        self.listening.audio.want(raw, samples);
    }

    /// Whether what is wanted is what the vendor writes.
    fn is_own(&self, wanted: Wanted, side: Side) -> bool {
        match wanted {
            Wanted::Native => true,
            Wanted::Format(format) => {
                let own = self.stream.format(side);
                // Packets of Opus tell no rate: whoever decodes them chooses it.
                format == own || [format.encoding, own.encoding] == [Encoding::Opus; 2]
            }
        }
    }

    fn turn(&mut self, listeners: &[Arc<Listener>]) {
        let mut bytes = std::mem::take(&mut self.bytes);
        while let Some(span) = self.listening.audio.next(&mut bytes) {
            self.retune(span, listeners);
            self.piece(span, &bytes, listeners);
        }
        self.bytes = bytes;
        let lost = self.listening.audio.take_lost();
        if lost > 0 {
            metrics::dropped("frontend_audio", "monitor_full", lost);
        }
    }

    /// Some vendors change the rate under way.
    fn retune(&mut self, span: MonitorSpan, listeners: &[Arc<Listener>]) {
        if self.stream.format(span.side).rate != span.rate {
            self.stream.retune(span.side, span.rate);
            self.writers.clear();
            self.ask(listeners);
        }
    }

    /// One piece, to all whom it is for; each text is made once.
    fn piece(&mut self, span: MonitorSpan, bytes: &[u8], listeners: &[Arc<Listener>]) {
        let mut texts: Vec<(Wanted, Vec<Utf8Bytes>)> = Vec::new();
        for listener in listeners.iter().filter(|l| l.settings.hears(span.side)) {
            let wanted = listener.settings.wanted;
            let own = self.is_own(wanted, span.side);
            let suits = match span.piece {
                Piece::Base64 | Piece::Encoded => own,
                Piece::Samples { only } => only || !own,
            };
            if !suits {
                continue;
            }
            let made = texts.iter().position(|(w, _)| *w == wanted);
            let made = made.unwrap_or_else(|| {
                texts.push((wanted, self.write(span, bytes, wanted, listeners)));
                texts.len() - 1
            });
            for text in &texts[made].1 {
                listener.tell(text.clone(), Class::Audio);
            }
        }
    }

    fn write(
        &mut self,
        span: MonitorSpan,
        bytes: &[u8],
        wanted: Wanted,
        listeners: &[Arc<Listener>],
    ) -> Vec<Utf8Bytes> {
        let mut texts = Vec::new();
        let chunk = self.chunks.entry((span.side == Side::Caller, wanted)).or_default();
        let stream = &self.stream;
        let mut put = |at_ms, payload: &str| {
            *chunk += 1;
            texts.push(stream.media(span.side, *chunk, at_ms, payload).into());
        };
        match span.piece {
            // As the vendor wrote it.
            Piece::Base64 => put(span.at_ms, &String::from_utf8_lossy(bytes)),
            Piece::Encoded => put(span.at_ms, &base64::encode_string(bytes)),
            Piece::Samples { .. } => {
                self.samples.clear();
                let pairs = bytes.chunks_exact(2);
                self.samples.extend(pairs.map(|b| i16::from_le_bytes([b[0], b[1]])));
                let own = stream.format(span.side);
                let format = match wanted {
                    Wanted::Format(format) => format,
                    Wanted::Native => own,
                };
                let writer = self
                    .writers
                    .entry((span.side == Side::Caller, format))
                    .or_insert_with(|| {
                        let place = match format.encoding {
                            Encoding::Opus => Some(self.encoders.clone().try_acquire_owned().ok()?),
                            _ => None,
                        };
                        Some((Writer::new(own.rate, format), place))
                    });
                match writer {
                    Some((writer, _)) => writer.write(span.at_ms, &self.samples, put),
                    None => refused(wanted, listeners),
                }
            }
        }
        texts
    }

    fn farewell(&self, listeners: &[Arc<Listener>]) {
        let text: Utf8Bytes = self.stream.stop().into();
        for listener in listeners.iter().filter(|l| self.greeted.contains(&l.serial)) {
            listener.tell(text.clone(), Class::Event);
        }
    }
}

/// There is no place for another encoder: this audio is left out. That is said to each, once, where it is first refused.
fn refused(wanted: Wanted, listeners: &[Arc<Listener>]) {
    metrics::dropped("frontend_audio", "encoders_busy", 1);
    for listener in listeners.iter().filter(|l| l.settings.wanted == wanted) {
        if !listener.refused.swap(true, Relaxed) {
            let text = Voice::Audio.error(
                "busy",
                "too many calls are being encoded as Opus: ask for another format",
            );
            listener.tell(text.into(), Class::Event);
        }
    }
}

impl Listener {
    fn tell(&self, text: Utf8Bytes, class: Class) {
        self.client.outbox.answer(Item {
            text,
            class,
            call: None,
            id: None,
            status: None,
        });
    }
}
