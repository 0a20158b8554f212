//! How long calls are kept, and how they go: retention of a tenant, legal holds, erasure.
//!
//! An erasure begins in the batch that queues its job, which the store refuses for a call that is held, live, or being erased
//! already; a hold is refused once it has begun. So what is held is whole, and what has begun is finished by the job.

use crate::base::{ids::TenantId, time::Wall};
use std::time::Duration;

/// What of a call is erased.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Its recordings.
    Audio,
    /// What was said: messages, events, files, what was extracted. The call detail record stays.
    Text,
    /// The call. Readers no longer find it once its erasure has begun.
    All,
}

impl Scope {
    /// All of them.
    pub const EACH: [Self; 3] = [Self::Audio, Self::Text, Self::All];

    /// The word stored.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Audio => "audio",
            Self::Text => "text",
            Self::All => "all",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::EACH.into_iter().find(|s| s.as_str() == word)
    }
}

/// Members of a call's metadata that hold what was said.
pub(super) const SAID: [&str; 3] = ["analytics", "extracted", "extraction"];

/// How long the calls of a tenant are kept after their end. `None` is for ever.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Their recordings.
    pub audio: Option<Duration>,
    /// What was said.
    pub text: Option<Duration>,
}

impl Retention {
    /// How long what a scope names is kept; all of a call is never erased by age.
    pub const fn of(&self, scope: Scope) -> Option<Duration> {
        match scope {
            Scope::Audio => self.audio,
            Scope::Text => self.text,
            Scope::All => None,
        }
    }
}

/// A tenant and its own rule, `None` where the configured one holds.
pub type TenantRetention = (TenantId, Option<Retention>);

/// Which calls are too old: of a tenant, with something of that scope left, ended before a time, not held, not being erased.
#[derive(Clone, Copy, Debug)]
pub struct Expired {
    /// Whose.
    pub tenant: TenantId,
    /// Of what something is left.
    pub scope: Scope,
    /// When they ended at the latest.
    pub before: Wall,
    /// At most this many (the store caps it at 200).
    pub limit: usize,
}
