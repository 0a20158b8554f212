//! Scopes: parts of the interface that a credential may be narrowed to, beside its role.

use std::fmt;

/// A part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// Calls, their records and media streams over REST.
    Calls,
    /// Phone numbers.
    Numbers,
    /// Agents.
    Agents,
    /// Language models.
    Ai,
    /// Jobs.
    Jobs,
    /// API keys.
    Keys,
    /// Tenants.
    Tenants,
    /// Frontends' sockets.
    Ws,
}

impl Scope {
    /// All of them, in the order in which they are shown.
    pub const ALL: [Self; 8] = [
        Self::Calls,
        Self::Numbers,
        Self::Agents,
        Self::Ai,
        Self::Jobs,
        Self::Keys,
        Self::Tenants,
        Self::Ws,
    ];

    /// The word in tokens, over REST and on the command line.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Calls => "calls",
            Self::Numbers => "numbers",
            Self::Agents => "agents",
            Self::Ai => "ai",
            Self::Jobs => "jobs",
            Self::Keys => "keys",
            Self::Tenants => "tenants",
            Self::Ws => "ws",
        }
    }

    /// Reads the word.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|s| s.as_str() == word)
    }

    const fn bit(self) -> u16 {
        1 << self as u16
    }
}

/// What a credential is narrowed to: some parts, or all there are and will be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Scopes(u16);

impl Scopes {
    /// Not narrowed.
    pub const ALL: Self = Self(0);

    /// Narrowed to these; to none, not narrowed.
    pub fn of(scopes: impl IntoIterator<Item = Scope>) -> Self {
        Self(scopes.into_iter().fold(0, |bits, s| bits | s.bit()))
    }

    /// The words among `text` that are scopes, parted by spaces (RFC 8693 §4.2). Text without any narrows nothing: providers
    /// write words of their own there.
    pub fn claimed(text: &str) -> Self {
        Self::of(text.split(' ').filter_map(Scope::parse))
    }

    /// Whether a part is open. What has no scope of its own is open to whoever is not narrowed.
    pub const fn allow(self, scope: Option<Scope>) -> bool {
        match scope {
            _ if self.0 == 0 => true,
            Some(scope) => self.0 & scope.bit() != 0,
            None => false,
        }
    }

    /// Whether all that `other` opens is open here too.
    pub const fn include(self, other: Self) -> bool {
        self.0 == 0 || (other.0 != 0 && other.0 & !self.0 == 0)
    }

    /// The scopes that it is narrowed to; none when it is not narrowed.
    pub fn iter(self) -> impl Iterator<Item = Scope> {
        Scope::ALL.into_iter().filter(move |s| self.0 & s.bit() != 0)
    }
}

impl fmt::Display for Scopes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (n, scope) in self.iter().enumerate() {
            f.write_str(if n > 0 { " " } else { "" })?;
            f.write_str(scope.as_str())?;
        }
        Ok(())
    }
}

impl std::str::FromStr for Scopes {
    type Err = String;

    /// Words parted by spaces or commas, each of which must be a scope.
    fn from_str(text: &str) -> Result<Self, String> {
        let words = text.split([' ', ',']).filter(|w| !w.is_empty());
        let scopes = words.map(|word| {
            let known = Scope::ALL.map(Scope::as_str).join(", ");
            Scope::parse(word).ok_or_else(|| format!("{word:?} is no scope: {known}"))
        });
        Ok(Self::of(scopes.collect::<Result<Vec<_>, _>>()?))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_that_is_narrowed_opens_its_parts_alone() {
        let ws: Scopes = "ws".parse().unwrap();
        assert!(ws.allow(Some(Scope::Ws)) && !ws.allow(Some(Scope::Calls)) && !ws.allow(None));
        for scope in Scope::ALL.map(Some).into_iter().chain([None]) {
            assert!(Scopes::ALL.allow(scope));
        }
        assert_eq!("calls,ws".parse::<Scopes>().unwrap().to_string(), "calls ws");
        assert_eq!("".parse::<Scopes>(), Ok(Scopes::ALL));
        assert!("calls,all".parse::<Scopes>().is_err());
    }

    #[test]
    fn nothing_narrow_includes_what_is_not() {
        let (two, one): (Scopes, Scopes) = ("calls ws".parse().unwrap(), "ws".parse().unwrap());
        assert!(two.include(one) && !one.include(two) && !two.include(Scopes::ALL));
        assert!(Scopes::ALL.include(two) && Scopes::ALL.include(Scopes::ALL));
    }

    #[test]
    fn words_of_other_services_narrow_nothing() {
        assert_eq!(Scopes::claimed("openid profile"), Scopes::ALL);
        assert_eq!(Scopes::claimed("openid ws").to_string(), "ws");
    }
}
