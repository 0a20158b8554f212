//! Whom calls may be placed to: prefixes that are allowed and prefixes that are not, of which the longest that fits decides. Pure.

use crate::base::phone::e164;

/// Prefixes of numbers that cost more than a call: premium and shared-cost services, satellites. None of them is called unless
/// it is allowed by name.
pub const PREMIUM: &[&str] = &[
    "+1900", "+1976", // North America
    "+3389", // France
    "+34803", "+34806", "+34807", "+34905", // Spain
    "+3990", "+39892", "+39894", "+39895", "+39899", // Italy
    "+31900", "+31906", "+31909", // Netherlands
    "+41900", "+41901", "+41906", // Switzerland
    "+43900", "+43901", "+43930", "+43931", "+43939", // Austria
    "+4487", "+449", // United Kingdom
    "+49137", "+49900", // Germany
    "+61190", // Australia
    "+870", "+881", "+882", "+883", // satellites and networks without a country
    "+979", // international premium rate (ITU-T E.169.2)
];

/// Rules for numbers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Destinations {
    /// Prefixes that may be called; any may where there is none. `sip:` allows SIP addresses.
    pub allowed: Vec<String>,
    /// Prefixes that may not.
    pub blocked: Vec<String>,
}

impl Destinations {
    /// Whether the number, or the number in the SIP address, may be called.
    pub fn allow(&self, to: &str) -> bool {
        let Some(address) = to.strip_prefix("sip:") else {
            return self.allow_number(&e164(to), !self.allowed.is_empty());
        };
        let sip_allowed = self.allowed.is_empty() || self.allowed.iter().any(|p| to.starts_with(p.as_str()));
        // A gateway that calls a telephone is no way around the prefixes of telephones.
        let numbers_named = self.allowed.iter().any(|p| p.starts_with('+'));
        sip_allowed && dialled(address).is_none_or(|number| self.allow_number(&number, numbers_named))
    }

    /// `named` says that a number which no prefix fits is refused.
    fn allow_number(&self, number: &str, named: bool) -> bool {
        let longest = |prefixes: &[String]| {
            let fits = prefixes.iter().filter(|p| number.starts_with(p.as_str()));
            fits.map(String::len).max()
        };
        match (longest(&self.allowed), longest(&self.blocked)) {
            (allowed, Some(blocked)) => allowed.is_some_and(|a| a >= blocked),
            (Some(_), None) => true,
            (None, None) => !named,
        }
    }
}

/// The number in the user part of a SIP address (RFC 3261 §19.1.1), if it is one.
fn dialled(address: &str) -> Option<String> {
    let user = address.split(['@', ';', '?']).next()?;
    let user = unescaped(user.split(':').next()?);
    let separator = |c: &char| matches!(c, '-' | '.' | '(' | ')' | ' ');
    // Parameters may hide behind an escape too.
    let digits: String = user
        .split([';', ':', '@'])
        .next()?
        .chars()
        .filter(|c| !separator(c))
        .collect();
    let plain = digits
        .strip_prefix('+')
        .or(digits.strip_prefix("00"))
        .unwrap_or(&digits);
    (!plain.is_empty() && plain.bytes().all(|b| b.is_ascii_digit())).then(|| format!("+{plain}"))
}

/// Text with its `%XX` as the characters they stand for.
fn unescaped(text: &str) -> String {
    let (mut bytes, mut out) = (text.bytes(), Vec::with_capacity(text.len()));
    while let Some(byte) = bytes.next() {
        let mut rest = bytes.clone();
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16));
        match (byte, (byte == b'%').then(|| digit().zip(digit())).flatten()) {
            (_, Some((high, low))) => {
                out.push((high * 16 + low) as u8);
                bytes = rest;
            }
            (byte, None) => out.push(byte),
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// Whether a configured prefix is one: `+` and digits, or the beginning of a SIP address.
pub fn is_prefix(text: &str) -> bool {
    let digits = |d: &str| (1..=15).contains(&d.len()) && !d.starts_with('0') && d.bytes().all(|b| b.is_ascii_digit());
    text.strip_prefix('+').is_some_and(digits) || (text.starts_with("sip:") && text.len() <= 200)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(allowed: &[&str], blocked: &[&str]) -> Destinations {
        let all = |prefixes: &[&str]| prefixes.iter().map(|p| (*p).to_owned()).collect();
        Destinations {
            allowed: all(allowed),
            blocked: all(blocked),
        }
    }

    #[test]
    fn the_longest_prefix_decides_and_an_allowed_one_wins_over_its_equal() {
        for (allowed, blocked, to, may) in [
            (&[][..], &[][..], "+14155550100", true),
            (&[], PREMIUM, "+14155550100", true),
            (&[], PREMIUM, "+19005550100", false),
            (&[], PREMIUM, "19005550100", false),
            (&["+1"], PREMIUM, "+19005550100", false),
            (&["+1900555"], PREMIUM, "+19005550100", true),
            (&["+1900"], PREMIUM, "+19005550100", true),
            (&["+91"], PREMIUM, "+14155550100", false),
            (&["+91"], PREMIUM, "+919800000001", true),
            (&["+91"], &["+9190"], "+919000000001", false),
        ] {
            assert_eq!(rules(allowed, blocked).allow(to), may, "{allowed:?} {to}");
        }
    }

    #[test]
    fn a_sip_address_is_no_way_around_the_prefixes() {
        let open = rules(&[], PREMIUM);
        for (to, may) in [
            ("sip:desk@pbx.example.com", true),
            ("sip:+14155550100@gw.example.com", true),
            ("sip:+19005550100@gw.example.com", false),
            ("sip:19005550100@gw.example.com", false),
            ("sip:0019005550100@gw.example.com", false),
            ("sip:+1-900-555-0100:pw@gw.example.com", false),
            ("sip:+19005550100;phone-context=x@gw", false),
            ("sip:%2B19005550100@gw.example.com", false),
            ("sip:%2b1900%355550100@gw.example.com", false),
            ("sip:+19005550100%3Bx@gw.example.com", false),
            ("sip:100%@gw.example.com", true),
        ] {
            assert_eq!(open.allow(to), may, "{to}");
        }
        assert!(!rules(&["+91"], &[]).allow("sip:desk@pbx.example.com"));
        assert!(rules(&["+91", "sip:"], &[]).allow("sip:desk@pbx.example.com"));
        assert!(!rules(&["+91", "sip:"], &[]).allow("sip:+14155550100@gw.example.com"));
        assert!(!rules(&["sip:"], &[]).allow("+14155550100"));
    }

    #[test]
    fn prefixes_are_digits_after_a_plus_or_begin_a_sip_address() {
        assert!(PREMIUM.iter().all(|p| is_prefix(p)));
        assert!(is_prefix("sip:") && is_prefix("+1"));
        for bad in ["", "+", "1", "+0", "+1x", "tel:+1", "*"] {
            assert!(!is_prefix(bad), "{bad}");
        }
    }
}
