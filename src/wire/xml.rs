//! The small XML documents that answer vendors: text to put into them, and a reader for whoever plays the vendor.
//!
//! The reader knows elements, attributes, text, comments and the five entities of XML 1.0. Document types, and with them
//! entities of one's own, are refused.

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

/// Elements that may be open at once.
const MAX_DEPTH: usize = 16;

/// Not a well-formed document of the kind read here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadXml;

impl fmt::Display for BadXml {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("not a well-formed XML document")
    }
}

impl std::error::Error for BadXml {}

/// An element with all that is in it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Its name.
    pub name: String,
    /// Its attributes in order, each name once.
    pub attributes: Vec<(String, String)>,
    /// The elements in it, in order.
    pub children: Vec<Element>,
    /// The text directly in it.
    pub text: String,
}

impl Element {
    /// Reads a document.
    pub fn parse(document: &str) -> Result<Self, BadXml> {
        let mut reader = Reader(document.strip_prefix('\u{feff}').unwrap_or(document));
        reader.skip_misc()?;
        let root = reader.element(1)?;
        reader.skip_misc()?;
        if reader.0.is_empty() { Ok(root) } else { Err(BadXml) }
    }

    /// The value of an attribute.
    pub fn attribute(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(n, _)| n == name).map(|(_, v)| &**v)
    }
}

struct Reader<'a>(&'a str);

impl<'a> Reader<'a> {
    fn take(&mut self, text: &str) -> bool {
        let rest = self.0.strip_prefix(text);
        self.0 = rest.unwrap_or(self.0);
        rest.is_some()
    }

    fn expect(&mut self, text: &str) -> Result<(), BadXml> {
        self.take(text).then_some(()).ok_or(BadXml)
    }

    /// Takes everything before `end`, and `end`.
    fn until(&mut self, end: &str) -> Result<&'a str, BadXml> {
        let (before, rest) = self.0.split_once(end).ok_or(BadXml)?;
        self.0 = rest;
        Ok(before)
    }

    /// Takes white space; says whether there was any.
    fn space(&mut self) -> bool {
        let rest = self.0.trim_start_matches([' ', '\t', '\r', '\n']);
        let any = rest.len() < self.0.len();
        self.0 = rest;
        any
    }

    /// Takes white space, comments and processing instructions (the XML declaration looks like one).
    fn skip_misc(&mut self) -> Result<(), BadXml> {
        loop {
            self.space();
            if self.take("<!--") {
                self.until("-->")?;
            } else if self.take("<?") {
                self.until("?>")?;
            } else {
                return Ok(());
            }
        }
    }

    fn name(&mut self) -> Result<&'a str, BadXml> {
        let part = |c: char| c.is_alphanumeric() || "_-.:".contains(c);
        let (name, rest) = self.0.split_at(self.0.find(|c| !part(c)).unwrap_or(self.0.len()));
        if !name.starts_with(|c: char| c.is_alphabetic() || c == '_') {
            return Err(BadXml);
        }
        self.0 = rest;
        Ok(name)
    }

    fn element(&mut self, depth: usize) -> Result<Element, BadXml> {
        if depth > MAX_DEPTH {
            return Err(BadXml);
        }
        self.expect("<")?;
        let name = self.name()?;
        let mut element = Element {
            name: name.to_owned(),
            ..Element::default()
        };
        while self.space() && !self.0.starts_with(['/', '>']) {
            let (name, value) = self.attribute()?;
            if element.attribute(&name).is_some() {
                return Err(BadXml);
            }
            element.attributes.push((name, value));
        }
        if self.take("/>") {
            return Ok(element);
        }
        self.expect(">")?;
        loop {
            let text = self.0.find('<').ok_or(BadXml)?;
            element.text.push_str(&unescape(&self.0[..text])?);
            self.0 = &self.0[text..];
            if self.take("</") {
                self.expect(name)?;
                self.space();
                self.expect(">")?;
                return Ok(element);
            } else if self.take("<!--") {
                self.until("-->")?;
            } else {
                element.children.push(self.element(depth + 1)?);
            }
        }
    }

    fn attribute(&mut self) -> Result<(String, String), BadXml> {
        let name = self.name()?;
        self.space();
        self.expect("=")?;
        self.space();
        let quote = if self.take("\"") {
            "\""
        } else {
            self.expect("'")?;
            "'"
        };
        let value = self.until(quote)?;
        if value.contains('<') {
            return Err(BadXml);
        }
        Ok((name.to_owned(), unescape(value)?))
    }
}

fn unescape(text: &str) -> Result<String, BadXml> {
    let mut pieces = text.split('&');
    let mut out = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let (entity, rest) = piece.split_once(';').ok_or(BadXml)?;
        let number = |digits: &str, radix| u32::from_str_radix(digits, radix).ok().and_then(char::from_u32);
        out.push(match entity {
            "amp" => '&',
            "lt" => '<',
            "gt" => '>',
            "quot" => '"',
            "apos" => '\'',
            _ => match (entity.strip_prefix("#x"), entity.strip_prefix('#')) {
                (Some(hex), _) => number(hex, 16),
                (_, Some(decimal)) => number(decimal, 10),
                _ => None,
            }
            .ok_or(BadXml)?,
        });
        out.push_str(rest);
    }
    Ok(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

    #[test]
    fn a_document_is_read_into_its_elements() {
        let root = Element::parse(
            "<?xml version=\"1.0\"?>\n<!-- c --><a  x=\"1 &amp; 2\" y = '&#60;\"&#x3e;' >\n t&lt;<b/>u<!-- - --><b z=''></b >\n</a>\n",
        )
        .unwrap();
        assert_eq!((root.name.as_str(), root.text.as_str()), ("a", "\n t<u\n"));
        assert_eq!(root.attribute("x"), Some("1 & 2"));
        assert_eq!(root.attribute("y"), Some("<\">"));
        assert_eq!(root.attribute("z"), None);
        let names: Vec<_> = root
            .children
            .iter()
            .map(|c| (c.name.as_str(), c.attribute("z")))
            .collect();
        assert_eq!(names, [("b", None), ("b", Some(""))]);
    }

    #[test]
    fn what_is_not_well_formed_is_refused() {
        let deep = "<a>".repeat(MAX_DEPTH + 1) + &"</a>".repeat(MAX_DEPTH + 1);
        for bad in [
            "",
            "a",
            "<a>",
            "<a></b>",
            "<a/><b/>",
            "<a x=1/>",
            "<a x='1' x='2'/>",
            "<a x='1'y='2'/>",
            "<a x='<'/>",
            "<a>&nbsp;</a>",
            "<a>&amp</a>",
            "<a>&#xd800;</a>",
            "<1/>",
            "<a><!-- </a>",
            "<!DOCTYPE a [<!ENTITY e 'x'>]><a>&e;</a>",
            &deep,
        ] {
            assert_eq!(Element::parse(bad), Err(BadXml), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_reads_back_in_both_places(text in "[^\0-\x08\x0b\x0c\x0e-\x1f\u{fffe}\u{ffff}]{0,40}") {
            let document = format!("<a b=\"{0}\" c='{0}'>{0}</a>", Escaped(&text));
            let a = Element::parse(&document).unwrap();
            prop_assert_eq!(a.attribute("b"), Some(&*text));
            prop_assert_eq!(a.attribute("c"), Some(&*text));
            prop_assert_eq!(a.text, text);
        }

        #[test]
        fn hostile_text_never_panics(text in "[<>/a='\"&;#x! é-]{0,60}") {
            let _ = Element::parse(&text);
        }
    }
}
