//! Secrets at rest: AES-256-GCM with a key from the configuration, each sealed text with the id of its key.
//!
//! A sealed text is `<key id>.<base64url of nonce, ciphertext, tag>`. It is bound to what it is about: moved to another
//! row it does not open. The id of a key is the head of its SHA-256, so no two daemons with one key disagree on it.

use crate::base::secret::Secret;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest,
    rand::{SecureRandom, SystemRandom},
};
use std::{
    fmt,
    fs::OpenOptions,
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

/// Bytes of a key.
const KEY_BYTES: usize = 32;

/// Why a text was not sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// No key is configured.
    NoKey,
    /// It was sealed with a key that is not configured.
    OtherKey,
    /// It was changed, is about something else, or never was sealed.
    Broken,
    /// The system gives no random numbers.
    NoRandomness,
}

impl fmt::Display for SealError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKey => "no key for secrets is configured",
            Self::OtherKey => "the secret was sealed with a key that is not configured",
            Self::Broken => "the sealed secret was changed or moved",
            Self::NoRandomness => "the system gives no random numbers",
        })
    }
}

impl std::error::Error for SealError {}

struct Key {
    id: String,
    key: LessSafeKey,
}

impl Key {
    fn new(secret: &Secret) -> Option<Self> {
        let bytes = key_bytes(secret.expose())?;
        let hash = digest::digest(&digest::SHA256, &bytes);
        Some(Self {
            id: hash.as_ref()[..4].iter().map(|b| format!("{b:02x}")).collect(),
            key: LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &bytes).ok()?),
        })
    }
}

fn key_bytes(text: &str) -> Option<[u8; KEY_BYTES]> {
    STANDARD.decode(text.trim()).ok()?.try_into().ok()
}

/// Whether a text is a key: 32 bytes in base64.
pub(super) fn is_key(secret: &Secret) -> bool {
    key_bytes(secret.expose()).is_some()
}

/// The keys.
pub struct Seal {
    /// Seals, and opens what it sealed.
    current: Option<Key>,
    /// Opens what was sealed before the key was changed.
    former: Option<Key>,
}

impl fmt::Debug for Seal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seal").finish_non_exhaustive()
    }
}

impl Seal {
    /// Seals with `current`, and opens with either. What is no key counts as none.
    pub fn new(current: Option<&Secret>, former: Option<&Secret>) -> Self {
        Self {
            current: current.and_then(Key::new),
            former: former.and_then(Key::new),
        }
    }

    /// Seals `text`, which is about `subject`.
    pub fn seal(&self, subject: &str, text: &str) -> Result<String, SealError> {
        let Key { id, key } = self.current.as_ref().ok_or(SealError::NoKey)?;
        let mut nonce = [0; NONCE_LEN];
        let random = SystemRandom::new();
        random.fill(&mut nonce).map_err(|_| SealError::NoRandomness)?;
        let mut sealed = text.as_bytes().to_vec();
        let about = Aad::from(subject.as_bytes());
        key.seal_in_place_append_tag(Nonce::assume_unique_for_key(nonce), about, &mut sealed)
            .map_err(|_| SealError::Broken)?;
        sealed.splice(..0, nonce);
        Ok(format!("{id}.{}", URL_SAFE_NO_PAD.encode(sealed)))
    }

    /// Opens what was sealed about `subject`.
    pub fn open(&self, subject: &str, sealed: &str) -> Result<Secret, SealError> {
        let (id, text) = sealed.split_once('.').ok_or(SealError::Broken)?;
        let mut keys = [&self.current, &self.former].into_iter().flatten();
        let Key { key, .. } = keys.find(|k| k.id == id).ok_or(match self.current {
            Some(_) => SealError::OtherKey,
            None => SealError::NoKey,
        })?;
        let mut bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| SealError::Broken)?;
        let (nonce, cipher) = bytes.split_at_mut_checked(NONCE_LEN).ok_or(SealError::Broken)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| SealError::Broken)?;
        let plain = key
            .open_in_place(nonce, Aad::from(subject.as_bytes()), cipher)
            .map_err(|_| SealError::Broken)?;
        let text = std::str::from_utf8(plain).map_err(|_| SealError::Broken)?;
        Ok(Secret::new(text))
    }

    /// Whether a sealed text should be sealed anew because the key was changed.
    pub fn is_stale(&self, sealed: &str) -> bool {
        let id = sealed.split_once('.').map(|(id, _)| id);
        self.current.as_ref().is_some_and(|k| Some(k.id.as_str()) != id)
    }
}

