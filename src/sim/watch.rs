//! A simulated frontend: watches a tenant's calls on the telephony socket, as a browser would, and tells what it sees of one of them.

use super::address::{Address, Line};
use crate::base::{secret::Secret, time::Mono};
use futures_util::StreamExt;
use serde::Deserialize;
use std::{fmt, time::Duration};
use tokio::sync::mpsc;
use tokio_tungstenite::{
    WebSocketStream, client_async,
    tungstenite::{self, Message},
};

/// The path of the telephony socket.
const PATH: &str = "/api/ws/telephony/stream";

/// Why calls cannot be watched.
#[derive(Debug)]
pub struct WatchError(String);

impl fmt::Display for WatchError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for WatchError {}

/// A frontend that is connected and ready.
pub struct Watch {
    socket: WebSocketStream<Box<dyn Line>>,
}

/// Something that a frontend was told about the call.
#[derive(Clone, Debug, PartialEq)]
pub struct Sight {
    /// When it arrived.
    pub at: Mono,
    /// What.
    pub what: What,
}

/// What a frontend is told.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum What {
    /// The call moved.
    CallStatusUpdate {
        /// The daemon's id of the call.
        call_id: String,
        /// Where to.
        status: String,
        /// The calling number.
        #[serde(default)]
        customer_number: String,
        /// With `ended`.
        end_reason: Option<String>,
    },
    /// Words of the caller.
    CustomerTranscript {
        /// The daemon's id of the call.
        call_id: String,
        /// The words.
        transcript: String,
        /// Whether they will not change.
        is_final: bool,
        /// Where it means something.
        confidence: Option<f32>,
    },
    /// What became of words to the caller.
    AgentMessageStatus {
        /// The daemon's id of the call.
        call_id: String,
        /// The words.
        #[serde(default)]
        message: String,
        /// `stored`, `heard`, `cut` or `failed`.
        status: String,
        /// How much of them was heard.
        #[serde(default)]
        heard_ms: u64,
    },
    /// Something failed.
    TelephonyError {
        /// The daemon's id of the call.
        #[serde(default)]
        call_id: Option<String>,
        /// Which sort.
        error_code: String,
        /// What a person can act on.
        message: String,
    },
    /// The socket is ready.
    TelephonyConnected {},
    /// Anything else.
    #[serde(other)]
    Other,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watch")
    }
}

impl What {
    fn call_id(&self) -> Option<&str> {
        match self {
            Self::CallStatusUpdate { call_id, .. }
            | Self::CustomerTranscript { call_id, .. }
            | Self::AgentMessageStatus { call_id, .. } => Some(call_id),
            Self::TelephonyError { call_id, .. } => call_id.as_deref(),
            Self::TelephonyConnected {} | Self::Other => None,
        }
    }
}

impl Watch {
    /// Connects to the daemon and waits until it is served. A daemon in `--dev` wants no token.
    pub async fn open(daemon: &Address, token: Option<&Secret>) -> Result<Self, WatchError> {
        let connect = async {
            let line = daemon.dial().await.map_err(|e| WatchError(e.to_string()))?;
            let path = match token {
                Some(token) => format!("{PATH}?client_type=telephony&token={}", token.expose()),
                None => format!("{PATH}?client_type=telephony"),
            };
            let (socket, _) = client_async(daemon.at("ws", &path), line)
                .await
                .map_err(|e| WatchError(without_url(&e)))?;
            let mut watch = Self { socket };
            while let Some(what) = watch.next().await {
                if what == (What::TelephonyConnected {}) {
                    return Ok(watch);
                }
            }
            Err(WatchError("the daemon closed the telephony socket".into()))
        };
        match tokio::time::timeout(Duration::from_secs(5), connect).await {
            Ok(result) => result,
            Err(_) => Err(WatchError("the telephony socket did not get ready".into())),
        }
    }

    /// Tells what is seen of the first call from `number` that begins after this, until nobody listens.
    pub async fn follow(mut self, number: String, sights: mpsc::Sender<Sight>) {
        let mut own: Option<String> = None;
        while let Some(what) = self.next().await {
            let at = Mono::now();
            if let (
                None,
                What::CallStatusUpdate {
                    customer_number,
                    call_id,
                    ..
                },
            ) = (&own, &what)
                && *customer_number == number
            {
                own = Some(call_id.clone());
            }
            let ours = what.call_id().is_some() && what.call_id() == own.as_deref();
            if ours && sights.send(Sight { at, what }).await.is_err() {
                break;
            }
        }
    }

    /// The next message that can be read; `None` when the socket is gone.
    async fn next(&mut self) -> Option<What> {
        loop {
            match self.socket.next().await?.ok()? {
                Message::Text(text) => {
                    if let Ok(what) = serde_json::from_str(&text) {
                        return Some(what);
                    }
                }
                Message::Close(_) => return None,
                _ => {}
            }
        }
    }
}

/// The error without the request's URL, which may hold a token.
fn without_url(error: &tungstenite::Error) -> String {
    match error {
        tungstenite::Error::Http(response) => format!("the telephony socket was refused: {}", response.status()),
        tungstenite::Error::Url(_) => "the token cannot stand in a URL".to_owned(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_frontends_are_told_is_read_and_the_rest_ignored() {
        let read = |text: &str| serde_json::from_str::<What>(text).unwrap();
        let transcript = read(
            r#"{"type":"customer_transcript","call_id":"c1","transcript":"hello","is_final":true,"confidence":null,
                "detected_language":"en","timestamp":"2024-01-01T12:00:00Z","message_id":"m1","stored":true,"id":7}"#,
        );
        assert_eq!(transcript.call_id(), Some("c1"));
        assert_eq!(
            read(r#"{"type":"telephony_connected","call_id":null,"status":"ready"}"#),
            What::TelephonyConnected {}
        );
        assert_eq!(
            read(r#"{"type":"agent_tts_audio","call_id":"c1","audio_data":"AAAA"}"#),
            What::Other
        );
        assert_eq!(read(r#"{"type":"pong"}"#), What::Other);
    }
}
