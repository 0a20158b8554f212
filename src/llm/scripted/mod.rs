//! Rules instead of a language model: phrases that are expected, what to reply, and what to do after the reply.
//!
//! Speech and phrases are compared in one normal form (lower case, no punctuation, single spaces). A rule matches when
//! a phrase of it stands in the transcript as whole words; of several, the longest phrase wins, then the rule written first.

mod chat;

pub use chat::Rules;

use crate::base::{phone::is_e164, settings::Section};

/// Longest phrase or reply accepted, in bytes: what a grammar and a synthesizer can be asked to hold.
const MAX_TEXT: usize = 2000;

/// What to do once a reply was heard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// End the call.
    HangUp,
    /// Give the call to a person at a frontend.
    Handoff,
    /// Give the call to this phone number (E.164).
    Transfer(String),
    /// Send these keys (`0-9*#A-D`).
    Digits(String),
}

impl Action {
    /// Reads `hang_up`, `handoff`, `transfer:+14155550100`, `digits:123#`. The error says what was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        match text.split_once(':') {
            None if text == "hang_up" => Ok(Self::HangUp),
            None if text == "handoff" => Ok(Self::Handoff),
            Some(("transfer", to)) if is_e164(to) => Ok(Self::Transfer(to.to_owned())),
            Some(("transfer", _)) => Err("transfer: takes a number in E.164, such as transfer:+14155550100"),
            Some(("digits", keys)) if is_digits(keys) => Ok(Self::Digits(keys.to_owned())),
            Some(("digits", _)) => Err("digits: takes 1 to 32 keys out of 0-9 * # A-D"),
            _ => Err("one of hang_up, handoff, transfer:NUMBER, digits:KEYS"),
        }
    }
}

fn is_digits(keys: &str) -> bool {
    (1..=32).contains(&keys.len())
        && keys
            .bytes()
            .all(|b| b.is_ascii_digit() || matches!(b, b'*' | b'#' | b'A'..=b'D'))
}

/// One rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// What the caller may say, as written.
    pub phrases: Vec<String>,
    /// What to reply; may be empty where there is an action.
    pub reply: String,
    /// What to do after the reply was heard.
    pub action: Option<Action>,
}

/// The reply to speech that no rule knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fallback {
    /// The words.
    pub reply: String,
    /// After this many in a row the agent keeps silent until a rule matches again.
    pub max: u32,
}

/// A compiled set of rules.
#[derive(Clone, Debug, Default)]
pub struct Script {
    rules: Vec<Rule>,
    fallback: Option<Fallback>,
    /// Phrases in normal form with a space at each end, longest first, each with its rule.
    index: Vec<(String, usize)>,
}

impl Script {
    /// Compiles rules. Phrases without a word in them match nothing.
    pub fn new(rules: Vec<Rule>, fallback: Option<Fallback>) -> Self {
        let mut index: Vec<_> = rules
            .iter()
            .enumerate()
            .flat_map(|(n, rule)| rule.phrases.iter().map(move |p| (padded(p), n)))
            .filter(|(phrase, _)| phrase.len() > 2)
            .collect();
        index.sort_by(|(a, n), (b, m)| b.len().cmp(&a.len()).then(n.cmp(m)));
        Self { rules, fallback, index }
    }

    /// Reads `[[rules]]` and `[fallback]` of an agent's section.
    pub fn read(agent: &Section<'_>) -> Self {
        let mut seen: Vec<String> = Vec::new();
        let mut rules = Vec::new();
        for section in agent.sections("rules") {
            rules.push(read_rule(&section, &mut seen));
            section.finish();
        }
        let section = agent.section("fallback");
        let fallback = section.is_present().then(|| Fallback {
            reply: read_text(&section, "reply", true),
            max: section.int("max", u32::MAX, 1..=u32::MAX),
        });
        section.finish();
        Self::new(rules, fallback)
    }