/// The key in the file at `path`, made when there is none: for a developer's own machine.
pub fn key_in(path: &Path) -> io::Result<Secret> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(mut file) => {
            let mut key = [0; KEY_BYTES];
            let random = SystemRandom::new();
            random
                .fill(&mut key)
                .map_err(|_| io::Error::other("no random numbers"))?;
            let text = STANDARD.encode(key);
            file.write_all(text.as_bytes())?;
            file.sync_all()?;
            Ok(Secret::new(text))
        }
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
            let mut text = String::new();
            OpenOptions::new()
                .read(true)
                .open(path)?
                .take(1024)
                .read_to_string(&mut text)?;
            let secret = Secret::new(text.trim());
            let bad = || {
                io::Error::new(
                    io::ErrorKind::InvalidData,
                    "not a key: remove it to have a new one made",
                )
            };
            is_key(&secret).then_some(secret).ok_or_else(bad)
        }
        Err(e) => Err(e),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(byte: u8) -> Secret {
        Secret::new(STANDARD.encode([byte; KEY_BYTES]))
    }

    #[test]
    fn what_was_sealed_opens_for_its_subject_alone() {
        let seal = Seal::new(Some(&secret(1)), None);
        let sealed = seal.seal("num_1", "hunter2").unwrap();
        assert!(!sealed.contains("hunter2"));
        assert_ne!(seal.seal("num_1", "hunter2").unwrap(), sealed);
        assert_eq!(seal.open("num_1", &sealed), Ok(Secret::new("hunter2")));
        assert_eq!(seal.open("num_2", &sealed), Err(SealError::Broken));
    }

    #[test]
    fn no_bit_of_a_sealed_text_can_be_changed() {
        let seal = Seal::new(Some(&secret(1)), None);
        let sealed = seal.seal("s", "text").unwrap();
        let (id, text) = sealed.split_once('.').unwrap();
        let bytes = URL_SAFE_NO_PAD.decode(text).unwrap();
        for bit in 0..bytes.len() * 8 {
            let mut changed = bytes.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            let changed = format!("{id}.{}", URL_SAFE_NO_PAD.encode(changed));
            assert_eq!(seal.open("s", &changed), Err(SealError::Broken), "bit {bit}");
        }
        for bad in [
            "",
            ".",
            "nothing",
            &format!("{id}."),
            &format!("{id}.***"),
            &format!("{id}.AAAA"),
        ] {
            assert!(seal.open("s", bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_key_is_changed_by_keeping_the_former_one_for_a_while() {
        let old = Seal::new(Some(&secret(1)), None);
        let sealed = old.seal("s", "text").unwrap();
        let both = Seal::new(Some(&secret(2)), Some(&secret(1)));
        assert!(both.is_stale(&sealed) && !old.is_stale(&sealed));
        let anew = both.seal("s", both.open("s", &sealed).unwrap().expose()).unwrap();
        assert!(!both.is_stale(&anew));
        let new = Seal::new(Some(&secret(2)), None);
        assert_eq!(new.open("s", &anew), Ok(Secret::new("text")));
        assert_eq!(new.open("s", &sealed), Err(SealError::OtherKey));
    }

    #[test]
    fn without_a_key_nothing_is_sealed_or_opened() {
        let none = Seal::new(None, None);
        assert_eq!(none.seal("s", "text"), Err(SealError::NoKey));
        let sealed = Seal::new(Some(&secret(1)), None).seal("s", "text").unwrap();
        assert_eq!(none.open("s", &sealed), Err(SealError::NoKey));
        assert!(!none.is_stale(&sealed));
        assert!(Seal::new(Some(&Secret::new("short")), None).current.is_none());
    }

    #[test]
    fn a_made_key_is_kept_for_its_owner_alone() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("seal.key");
        let made = key_in(&path).unwrap();
        assert!(is_key(&made));
        assert_eq!(key_in(&path).unwrap(), made);
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        std::fs::write(&path, "spoilt").unwrap();
        assert!(key_in(&path).is_err());
    }
}
