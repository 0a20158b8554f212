//! Message authentication codes and digests as webhooks use them, by `ring`. Comparison takes constant time.

use base64::engine::{DecodePaddingMode, Engine, GeneralPurpose, general_purpose::GeneralPurposeConfig};
use ring::{
    digest, hmac,
    signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey},
};
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

/// The bytes of a signature in lower- or upper-case hexadecimal.
pub fn hex(text: &str) -> Option<Vec<u8>> {
    if text.len() > 128 || text.is_empty() {
        return None;
    }
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    let digit = |b: u8| (b as char).to_digit(16);
    let bytes = pairs.iter().map(|[a, b]| Some((digit(*a)? << 4 | digit(*b)?) as u8));
    rest.is_empty().then(|| bytes.collect()).flatten()
}

/// The bytes of a signature in base64, or `None` unless it is written in the one canonical way.
pub fn signature(text: &str) -> Option<Vec<u8>> {
    // The longest code in use is 64 bytes; anything longer is not worth decoding.
    (text.len() <= 88).then(|| STRICT.decode(text).ok()).flatten()
}

/// A public key of Ed25519 (RFC 8032).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey([u8; 32]);

/// What stands before the 32 bytes in a SubjectPublicKeyInfo (RFC 8410 §4).
const SPKI: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

impl PublicKey {
    /// Reads base64 of the 32 bytes, or of a SubjectPublicKeyInfo, with or without the lines of PEM around it.
    pub fn parse(text: &str) -> Option<Self> {
        let lines = text.split_whitespace().collect::<String>();
        let inner = lines.strip_prefix("-----BEGINPUBLICKEY-----");
        let inner = inner.map_or(Some(lines.as_str()), |t| t.strip_suffix("-----ENDPUBLICKEY-----"))?;
        let bytes = STRICT.decode(inner).ok()?;
        let key = bytes.strip_prefix(&SPKI).unwrap_or(&bytes);
        key.try_into().ok().map(Self)
    }

    /// Whether `signature` is the key's for the message. Of the two spellings of a signature only the reduced one is.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.0)
            .verify(message, signature)
            .is_ok()
    }
}

/// A private key of Ed25519.
#[derive(Debug)]
pub struct PrivateKey(Ed25519KeyPair);

impl PrivateKey {
    /// Reads the 32 bytes of the seed, in base64 or hexadecimal digits.
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        let hex = || {
            let digits = text.as_bytes().as_chunks::<2>().0;
            let byte = |pair: &[u8; 2]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
            digits.iter().map(byte).collect::<Option<Vec<_>>>()
        };
        let seed = if text.len() == 64 {
            hex()?
        } else {
            STRICT.decode(text).ok()?
        };
        Ed25519KeyPair::from_seed_unchecked(&seed).ok().map(Self)
    }

    /// The signature of a message, in base64.
    pub fn sign(&self, message: &[u8]) -> String {
        STRICT.encode(self.0.sign(message))
    }

    /// The public key, in base64.
    pub fn public(&self) -> String {
        STRICT.encode(self.0.public_key())
    }
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

    /// RFC 8032 §7.1, test 2.
    const SEED: &str = "4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb";
    const SIGNATURE: &str = "kqAJqfDUyrhyDoILX2QlQKKye1QWUD+Ps3YiI+vbadoIWsHkPhWZbkWPNhPQ8R2MOHsurrQwKu6wDSkWErsMAA==";

    #[test]
    fn ed25519_is_that_of_rfc_8032() {
        let key = PrivateKey::parse(SEED).unwrap();
        assert_eq!(key.public(), "PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=");
        assert_eq!(key.sign(&[0x72]), SIGNATURE);
        let public = PublicKey::parse(&key.public()).unwrap();
        let signed = signature(SIGNATURE).unwrap();
        assert!(public.verify(&[0x72], &signed));
        assert!(!public.verify(&[0x73], &signed));
        assert!(!public.verify(&[0x72], &signed[..63]));
        let mut longer = signed.clone();
        // The same point with the group's order added to the scalar: the other spelling.
        let order = [
            0xed, 0xd3, 0xf5, 0x5c, 0x1a, 0x63, 0x12, 0x58, 0xd6, 0x9c, 0xf7, 0xa2, 0xde, 0xf9, 0xde, 0x14, 0, 0, 0, 0,
            0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
        ];
        let mut carry = 0;
        for (byte, more) in longer[32..].iter_mut().zip(order) {
            let sum = u16::from(*byte) + more + carry;
            *byte = sum as u8;
            carry = sum >> 8;
        }
        assert!(!public.verify(&[0x72], &longer));
    }

    #[test]
    fn a_public_key_is_taken_bare_and_as_pem_and_nothing_else_is() {
        let bare = PublicKey::parse("PUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=").unwrap();
        let spki = "MCowBQYDK2VwAyEAPUAXw+hDiVqStwqnTRt+vJyYLM8uxJaMwM1V8Sr0Zgw=";
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{spki}\n-----END PUBLIC KEY-----\n");
        for text in [spki, &pem] {
            assert_eq!(PublicKey::parse(text).as_ref(), Some(&bare));
        }
        for bad in ["", "PUAX", "-----BEGIN PUBLIC KEY-----", SEED] {
            assert_eq!(PublicKey::parse(bad), None, "{bad}");
        }
        for bad in ["", "00", &SEED[2..], &SEED.replace('4', "g")] {
            assert!(PrivateKey::parse(bad).is_none(), "{bad}");
        }
    }
}
