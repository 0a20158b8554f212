//! Phone numbers as vendors take them.

use std::borrow::Cow;

/// Whether `number` is E.164 with its plus sign: `^\+[1-9][0-9]{6,14}$` (ITU-T E.164 §6.2.1, and at least seven digits).
pub fn is_e164(number: &str) -> bool {
    let Some(digits) = number.strip_prefix('+') else {
        return false;
    };
    (7..=15).contains(&digits.len()) && !digits.starts_with('0') && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The number in E.164 where it can be told: eleven to fifteen digits without their plus sign, as some vendors write them, get
/// it. Everything else, national forms included, is left as it is.
pub fn e164(number: &str) -> Cow<'_, str> {
    let digits = (11..=15).contains(&number.len()) && number.bytes().all(|b| b.is_ascii_digit());
    match digits && !number.starts_with('0') {
        true => format!("+{number}").into(),
        false => number.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plus_sign_is_added_where_only_it_is_missing() {
        for (number, same) in [
            ("919800000001", "+919800000001"),
            ("9800000001", "9800000001"),
            ("08047491899", "08047491899"),
            ("+919800000001", "+919800000001"),
            ("sip:a@b", "sip:a@b"),
            ("", ""),
        ] {
            assert_eq!(e164(number), same);
        }
    }

    #[test]
    fn seven_to_fifteen_digits_after_a_plus_are_a_number() {
        for good in ["+1234567", "+123456789012345", "+4915112345678"] {
            assert!(is_e164(good), "{good}");
        }
        for bad in [
            "",
            "+",
            "+123456",
            "+1234567890123456",
            "+0123456789",
            "14155550100",
            "+1415555010x",
            "+1 4155550100",
            "+١٢٣٤٥٦٧٨",
        ] {
            assert!(!is_e164(bad), "{bad}");
        }
    }
}
