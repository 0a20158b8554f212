//! The one driver: asks a service over HTTP and reads its answer as it comes, whatever the dialect.
//!
//! It never hangs: the first word, each pause and the whole have their time. It holds at most one event and its pieces.
//! No retries: whether to ask again, or somebody else, is for whoever asked.

use super::{Answer, Chat, ChatError, Dialect, Piece, Prompt, Reader, sse::Events};
use crate::{
    metrics,
    net::client::{ClientError, HttpClient, Reply},
};
use futures_util::{StreamExt, stream};
use serde::Deserialize;
use std::{collections::VecDeque, sync::Arc, time::Duration};
use tokio::time::{Instant, timeout_at};

/// Most of the body of a refusal that is read for its reason.
const MAX_REFUSAL: usize = 64 * 1024;
/// Longest reason that is shown, in characters.
const MAX_REASON: usize = 200;

/// A service.
#[derive(Clone, Debug)]
pub struct Remote {
    dialect: Arc<dyn Dialect>,
    http: HttpClient,
}

impl Remote {
    /// A service that speaks this dialect, reached through `http`.
    pub fn new(dialect: Arc<dyn Dialect>, http: HttpClient) -> Self {
        Self { dialect, http }
    }
}

impl Chat for Remote {
    fn service(&self) -> &'static str {
        self.dialect.service()
    }

    fn model(&self) -> String {
        self.dialect.account().model.clone()
    }

    fn ready(&self) -> Result<(), ChatError> {
        if self.dialect.needs_key() && self.dialect.account().api_key.is_none() {
            let message = format!("no key: set llm.{}.api_key", self.service());
            return Err(ChatError::NotConfigured(message));
        }
        Ok(())
    }

    fn ask(&self, prompt: Prompt) -> Answer {
        let service = self.service();
        let count = move |piece: &Result<Piece, ChatError>| {
            if let Err(error) = piece {
                let labels = [("backend", service), ("kind", error.kind())];
                metrics::counter(metrics::speech_faults_total, &labels).increment(1);
            }
        };
        if let Err(error) = self.ready() {
            return stream::iter([Err(error)]).inspect(count).boxed();
        }
        let account = self.dialect.account();
        let now = Instant::now();
        let asked = Asked {
            remote: self.clone(),
            reader: self.dialect.reader(&prompt),
            prompt,
            body: None,
            events: Events::default(),
            pieces: VecDeque::new(),
            first: Some(now + account.first_token),
            total: now + account.total,
            over: false,
        };
        let pieces = stream::unfold(asked, |mut asked| async {
            let piece = asked.next().await?;
            Some((piece, asked))
        });
        pieces.inspect(count).boxed()
    }
}

/// An answer on its way.
struct Asked {
    remote: Remote,
    prompt: Prompt,
    reader: Box<dyn Reader>,
    body: Option<Reply>,
    events: Events,
    pieces: VecDeque<Piece>,
    /// When the first piece is due; `None` once it came.
    first: Option<Instant>,
    total: Instant,
    over: bool,
}

impl Asked {
    async fn next(&mut self) -> Option<Result<Piece, ChatError>> {
        loop {
            if let Some(piece) = self.pieces.pop_front() {
                self.first = None;
                self.over |= matches!(piece, Piece::End { .. });
                if self.over {
                    self.body = None;
                }
                return Some(Ok(piece));
            }
            if self.over {
                return None;
            }
            if let Err(error) = self.advance().await {
                self.over = true;
                self.body = None;
                return Some(Err(error));
            }
        }
    }

    /// Reads until there may be a piece.
    async fn advance(&mut self) -> Result<(), ChatError> {
        let idle = Instant::now() + self.remote.dialect.account().idle;
        let by = self.first.unwrap_or(idle).min(self.total);
        let late = match self.first {
            Some(_) => ChatError::Timeout("no first word in time"),
            None => ChatError::Timeout("the answer stood still"),
        };
        let Some(body) = &mut self.body else {
            let begun = timeout_at(by, begin(&self.remote, &self.prompt)).await;
            self.body = Some(begun.unwrap_or(Err(late))?);
            return Ok(());
        };
        let Self {
            events, reader, pieces, ..
        } = self;
        let each = |data: &str| reader.event(data, pieces);
        match timeout_at(by, body.next()).await {
            Err(_) => Err(late),
            Ok(Ok(Some(bytes))) => events.feed(&bytes, each),
            Ok(Err(error)) => Err(unreachable_service(error)),
            Ok(Ok(None)) => {
                events.finish(each)?;
                self.reader.finish(&mut self.pieces)?;
                if self.pieces.is_empty() {
                    return Err(ChatError::Garbled("the answer has no end"));
                }
                Ok(())
            }
        }
    }
}

async fn begin(remote: &Remote, prompt: &Prompt) -> Result<Reply, ChatError> {
    let dialect = &*remote.dialect;
    let (service_model, asked) = (&dialect.account().model, prompt.model.as_deref());
    let request = dialect.request(prompt, asked.unwrap_or(service_model));
    let mut reply = remote.http.begin(request).await.map_err(unreachable_service)?;
    let (status, retry_after) = (reply.status(), reply.retry_after());
    if (200..300).contains(&status) {
        return Ok(reply);
    }
    let mut body = Vec::new();
    while let Ok(Some(piece)) = reply.next().await {
        body.extend_from_slice(&piece[..piece.len().min(MAX_REFUSAL - body.len())]);
        if body.len() == MAX_REFUSAL {
            break;
        }
    }
    Err(refusal(status, retry_after, &body))
}

fn unreachable_service(error: ClientError) -> ChatError {
    match error {
        ClientError::Timeout { .. } => ChatError::Timeout("no answer in time"),
        ClientError::Url => ChatError::NotConfigured("base_url is not a URL".to_owned()),
        other => ChatError::Unavailable(other.to_string()),
    }
}

/// What a status other than 2xx means. The services' own reason is shown where it cannot hold a credential.
fn refusal(status: u16, retry_after: Option<Duration>, body: &[u8]) -> ChatError {
    match status {
        401 | 403 => ChatError::Unauthenticated,
        402 => ChatError::NoCredit,
        429 => ChatError::TooMany { retry_after },
        408 | 504 => ChatError::Timeout("the service gave up"),
        500.. => ChatError::Unavailable(format!("status {status}")),
        _ => ChatError::Refused(reason(body).unwrap_or_else(|| format!("status {status}"))),
    }
}

/// `error.message` of a body, all services write it so, made fit to be shown.
fn reason(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Body {
        error: Inner,
    }
    #[derive(Deserialize)]
    struct Inner {
        message: String,
    }
    let body: Body = serde_json::from_slice(body).ok()?;
    Some(shown(&body.error.message))
}

/// A service's sentence, cut and without control characters.
pub(super) fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(MAX_REASON).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_what_can_be_done_about_it() {
        let body = br#"{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: \n too large"}}"#;
        let wait = Some(Duration::from_secs(7));
        assert_eq!(refusal(401, None, body), ChatError::Unauthenticated);
        assert_eq!(refusal(402, None, body), ChatError::NoCredit);
        assert_eq!(refusal(429, wait, body), ChatError::TooMany { retry_after: wait });
        assert!(matches!(refusal(529, None, body), ChatError::Unavailable(_)));
        assert_eq!(
            refusal(400, None, body),
            ChatError::Refused("max_tokens:  too large".to_owned())
        );
        assert_eq!(
            refusal(404, None, b"<html>"),
            ChatError::Refused("status 404".to_owned())
        );
        assert_eq!(shown(&"x".repeat(1000)).len(), MAX_REASON);
    }
}
