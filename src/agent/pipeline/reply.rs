//! The agent's turn while it lasts: what the model has said of it, what of that the caller has heard, and what is to follow.

use crate::{
    agent::sentence::Sentences,
    base::ids::UtteranceId,
    llm::{ToolCall, Turn, scripted::Action},
};

/// About how long it takes to say a character, where the length of the audio is not known.
const MS_PER_CHAR: u32 = 65;

/// What became of a sentence.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Fate {
    /// Asked for and not over.
    Saying,
    /// Heard to its end, or taken for it.
    Whole,
    /// Heard this far, in bytes of its text.
    Cut(usize),
}

/// A sentence for the caller.
#[derive(Clone, Debug)]
struct Said {
    text: String,
    utterance: Option<UtteranceId>,
    /// Audio of it that was synthesized so far, and whether that is all.
    audio_ms: u32,
    complete: bool,
    fate: Fate,
    /// The round of the answer it belongs to.
    round: usize,
}

/// One answer, from the question to the last word heard.
#[derive(Debug, Default)]
pub(super) struct Reply {
    said: Vec<Said>,
    pub(super) sentences: Sentences,
    /// Whether the model is still at it.
    pub(super) thinking: bool,
    /// Whether it has said anything.
    pub(super) begun: bool,
    /// Calls of this round that wait for their results.
    pub(super) open_calls: Vec<ToolCall>,
    /// How often the model was asked to go on.
    pub(super) again: usize,
    /// Calls and results of the rounds before, and of this one.
    rounds: Vec<Round>,
    /// What is done once all is heard.
    pub(super) deed: Option<Action>,
}

/// One round with tools.
#[derive(Debug, Default)]
struct Round {
    results: Vec<(ToolCall, String)>,
}

impl Reply {
    /// A sentence goes to the caller.
    pub(super) fn say(&mut self, text: String) {
        let round = self.rounds.len();
        self.said.push(Said {
            text,
            utterance: None,
            audio_ms: 0,
            complete: false,
            fate: Fate::Saying,
            round,
        });
    }

    /// The oldest sentence that has no utterance has this one now; without one it is never heard.
    pub(super) fn named(&mut self, utterance: Option<UtteranceId>) {
        let waiting = |s: &&mut Said| s.utterance.is_none() && s.fate == Fate::Saying;
        if let Some(said) = self.said.iter_mut().find(waiting) {
            match utterance {
                Some(u) => said.utterance = Some(u),
                None => said.fate = Fate::Cut(0),
            }
        }
    }

    /// More audio of an utterance was synthesized.
    pub(super) fn audio(&mut self, utterance: UtteranceId, ms: u32, last: bool) {
        if let Some(said) = self.of(utterance) {
            said.audio_ms += ms;
            said.complete |= last;
        }
    }

    /// An utterance is over. Whether it is one of this reply's.
    pub(super) fn over(&mut self, utterance: UtteranceId, whole: bool, heard_ms: u32) -> bool {
        let Some(said) = self.of(utterance) else {
            return false;
        };
        said.fate = match whole {
            true => Fate::Whole,
            false => Fate::Cut(said.heard(heard_ms)),
        };
        true
    }

    fn of(&mut self, utterance: UtteranceId) -> Option<&mut Said> {
        self.said.iter_mut().find(|s| s.utterance == Some(utterance))
    }

    /// Whether the caller is being spoken to.
    pub(super) fn is_speaking(&self) -> bool {
        self.said.iter().any(|s| s.fate == Fate::Saying)
    }

    /// How many sentences it has so far.
    pub(super) fn sentences_said(&self) -> usize {
        self.said.len()
    }

    /// Whether all is said and done.
    pub(super) fn is_over(&self) -> bool {
        !self.thinking && self.open_calls.is_empty() && !self.is_speaking()
    }

    /// Takes back what the caller did not hear, to be said again: each sentence from the word on where it was cut.
    pub(super) fn unheard(&mut self) -> Vec<String> {
        let mut rest = Vec::new();
        for said in &mut self.said {
            if let Fate::Cut(heard) = said.fate {
                let (before, after) = said.text.split_at(heard);
                let after = after.trim().to_owned();
                said.text = before.trim_end().to_owned();
                said.fate = Fate::Whole;
                rest.extend(Some(after).filter(|t| !t.is_empty()));
            }
        }
        self.said.retain(|s| !s.text.is_empty());
        rest
    }