    /// The rule for what was heard, if one knows it.
    pub fn rule(&self, heard: &str) -> Option<&Rule> {
        let heard = padded(heard);
        let (_, n) = self.index.iter().find(|(phrase, _)| heard.contains(phrase.as_str()))?;
        self.rules.get(*n)
    }

    /// The reply where no rule knows.
    pub const fn fallback(&self) -> Option<&Fallback> {
        self.fallback.as_ref()
    }

    /// The same rules, with this reply where none knows and nothing else is said to that.
    pub fn or_reply(&self, reply: &str) -> Self {
        let mut script = self.clone();
        script.fallback.get_or_insert_with(|| Fallback {
            reply: reply.to_owned(),
            max: u32::MAX,
        });
        script
    }

    /// Whether a rule hands calls to that number.
    pub fn transfers_to(&self, number: &str) -> bool {
        let to = |rule: &Rule| matches!(&rule.action, Some(Action::Transfer(to)) if to == number);
        self.rules.iter().any(to)
    }

    /// All phrases as written: the grammar of a recogniser that takes one.
    pub fn phrases(&self) -> Vec<String> {
        self.rules.iter().flat_map(|r| r.phrases.iter().cloned()).collect()
    }

    /// Whether there are no rules at all.
    pub const fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }
}

fn read_rule(section: &Section<'_>, seen: &mut Vec<String>) -> Rule {
    let phrases = section.texts("phrases", &[]);
    if phrases.is_empty() {
        section.fault(
            "phrases",
            "a rule without phrases never matches",
            "list what the caller may say",
        );
    }
    for phrase in &phrases {
        let normal = normalise(phrase);
        if normal.is_empty() || phrase.len() > MAX_TEXT {
            section.fault(
                "phrases",
                format!("{phrase:?} is no phrase"),
                format!("words, at most {MAX_TEXT} bytes"),
            );
        } else if seen.contains(&normal) {
            let hint = "case and punctuation do not tell phrases apart: keep one of them";
            section.fault("phrases", format!("{phrase:?} is in the rules twice"), hint);
        } else {
            seen.push(normal);
        }
    }
    let action = section.text_opt("action").and_then(|text| {
        Action::parse(&text)
            .map_err(|hint| section.fault("action", format!("{text:?} is no action"), hint))
            .ok()
    });
    Rule {
        phrases,
        reply: read_text(section, "reply", action.is_none()),
        action,
    }
}

fn read_text(section: &Section<'_>, key: &str, required: bool) -> String {
    let text = section.text(key, "").trim().to_owned();
    if required && text.is_empty() {
        section.fault(key, "nothing to say", "write the words of the reply");
    }
    if text.len() > MAX_TEXT {
        section.fault(key, "the reply is too long", format!("at most {MAX_TEXT} bytes"));
    }
    text
}

/// Lower case, letters and digits only, words parted by single spaces. Apostrophes join (`what's` is `whats`).
pub fn normalise(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars().flat_map(char::to_lowercase) {
        if c.is_alphanumeric() {
            out.push(c);
        } else if !matches!(c, '\'' | '\u{2019}') && !out.is_empty() && !out.ends_with(' ') {
            out.push(' ');
        }
    }
    out.truncate(out.trim_end().len());
    out
}

