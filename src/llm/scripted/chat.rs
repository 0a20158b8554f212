//! Rules in the place of a language model: they answer the last words of the caller, and call tools for their actions.

use super::{Action, Script};
use crate::llm::{Answer, Chat, ChatError, Piece, Prompt, SCRIPTED, Stop, ToolCall, Turn, Usage};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};
use std::sync::Arc;

/// Rules that answer.
#[derive(Clone, Debug)]
pub struct Rules(pub Arc<Script>);

impl Chat for Rules {
    fn service(&self) -> &'static str {
        SCRIPTED
    }

    fn model(&self) -> String {
        "rules".to_owned()
    }

    fn ready(&self) -> Result<(), ChatError> {
        Ok(())
    }

    fn ask(&self, prompt: Prompt) -> Answer {
        // Rules need no second round: what came of a call was all there was to say.
        let asked = match prompt.turns.last() {
            Some(Turn::User(text)) => text.as_str(),
            _ => "",
        };
        let rule = self.0.rule(asked);
        let fallback = || self.0.fallback().filter(|_| !asked.trim().is_empty());
        let reply = rule.map(|r| &r.reply).or_else(|| fallback().map(|f| &f.reply));
        let words = reply.into_iter().flat_map(|r| r.split_inclusive(' '));
        let mut pieces: Vec<_> = words.map(|w| Ok(Piece::Text(w.to_owned()))).collect();
        let call = rule.and_then(|r| r.action.as_ref()).map(call);
        let stop = if call.is_some() { Stop::Calls } else { Stop::Said };
        pieces.extend(call.map(|c| Ok(Piece::Call(c))));
        let usage = Usage::default();
        pieces.push(Ok(Piece::End { stop, usage }));
        stream::iter(pieces).boxed()
    }
}

/// An action as the call of the tool of the same name.
fn call(action: &Action) -> ToolCall {
    let (name, arguments): (_, Value) = match action {
        Action::HangUp => ("hang_up", json!({})),
        Action::Handoff => ("handoff", json!({})),
        Action::Transfer(to) => ("transfer", json!({ "to": to })),
        Action::Digits(digits) => ("send_digits", json!({ "digits": digits })),
    };
    ToolCall {
        id: "rule".to_owned(),
        name: name.to_owned(),
        arguments,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::scripted::{Fallback, Rule};
    use futures_util::FutureExt;

    fn answer(asked: &str) -> Vec<Piece> {
        let rules = vec![Rule {
            phrases: vec!["bye".into()],
            reply: "Good bye.".into(),
            action: Some(Action::HangUp),
        }];
        let fallback = Fallback {
            reply: "Pardon?".into(),
            max: 9,
        };
        let chat = Rules(Arc::new(Script::new(rules, Some(fallback))));
        let prompt = Prompt {
            turns: vec![Turn::User(asked.into())],
            ..Prompt::default()
        };
        let pieces: Vec<_> = chat.ask(prompt).collect().now_or_never().unwrap();
        pieces.into_iter().map(Result::unwrap).collect()
    }

    #[test]
    fn a_rule_answers_word_by_word_and_calls_for_its_action() {
        let pieces = answer("OK, bye!");
        assert_eq!(pieces[..2], [Piece::Text("Good ".into()), Piece::Text("bye.".into())]);
        assert!(matches!(&pieces[2], Piece::Call(c) if c.name == "hang_up"));
        assert!(matches!(pieces[3], Piece::End { stop: Stop::Calls, .. }));
        assert_eq!(answer("mumble")[0], Piece::Text("Pardon?".into()));
        assert_eq!(answer("  ").len(), 1);
    }
}
