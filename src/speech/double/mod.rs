//! Stand-ins for speech services: servers on real sockets that speak a service's wire format, strictly, and go wrong on request.
//!
//! A [`Double`] is one service: it refuses what the service refuses, and more: unknown parameters, missing fields, a wrong key. It hears
//! tones and speaks tones, so that what comes out follows from what went in. [`Server`] serves it and performs [`Fault`]s, one for each
//! connection. For tests, and for trying a configuration without an account.

use super::tts::fake;
use crate::{
    audio::{codec, resample::any::AnyResampler},
    base::format::AudioFormat,
    wire::form::Form,
};
use bytes::Bytes;
use futures_util::{SinkExt as _, StreamExt as _, stream};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, header, request::Parts};
use http_body_util::{BodyExt as _, Limited, StreamBody, combinators::UnsyncBoxBody};
use hyper::{
    body::{Frame, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use std::{
    collections::VecDeque,
    convert::Infallible,
    io,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    net::TcpListener,
    task::JoinHandle,
    time::{Instant, sleep, sleep_until},
};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::derive_accept_key,
        protocol::{CloseFrame, Role},
    },
};

/// The largest request that is read.
const MAX_BODY: usize = 4 << 20;

/// Makes a stand-in that accepts this key.
pub type Make = fn(key: &str) -> Arc<dyn Double>;

/// A service. Pure: messages in, messages out.
pub trait Double: Send + Sync {
    /// Answers a request.
    fn answer(&self, head: &Parts, body: &[u8]) -> Answer;
}

/// An answer to a request.
pub enum Answer {
    /// A WebSocket is opened.
    Socket(Box<dyn Conversation>),
    /// A whole reply.
    Reply {
        /// HTTP status.
        status: u16,
        /// Media type.
        content_type: &'static str,
        /// The body.
        body: Vec<u8>,
    },
}

impl Answer {
    /// A refusal that says why.
    pub fn refuse(status: u16, why: &str) -> Self {
        Self::Reply {
            status,
            content_type: "application/json",
            body: serde_json::json!({ "error": why }).to_string().into_bytes(),
        }
    }
}

/// What a stand-in says.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    /// A message.
    Message(Message),
    /// It closes. Another code than 1000 is a complaint.
    Close(u16, String),
}

impl Said {
    /// A text message.
    pub fn json(value: &serde_json::Value) -> Self {
        Self::Message(Message::text(value.to_string()))
    }
}

/// One WebSocket's conversation.
pub trait Conversation: Send {
    /// What is said before anything is heard.
    fn open(&mut self) -> Vec<Said> {
        Vec::new()
    }

    /// Takes a text or binary message.
    fn hear(&mut self, message: Message) -> Vec<Said>;

    /// Audio that was in text messages since this was asked last.
    fn take_audio(&mut self) -> Vec<u8> {
        Vec::new()
    }
}

/// What goes wrong with a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// It is answered, pings too, and says nothing more.
    Hang,
    /// It is answered, and then nobody is there, not even for pings.
    HalfOpen,
    /// It breaks behind its second message, or in the middle of a reply.
    CloseMidway,
    /// It is refused with this status.
    Status(u16),
    /// What it says is of no protocol.
    Garbage,
    /// The first thing it says is late.
    Slow(Duration),
}

impl Fault {
    /// One of each kind.
    pub const ALL: [Self; 9] = [
        Self::Hang,
        Self::HalfOpen,
        Self::CloseMidway,
        Self::Status(401),
        Self::Status(402),
        Self::Status(429),
        Self::Status(503),
        Self::Garbage,
        Self::Slow(Duration::from_millis(300)),
    ];
}

#[derive(Default)]
struct State {
    faults: VecDeque<Fault>,
    late: Duration,
    connections: usize,
    credentials: Vec<String>,
    complaints: Vec<String>,
    heard: Vec<Vec<u8>>,
    /// Whether the service said it, and what.
    exchanged: VecDeque<(bool, String)>,
}

/// Texts that are remembered.
const EXCHANGED: usize = 1000;

impl State {
    fn note(&mut self, by_service: bool, text: &str) {
        if self.exchanged.len() == EXCHANGED {
            self.exchanged.pop_front();
        }
        self.exchanged.push_back((by_service, text.to_owned()));
    }
}

type Shared = Arc<Mutex<State>>;

fn lock(state: &Shared) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A stand-in on a socket of its own. Dropping it closes the socket.
pub struct Server {
    address: SocketAddr,
    state: Shared,
    accepting: JoinHandle<()>,
}

impl std::fmt::Debug for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .finish_non_exhaustive()
    }
}