    /// What came of a call.
    pub(super) fn result(&mut self, call: ToolCall, content: String) {
        self.open_calls.retain(|open| *open != call);
        let same_round = self.said.last().is_none_or(|s| s.round < self.rounds.len());
        match self.rounds.last_mut().filter(|_| same_round) {
            Some(round) => round.results.push((call, content)),
            None => self.rounds.push(Round {
                results: vec![(call, content)],
            }),
        }
    }

    /// What the conversation keeps of it: the words that were heard; those on their way count, if `expected`.
    pub(super) fn turns(&self, expected: bool) -> Vec<Turn> {
        let mut turns = Vec::new();
        for n in 0..=self.rounds.len() {
            let heard = self.said.iter().filter(|s| s.round == n).filter_map(|s| match s.fate {
                Fate::Whole => Some(s.text.as_str()),
                Fate::Saying => Some(s.text.as_str()).filter(|_| expected),
                Fate::Cut(at) => Some(s.text[..at].trim_end()),
            });
            let heard: Vec<_> = heard.filter(|t| !t.is_empty()).collect();
            let results = self.rounds.get(n).map_or(&[][..], |r| &r.results);
            if !heard.is_empty() || !results.is_empty() {
                turns.push(Turn::Assistant {
                    text: heard.join(" "),
                    calls: results.iter().map(|(call, _)| call.clone()).collect(),
                });
            }
            turns.extend(results.iter().map(|(call, content)| Turn::Result {
                call: call.clone(),
                content: content.clone(),
            }));
        }
        turns
    }
}

impl Said {
    /// How much of the text was heard in that time, in bytes: up to the end of a word.
    fn heard(&self, heard_ms: u32) -> usize {
        let chars = self.text.chars().count() as u32;
        let guessed = chars * MS_PER_CHAR;
        let length = if self.complete {
            self.audio_ms
        } else {
            guessed.max(self.audio_ms)
        };
        if heard_ms >= length {
            return self.text.len();
        }
        let n = (u64::from(chars) * u64::from(heard_ms) / u64::from(length.max(1))) as usize;
        let at = self.text.char_indices().nth(n).map_or(self.text.len(), |(at, _)| at);
        self.text[..at].rfind(char::is_whitespace).unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const U: UtteranceId = UtteranceId(1);

    fn reply(text: &str) -> Reply {
        let mut reply = Reply::default();
        reply.say(text.to_owned());
        reply.named(Some(U));
        reply
    }

    fn kept(reply: &Reply) -> Vec<Turn> {
        reply.turns(false)
    }

    #[test]
    fn only_whole_words_that_were_heard_are_kept() {
        let mut r = reply("one two three four");
        r.audio(U, 1800, true);
        assert!(r.over(U, false, 900) && !r.over(UtteranceId(9), true, 0));
        assert_eq!(kept(&r), [Turn::assistant("one two")]);
        assert_eq!(r.unheard(), ["three four"]);
        assert_eq!(kept(&r), [Turn::assistant("one two")]);
        assert!(r.unheard().is_empty());
        let mut r = reply("one two");
        r.over(U, false, 0);
        assert_eq!(kept(&r), []);
        assert_eq!(r.unheard(), ["one two"]);
    }

    #[test]
    fn what_was_cut_before_its_audio_was_whole_is_measured_by_its_letters() {
        let mut r = reply("a sentence of some length that was only begun to be spoken");
        r.audio(U, 200, false);
        r.over(U, false, 200);
        assert!(matches!(&kept(&r)[..], [] | [Turn::Assistant { .. }]));
        assert!(r.unheard()[0].ends_with("only begun to be spoken"));
    }

    #[test]
    fn words_calls_and_results_stand_in_their_order() {
        let call = ToolCall {
            id: "1".into(),
            name: "order".into(),
            arguments: serde_json::json!({}),
        };
        let mut r = reply("One moment.");
        r.open_calls.push(call.clone());
        assert!(!r.is_over());
        r.result(call.clone(), "shipped".into());
        r.say("It was shipped.".into());
        r.named(Some(UtteranceId(2)));
        let turns = r.turns(true);
        assert_eq!(
            turns,
            [
                Turn::Assistant {
                    text: "One moment.".into(),
                    calls: vec![call.clone()]
                },
                Turn::Result {
                    call,
                    content: "shipped".into()
                },
                Turn::assistant("It was shipped."),
            ]
        );
    }
}
