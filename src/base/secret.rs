//! Text that must not be printed: `Debug` and `Display` write `***`, comparison takes constant time.

use std::fmt;

/// A secret. [`Secret::expose`] is the only way to the text, so every use can be found by name.
#[derive(Clone, Default)]
pub struct Secret(String);

impl Secret {
    /// Wraps a secret.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is no text.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Compares in a time that depends on the lengths alone.
    pub fn matches(&self, other: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.0.as_bytes().ct_eq(other.as_bytes()).into()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Eq for Secret {}

impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        self.matches(&other.0)
    }
}

/// A phone number or SIP address as a log line may show it: the last four characters.
pub struct LastFour<'a>(pub &'a str);

impl fmt::Display for LastFour<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let skip = self.0.chars().count().saturating_sub(4);
        f.write_str(if skip > 0 { "…" } else { "" })?;
        self.0
            .chars()
            .skip(skip)
            .filter(|c| !c.is_control())
            .try_for_each(|c| write!(f, "{c}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_do_not_print() {
        let s = Secret::new("hunter2");
        assert_eq!(format!("{s} {s:?}"), "*** ***");
        assert!(s.matches("hunter2") && !s.matches("hunter"));
    }

    #[test]
    fn numbers_print_their_last_four() {
        assert_eq!(LastFour("+15551230001").to_string(), "…0001");
        assert_eq!(LastFour("anon").to_string(), "anon");
    }
}
