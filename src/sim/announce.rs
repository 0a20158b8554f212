//! A simulated vendor's webhook: announces a call and reads where its media socket is.

use super::caller::Webhook;
use crate::{
    net::client::{ClientError, HttpClient},
    vendor::{Answer, Descriptor, HookKind, PeerCall, WireError},
};
use std::fmt;

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
}

impl fmt::Display for AnnounceError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotAnnounced => f.write_str("this vendor announces no calls; place the call without a webhook"),
            Self::Failed(e) => e.fmt(f),
            Self::Refused(status, body) => write!(f, "status {status}: {}", body.trim()),
            Self::Busy => f.write_str("the daemon is busy"),
            Self::HungUp => f.write_str("the daemon hung up"),
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

/// Announces `call`. Returns the URL of the media socket as the answer has it and keeps the token in `call`.
pub(super) async fn announce(
    client: &HttpClient,
    vendor: &Descriptor,
    call: &mut PeerCall,
    webhook: &Webhook,
) -> Result<String, AnnounceError> {
    let peer = (vendor.peer)(call.clone());
    let mut request = peer
        .announce(&webhook.signed_as, webhook.secret.as_ref())
        .ok_or(AnnounceError::NotAnnounced)?;
    request.url = webhook.address.at("http", &webhook.address.path);
    let reply = client.send(request).await.map_err(AnnounceError::Failed)?;
    if !(200..300).contains(&reply.status) {
        let body = String::from_utf8_lossy(&reply.body);
        return Err(AnnounceError::Refused(reply.status, body.chars().take(500).collect()));
    }
    match peer.answered(&reply.body).map_err(AnnounceError::Unreadable)? {
        Answer::Stream { url, token, .. } => {
            call.token = Some(token).filter(|t| !t.is_empty());
            Ok(url)
        }
        Answer::Busy => Err(AnnounceError::Busy),
        Answer::HangUp => Err(AnnounceError::HungUp),
    }
}
