//! API keys: 256 random bits, shown once, kept as SHA-256.
//!
//! The hash needs no salt and no stretching: nothing shorter than the key itself can be guessed.

use super::{Identity, Role, scope::Scopes};
use crate::base::{ids::TenantId, secret::Secret, time::Wall};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    digest,
    rand::{SecureRandom, SystemRandom},
};
use std::{collections::HashMap, fmt, str::FromStr};

/// How every key begins.
pub const PREFIX: &str = "sk_";

/// The longest text that is looked at as a key, in bytes.
pub const MAX_KEY: usize = 128;

/// SHA-256 of a key.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyHash([u8; 32]);

impl KeyHash {
    /// The hash of a key as presented.
    pub fn of(key: &str) -> Self {
        let mut hash = [0; 32];
        hash.copy_from_slice(digest::digest(&digest::SHA256, key.as_bytes()).as_ref());
        Self(hash)
    }
}

impl fmt::Display for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for KeyHash {
    type Err = &'static str;
    fn from_str(hex: &str) -> Result<Self, Self::Err> {
        let err = "64 hexadecimal digits expected, as `sidetone keys new` prints them";
        if hex.len() != 64 || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(err);
        }
        let mut hash = [0; 32];
        for (byte, pair) in hash.iter_mut().zip(hex.as_bytes().chunks(2)) {
            let pair = std::str::from_utf8(pair).map_err(|_| err)?;
            *byte = u8::from_str_radix(pair, 16).map_err(|_| err)?;
        }
        Ok(Self(hash))
    }
}

/// A key as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// Its name, which is the subject of whoever presents it.
    pub name: String,
    /// Its hash.
    pub hash: KeyHash,
    /// Whose calls it opens.
    pub tenant: TenantId,
    /// What it allows.
    pub role: Role,
    /// What it is narrowed to.
    pub scopes: Scopes,
    /// When it ends, if it does.
    pub expires: Option<Wall>,
}

/// Makes a key. The operating system's randomness can fail.
pub fn generate() -> Result<Secret, &'static str> {
    let mut random = [0; 32];
    SystemRandom::new()
        .fill(&mut random)
        .map_err(|_| "the operating system gave no randomness")?;
    Ok(Secret::new(format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(random))))
}

/// How a key begins, for people to know it by: 36 of its 256 bits.
pub fn prefix(key: &Secret) -> String {
    key.expose().chars().take(PREFIX.len() + 6).collect()
}

/// The configured keys, by hash: what a lookup's timing tells is about a hash nobody can steer.
#[derive(Debug, Default)]
pub struct Keys(HashMap<KeyHash, ApiKey>);

impl Keys {
    /// The keys to know.
    pub fn new(keys: &[ApiKey]) -> Self {
        Self(keys.iter().map(|k| (k.hash, k.clone())).collect())
    }

    /// Those of a tenant, by their names.
    pub fn of(&self, tenant: TenantId) -> Vec<&ApiKey> {
        let mut keys: Vec<_> = self.0.values().filter(|k| k.tenant == tenant).collect();
        keys.sort_by(|a, b| a.name.cmp(&b.name));
        keys
    }

    /// Whose key it is, unless unknown or past its end.
    pub fn identify(&self, key: &str, now: Wall) -> Option<Identity> {
        let known = self.0.get(&KeyHash::of(key))?;
        if known.expires.is_some_and(|end| end <= now) {
            return None;
        }
        Some(Identity {
            tenant: known.tenant,
            role: known.role,
            scopes: known.scopes,
            subject: known.name.clone(),
            expires: known.expires,
            key: None,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_known_by_its_hash_until_it_expires() {
        let key = generate().unwrap();
        assert_eq!(key.expose().len(), PREFIX.len() + 43);
        let end = Wall::from_micros(1_000_000);
        let keys = Keys::new(&[ApiKey {
            name: "ci".into(),
            hash: KeyHash::of(key.expose()),
            tenant: TenantId(7),
            role: Role::Viewer,
            scopes: Scopes::ALL,
            expires: Some(end),
        }]);
        let who = keys.identify(key.expose(), Wall::from_micros(999_999)).unwrap();
        assert_eq!(
            (who.tenant, who.role, who.subject.as_str()),
            (TenantId(7), Role::Viewer, "ci")
        );
        assert_eq!(keys.identify(key.expose(), end), None);
        assert_eq!(keys.identify(generate().unwrap().expose(), Wall::default()), None);
    }

    #[test]
    fn hashes_read_what_they_write_and_nothing_else() {
        // FIPS 180-2, appendix B.1.
        let abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(KeyHash::of("abc").to_string(), abc);
        assert_eq!(abc.parse(), Ok(KeyHash::of("abc")));
        for bad in [
            "",
            &abc[1..],
            &format!("{abc}00"),
            &abc.replace('b', "g"),
            &abc.replace('b', "é"),
        ] {
            assert!(bad.parse::<KeyHash>().is_err(), "{bad}");
        }
    }
}