fn padded(text: &str) -> String {
    format!(" {} ", normalise(text))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};
    use proptest::prelude::*;

    fn rule(phrases: &[&str], reply: &str) -> Rule {
        Rule {
            phrases: phrases.iter().map(|p| (*p).to_owned()).collect(),
            reply: reply.to_owned(),
            action: None,
        }
    }

    fn replies(script: &Script, heard: &str) -> Option<String> {
        script.rule(heard).map(|r| r.reply.clone())
    }

    #[test]
    fn case_punctuation_and_spacing_do_not_matter() {
        let script = Script::new(vec![rule(&["What's your name?"], "Ada")], None);
        for heard in ["whats your name", "WHAT'S  YOUR NAME", "so, what’s your name, please?"] {
            assert_eq!(replies(&script, heard).as_deref(), Some("Ada"), "{heard}");
        }
        for heard in ["", "what is your name", "whats your names"] {
            assert_eq!(replies(&script, heard), None, "{heard}");
        }
    }

    #[test]
    fn a_phrase_matches_whole_words_and_the_longest_wins() {
        let script = Script::new(
            vec![
                rule(&["hours"], "short"),
                rule(&["opening hours on sunday"], "long"),
                rule(&["opening hours"], "mid"),
            ],
            None,
        );
        assert_eq!(
            replies(&script, "your opening hours on sunday please").as_deref(),
            Some("long")
        );
        assert_eq!(replies(&script, "your opening hours").as_deref(), Some("mid"));
        assert_eq!(replies(&script, "the hours").as_deref(), Some("short"));
        assert_eq!(replies(&script, "ours"), None);
    }

    #[test]
    fn actions_are_read_and_refused_with_a_hint() {
        assert_eq!(Action::parse("hang_up"), Ok(Action::HangUp));
        assert_eq!(Action::parse("handoff"), Ok(Action::Handoff));
        assert_eq!(
            Action::parse("transfer:+14155550100"),
            Ok(Action::Transfer("+14155550100".into()))
        );
        assert_eq!(Action::parse("digits:12#A"), Ok(Action::Digits("12#A".into())));
        for bad in [
            "",
            "hangup",
            "transfer",
            "transfer:",
            "transfer:911",
            "digits:",
            "digits:12 3",
            "hang_up:now",
        ] {
            assert!(Action::parse(bad).is_err(), "{bad}");
        }
    }

    fn table(pairs: &[(&str, Value)]) -> Table {
        let item = |v: &Value| Item {
            value: v.clone(),
            place: Place::Line(1),
        };
        pairs.iter().map(|(k, v)| ((*k).to_owned(), item(v))).collect()
    }

    fn list(values: Vec<Value>) -> Value {
        Value::Array(
            values
                .into_iter()
                .map(|value| Item {
                    value,
                    place: Place::Line(1),
                })
                .collect(),
        )
    }

    fn text(t: &str) -> Value {
        Value::String(t.into())
    }

    #[test]
    fn every_fault_of_a_script_is_told_at_once() {
        let rules = list(vec![
            Value::Table(table(&[("phrases", list(vec![text("Hello")])), ("reply", text("Hi"))])),
            Value::Table(table(&[
                ("phrases", list(vec![text("hello!")])),
                ("action", text("transfer:12")),
            ])),
            Value::Table(table(&[
                ("phrases", list(vec![])),
                ("reply", text("x")),
                ("replay", text("y")),
            ])),
        ]);
        let root = table(&[("rules", rules)]);
        let faults = Faults::default();
        let script = Script::read(&Section::root(&root, &faults));
        let told: Vec<String> = faults.take().iter().map(ToString::to_string).collect();
        for part in [
            "twice",
            "is no action",
            "nothing to say",
            "without phrases",
            "did you mean reply",
        ] {
            assert!(told.iter().any(|t| t.contains(part)), "{part}: {told:?}");
        }
        assert_eq!(replies(&script, "hello").as_deref(), Some("Hi"));
    }

    proptest! {
        #[test]
        fn normal_form_is_a_fixed_point_without_stray_spaces(text in ".{0,60}") {
            let once = normalise(&text);
            prop_assert_eq!(normalise(&once), once.clone());
            prop_assert!(!once.contains("  ") && once.trim() == once);
        }

        #[test]
        fn any_transcript_that_holds_a_phrase_is_known(before in "[a-z ]{0,12}", after in "[a-z ]{0,12}") {
            let script = Script::new(vec![rule(&["call me back"], "yes")], None);
            let heard = format!("{before} call me back {after}");
            prop_assert!(script.rule(&heard).is_some());
        }
    }
}
