//! The examples of the guides that existing integrations follow, replayed against a real daemon: under `--dev` as they are
//! written, and where credentials are asked for with nothing but a credential added.
//!
//! What a guide leaves open (ids that the daemon gives, hosts, ports, samples) is filled in; nothing else is changed.

mod exotel;
mod guides;
mod page;
mod telephony;
mod teler;
mod telnyx;
mod ucid;

use crate::daemon::{Daemon, PATIENCE};
use futures_util::{SinkExt, StreamExt};
use http::{HeaderMap, HeaderName, HeaderValue, Method, header};
use serde_json::Value;
use sidetone::{
    base::{secret::Secret, time::Mono},
    net::client::{ApiRequest, HttpClient},
    sim::desk::Desk,
    vendor::{self, PeerCall},
};
use std::{net::SocketAddr, time::Duration};
use tokio::{net::TcpStream, time::timeout};
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async, tungstenite::Message};

/// What a daemon that asks for credentials is configured with, beside its accounts.
const SECURE: &str = r#"
[calls]
public_url = "http://{address}"
shed_when_late = "0s"

[store]
seal_key = "c2VjcmV0cyBhdCByZXN0LCBmb3IgdGVzdHMgb25seSE="

[[access.jwt]]
algorithm = "HS256"
secret = "a secret of this test and of nothing else, 48 B."
"#;

/// A daemon and the credential that it asks for.
struct Site {
    daemon: Daemon,
    token: Option<String>,
    client: HttpClient,
}

impl Site {
    /// On `--dev`.
    async fn dev(config: &str) -> Self {
        Self {
            daemon: Daemon::start(&["--dev"], config, &[]).await,
            token: None,
            client: HttpClient::new(),
        }
    }

    /// With these accounts, numbers and agents.
    async fn secure(config: &str) -> Self {
        Self::with(&format!("{SECURE}{config}")).await
    }

    /// With this configuration, in which one key signs tokens.
    async fn with(config: &str) -> Self {
        let daemon = Daemon::start(&[], config, &[]).await;
        Self {
            token: Some(daemon.token_for("1", "admin")),
            daemon,
            client: HttpClient::new(),
        }
    }

    fn is_dev(&self) -> bool {
        self.token.is_none()
    }

