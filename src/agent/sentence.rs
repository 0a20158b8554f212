//! Cuts a text that arrives in pieces into what can be spoken at once, and takes out what is meant for eyes.
//!
//! A piece ends after a sentence, at the end of a line, or at a comma once it is long. Pure; holds at most one piece.

/// From here on a comma ends a piece, in characters.
const LONG: usize = 80;
/// From here on a colon ends a piece, in characters.
const COLON: usize = 30;
/// A piece without any end is cut at a space.
const LONGEST: usize = 240;

/// Words that a full stop belongs to.
const ABBREVIATIONS: &[&str] = &[
    "mr", "mrs", "ms", "dr", "prof", "st", "sr", "jr", "no", "vs", "etc", "e.g", "i.e", "a.m", "p.m", "u.s", "approx",
];

/// The cutter of one answer.
#[derive(Debug, Default)]
pub struct Sentences {
    held: String,
}

impl Sentences {
    /// Takes more text; gives what can be spoken now.
    pub fn feed(&mut self, text: &str) -> Vec<String> {
        self.held.push_str(text);
        let mut ready = Vec::new();
        while let Some(end) = end(&self.held) {
            let rest = self.held.split_off(end);
            let piece = std::mem::replace(&mut self.held, rest);
            ready.extend(Some(spoken(&piece)).filter(|p| has_words(p)));
        }
        ready
    }

    /// The text is complete: gives what is left.
    pub fn finish(&mut self) -> Option<String> {
        Some(spoken(&std::mem::take(&mut self.held))).filter(|p| has_words(p))
    }
}

fn has_words(text: &str) -> bool {
    text.chars().any(char::is_alphanumeric)
}

/// Where the first piece ends, in bytes, once that is certain.
fn end(text: &str) -> Option<usize> {
    let mut space = None;
    let mut chars = text.char_indices().enumerate().peekable();
    while let Some((n, (at, c))) = chars.next() {
        let after = at + c.len_utf8();
        let next = chars.peek().map(|(_, (_, c))| *c);
        match c {
            '\n' if has_words(&text[..at]) => return Some(after),
            '。' | '！' | '？' => return Some(after),
            '!' | '?' | ';' | '…' if next.is_some_and(char::is_whitespace) => return Some(after),
            ':' if next.is_some_and(char::is_whitespace) && n >= COLON => return Some(after),
            '.' if next.is_some_and(char::is_whitespace) && !abbreviates(&text[..at]) => return Some(after),
            ',' if next.is_some_and(char::is_whitespace) && n >= LONG => return Some(after),
            c if c.is_whitespace() => space = Some(after),
            _ => {}
        }
        if n >= LONGEST {
            return space.or(Some(after));
        }
    }
    None
}

/// Whether the full stop after this text is not the end of a sentence.
fn abbreviates(before: &str) -> bool {
    let word = before.rsplit(char::is_whitespace).next().unwrap_or_default();
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let initial = word.chars().count() == 1 && word.chars().all(|c| c.is_uppercase() && c != 'I');
    let numbered =
        !word.is_empty() && word.len() <= 2 && word.bytes().all(|b| b.is_ascii_digit()) && before.trim() == word;
    initial || numbered || ABBREVIATIONS.contains(&word.to_lowercase().as_str())
}

/// Without Markdown, and in one line.
fn spoken(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text.trim().trim_start_matches(['#', '>', '-', '*', '•', ' ']);
    while let Some(c) = rest.chars().next() {
        rest = &rest[c.len_utf8()..];
        match c {
            '*' | '`' | '~' => {}
            '_' if out.is_empty() || out.ends_with(' ') || rest.is_empty() || rest.starts_with([' ', '.', ',']) => {}
            // A link is spoken as its words.
            '[' if rest.contains("](") => {
                let (words, link) = rest.split_once("](").unwrap_or((rest, ""));
                out.push_str(words);
                rest = link.split_once(')').map_or("", |(_, after)| after);
            }
            c if c.is_whitespace() => {
                if !out.is_empty() && !out.ends_with(' ') {
                    out.push(' ');
                }
            }
            c => out.push(c),
        }
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> Vec<String> {
        let mut sentences = Sentences::default();
        let mut all = sentences.feed(text);
        all.extend(sentences.finish());
        all
    }

    #[test]
    fn sentences_leave_as_soon_as_they_are_whole() {
        let mut s = Sentences::default();
        assert!(s.feed("We are open").is_empty() && s.feed(" from nine.").is_empty());
        assert_eq!(s.feed(" Any"), ["We are open from nine."]);
        assert_eq!(s.finish().as_deref(), Some("Any"));
        assert_eq!(s.finish(), None);
    }

    #[test]
    fn a_full_stop_inside_a_sentence_does_not_end_it() {
        for whole in [
            "Dr. Lee sees you at 3.30 p.m. today.",
            "It costs 4.50, e.g. in cash.",
            "J. Doe called.",
        ] {
            assert_eq!(cut(whole), [whole]);
        }
        assert_eq!(cut("So do I. And you?"), ["So do I.", "And you?"]);
        assert_eq!(cut("你好。再见！"), ["你好。", "再见！"]);
    }

    #[test]
    fn what_is_meant_for_eyes_is_not_spoken() {
        assert_eq!(
            cut("## Hours\n- **Monday**: `nine` to _five_\n- see [our page](https://x.example/a)\n***\n"),
            ["Hours", "Monday: nine to five", "see our page"]
        );
        assert_eq!(cut("snake_case stays"), ["snake_case stays"]);
    }

    #[test]
    fn a_sentence_without_end_is_cut_at_a_comma_or_a_space() {
        let long = format!("{}, and then more", "word ".repeat(20).trim_end());
        assert_eq!(cut(&long).len(), 2);
        let endless = "word ".repeat(100);
        assert!(cut(&endless).iter().all(|p| p.chars().count() <= LONGEST + 1));
    }

    proptest! {
        #[test]
        fn no_word_is_lost_or_doubled_wherever_the_pieces_are_cut(
            words in prop::collection::vec("[a-z]{1,9}[.,!?]?", 0..60), cuts in prop::collection::vec(0usize..400, 0..8)
        ) {
            let text = words.join(" ");
            let mut cuts: Vec<_> = cuts.into_iter().map(|c| c.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let (mut s, mut all) = (Sentences::default(), Vec::new());
            for w in cuts.windows(2) {
                all.extend(s.feed(&text[w[0]..w[1]]));
            }
            all.extend(s.finish());
            prop_assert_eq!(all.join(" "), text);
        }

        #[test]
        fn any_text_is_cut(text in ".{0,400}") {
            cut(&text);
        }
    }
}
