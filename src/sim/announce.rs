//! A simulated vendor's webhook: announces a call and reads where its media socket is.

use super::{caller::Webhook, desk::Desk};
use crate::{
    net::client::{ClientError, HttpClient},
    vendor::{Answer, ApiRequest, Descriptor, HookKind, Peer, PeerCall, PeerOrder, WireError},
};
use bytes::Bytes;
use std::{fmt, time::Duration};

/// How long a simulated vendor waits for the command that connects a call.
const COMMAND: Duration = Duration::from_secs(10);

/// Why a webhook led to no media socket.
#[derive(Debug)]
pub enum AnnounceError {
    /// The vendor announces no calls.
    NotAnnounced,
    /// No answer.
    Failed(ClientError),
    /// The daemon refused the request, with this status and body.
    Refused(u16, String),
    /// The daemon is busy.
    Busy,
    /// The daemon hung up.
    HungUp,
    /// The answer is no document of the vendor's.
    Unreadable(WireError),
    /// The daemon sent no command to connect the call.
    NotCommanded,
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnnounced => f.write_str("this vendor announces no calls; place the call without a webhook"),
            Self::Failed(e) => e.fmt(f),
            Self::Refused(status, body) => write!(f, "status {status}: {}", body.trim()),
            Self::Busy => f.write_str("the daemon is busy"),
            Self::HungUp => f.write_str("the daemon hung up"),
            Self::NotCommanded => f.write_str("the daemon sent no command to connect the call: is its base_url ours?"),
            Self::Unreadable(e) => write!(f, "the vendor could not read the answer: {e}"),
        }
    }
}

impl std::error::Error for AnnounceError {}

/// A fresh vendor's id for a call.
pub(super) fn new_call_sid() -> String {
    format!("sim{}", uuid::Uuid::now_v7().simple())
}

/// A number that no other call of the daemon has: frontends tell calls apart by number.
pub fn new_number() -> String {
    format!("+1555{:07}", uuid::Uuid::new_v4().as_u128() % 10_000_000)
}

/// Where the vendor posts the announcement of a call.
pub fn hook_path(vendor: &Descriptor) -> Option<&'static str> {
    vendor.hook(HookKind::Call).map(|h| h.path)
}

/// Announces the call of a `peer` that answers by command, and waits for the command. Returns the URL of the media socket;
/// without a desk nobody is told of one, and the daemon must take the socket unannounced.
pub(super) async fn commanded(
    client: &HttpClient,
    peer: &mut dyn Peer,
    desk: Option<&mut Desk>,
    webhook: &Webhook,
) -> Result<Option<String>, AnnounceError> {
    let ring = peer.announce(&webhook.signed_as, webhook.secret.as_ref());
    post(client, ring.ok_or(AnnounceError::NotAnnounced)?, webhook).await?;
    let Some(desk) = desk else { return Ok(None) };
    let mut taken = false;
    let connected = async {
        while let Some(asked) = desk.next().await {
            let order = asked.carry_out(peer, None);
            if order == PeerOrder::HangUp {
                return Err(AnnounceError::HungUp);
            }
            let connected = match order {
                PeerOrder::Connect(Answer::Stream { url, .. }) => Some(url),
                PeerOrder::Take => None,
                _ => continue,
            };
            if !std::mem::replace(&mut taken, true)
                && let Some(news) = peer.pick_up(&webhook.signed_as, webhook.secret.as_ref())
            {
                post(client, news, webhook).await?;
            }
            if connected.is_some() {
                return Ok(connected);
            }
        }
        Err(AnnounceError::NotCommanded)
    };
    match tokio::time::timeout(COMMAND, connected).await {
        Ok(connected) => connected,
        Err(_) => Err(AnnounceError::NotCommanded),
    }
}

/// Where the vendor tells the end of a call, as configured there.
pub(super) fn status_url(vendor: &Descriptor, webhook: &Webhook) -> String {
    let call = hook_path(vendor).unwrap_or_default();
    let status = vendor.hook(HookKind::Status).map_or(call, |h| h.path);
    let base = webhook.signed_as.strip_suffix(call);
    base.map_or_else(|| webhook.signed_as.clone(), |base| format!("{base}{status}"))
}

/// Path and query of a URL that is configured at the vendor, at the daemon.
fn at_daemon(url: &str, webhook: &Webhook) -> String {
    let address = &webhook.address;
    let base = webhook.signed_as.strip_suffix(&*address.path).unwrap_or_default();
    match url.strip_prefix(&*webhook.signed_as) {
        Some(query) => address.at("http", &format!("{}{query}", address.path)),
        None => address.at("http", url.strip_prefix(base).unwrap_or_default()),
    }
}

/// Sends a webhook to where the daemon is; any 2xx will do.
pub(super) async fn post(client: &HttpClient, request: ApiRequest, webhook: &Webhook) -> Result<Bytes, AnnounceError> {
    let request = ApiRequest {
        url: at_daemon(&request.url, webhook),
        ..request
    };
    let reply = client.send(request).await.map_err(AnnounceError::Failed)?;
    if (200..300).contains(&reply.status) {
        return Ok(reply.body);
    }
    let body = String::from_utf8_lossy(&reply.body);
    Err(AnnounceError::Refused(reply.status, body.chars().take(500).collect()))
}

/// Announces `call`. Returns the URL of the media socket as the answer has it and keeps the token in `call`.
pub(super) async fn announce(
    client: &HttpClient,
    vendor: &Descriptor,
    call: &mut PeerCall,
    webhook: &Webhook,
) -> Result<String, AnnounceError> {
    let peer = (vendor.peer)(call.clone());
    let request = peer
        .announce(&webhook.signed_as, webhook.secret.as_ref())
        .ok_or(AnnounceError::NotAnnounced)?;
    let document = post(client, request, webhook).await?;
    match peer.answered(&document).map_err(AnnounceError::Unreadable)? {
        Answer::Stream { url, token, .. } => {
            call.token = Some(token).filter(|t| !t.is_empty());
            Ok(url)
        }
        Answer::Busy => Err(AnnounceError::Busy),
        Answer::HangUp => Err(AnnounceError::HungUp),
    }
}
