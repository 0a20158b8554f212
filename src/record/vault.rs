//! Recordings at rest: a file sealed in chunks with AES-256-GCM, each by itself, so that any part is read without the rest.
//!
//! `magic (8) key id (4) salt (32)`, then for every [`CHUNK`] bytes `nonce (12) ciphertext tag (16)`. Each file has a key of its
//! own (HKDF-SHA256 of the configured one and the salt) and counts its nonces; a chunk is bound to its place. Only the last chunk
//! is ever written again, with a new nonce: what a crash tears is that one, an eighth of a second of a WAV file.
//! A file that was cut at the end of a chunk still reads; a shorter recording is all that shows.

use crate::{
    audio::wav::{self, HEADER_LEN},
    base::secret::Secret,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    digest, hkdf,
    rand::{SecureRandom, SystemRandom},
};
use std::{fmt, fs::File, io, os::unix::fs::FileExt};

/// How a sealed file begins.
const MAGIC: [u8; 8] = *b"sidesea1";
const KEY_ID: usize = 4;
const SALT: usize = 32;
/// Bytes in front of the first chunk.
const HEADER: u64 = (MAGIC.len() + KEY_ID + SALT) as u64;
/// Bytes of a recording in one chunk.
const CHUNK: usize = 4096;
const TAG: usize = 16;
/// What a chunk takes beside its bytes.
const MORE: usize = NONCE_LEN + TAG;
/// Tries to read a chunk, which may be written at that very moment.
const READS: usize = 3;
/// Bytes of a whole chunk in the file.
const STRIDE: u64 = (CHUNK + MORE) as u64;

/// The keys of recordings.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys {
    /// Seals, and opens what it sealed. Without it recordings are written in the clear.
    pub current: Option<Secret>,
    /// Opens what was sealed before the key was changed.
    pub former: Option<Secret>,
}

/// The 32 bytes of a key in base64.
fn bytes_of(secret: &Secret) -> Option<[u8; 32]> {
    STANDARD.decode(secret.expose().trim()).ok()?.try_into().ok()
}

/// Whether a text is a key: 32 bytes in base64.
pub(super) fn is_key(secret: &Secret) -> bool {
    bytes_of(secret).is_some()
}

fn id_of(key: &[u8]) -> [u8; KEY_ID] {
    let mut id = [0; KEY_ID];
    id.copy_from_slice(&digest::digest(&digest::SHA256, key).as_ref()[..KEY_ID]);
    id
}

fn derive(key: &[u8], salt: &[u8]) -> io::Result<LessSafeKey> {
    let extracted = hkdf::Salt::new(hkdf::HKDF_SHA256, salt).extract(key);
    let key = extracted
        .expand(&[b"sidetone recording"], &AES_256_GCM)
        .map_err(|_| io::Error::other("the key of a recording cannot be derived"))?;
    Ok(LessSafeKey::new(UnboundKey::from(key)))
}

/// A chunk's place, which it is bound to.
fn place(index: u64) -> Aad<[u8; 8]> {
    Aad::from(index.to_be_bytes())
}

/// A sealed file that is written from its beginning to its end.
pub(super) struct Vault {
    file: File,
    key: LessSafeKey,
    /// Nonces used.
    counter: u64,
    /// Whole chunks in the file.
    chunks: u64,
    /// What is no whole chunk yet.
    tail: Vec<u8>,
    /// Scratch: a chunk on its way to the file.
    sealed: Vec<u8>,
}

impl fmt::Debug for Vault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Vault")
            .field("chunks", &self.chunks)
            .finish_non_exhaustive()
    }
}

impl Vault {
    /// Begins a sealed file in an empty one.
    pub(super) fn begin(file: File, key: &Secret) -> io::Result<Self> {
        let key = bytes_of(key).ok_or_else(|| io::Error::other("record.key is no key"))?;
        let mut salt = [0; SALT];
        let random = SystemRandom::new().fill(&mut salt);
        random.map_err(|_| io::Error::other("the system gives no random numbers"))?;
        file.write_all_at(&[&MAGIC[..], &id_of(&key), &salt].concat(), 0)?;
        Ok(Self {
            file,
            key: derive(&key, &salt)?,
            counter: 0,
            chunks: 0,
            tail: Vec::with_capacity(CHUNK),
            sealed: Vec::with_capacity(CHUNK + MORE),
        })
    }

