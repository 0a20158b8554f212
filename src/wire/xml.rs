//! Text for the small XML documents that answer vendors. Writing only; nothing here reads XML.

use std::fmt;

/// Displays text so that it can stand in an attribute or between tags (XML 1.0 §2.4).
///
/// Characters that XML 1.0 cannot carry at all are left out; white space other than the blank becomes a character
/// reference, which attribute normalisation leaves alone.
#[derive(Clone, Copy, Debug)]
pub struct Escaped<'a>(pub &'a str);

impl fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut from = 0;
        for (at, c) in self.0.char_indices() {
            let instead = match c {
                '&' => "&amp;",
                '<' => "&lt;",
                '>' => "&gt;",
                '"' => "&quot;",
                '\'' => "&apos;",
                '\t' => "&#9;",
                '\n' => "&#10;",
                '\r' => "&#13;",
                '\0'..='\x1f' | '\u{fffe}' | '\u{ffff}' => "",
                _ => continue,
            };
            f.write_str(&self.0[from..at])?;
            f.write_str(instead)?;
            from = at + c.len_utf8();
        }
        f.write_str(&self.0[from..])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_can_leave_its_place() {
        for (plain, xml) in [
            ("", ""),
            ("+15550100", "+15550100"),
            ("\"/><Dial>&'", "&quot;/&gt;&lt;Dial&gt;&amp;&apos;"),
            ("a\nb\0c\u{fffe}d", "a&#10;bcd"),
            ("Zoë ☎ & Co", "Zoë ☎ &amp; Co"),
        ] {
            assert_eq!(Escaped(plain).to_string(), xml);
        }
    }
}
