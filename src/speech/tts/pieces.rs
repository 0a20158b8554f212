//! Cuts a text into pieces to be synthesized one after the other, so that the first audio is early and memory is bounded.
//!
//! Cuts fall behind sentence ends where there are some within reach, else behind clauses, else between words. The first piece is
//! one sentence; later ones gather several. Nothing but white space is lost.

/// A piece is at least this long before the next sentence opens another, in bytes; the first piece is not held to it.
const GATHER: usize = 160;

/// No piece is longer, in bytes.
const LONGEST: usize = 480;

/// The pieces of `text`, in order, trimmed; none when there is nothing to say.
pub fn pieces(text: &str) -> Vec<String> {
    let mut pieces: Vec<String> = Vec::new();
    for sentence in sentences(text) {
        for part in bounded(sentence) {
            match pieces.as_mut_slice() {
                [_, .., last] if last.len() < GATHER && last.len() + part.len() < LONGEST => {
                    last.push(' ');
                    last.push_str(part);
                }
                _ => pieces.push(part.to_owned()),
            }
        }
    }
    pieces
}

/// Splits behind `.`, `!`, `?`, `…` (with closing quotes) that white space follows, behind `。` and the like, and at line ends.
fn sentences(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    std::iter::from_fn(move || {
        rest = rest.trim_start();
        if rest.is_empty() {
            return None;
        }
        let mut ended = false;
        let end = rest.char_indices().find_map(|(at, c)| match c {
            '\n' | '\r' => Some(at),
            '。' | '！' | '？' | '।' => Some(at + c.len_utf8()),
            '.' | '!' | '?' | '…' => {
                ended = true;
                None
            }
            '"' | '\'' | ')' | '”' | '’' | '»' if ended => None,
            c if ended && c.is_whitespace() => Some(at),
            _ => {
                ended = false;
                None
            }
        });
        let (sentence, more) = rest.split_at(end.unwrap_or(rest.len()));
        rest = more;
        Some(sentence.trim_end())
    })
}

/// Splits what is longer than a piece may be behind `,`, `;`, `:`, else at a space, else anywhere between characters.
fn bounded(mut text: &str) -> impl Iterator<Item = &str> {
    std::iter::from_fn(move || {
        if text.is_empty() {
            return None;
        }
        if text.len() <= LONGEST {
            return Some(std::mem::take(&mut text));
        }
        let reach = &text[..text.floor_char_boundary(LONGEST)];
        let clause = reach.rfind([',', ';', ':']).map(|at| at + 1);
        let cut = clause
            .filter(|at| *at > GATHER)
            .or_else(|| reach.rfind(' ').filter(|at| *at > 0))
            .unwrap_or(reach.len());
        let (part, rest) = text.split_at(cut);
        text = rest.trim_start();
        Some(part.trim_end())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_first_sentence_is_a_piece_of_its_own() {
        let text = "Hello! We are open from 9.30 to 5. \"Come by.\" Or call us";
        assert_eq!(
            pieces(text),
            ["Hello!", "We are open from 9.30 to 5. \"Come by.\" Or call us"]
        );
        assert!(pieces(" \n ").is_empty());
    }

    #[test]
    fn long_sentences_are_cut_at_commas_then_at_spaces() {
        let clause = format!("{}, {}", "a".repeat(300), "b ".repeat(150));
        let cut = pieces(&clause);
        assert!(cut[0].ends_with("a,"), "{cut:?}");
        assert!(pieces(&"x".repeat(2000)).iter().all(|p| p.len() <= LONGEST));
    }

    proptest! {
        #[test]
        fn nothing_but_white_space_is_lost(text in "[a-zA-Zäß。 ,.!?\n\"]{0,1500}") {
            let squeeze = |s: &str| s.chars().filter(|c| !c.is_whitespace()).collect::<String>();
            let cut = pieces(&text);
            prop_assert_eq!(squeeze(&cut.concat()), squeeze(&text));
            prop_assert!(cut.iter().all(|p| !p.is_empty() && p.len() <= LONGEST));
        }
    }
}