impl Server {
    /// Serves at an address. Must be called within a runtime.
    pub async fn open(at: SocketAddr, double: Arc<dyn Double>) -> io::Result<Self> {
        let listener = TcpListener::bind(at).await?;
        let address = listener.local_addr()?;
        let state = Shared::default();
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (double, state) = (Arc::clone(&double), Arc::clone(&shared));
                let service = service_fn(move |request| serve(Arc::clone(&double), Arc::clone(&state), request));
                let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                tokio::spawn(connection.with_upgrades());
            }
        });
        Ok(Self {
            address,
            state,
            accepting,
        })
    }

    /// The base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What goes wrong with the next connections, one after the other; with those after them nothing does.
    pub fn go_wrong(&self, faults: &[Fault]) {
        lock(&self.state).faults.extend(faults);
    }

    /// Everything it says from now on comes this much later, as if it had to think about it.
    pub fn take_time(&self, late: Duration) {
        lock(&self.state).late = late;
    }

    /// Requests so far.
    pub fn connections(&self) -> usize {
        lock(&self.state).connections
    }

    /// What proved who asked, request by request: the header that services keep it in, without its scheme.
    pub fn credentials(&self) -> Vec<String> {
        lock(&self.state).credentials.clone()
    }

    /// What was wrong with what it was told, faults aside.
    pub fn complaints(&self) -> Vec<String> {
        lock(&self.state).complaints.clone()
    }

    /// The last texts that went either way, JSON bodies of requests among them: whether the service said it, and what.
    pub fn exchanged(&self) -> Vec<(bool, String)> {
        lock(&self.state).exchanged.iter().cloned().collect()
    }

    /// The binary messages of each WebSocket, one after the other, and the audio in its text messages.
    pub fn heard(&self) -> Vec<Vec<u8>> {
        lock(&self.state).heard.clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

type Body = UnsyncBoxBody<Bytes, io::Error>;

fn whole(bytes: Vec<u8>) -> Body {
    pieces(vec![Ok(bytes.into())], Duration::ZERO)
}

/// A body in pieces, the first of them late.
fn pieces(pieces: Vec<io::Result<Bytes>>, late: Duration) -> Body {
    let frames = stream::iter(pieces).then(move |piece| async move {
        sleep(late).await;
        piece.map(Frame::data)
    });
    StreamBody::new(frames).boxed_unsync()
}

async fn serve(
    double: Arc<dyn Double>,
    state: Shared,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    let (fault, late) = {
        let mut state = lock(&state);
        state.connections += 1;
        state.credentials.push(credential(request.headers()));
        (state.faults.pop_front().unwrap_or(Fault::None), state.late)
    };
    let upgrade = hyper::upgrade::on(&mut request);
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_BODY).collect().await;
    let body = body.map(|b| b.to_bytes()).unwrap_or_default();
    let mut answer = double.answer(&head, &body);
    let is_json = |text: &[u8]| serde_json::from_slice::<serde_json::Value>(text).is_ok_and(|v| v.is_object());
    if is_json(&body) {
        lock(&state).note(false, &String::from_utf8_lossy(&body));
    }
    if let Answer::Reply { body, .. } = &answer
        && is_json(body)
    {
        lock(&state).note(true, &String::from_utf8_lossy(body));
    }
    if let Answer::Reply {
        status: 400.., body, ..
    } = &answer
    {
        lock(&state).complaints.push(String::from_utf8_lossy(body).into_owned());
    }
    if let Fault::Status(status) = fault {
        answer = Answer::refuse(status, "on request");
    }
    let mut response = Response::new(whole(Vec::new()));
    match answer {
        Answer::Reply {
            status,
            content_type,
            body,
        } => {
            let mut content_type = content_type;
            *response.status_mut() = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
            let half = body.len() / 2;
            let broken = || Err(io::Error::from(io::ErrorKind::BrokenPipe));
            *response.body_mut() = match fault {
                Fault::Hang | Fault::HalfOpen => std::future::pending().await,
                Fault::CloseMidway => pieces(
                    vec![Ok(Bytes::copy_from_slice(&body[..half])), broken()],
                    Duration::from_millis(20),
                ),
                Fault::Garbage => {
                    content_type = "text/html";
                    whole(b"<html>it works</html>".to_vec())
                }
                Fault::Slow(slow) => pieces(vec![Ok(body.into())], slow),
                Fault::None | Fault::Status(_) => pieces(vec![Ok(body.into())], late),
            };
            response
                .headers_mut()
                .insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        }
        Answer::Socket(conversation) => {
            let Some(key) = head.headers.get(header::SEC_WEBSOCKET_KEY) else {
                *response.status_mut() = StatusCode::UPGRADE_REQUIRED;
                return Ok(response);
            };
            let accept = derive_accept_key(key.as_bytes());
            *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
            let headers = response.headers_mut();
            headers.insert(header::CONNECTION, HeaderValue::from_static("upgrade"));
            headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
            if let Ok(accept) = HeaderValue::try_from(accept) {
                headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
            }
            tokio::spawn(async move {
                let Ok(upgraded) = upgrade.await else { return };
                if fault == Fault::HalfOpen {
                    let _held = upgraded;
                    return std::future::pending().await;
                }
                let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
                converse(conversation, socket, fault, late, state).await;
            });
        }
    }
    Ok(response)
}

