//! Message authentication codes and digests as webhooks use them, by `ring`. Comparison takes constant time.

use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, general_purpose::GeneralPurposeConfig};
use ring::{digest, hmac};
use subtle::ConstantTimeEq;

/// Padding required, no stray bits: one text per signature.
static STRICT: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::RequireCanonical),
);

/// A keyed hash. Always from configuration, never from the message that it checks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    /// RFC 2104 with SHA-1; only because vendors still sign with it.
    HmacSha1,
    /// RFC 2104 with SHA-256.
    HmacSha256,
}

/// A key ready to authenticate any number of messages.
#[derive(Clone, Debug)]
pub struct MacKey(hmac::Key);

impl MacKey {
    /// A key for one algorithm.
    pub fn new(algorithm: Algorithm, secret: &[u8]) -> Self {
        let algorithm = match algorithm {
            Algorithm::HmacSha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            Algorithm::HmacSha256 => hmac::HMAC_SHA256,
        };
        Self(hmac::Key::new(algorithm, secret))
    }

    /// The code of the parts, taken as one message.
    pub fn sign<'a>(&self, parts: impl IntoIterator<Item = &'a str>) -> impl AsRef<[u8]> {
        let mut context = hmac::Context::with_key(&self.0);
        for part in parts {
            context.update(part.as_bytes());
        }
        context.sign()
    }

    /// Whether `code` is the code of the parts, taken as one message.
    pub fn verify<'a>(&self, parts: impl IntoIterator<Item = &'a str>, code: &[u8]) -> bool {
        equal(self.sign(parts).as_ref(), code)
    }
}

/// Compares in a time that depends on the lengths alone.
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    a.ct_eq(b).into()
}

/// SHA-256 in lower-case hexadecimal.
pub fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(64);
    for b in digest::digest(&digest::SHA256, bytes).as_ref() {
        let _ = write!(out, "{b:02x}");
    }
    out
}

/// The bytes of a signature in base64, or `None` unless it is written in the one canonical way.
pub fn signature(text: &str) -> Option<Vec<u8>> {
    // The longest code in use is 64 bytes; anything longer is not worth decoding.
    (text.len() <= 88).then(|| STRICT.decode(text).ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vectors_of_rfc_2202_and_4231_hold() {
        let (key, text) = ("Jefe", ["what do ya want ", "for nothing?"]);
        let hex = |b: &[u8]| b.iter().map(|b| format!("{b:02x}")).collect::<String>();
        let sha1 = MacKey::new(Algorithm::HmacSha1, key.as_bytes());
        assert_eq!(
            hex(sha1.sign(text).as_ref()),
            "effcdf6ae5eb2fa2d27416d5f184df9c259a7c79"
        );
        let sha256 = MacKey::new(Algorithm::HmacSha256, key.as_bytes());
        let code = sha256.sign(text);
        assert_eq!(
            hex(code.as_ref()),
            "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"
        );
        assert!(sha256.verify(text, code.as_ref()));
        assert!(!sha256.verify(text, &code.as_ref()[..31]));
        assert!(!sha1.verify(text, code.as_ref()));
    }

    #[test]
    fn sha256_of_nothing_is_the_well_known_one() {
        assert_eq!(
            sha256_hex(b""),
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
        );
    }

    #[test]
    fn a_signature_has_one_spelling() {
        assert_eq!(signature("Zg==").as_deref(), Some(&b"f"[..]));
        for twin in ["Zg", "Zg=", "Zh==", "Zg==\n", " Zg==", "Zg==Zg==", &"A".repeat(92)] {
            assert_eq!(signature(twin), None, "{twin:?}");
        }
    }
}
