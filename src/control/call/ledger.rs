//! What was said to a caller and what became of it: utterances in the air, and the message each one speaks.
//!
//! Every line is settled once, as `heard`, `cut` or `failed`. What the leg began to play is settled by the leg's report;
//! what it never began is settled by whoever cut or failed it, because no report will come.

use crate::base::ids::{MessageId, UtteranceId};
use std::{collections::BTreeMap, sync::Arc};

/// Utterances in the air at once; more are refused.
pub(in crate::control) const MAX_LINES: usize = 64;

/// What an utterance says, where it speaks a stored message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Spoken {
    pub(in crate::control) message_id: MessageId,
    pub(in crate::control) client_ref: Option<String>,
    pub(in crate::control) text: Arc<str>,
}

/// A settled message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::control) struct Settled {
    pub(in crate::control) spoken: Spoken,
    /// `heard`, `cut` or `failed`.
    pub(in crate::control) delivery: &'static str,
    pub(in crate::control) heard_ms: u32,
}

#[derive(Debug)]
struct Line {
    spoken: Option<Spoken>,
    playing: bool,
    failed: bool,
}

impl Line {
    fn settle(self, delivery: &'static str, heard_ms: u32) -> Option<Settled> {
        let delivery = if self.failed { "failed" } else { delivery };
        self.spoken.map(|spoken| Settled {
            spoken,
            delivery,
            heard_ms,
        })
    }
}

/// All utterances of a call that are not settled.
#[derive(Debug, Default)]
pub(in crate::control) struct Ledger {
    last: UtteranceId,
    lines: BTreeMap<UtteranceId, Line>,
}

impl Ledger {
    /// Opens a line; `spoken` is `None` for sounds that are no message. `None` when too many are open.
    pub(in crate::control) fn open(&mut self, spoken: Option<Spoken>) -> Option<UtteranceId> {
        if self.is_full() {
            return None;
        }
        self.last = self.last.next();
        self.lines.insert(
            self.last,
            Line {
                spoken,
                playing: false,
                failed: false,
            },
        );
        Some(self.last)
    }

    /// Whether no more lines may be opened.
    pub(in crate::control) fn is_full(&self) -> bool {
        self.lines.len() >= MAX_LINES
    }

    /// The utterance that the next line will be.
    pub(in crate::control) const fn next(&self) -> UtteranceId {
        self.last.next()
    }

    /// What an open line speaks.
    pub(in crate::control) fn spoken(&self, utterance: UtteranceId) -> Option<&Spoken> {
        self.lines.get(&utterance)?.spoken.as_ref()
    }

    /// What an open line speaks is known better now.
    pub(in crate::control) fn reword(&mut self, utterance: UtteranceId, text: &str) {
        if let Some(spoken) = self.lines.get_mut(&utterance).and_then(|line| line.spoken.as_mut()) {
            spoken.text = text.into();
        }
    }

    /// A message that came to nothing: its line goes on as a sound.
    pub(in crate::control) fn forget(&mut self, message: MessageId) {
        for line in self.lines.values_mut() {
            line.spoken.take_if(|spoken| spoken.message_id == message);
        }
    }

    /// Its first byte went out.
    pub(in crate::control) fn playing(&mut self, utterance: UtteranceId) {
        if let Some(line) = self.lines.get_mut(&utterance) {
            line.playing = true;
        }
    }

    /// The leg is done with it.
    pub(in crate::control) fn played(&mut self, utterance: UtteranceId, heard_ms: u32, whole: bool) -> Option<Settled> {
        let delivery = if whole { "heard" } else { "cut" };
        self.lines.remove(&utterance)?.settle(delivery, heard_ms)
    }

    /// It could not be spoken, or not to its end: settled when the leg has played what there is of it.
    pub(in crate::control) fn failed(&mut self, utterance: UtteranceId) -> Option<Settled> {
        let line = self.lines.get_mut(&utterance)?;
        line.failed = true;
        if line.playing {
            return None;
        }
        self.lines.remove(&utterance)?.settle("failed", 0)
    }

    /// Everything below `floor` is cut: settles what was not playing yet.
    pub(in crate::control) fn cut_below(&mut self, floor: UtteranceId) -> Vec<(UtteranceId, Option<Settled>)> {
        let silent = |u: &UtteranceId, line: &mut Line| *u < floor && !line.playing;
        self.lines
            .extract_if(.., silent)
            .map(|(u, line)| (u, line.settle("cut", 0)))
            .collect()
    }

    /// Nothing will be played any more: settles all that is left.
    pub(in crate::control) fn close(&mut self) -> Vec<Settled> {
        std::mem::take(&mut self.lines)
            .into_values()
            .filter_map(|line| line.settle("cut", 0))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn spoken(text: &str) -> Option<Spoken> {
        Some(Spoken {
            message_id: MessageId::new(),
            client_ref: None,
            text: text.into(),
        })
    }

    #[test]
    fn a_failure_after_the_first_byte_waits_for_what_was_heard() {
        let mut ledger = Ledger::default();
        let u = ledger.open(spoken("one")).unwrap();
        ledger.playing(u);
        assert_eq!(ledger.failed(u), None);
        let settled = ledger.played(u, 120, true).unwrap();
        assert_eq!((settled.delivery, settled.heard_ms), ("failed", 120));
        assert_eq!(ledger.played(u, 120, true), None);
    }

    #[test]
    fn a_cut_settles_what_never_began_and_leaves_the_rest_to_the_leg() {
        let mut ledger = Ledger::default();
        let (a, b) = (ledger.open(spoken("a")).unwrap(), ledger.open(spoken("b")).unwrap());
        ledger.playing(a);
        let cut = ledger.cut_below(ledger.next());
        assert_eq!(
            cut.iter()
                .map(|(u, s)| (*u, s.as_ref().map(|s| s.delivery)))
                .collect::<Vec<_>>(),
            [(b, Some("cut"))]
        );
        assert_eq!(ledger.played(a, 300, false).unwrap().heard_ms, 300);
        assert_eq!(ledger.played(b, 10, true), None);
    }

    #[test]
    fn lines_in_the_air_are_bounded() {
        let mut ledger = Ledger::default();
        assert_eq!((0..100).filter_map(|_| ledger.open(None)).count(), MAX_LINES);
        assert!(ledger.close().is_empty());
        assert!(ledger.open(None).is_some());
    }

    proptest! {
        #[test]
        fn every_message_is_settled_once(ops in prop::collection::vec((0u8..6, 1u32..12), 0..80)) {
            let mut ledger = Ledger::default();
            let (mut opened, mut settled) = (0, Vec::new());
            for (op, n) in ops {
                let u = UtteranceId(n);
                match op {
                    0 => opened += usize::from(ledger.open(spoken("x")).is_some()),
                    1 => ledger.playing(u),
                    2 => settled.extend(ledger.played(u, n, n % 2 == 0)),
                    3 => settled.extend(ledger.failed(u)),
                    4 => settled.extend(ledger.cut_below(u).into_iter().filter_map(|(_, s)| s)),
                    _ => {}
                }
            }
            settled.extend(ledger.close());
            prop_assert_eq!(settled.len(), opened);
            let mut ids: Vec<_> = settled.iter().map(|s| s.spoken.message_id).collect();
            ids.sort();
            ids.dedup();
            prop_assert_eq!(ids.len(), opened);
        }
    }
}