    /// Bytes of the recording so far.
    pub(super) const fn len(&self) -> u64 {
        self.chunks * CHUNK as u64 + self.tail.len() as u64
    }

    /// Writes bytes behind those before.
    pub(super) fn append(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let (now, later) = bytes.split_at(bytes.len().min(CHUNK - self.tail.len()));
            self.tail.extend_from_slice(now);
            bytes = later;
            self.put()?;
            if self.tail.len() == CHUNK {
                self.tail.clear();
                self.chunks += 1;
            }
        }
        Ok(())
    }

    /// Writes zeros until the recording has `len` bytes.
    pub(super) fn extend(&mut self, len: u64) -> io::Result<()> {
        while let Some(left) = len.checked_sub(self.len()).filter(|n| *n > 0) {
            self.append(&[0; CHUNK][..left.min(CHUNK as u64) as usize])?;
        }
        Ok(())
    }

    fn put(&mut self) -> io::Result<()> {
        self.counter += 1;
        let mut nonce = [0; NONCE_LEN];
        nonce[4..].copy_from_slice(&self.counter.to_be_bytes());
        self.sealed.clear();
        self.sealed.extend_from_slice(&self.tail);
        let tag = self
            .key
            .seal_in_place_separate_tag(
                Nonce::assume_unique_for_key(nonce),
                place(self.chunks),
                &mut self.sealed,
            )
            .map_err(|_| io::Error::other("a recording cannot be sealed"))?;
        self.sealed.splice(..0, nonce);
        self.sealed.extend_from_slice(tag.as_ref());
        self.file.write_all_at(&self.sealed, HEADER + self.chunks * STRIDE)
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }
}

/// A recording that is read, sealed or not, while it grows or after.
pub struct Reading {
    file: File,
    key: Option<LessSafeKey>,
    len: u64,
}

impl fmt::Debug for Reading {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reading")
            .field("len", &self.len)
            .finish_non_exhaustive()
    }
}

impl Reading {
    /// Reads what the file holds now. Fails where it was sealed with a key that is not among these.
    pub fn new(file: File, keys: &Keys) -> io::Result<Self> {
        let len = file.metadata()?.len();
        let mut head = [0; HEADER as usize];
        let sealed = len >= HEADER && file.read_exact_at(&mut head, 0).is_ok() && head.starts_with(&MAGIC);
        if !sealed {
            return Ok(Self { file, key: None, len });
        }
        let (id, salt) = head[MAGIC.len()..].split_at(KEY_ID);
        let known = [&keys.current, &keys.former].into_iter().flatten().filter_map(bytes_of);
        let key = known.into_iter().find(|key| id_of(key) == id);
        let key = key.ok_or_else(|| io::Error::other("the recording was sealed with a key that is not configured"))?;
        let mut reading = Self {
            file,
            key: Some(derive(&key, salt)?),
            len: 0,
        };
        let (chunks, rest) = ((len - HEADER) / STRIDE, (len - HEADER) % STRIDE);
        reading.len = chunks * CHUNK as u64 + rest.saturating_sub(MORE as u64);
        // What a crash has torn, or is being written, is not there.
        let last = reading.len.saturating_sub(1) / CHUNK as u64;
        if reading.len > 0 {
            let there = reading.chunk(last).map_or(0, |c| c.len());
            reading.len = last * CHUNK as u64 + there as u64;
        }
        Ok(reading)
    }

    /// Bytes of the recording.
    pub const fn len(&self) -> u64 {
        self.len
    }