    /// A request of a client's, with its credential.
    async fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let bearer = self.token.as_ref().map(|t| format!("Bearer {t}"));
        let headers: Vec<_> = bearer.iter().map(|b| ("authorization", &**b)).collect();
        let (status, text) = self.send(method, path, &headers, body).await;
        (status, serde_json::from_str(&text).unwrap_or_default())
    }

    /// The same, answered as the example has it.
    async fn fits(&self, method: &str, path: &str, body: &str, example: &str) -> Value {
        let (status, answer) = self.ask(method, path, body).await;
        assert_eq!(status, 200, "{method} {path}: {answer}");
        fits(&serde_json::from_str(example).unwrap(), &answer);
        answer
    }

    /// A request with these headers; JSON where there is a body.
    async fn send(&self, method: &str, path: &str, more: &[(&str, &str)], body: &str) -> (u16, String) {
        let mut headers = HeaderMap::new();
        if !body.is_empty() && more.iter().all(|(name, _)| *name != "content-type") {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        headers.extend(more.iter().map(|(name, value)| {
            let name: HeaderName = name.parse().unwrap();
            (name, HeaderValue::try_from(*value).unwrap())
        }));
        let request = ApiRequest {
            method: Method::from_bytes(method.as_bytes()).unwrap(),
            url: format!("http://{}{path}", self.daemon.address),
            headers,
            body: body.to_owned().into(),
            timeout: PATIENCE,
        };
        let reply = self.client.send(request).await.expect("an answer");
        (reply.status, String::from_utf8_lossy(&reply.body).into_owned())
    }

    /// A frontend's socket, with its credential in the query.
    async fn watch(&self, path: &str) -> Socket {
        let token = self.token.as_ref().map(|t| {
            let mark = if path.contains('?') { '&' } else { '?' };
            format!("{mark}token={t}")
        });
        self.open(&format!("{path}{}", token.unwrap_or_default())).await
    }

    /// A socket at this path and query.
    async fn open(&self, path: &str) -> Socket {
        let url = format!("ws://{}{path}", self.daemon.address);
        let (socket, _) = connect_async(&url).await.unwrap_or_else(|e| panic!("{url}: {e}"));
        Socket(socket, Vec::new())
    }

    /// Asks until `pick` finds what it looks for.
    async fn until<T>(&self, path: &str, pick: impl Fn(&Value) -> Option<T>) -> T {
        let deadline = Mono::now() + PATIENCE;
        loop {
            let (_, answer) = self.ask("GET", path, "").await;
            if let Some(found) = pick(&answer) {
                return found;
            }
            assert!(Mono::now() < deadline, "{path} stays {answer}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

/// A WebSocket of a client's or vendor's, and what it said that nobody waited for.
struct Socket(WebSocketStream<MaybeTlsStream<TcpStream>>, Vec<Value>);

impl Socket {
    async fn say(&mut self, message: &str) {
        self.0.send(Message::text(message)).await.unwrap();
    }

    /// The next JSON message in which `key` says `value`.
    async fn until(&mut self, key: &str, value: &str) -> Value {
        self.until_all(&[(key, value)]).await
    }

    /// The first JSON message that says all this, whether it has been passed over or is yet to come.
    async fn sometime(&mut self, wanted: &[(&str, &str)]) -> Value {
        match self.1.iter().position(|m| says(m, wanted)) {
            Some(at) => self.1.remove(at),
            None => self.until_all(wanted).await,
        }
    }

    /// The next JSON message that says all this.
    async fn until_all(&mut self, wanted: &[(&str, &str)]) -> Value {
        let Self(socket, others) = self;
        let seen = async {
            while let Some(Ok(message)) = socket.next().await {
                match message {
                    Message::Text(text) => {
                        let json: Value = serde_json::from_str(&text).unwrap();
                        if says(&json, wanted) {
                            return Some(json);
                        }
                        others.push(json);
                    }
                    Message::Close(frame) => others.push(format!("{frame:?}").into()),
                    _ => {}
                }
            }
            None
        };
        match timeout(PATIENCE, seen).await {
            Ok(Some(json)) => json,
            _ => {
                let short = |m: &Value| m.to_string().chars().take(200).collect::<String>();
                panic!(
                    "{wanted:?} did not come, but {:#?}",
                    others.iter().map(short).collect::<Vec<_>>()
                )
            }
        }
    }

    /// Reads until the daemon has closed it.
    async fn closed(&mut self) {
        let read = async { while let Some(Ok(_)) = self.0.next().await {} };
        timeout(PATIENCE, read).await.expect("the socket is closed");
    }
}

fn says(message: &Value, wanted: &[(&str, &str)]) -> bool {
    wanted.iter().all(|(key, value)| message[*key] == *value)
}

/// Whether an answer has all that the example has, of the same sort. `a|b` in an example is one of several words.
fn fits(example: &Value, answer: &Value) {
    fn differs(example: &Value, answer: &Value, at: &str) -> Option<String> {
        match (example, answer) {
            (Value::Object(example), Value::Object(answer)) => {
                example.iter().find_map(|(key, e)| match answer.get(key) {
                    Some(a) => differs(e, a, &format!("{at}.{key}")),
                    None => Some(format!("{at}.{key} is missing")),
                })
            }
            (Value::Array(example), Value::Array(answer)) => match (example.first(), answer.first()) {
                (Some(e), Some(a)) => differs(e, a, &format!("{at}[0]")),
                (Some(_), None) => Some(format!("{at} is empty")),
                (None, _) => None,
            },
            (Value::String(words), Value::String(word)) if words.contains('|') => {
                let known = words.split('|').any(|w| w == word);
                (!known).then(|| format!("{at} is {word}"))
            }
            (Value::String(_), Value::String(_))
            | (Value::Number(_), Value::Number(_))
            | (Value::Bool(_), Value::Bool(_))
            | (Value::Null, _) => None,
            _ => Some(format!("{at} is {answer}, where the example has {example}")),
        }
    }
    if let Some(why) = differs(example, answer, "") {
        panic!("{why}: {answer}");
    }
}

/// An address that nobody listens on now.
fn free_address() -> SocketAddr {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap()
}

/// The vendor's REST interface at an address, which carries one call under this id and believes the account of this key.
async fn vendor_at(at: SocketAddr, name: &'static str, call_sid: &'static str, key: &'static str) {
    let mut desk = Desk::open(at).await.unwrap();
    let mut peer = (vendor::by_name(name).unwrap().peer)(PeerCall {
        call_sid: call_sid.to_owned(),
        ..PeerCall::default()
    });
    tokio::spawn(async move {
        while let Some(asked) = desk.next().await {
            asked.carry_out(&mut *peer, Some(&Secret::new(key)));
        }
    });
}
