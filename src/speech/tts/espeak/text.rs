//! Text as eSpeak NG may be given it: words alone. Pure.

/// Replaces what the program would take for commands: control characters (its embedded commands begin with U+0001) and `[[`,
/// which begins phoneme codes. Markup needs no care, as the program reads it as text unless told otherwise.
pub(super) fn plain(text: &str) -> String {
    let mut plain = String::with_capacity(text.len() + 1);
    let mut before = ' ';
    for c in text.chars() {
        let c = if c.is_control() { ' ' } else { c };
        if c == '[' && before == '[' {
            plain.push(' ');
        }
        plain.push(c);
        before = c;
    }
    plain.push('\n');
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_become_words() {
        assert_eq!(plain("a\u{1}+10p b\0\u{7f}"), "a +10p b  \n");
        assert_eq!(plain("[[h@loU]] [[["), "[ [h@loU]] [ [ [\n");
        assert_eq!(plain("<b>größer</b> & 你好"), "<b>größer</b> & 你好\n");
    }
}