    /// Whether there are none.
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The bytes from `at` on, as many as were asked for.
    pub fn read(&self, at: u64, n: usize) -> io::Result<Vec<u8>> {
        if at.saturating_add(n as u64) > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if self.key.is_none() {
            let mut bytes = vec![0; n];
            self.file.read_exact_at(&mut bytes, at)?;
            return Ok(bytes);
        }
        let mut bytes = Vec::with_capacity(n + CHUNK);
        let first = at / CHUNK as u64;
        let skip = (at % CHUNK as u64) as usize;
        let mut index = first;
        while bytes.len() < skip + n {
            bytes.extend_from_slice(&self.chunk(index)?);
            index += 1;
        }
        bytes.drain(..skip);
        bytes.truncate(n);
        self.state_sizes(at, &mut bytes);
        Ok(bytes)
    }

    /// The bytes of a chunk as it is now: the last one of a recording that grows may hold more than was there at first.
    fn chunk(&self, index: u64) -> io::Result<Vec<u8>> {
        let broken = || io::Error::new(io::ErrorKind::InvalidData, "a recording was changed or torn");
        let key = self.key.as_ref().ok_or_else(broken)?;
        let at = HEADER + index * STRIDE;
        for _ in 0..READS {
            let there = self.file.metadata()?.len().saturating_sub(at).min(STRIDE);
            let mut sealed = vec![0; there as usize];
            self.file.read_exact_at(&mut sealed, at)?;
            let Some((nonce, cipher)) = sealed.split_at_mut_checked(NONCE_LEN) else {
                break;
            };
            let nonce = Nonce::try_assume_unique_for_key(nonce).map_err(|_| broken())?;
            if let Ok(plain) = key.open_in_place(nonce, place(index), cipher) {
                return Ok(plain.to_vec());
            }
        }
        Err(broken())
    }

