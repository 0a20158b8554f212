//! Phrases as a recogniser can listen for them: plain words, and sounds for words that no dictionary has. Pure.

/// The words of a text in lower case: letters and apostrophes, numbers spelled out, accents dropped. Empty where nothing is speakable.
pub(super) fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word = String::new();
    let mut digits = String::new();
    for c in text.chars().chain([' ']) {
        let letters = letters(c);
        if !c.is_ascii_digit() && !digits.is_empty() {
            number(&std::mem::take(&mut digits), &mut words);
        }
        if (letters.is_empty() || c.is_ascii_digit()) && !word.is_empty() {
            finish(std::mem::take(&mut word), &mut words);
        }
        match c {
            '0'..='9' => digits.push(c),
            '&' => words.push("and".to_owned()),
            '%' => words.push("percent".to_owned()),
            '@' => words.push("at".to_owned()),
            _ => word.push_str(letters),
        }
    }
    words
}

fn finish(word: String, words: &mut Vec<String>) {
    let word = word.trim_matches('\'');
    match word {
        "" => {}
        "ok" => words.push("okay".to_owned()),
        _ => words.push(word.to_owned()),
    }
}

/// The plain letters of a character, none where it is no letter.
fn letters(c: char) -> &'static str {
    const PLAIN: &str = "abcdefghijklmnopqrstuvwxyz'";
    let c = c.to_lowercase().next().unwrap_or(c);
    if let Some(at) = PLAIN.find(c) {
        return &PLAIN[at..=at];
    }
    match c {
        '’' => "'",
        'à' | 'á' | 'â' | 'ã' | 'å' => "a",
        'ä' | 'æ' => "ae",
        'ç' => "c",
        'è' | 'é' | 'ê' | 'ë' => "e",
        'ì' | 'í' | 'î' | 'ï' => "i",
        'ñ' => "n",
        'ò' | 'ó' | 'ô' | 'õ' | 'ø' => "o",
        'ö' | 'œ' => "oe",
        'ß' => "ss",
        'ù' | 'ú' | 'û' => "u",
        'ü' => "ue",
        'ý' | 'ÿ' => "y",
        _ => "",
    }
}

