//! What a mind asks for: words for the caller, an answer of the language model, deeds.

use crate::{
    llm::{Prompt, ToolCall, scripted::Action},
    speech::duplex::Order,
};

/// The next thing to do.
#[derive(Clone, Debug, PartialEq)]
pub enum Act {
    /// Say this, then tell the mind as which utterance (`said`).
    Say(Line),
    /// Ask the language model, and tell the mind each piece of its answer. An answer on its way is dropped.
    Ask(Box<Question>),
    /// Drop the answer on its way.
    StopAsking,
    /// Cut off all that is being said.
    Cut,
    /// Do this.
    Do(Action),
    /// Ask the web, and tell the mind the result.
    Fetch(ToolCall),
    /// Tell the service that holds the conversation.
    Tell(Order),
    /// Make a reply of that service an utterance, then tell the mind which (`voiced`).
    Voice {
        /// The service's number of it.
        reply: u32,
        /// Whether the caller cannot talk over it.
        protected: bool,
    },
}

/// Words for the caller.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line {
    /// The words.
    pub text: String,
    /// BCP 47, where it is not the agent's own.
    pub language: Option<String>,
    /// Whether the caller cannot talk over it.
    pub protected: bool,
}

impl Line {
    /// Words in the agent's own language that may be talked over.
    pub fn plain(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            ..Self::default()
        }
    }
}

/// A question to the language model.
#[derive(Clone, Debug, PartialEq)]
pub struct Question {
    /// What is asked.
    pub prompt: Prompt,
    /// Whether the fallback is asked, since the first choice failed.
    pub fallback: bool,
    /// The caller's words, where the answer may be kept for whoever asks the same.
    pub common: Option<String>,
}
