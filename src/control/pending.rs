//! Tokens that bind a media stream to the call that was announced: 128 bits, single use, for a limited time.
//!
//! Nothing that opens a stream lies in memory: a token is derived from its call's id with a key of this process, so that
//! a repeated webhook gets the same answer, and what is kept of it is a hash.

use crate::base::{ids::CallId, time::Mono};
use ring::{digest, hmac, rand::SystemRandom};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};

/// Tokens kept at once; the limit of live calls lies below.
const MAX_TOKENS: usize = 1 << 20;
/// Bytes of a token.
const TOKEN_BYTES: usize = 16;

type Hash = [u8; digest::SHA256_OUTPUT_LEN];

/// Why a stream was not let in. One answer for all: whoever asks learns nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Never given, used, revoked or too late.
    Unknown,
    /// The announced call has another id at the vendor.
    OtherCall,
}

#[derive(Debug)]
struct Waiting {
    call: CallId,
    vendor: &'static str,
    /// The vendor's id of the call, where it is known.
    call_sid: Option<String>,
    until: Mono,
}

/// All tokens that were given and not used.
#[derive(Debug)]
pub(super) struct Pending {
    key: hmac::Key,
    waiting: Mutex<HashMap<Hash, Waiting>>,
}

impl Pending {
    /// Nobody is awaited. The error says that the system has no randomness to give.
    pub(super) fn new() -> Result<Self, ring::error::Unspecified> {
        let key = hmac::Key::generate(hmac::HMAC_SHA256, &SystemRandom::new())?;
        Ok(Self {
            key,
            waiting: Mutex::default(),
        })
    }

    /// The token of a call: 32 hexadecimal digits.
    pub(super) fn token(&self, call: CallId) -> String {
        let tag = hmac::sign(&self.key, call.as_str().as_bytes());
        tag.as_ref()
            .iter()
            .take(TOKEN_BYTES)
            .map(|b| format!("{b:02x}"))
            .collect()
    }

    /// Lets one stream of this call in, within `life`.
    pub(super) fn await_stream(
        &self,
        now: Mono,
        call: CallId,
        vendor: &'static str,
        call_sid: Option<String>,
        life: Duration,
    ) {
        let until = now + life;
        let mut waiting = self.lock();
        if waiting.len() >= MAX_TOKENS {
            waiting.retain(|_, w| w.until > now);
        }
        if waiting.len() < MAX_TOKENS {
            waiting.insert(
                hash(&self.token(call)),
                Waiting {
                    call,
                    vendor,
                    call_sid,
                    until,
                },
            );
        }
    }

    /// The vendor told the call's id: a stream must name it from now on.
    pub(super) fn bind(&self, call: CallId, call_sid: &str) {
        let token = hash(&self.token(call));
        if let Some(w) = self.lock().get_mut(&token) {
            w.call_sid = Some(call_sid.to_owned());
        }
    }

    /// The call that a token is of, which it stays.
    pub(super) fn peek(&self, token: &str) -> Option<CallId> {
        self.lock().get(&hash(token)).map(|w| w.call)
    }

    /// Uses a token up. A stream that names another call or vendor than was announced does not use it up; one that names
    /// none is the call's that its token is of.
    pub(super) fn take(&self, now: Mono, token: &str, vendor: &str, call_sid: Option<&str>) -> Result<CallId, Refused> {
        let token = hash(token);
        let mut waiting = self.lock();
        let w = waiting.get(&token).ok_or(Refused::Unknown)?;
        if w.vendor != vendor
            || w.call_sid
                .as_deref()
                .zip(call_sid)
                .is_some_and(|(ours, named)| ours != named)
        {
            return Err(Refused::OtherCall);
        }
        let w = waiting.remove(&token).ok_or(Refused::Unknown)?;
        if w.until > now {
            Ok(w.call)
        } else {
            Err(Refused::Unknown)
        }
    }

    /// The call's stream is no longer awaited.
    pub(super) fn revoke(&self, call: CallId) {
        let token = hash(&self.token(call));
        self.lock().remove(&token);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Hash, Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn hash(token: &str) -> Hash {
    let mut out = Hash::default();
    out.copy_from_slice(digest::digest(&digest::SHA256, token.as_bytes()).as_ref());
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIFE: Duration = Duration::from_secs(60);

    fn waiting(sid: Option<&str>) -> (Pending, CallId, String) {
        let pending = Pending::new().unwrap();
        let call = CallId::new();
        pending.await_stream(Mono::ZERO, call, "v", sid.map(str::to_owned), LIFE);
        let token = pending.token(call);
        (pending, call, token)
    }

    #[test]
    fn a_token_lets_one_stream_in() {
        let (pending, call, token) = waiting(Some("sid"));
        assert_eq!(token.len(), 2 * TOKEN_BYTES);
        assert_eq!(pending.token(call), token);
        assert_eq!(
            pending.take(Mono::ZERO, "f00d", "v", Some("sid")),
            Err(Refused::Unknown)
        );
        assert_eq!(pending.take(Mono::ZERO, &token, "v", Some("sid")), Ok(call));
        assert_eq!(
            pending.take(Mono::ZERO, &token, "v", Some("sid")),
            Err(Refused::Unknown)
        );
    }

    #[test]
    fn a_stream_of_another_call_or_vendor_is_refused_and_the_right_one_still_let_in() {
        let (pending, call, token) = waiting(Some("sid"));
        assert_eq!(
            pending.take(Mono::ZERO, &token, "v", Some("other")),
            Err(Refused::OtherCall)
        );
        assert_eq!(
            pending.take(Mono::ZERO, &token, "w", Some("sid")),
            Err(Refused::OtherCall)
        );
        assert_eq!(pending.take(Mono::ZERO, &token, "v", Some("sid")), Ok(call));
    }

    #[test]
    fn a_placed_call_takes_any_id_until_the_vendor_has_told_it() {
        let (pending, call, token) = waiting(None);
        pending.bind(call, "sid");
        assert_eq!(
            pending.take(Mono::ZERO, &token, "v", Some("other")),
            Err(Refused::OtherCall)
        );
        let (pending, call, token) = waiting(None);
        assert_eq!(pending.take(Mono::ZERO, &token, "v", Some("whichever")), Ok(call));
    }

    #[test]
    fn a_token_that_is_late_or_revoked_lets_nobody_in() {
        let (pending, _, token) = waiting(None);
        assert_eq!(
            pending.take(Mono::ZERO + LIFE, &token, "v", Some("sid")),
            Err(Refused::Unknown)
        );
        let (pending, call, token) = waiting(None);
        pending.revoke(call);
        assert_eq!(
            pending.take(Mono::ZERO, &token, "v", Some("sid")),
            Err(Refused::Unknown)
        );
    }
}