    /// The header of a sealed WAV file is written once, before its sizes are known: here they are.
    fn state_sizes(&self, at: u64, bytes: &mut [u8]) {
        let header = HEADER_LEN as u64;
        if at >= header || self.len < header {
            return;
        }
        let Ok(first) = self.chunk(0) else { return };
        if !first.starts_with(b"RIFF") {
            return;
        }
        for (place, size) in wav::sizes(u32::try_from(self.len - header).unwrap_or(u32::MAX)) {
            for (n, byte) in size.into_iter().enumerate() {
                let spot = (place + n) as u64;
                if let Some(b) = spot.checked_sub(at).and_then(|i| bytes.get_mut(i as usize)) {
                    *b = byte;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::fs::OpenOptions;

    fn key(byte: u8) -> Secret {
        Secret::new(STANDARD.encode([byte; 32]))
    }

    fn keys(current: u8, former: Option<u8>) -> Keys {
        Keys {
            current: Some(key(current)),
            former: former.map(key),
        }
    }

    fn open(file: &File, keys: &Keys) -> io::Result<Reading> {
        Reading::new(file.try_clone().unwrap(), keys)
    }

    /// A file sealed with key 1 of these runs.
    fn sealed(runs: &[Vec<u8>]) -> File {
        let file = tempfile::tempfile().unwrap();
        let mut vault = Vault::begin(file.try_clone().unwrap(), &key(1)).unwrap();
        runs.iter().for_each(|run| vault.append(run).unwrap());
        vault.sync().unwrap();
        file
    }

    proptest! {
        #[test]
        fn any_part_of_any_file_reads_as_it_was_written(
            runs in prop::collection::vec(prop::collection::vec(1u8.., 1..6000), 1..8),
            parts in prop::collection::vec((any::<prop::sample::Index>(), any::<prop::sample::Index>()), 1..8),
        ) {
            let whole = runs.concat();
            let file = sealed(&runs);
            let reading = open(&file, &keys(1, None)).unwrap();
            prop_assert_eq!(reading.len(), whole.len() as u64);
            prop_assert_eq!(&reading.read(0, whole.len()).unwrap(), &whole);
            for (from, to) in parts {
                let (a, b) = (from.index(whole.len()), to.index(whole.len()));
                let (a, b) = (a.min(b), a.max(b));
                prop_assert_eq!(&reading.read(a as u64, b - a).unwrap()[..], &whole[a..b]);
            }
            prop_assert!(reading.read(whole.len() as u64, 1).is_err());
        }

        /// However a crash cuts the file, what it holds of whole chunks is there, and nothing that was not written.
        #[test]
        fn a_torn_file_reads_up_to_its_last_whole_chunk(n in 1usize..20_000, cut in any::<prop::sample::Index>()) {
            let whole: Vec<u8> = (0..n).map(|i| i as u8 | 1).collect();
            let file = sealed(std::slice::from_ref(&whole));
            let len = file.metadata().unwrap().len();
            let left = HEADER + cut.index((len - HEADER) as usize + 1) as u64;
            file.set_len(left).unwrap();
            let reading = open(&file, &keys(1, None)).unwrap();
            let chunks = (left - HEADER) / STRIDE;
            let expected = if left == len { n as u64 } else { chunks * CHUNK as u64 };
            prop_assert_eq!(reading.len(), expected);
            prop_assert_eq!(&reading.read(0, expected as usize).unwrap()[..], &whole[..expected as usize]);
        }
    }

    #[test]
    fn nothing_of_a_recording_is_in_the_file_and_no_byte_of_it_may_be_changed() {
        let words = b"some words that were said ".repeat(400);
        let file = sealed(std::slice::from_ref(&words));
        let len = file.metadata().unwrap().len();
        let mut bytes = vec![0; len as usize];
        file.read_exact_at(&mut bytes, 0).unwrap();
        assert!(memchr::memmem::find(&bytes, b"words").is_none());
        for at in [HEADER, HEADER + 20, HEADER + STRIDE - 1] {
            let byte = bytes[at as usize];
            file.write_all_at(&[byte ^ 1], at).unwrap();
            assert!(open(&file, &keys(1, None)).unwrap().read(0, 100).is_err(), "{at}");
            file.write_all_at(&[byte], at).unwrap();
        }
        // Two chunks that change places are noticed.
        let (one, two) = (HEADER as usize, (HEADER + STRIDE) as usize);
        file.write_all_at(&bytes[two..two + STRIDE as usize], one as u64)
            .unwrap();
        assert!(open(&file, &keys(1, None)).unwrap().read(0, 100).is_err());
    }

    #[test]
    fn a_former_key_opens_and_a_foreign_one_does_not() {
        let file = sealed(&[vec![7; 100]]);
        assert_eq!(open(&file, &keys(2, Some(1))).unwrap().read(0, 100).unwrap(), [7; 100]);
        for keys in [keys(2, None), Keys::default()] {
            let error = open(&file, &keys).unwrap_err();
            assert!(error.to_string().contains("not configured"), "{error}");
        }
    }

    #[test]
    fn a_recording_that_grows_reads_as_far_as_it_went() {
        let file = tempfile::tempfile().unwrap();
        let mut vault = Vault::begin(file.try_clone().unwrap(), &key(1)).unwrap();
        vault.append(&[1; 100]).unwrap();
        let reading = open(&file, &keys(1, None)).unwrap();
        vault.append(&[2; 5000]).unwrap();
        assert_eq!((reading.len(), reading.read(0, 100).unwrap()), (100, vec![1; 100]));
        assert_eq!(open(&file, &keys(1, None)).unwrap().len(), 5100);
    }

    #[test]
    fn no_two_chunks_are_sealed_alike_even_of_silence() {
        let folder = tempfile::tempdir().unwrap();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(folder.path().join("a"))
            .unwrap();
        let mut vault = Vault::begin(file.try_clone().unwrap(), &key(1)).unwrap();
        vault.extend(3 * CHUNK as u64 + 5).unwrap();
        assert_eq!(vault.len(), 3 * CHUNK as u64 + 5);
        let chunk = |n: u64| {
            let mut bytes = vec![0; STRIDE as usize];
            file.read_exact_at(&mut bytes, HEADER + n * STRIDE).unwrap();
            bytes
        };
        assert!(chunk(0) != chunk(1) && chunk(0)[NONCE_LEN..] != chunk(1)[NONCE_LEN..]);
        let reading = open(&file, &keys(1, None)).unwrap();
        assert_eq!(reading.read(0, reading.len() as usize).unwrap(), vec![0; 3 * CHUNK + 5]);
    }
}