async fn converse(
    mut conversation: Box<dyn Conversation>,
    mut socket: WebSocketStream<TokioIo<hyper::upgrade::Upgraded>>,
    fault: Fault,
    late: Duration,
    state: Shared,
) {
    let place = {
        let mut state = lock(&state);
        state.heard.push(Vec::new());
        state.heard.len() - 1
    };
    let mut said = 0;
    let timed = |said: Vec<Said>| {
        let at = Instant::now() + late;
        said.into_iter().map(move |say| (at, say))
    };
    let mut to_say: VecDeque<_> = timed(conversation.open()).collect();
    loop {
        let due = to_say.front().map(|(at, _)| *at);
        let message = tokio::select! {
            biased;
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => None,
            message = socket.next() => Some(message),
        };
        match message {
            Some(Some(Ok(message @ (Message::Text(_) | Message::Binary(_))))) => {
                match &message {
                    Message::Text(text) => lock(&state).note(false, text),
                    other => lock(&state).heard[place].extend_from_slice(&other.clone().into_data()),
                }
                to_say.extend(timed(conversation.hear(message)));
                let audio = conversation.take_audio();
                lock(&state).heard[place].extend(audio);
                continue;
            }
            Some(Some(Ok(Message::Close(_)) | Err(_)) | None) => return,
            Some(Some(Ok(_))) => continue,
            None => {}
        }
        let Some((_, say)) = to_say.pop_front() else { continue };
        if fault == Fault::Hang {
            continue;
        }
        if let (Fault::Slow(late), 0) = (fault, said) {
            sleep(late).await;
        }
        said += 1;
        let message = match say {
            Said::Message(_) if fault == Fault::Garbage => Message::text("}no{"),
            Said::Message(message) => message,
            Said::Close(code, reason) => {
                if code != 1000 {
                    lock(&state).complaints.push(reason.clone());
                }
                let (code, reason) = (code.into(), reason.into());
                let _ = socket.close(Some(CloseFrame { code, reason })).await;
                while let Some(Ok(_)) = socket.next().await {}
                return;
            }
        };
        if let Message::Text(text) = &message {
            lock(&state).note(true, text);
        }
        if socket.send(message).await.is_err() || (fault == Fault::CloseMidway && said == 2) {
            return;
        }
    }
}

/// What a request proves itself with.
fn credential(headers: &HeaderMap) -> String {
    let names = ["authorization", "xi-api-key", "x-api-key", "x-goog-api-key"];
    let value = names.iter().find_map(|name| headers.get(*name));
    let text = value.and_then(|v| v.to_str().ok()).unwrap_or_default();
    text.rsplit(' ').next().unwrap_or_default().to_owned()
}

/// What is wrong with the query of a request: parameters unknown, missing or doubled. A known one ends in `*` where it may come often.
pub fn wrong_query(head: &Parts, required: &[&str], optional: &[&str]) -> Option<String> {
    let query = head.uri.query().unwrap_or_default();
    let form = match Form::parse(query.as_bytes()) {
        Ok(form) => form,
        Err(error) => return Some(error.to_string()),
    };
    if let Some(name) = required.iter().find(|name| form.get(name).is_none()) {
        return Some(format!("{name} is missing"));
    }
    for pair in query.split('&') {
        let name = pair.split('=').next().unwrap_or_default();
        let often = optional.contains(&format!("{name}*").as_str());
        if !often && !required.contains(&name) && !optional.contains(&name) {
            return Some(format!("{name} is not known"));
        }
        if !often && form.all(name).count() > 1 {
            return Some(format!("{name} is there twice"));
        }
    }
    None
}

/// A parameter of a request's query; empty where it is missing.
pub fn parameter(head: &Parts, name: &str) -> String {
    let query = head.uri.query().unwrap_or_default();
    let form = Form::parse(query.as_bytes());
    form.ok()
        .and_then(|f| f.get(name).map(str::to_owned))
        .unwrap_or_default()
}

/// What is wrong with the members of a JSON object.
pub fn wrong_members(object: &serde_json::Value, required: &[&str], optional: &[&str]) -> Option<String> {
    let Some(object) = object.as_object() else {
        return Some("not an object".to_owned());
    };
    let missing = required.iter().find(|name| !object.contains_key(**name));
    let strange = object
        .keys()
        .find(|name| !required.contains(&name.as_str()) && !optional.contains(&name.as_str()));
    match (missing, strange) {
        (Some(name), _) => Some(format!("{name} is missing")),
        (None, Some(name)) => Some(format!("{name} is not known")),
        (None, None) => None,
    }
}

/// Whether a header says exactly this.
pub fn says(head: &Parts, name: &str, value: &str) -> bool {
    head.headers.get(name).is_some_and(|v| v.as_bytes() == value.as_bytes())
}

/// A text as a stand-in speaks it: a tone for each word, and a pause behind it that tells it from the next.
pub fn spoken(text: &str, format: AudioFormat) -> Vec<u8> {
    let mut samples = Vec::new();
    for word in text.split_whitespace() {
        samples.extend(fake::word(word));
        samples.resize(samples.len() + 960, 0);
    }
    let samples = AnyResampler::convert(8000, format.rate, &samples).unwrap_or_default();
    let mut bytes = vec![0; format.encoding.bytes(samples.len())];
    codec::encode(format.encoding, &samples, &mut bytes);
    bytes
}