const ONES: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];
const TENS: [&str; 10] = [
    "", "", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// Spells a number out: up to four digits as a quantity, more or with a zero in front digit by digit.
fn number(digits: &str, words: &mut Vec<String>) {
    let mut say = |word: &str| words.push(word.to_owned());
    let n: usize = match digits.parse() {
        Ok(n) if digits.len() <= 4 && (digits.len() == 1 || !digits.starts_with('0')) => n,
        _ => {
            for digit in digits.bytes() {
                say(ONES[usize::from(digit - b'0')]);
            }
            return;
        }
    };
    if n >= 1000 {
        say(ONES[n / 1000]);
        say("thousand");
    }
    if n % 1000 >= 100 {
        say(ONES[n / 100 % 10]);
        say("hundred");
    }
    match n % 100 {
        0 if n > 0 => {}
        rest @ 0..20 => say(ONES[rest]),
        rest => {
            say(TENS[rest / 10]);
            if rest % 10 > 0 {
                say(ONES[rest % 10]);
            }
        }
    }
}

/// Spellings and their sounds (ARPAbet), tried in this order at each place of a word.
const SPELLINGS: &[(&str, &str)] = &[
    ("tion", "SH AH N"),
    ("sion", "ZH AH N"),
    ("ture", "CH ER"),
    ("ough", "AO"),
    ("augh", "AO"),
    ("eigh", "EY"),
    ("igh", "AY"),
    ("tch", "CH"),
    ("dge", "JH"),
    ("sch", "SH"),
    ("oor", "AO R"),
    ("our", "AO R"),
    ("ear", "IH R"),
    ("eer", "IH R"),
    ("air", "EH R"),
    ("are", "EH R"),
    ("ing", "IH NG"),
    ("ch", "CH"),
    ("sh", "SH"),
    ("th", "TH"),
    ("ph", "F"),
    ("gh", "G"),
    ("wh", "W"),
    ("wr", "R"),
    ("kn", "N"),
    ("ck", "K"),
    ("ng", "NG"),
    ("qu", "K W"),
    ("ee", "IY"),
    ("ea", "IY"),
    ("ie", "IY"),
    ("ei", "AY"),
    ("oo", "UW"),
    ("ou", "AW"),
    ("ow", "OW"),
    ("oa", "OW"),
    ("oi", "OY"),
    ("oy", "OY"),
    ("ai", "EY"),
    ("ay", "EY"),
    ("ey", "IY"),
    ("au", "AO"),
    ("aw", "AO"),
    ("eu", "Y UW"),
    ("ew", "Y UW"),
    ("ue", "UW"),
    ("ar", "AA R"),
    ("er", "ER"),
    ("ir", "ER"),
    ("ur", "ER"),
    ("or", "AO R"),
    ("ce", "S EH"),
    ("ci", "S IH"),
    ("cy", "S IY"),
    ("ge", "JH EH"),
    ("a", "AE"),
    ("b", "B"),
    ("c", "K"),
    ("d", "D"),
    ("e", "EH"),
    ("f", "F"),
    ("g", "G"),
    ("h", "HH"),
    ("i", "IH"),
    ("j", "JH"),
    ("k", "K"),
    ("l", "L"),
    ("m", "M"),
    ("n", "N"),
    ("o", "AA"),
    ("p", "P"),
    ("q", "K"),
    ("r", "R"),
    ("s", "S"),
    ("t", "T"),
    ("u", "AH"),
    ("v", "V"),
    ("w", "W"),
    ("x", "K S"),
    ("y", "IY"),
    ("z", "Z"),
];

/// The names of the letters, for words that cannot be said.
const NAMES: [&str; 26] = [
    "EY",
    "B IY",
    "S IY",
    "D IY",
    "IY",
    "EH F",
    "JH IY",
    "EY CH",
    "AY",
    "JH EY",
    "K EY",
    "EH L",
    "EH M",
    "EH N",
    "OW",
    "P IY",
    "K Y UW",
    "AA R",
    "EH S",
    "T IY",
    "Y UW",
    "V IY",
    "D AH B AH L Y UW",
    "EH K S",
    "W AY",
    "Z IY",
];

/// How a word that the dictionary lacks is probably said: by rules of English spelling, or letter by letter where it has no
/// vowel. ARPAbet, separated by spaces; empty for a word without letters.
pub(super) fn sounds(word: &str) -> String {
    let letters: String = word.chars().filter(char::is_ascii_lowercase).collect();
    if !letters.contains(['a', 'e', 'i', 'o', 'u', 'y']) {
        let names = letters.bytes().map(|b| NAMES[usize::from(b - b'a')]);
        return names.collect::<Vec<_>>().join(" ");
    }
    let mut sounds: Vec<&str> = Vec::new();
    let mut at = 0;
    while at < letters.len() {
        let rest = &letters[at..];
        if at == 0 && rest.starts_with('y') && rest.len() > 1 {
            sounds.push("Y");
            at += 1;
            continue;
        }
        if rest == "e" && at > 0 && !sounds.is_empty() {
            break;
        }
        if let Some(long) = long_vowel(rest) {
            sounds.push(long);
            at += 1;
            continue;
        }
        let Some((spelling, sound)) = SPELLINGS.iter().find(|(s, _)| rest.starts_with(s)) else {
            at += 1;
            continue;
        };
        // A letter doubled is one sound.
        let doubled = spelling.len() == 1 && sounds.last() == Some(sound) && letters[..at].ends_with(spelling);
        if !doubled {
            sounds.push(sound);
        }
        at += spelling.len();
    }
    sounds.join(" ")
}

/// A vowel, one consonant and a final `e` make the vowel long, as in `tone`; a vowel at the end of a word is long too.
fn long_vowel(rest: &str) -> Option<&'static str> {
    let long = match rest.as_bytes()[0] {
        b'a' => "EY",
        b'i' => "AY",
        b'o' => "OW",
        b'u' => "UW",
        _ => return None,
    };
    let magic = matches!(rest.as_bytes(), [_, c, b'e'] if !b"aeiouyrwx".contains(c));
    let open = matches!(rest.as_bytes(), [b'o' | b'u' | b'i']);
    (magic || open).then_some(long)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn phrases_become_plain_words() {
        for (text, expected) in [
            ("What are your opening hours?", "what are your opening hours"),
            ("I’d like the 'special', please!", "i'd like the special please"),
            ("24 hours & 7 days", "twenty four hours and seven days"),
            ("flight 1205", "flight one thousand two hundred five"),
            ("100% at 9:30", "one hundred percent at nine thirty"),
            ("007, 12345", "zero zero seven one two three four five"),
            ("café Müller", "cafe mueller"),
            ("OK", "okay"),
            ("0 10 2000", "zero ten two thousand"),
            ("b2b", "b two b"),
            ("<x> = (y) | {z};", "x y z"),
            ("…! 你好 ''", ""),
        ] {
            assert_eq!(words(text).join(" "), expected, "{text}");
        }
    }

    #[test]
    fn unknown_words_get_sounds_by_rule() {
        for (word, expected) in [
            ("sidetone", "S IH D EH T OW N"),
            ("zylbo", "Z IY L B OW"),
            ("quick", "K W IH K"),
            ("phishing", "F IH SH IH NG"),
            ("bizzle", "B IH Z L"),
            ("yumo", "Y AH M OW"),
            ("sms", "EH S EH M EH S"),
            ("e", "EH"),
            ("'", ""),
        ] {
            assert_eq!(sounds(word), expected, "{word}");
        }
    }
}
