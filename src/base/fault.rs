//! What went wrong, classified once: whose fault (origin), what sort (kind), and whether trying again can help.
//!
//! Modules keep error enums of their own; this is the word they translate into where an error leaves them.
//! `http::respond` maps it to a status, `hub::protocol` to an `error_code`, `control::cdr` to the result of a call.

use std::{borrow::Cow, fmt, time::Duration};

/// Who caused it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Whoever sent us the request or the message.
    Client,
    /// A phone vendor's API or stream.
    Vendor,
    /// A speech or language backend.
    Backend,
    /// This daemon or its disk.
    Us,
}

/// What sort of fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The request makes no sense (400).
    Malformed,
    /// The request is understood and not allowed in this shape: an unknown field, a bad number (422).
    Invalid,
    /// Nobody proved who they are (401).
    Unauthenticated,
    /// Proven, and not allowed (403).
    Forbidden,
    /// Not there, or not theirs: the two answer alike (404).
    NotFound,
    /// The state does not allow it, as for a call that has ended (409).
    Conflict,
    /// Too big (413).
    TooLarge,
    /// Too often, or too many at once (429).
    TooMany,
    /// Not now: draining, shedding, storage away (503).
    Unavailable,
    /// It took too long, and nobody knows whether it was done (504).
    Timeout,
    /// An answer we cannot use, from a vendor or backend (502).
    BadGateway,
    /// Our own mistake (500).
    Internal,
}

/// A classified fault with a sentence a person can act on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Who caused it.
    pub origin: Origin,
    /// What sort it is.
    pub kind: Kind,
    /// What was wrong, where, what to do. Never holds a secret.
    pub message: Cow<'static, str>,
    /// When to try again, where whoever refused it said so.
    pub retry_after: Option<Duration>,
    /// Whether it may have been done all the same.
    pub in_doubt: bool,
}

impl Fault {
    /// A fault of `kind` caused by `origin`.
    pub fn new(origin: Origin, kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self {
            origin,
            kind,
            message: message.into(),
            retry_after: None,
            in_doubt: matches!(kind, Kind::Timeout),
        }
    }

    /// The same fault, with how long to wait before trying again.
    #[must_use]
    pub fn after(self, wait: Duration) -> Self {
        Self {
            retry_after: Some(wait),
            ..self
        }
    }

    /// The caller of an API sent something wrong.
    pub fn client(kind: Kind, message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Origin::Client, kind, message)
    }

    /// The thing asked for is absent or another tenant's; the answer does not tell which.
    pub fn not_found(what: &str) -> Self {
        Self::client(Kind::NotFound, format!("{what} not found"))
    }

    /// Our own mistake.
    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Origin::Us, Kind::Internal, message)
    }

    /// Whether the request was surely not carried out, and the same one may succeed later.
    pub const fn retryable(&self) -> bool {
        matches!(self.kind, Kind::TooMany | Kind::Unavailable)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Fault {}
