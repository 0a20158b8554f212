//! Pages of calls, newest first: their bound, their cursor.

use super::{CallFilter, CallPage, CallRow};
use crate::base::{
    fault::{Fault, Kind},
    ids::CallId,
    time::Wall,
};

/// The most calls of one page.
const CALLS: usize = 200;
/// The most jobs of one query.
pub(super) const JOBS: usize = 200;
/// The most events of one query.
pub(super) const EVENTS: usize = 10_000;

/// Where a page ended: the last call's start and id. Says nothing about other tenants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Cursor {
    pub(super) start: Wall,
    pub(super) call: CallId,
}

impl Cursor {
    /// The cursor that a filter names.
    pub(super) fn of(filter: &CallFilter) -> Result<Option<Self>, Fault> {
        let read = |text: &String| {
            Self::parse(text).ok_or_else(|| Fault::client(Kind::Malformed, "the cursor is not one of ours"))
        };
        filter.after.as_ref().map(read).transpose()
    }

    fn parse(text: &str) -> Option<Self> {
        let (start, call) = text.split_once('~')?;
        Some(Self {
            start: Wall::from_micros(start.parse().ok()?),
            call: call.parse().ok()?,
        })
    }

    fn show(call: &CallRow) -> String {
        format!("{}~{}", call.start_time.as_micros(), call.call_id)
    }
}

/// How many calls a filter asks for. One more tells whether there is another page.
pub(super) fn limit(filter: &CallFilter) -> usize {
    filter.limit.clamp(1, CALLS)
}

/// A text as a pattern of `LIKE` that finds it anywhere, with `\` as the escape.
pub(super) fn holding(text: &str) -> String {
    let mut pattern = String::from("%");
    for c in text.chars() {
        if matches!(c, '%' | '_' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern + "%"
}

/// The page, of at most one call more than its limit.
pub(super) fn page(mut calls: Vec<CallRow>, limit: usize) -> CallPage {
    let more = calls.len() > limit;
    calls.truncate(limit);
    let next = calls.last().filter(|_| more).map(Cursor::show);
    CallPage { calls, next }
}
