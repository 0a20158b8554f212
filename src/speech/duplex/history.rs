//! What was said in a conversation, as the next session is told of it. Pure, and bounded: the oldest is forgotten first.

use std::collections::VecDeque;

/// Turns that are kept.
const TURNS: usize = 60;

/// Bytes of words that are kept.
const BYTES: usize = 24 * 1024;

/// Who said something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The caller.
    Caller,
    /// The service, or a person in its place.
    Agent,
    /// Nobody: what came of something that was asked for.
    Note,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Turn {
    role: Role,
    text: String,
    /// Of the service's own.
    reply: Option<u32>,
}

/// The turns, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    turns: VecDeque<Turn>,
    bytes: usize,
    /// Replies counted so far, over all sessions.
    replies: u32,
    /// The last reply was broken off by a fault, not by the caller.
    broken: bool,
}

impl History {
    /// Adds words. Empty ones say nothing.
    pub fn push(&mut self, role: Role, text: &str) {
        self.add(role, text, None);
    }

    fn add(&mut self, role: Role, text: &str, reply: Option<u32>) {
        let text = text.trim();
        if text.is_empty() {
            return;
        }
        let end = text.floor_char_boundary(BYTES / 4);
        let text = text[..end].to_owned();
        self.bytes += text.len();
        self.broken = false;
        self.turns.push_back(Turn { role, text, reply });
        while self.turns.len() > TURNS || self.bytes > BYTES {
            let gone = self.turns.pop_front();
            self.bytes -= gone.map_or(0, |turn| turn.text.len());
        }
    }

    /// The number of the next reply.
    pub fn next_reply(&mut self) -> u32 {
        self.replies += 1;
        self.replies
    }

    /// A reply's words are known.
    pub fn replied(&mut self, reply: u32, text: &str) {
        self.add(Role::Agent, text, Some(reply));
    }

    /// A reply was cut off: the caller heard this much of so much audio. Whole words are kept.
    pub fn cut(&mut self, reply: u32, heard_ms: u64, of_ms: u64) {
        let Some(at) = self.turns.iter().position(|t| t.reply == Some(reply)) else {
            return;
        };
        let text = &mut self.turns[at].text;
        let before = text.len();
        text.truncate(heard(text, heard_ms, of_ms));
        self.bytes -= before - text.len();
        if text.is_empty() {
            self.turns.remove(at);
        }
    }

    /// The last reply broke off in the middle, by a fault.
    pub const fn broke(&mut self) {
        self.broken = true;
    }

    /// Whether that is still so: taken once.
    pub const fn take_broken(&mut self) -> bool {
        std::mem::replace(&mut self.broken, false)
    }

    /// Whether the caller said something that nobody answered.
    pub fn is_unanswered(&self) -> bool {
        self.turns.back().is_some_and(|t| t.role == Role::Caller)
    }

    /// Who said what.
    pub fn turns(&self) -> impl Iterator<Item = (Role, &str)> {
        self.turns.iter().map(|t| (t.role, t.text.as_str()))
    }
}

/// How much of a text was heard in that time, in bytes: up to the end of a word.
pub(super) fn heard(text: &str, heard_ms: u64, of_ms: u64) -> usize {
    if heard_ms >= of_ms {
        return text.len();
    }
    let n = text.chars().count() as u64 * heard_ms / of_ms.max(1);
    let at = text.char_indices().nth(n as usize).map_or(text.len(), |(at, _)| at);
    text[..at].rfind(char::is_whitespace).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(history: &History) -> Vec<(Role, &str)> {
        history.turns().collect()
    }

    #[test]
    fn a_reply_that_was_cut_is_kept_as_far_as_it_was_heard() {
        let mut h = History::default();
        h.push(Role::Caller, " Hello? ");
        assert!(h.is_unanswered());
        let (a, b) = (h.next_reply(), h.next_reply());
        h.replied(a, "one two three four");
        h.replied(b, "unheard");
        h.cut(a, 900, 1800);
        h.cut(b, 0, 500);
        h.cut(77, 0, 1);
        assert_eq!(told(&h), [(Role::Caller, "Hello?"), (Role::Agent, "one two")]);
        assert!(!h.is_unanswered());
    }

    #[test]
    fn the_oldest_is_forgotten_first() {
        let mut h = History::default();
        for n in 0..100 {
            h.push(Role::Caller, &n.to_string());
        }
        assert_eq!((told(&h).len(), told(&h)[0].1), (TURNS, "40"));
        for _ in 0..20 {
            h.push(Role::Agent, &"é".repeat(20_000));
        }
        assert!(h.bytes <= BYTES && told(&h).len() == 4, "{}", h.bytes);
    }

    #[test]
    fn what_broke_off_is_mended_once_unless_something_else_was_said() {
        let mut h = History::default();
        h.broke();
        assert!(h.take_broken() && !h.take_broken());
        h.broke();
        h.push(Role::Caller, "still there?");
        assert!(!h.take_broken());
    }
}
