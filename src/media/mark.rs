//! Names of the marks that we send, and what they say when they come back.

use crate::base::ids::UtteranceId;
use std::fmt::Write as _;

/// Names of marks are `u` and the utterance's number.
pub(super) struct MarkName {
    len: u8,
    text: [u8; 12],
}

impl MarkName {
    pub(super) fn new(utterance: UtteranceId) -> Self {
        struct Into<'a>(&'a mut MarkName);
        impl std::fmt::Write for Into<'_> {
            fn write_str(&mut self, s: &str) -> std::fmt::Result {
                let at = self.0.len as usize;
                self.0
                    .text
                    .get_mut(at..at + s.len())
                    .ok_or(std::fmt::Error)?
                    .copy_from_slice(s.as_bytes());
                self.0.len += s.len() as u8;
                Ok(())
            }
        }
        let mut name = Self { len: 0, text: [0; 12] };
        let _ = write!(Into(&mut name), "u{}", utterance.0);
        name
    }
}

impl std::ops::Deref for MarkName {
    type Target = str;
    fn deref(&self) -> &str {
        std::str::from_utf8(&self.text[..self.len as usize]).unwrap_or_default()
    }
}

/// The utterance that a mark of ours names.
pub(super) fn read_mark(name: &str) -> Option<UtteranceId> {
    name.strip_prefix('u')?.parse().ok().map(UtteranceId)
}
