//! Which eSpeak NG voice speaks which language (version 1.51, `espeak-ng --voices`). Pure tables.

/// Tags whose voice has another name: a region's accent, or an older code.
const NAMED: &[(&str, &str)] = &[
    ("en", "en-us"),
    ("en-gb", "en-gb"),
    ("en-ie", "en-gb"),
    ("en-au", "en-gb"),
    ("en-nz", "en-gb"),
    ("en-za", "en-gb"),
    ("en-in", "en-gb"),
    ("es-es", "es"),
    ("es-mx", "es-419"),
    ("es-us", "es-419"),
    ("es-ar", "es-419"),
    ("es-co", "es-419"),
    ("es-cl", "es-419"),
    ("es-pe", "es-419"),
    ("es-419", "es-419"),
    ("fr", "fr-fr"),
    ("fr-be", "fr-be"),
    ("fr-ch", "fr-ch"),
    ("pt-br", "pt-br"),
    ("no", "nb"),
    ("nn", "nb"),
    ("zh", "cmn"),
    ("zh-hk", "yue"),
    ("iw", "he"),
    ("in", "id"),
];

/// Languages whose voice has the name of the language (ISO 639).
const PLAIN: &[&str] = &[
    "af", "am", "an", "ar", "as", "az", "ba", "be", "bg", "bn", "bs", "ca", "cmn", "cs", "cv", "cy", "da", "de", "el",
    "eo", "es", "et", "eu", "fa", "fi", "ga", "gd", "gn", "gu", "hak", "haw", "he", "hi", "hr", "ht", "hu", "hy", "ia",
    "id", "io", "is", "it", "ja", "ka", "kk", "kl", "kn", "ko", "kok", "ku", "ky", "la", "lb", "lt", "lv", "mi", "mk",
    "ml", "mr", "ms", "mt", "my", "nb", "ne", "nl", "om", "or", "pa", "pap", "pl", "pt", "quc", "ro", "ru", "sd", "si",
    "sk", "sl", "sq", "sr", "sv", "sw", "ta", "te", "th", "tk", "tn", "tr", "tt", "ug", "uk", "ur", "uz", "vi", "yue",
];

/// The voice of a BCP 47 tag: the region's where there is one, else the language's. American English for `auto` and nothing.
pub(super) fn of(language: &str) -> Option<&'static str> {
    let tag = language.trim().to_ascii_lowercase().replace('_', "-");
    if matches!(tag.as_str(), "" | "auto") {
        return Some("en-us");
    }
    let primary = tag.split('-').next().unwrap_or_default();
    let named = |tag: &str| NAMED.iter().find(|(t, _)| *t == tag).map(|(_, voice)| *voice);
    let plain = || PLAIN.iter().find(|l| **l == primary).copied();
    named(&tag).or_else(|| named(primary)).or_else(plain)
}

/// Whether a text can be the name of a voice, with a variant (`en-us+f3`) or without: never an option.
pub(super) fn is_name(voice: &str) -> bool {
    let ok = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'_');
    (1..=40).contains(&voice.len()) && !voice.starts_with(['-', '+']) && voice.bytes().all(ok)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_fall_back_to_their_language() {
        for (tag, voice) in [
            ("en", "en-us"),
            ("en-US", "en-us"),
            ("en_GB", "en-gb"),
            ("es-MX", "es-419"),
            ("de-AT", "de"),
            ("fr-CA", "fr-fr"),
            ("pt-BR", "pt-br"),
            ("pt", "pt"),
            ("zh-CN", "cmn"),
            ("hi-IN", "hi"),
            ("auto", "en-us"),
            ("", "en-us"),
        ] {
            assert_eq!(of(tag), Some(voice), "{tag}");
        }
        assert_eq!(of("tlh"), None);
        assert_eq!(of("-"), None);
    }

    #[test]
    fn a_voice_is_never_an_option() {
        assert!(is_name("en-us+f3"));
        for bad in ["", "-w/tmp/x", "+f3", "en us", "../x", &"a".repeat(41)] {
            assert!(!is_name(bad), "{bad:?}");
        }
    }
}
