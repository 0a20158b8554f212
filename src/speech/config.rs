//! The configuration of speech: one section per backend, read by the backend itself.

use super::{duplex, stt, tts};
use crate::base::{
    keyring::Keyring,
    secret::Secret,
    settings::{Faults, Section},
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Engines with keys of tenants that are kept at once, of each kind; the least lately used go first.
const KEYED: usize = 64;

/// The configured backends, in the order of their lists.
#[derive(Clone)]
pub struct Config {
    /// Recognisers by name.
    pub stt: Vec<(&'static str, Arc<dyn stt::Engine>)>,
    /// Synthesizers by name.
    pub tts: Vec<(&'static str, Arc<dyn tts::Engine>)>,
    /// Services that hear and speak, by name.
    pub duplex: Vec<(&'static str, Arc<dyn duplex::Engine>)>,
    pub(super) keyed_stt: Arc<Keyed<dyn stt::Engine>>,
    pub(super) keyed_tts: Arc<Keyed<dyn tts::Engine>>,
    pub(super) keyed_duplex: Arc<Keyed<dyn duplex::Engine>>,
}

/// An engine by its name and key.
type Entry<T> = (&'static str, Secret, Arc<T>);

/// Engines that use others' keys than the operator's.
pub(super) struct Keyed<T: ?Sized>(Mutex<Vec<Entry<T>>>);

impl<T: ?Sized> Keyed<T> {
    /// The engine of that name with that key: the one that is kept, else a new one. `None` where it takes no key.
    fn get(&self, name: &'static str, key: &Secret, make: impl FnOnce() -> Option<Arc<T>>) -> Option<Arc<T>> {
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let known = kept.iter().position(|(n, k, _)| *n == name && k == key);
        let entry = match known {
            Some(at) => kept.remove(at),
            None => (name, key.clone(), make()?),
        };
        let engine = entry.2.clone();
        kept.push(entry);
        if kept.len() > KEYED {
            kept.remove(0);
        }
        Some(engine)
    }
}

impl Config {
    /// Reads `[speech]`: `[speech.stt.NAME]`, `[speech.tts.NAME]` and `[speech.duplex.NAME]` for each backend. An absent section is all defaults.
    pub fn read(section: &Section<'_>) -> Self {
        let (ears, mouths, both) = (
            section.section("stt"),
            section.section("tts"),
            section.section("duplex"),
        );
        let stt = stt::BACKENDS.iter().map(|backend| {
            let section = ears.section(backend.name);
            let engine = (backend.read)(&section);
            section.finish();
            (backend.name, engine)
        });
        let stt = stt.collect();
        let tts = tts::BACKENDS.iter().map(|backend| {
            let section = mouths.section(backend.name);
            let engine = (backend.read)(&section);
            section.finish();
            (backend.name, engine)
        });
        let tts = tts.collect();
        let duplex = duplex::BACKENDS.iter().map(|backend| {
            let section = both.section(backend.name);
            let engine = (backend.read)(&section);
            section.finish();
            (backend.name, engine)
        });
        let duplex = duplex.collect();
        ears.finish();
        mouths.finish();
        both.finish();
        Self {
            stt,
            tts,
            duplex,
            keyed_stt: Arc::new(Keyed(Mutex::default())),
            keyed_tts: Arc::new(Keyed(Mutex::default())),
            keyed_duplex: Arc::new(Keyed(Mutex::default())),
        }
    }

    /// The recogniser of that name, with the key that goes before the operator's, if there is one.
    pub fn recogniser(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Arc<dyn stt::Engine>)> {
        let (name, engine) = self.stt.iter().find(|(n, _)| *n == name)?;
        let own = keys
            .get(name)
            .and_then(|key| self.keyed_stt.get(name, key, || engine.with_key(key)));
        Some((name, own.unwrap_or_else(|| engine.clone())))
    }

    /// The synthesizer of that name, likewise.
    pub fn synthesizer(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Arc<dyn tts::Engine>)> {
        let (name, engine) = self.tts.iter().find(|(n, _)| *n == name)?;
        let own = keys
            .get(name)
            .and_then(|key| self.keyed_tts.get(name, key, || engine.with_key(key)));
        Some((name, own.unwrap_or_else(|| engine.clone())))
    }

    /// The service of that name that hears and speaks, likewise.
    pub fn conversations(&self, name: &str, keys: &Keyring) -> Option<(&'static str, Arc<dyn duplex::Engine>)> {
        let (name, engine) = self.duplex.iter().find(|(n, _)| *n == name)?;
        let own = keys
            .get(name)
            .and_then(|key| self.keyed_duplex.get(name, key, || engine.with_key(key)));
        Some((name, own.unwrap_or_else(|| engine.clone())))
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::read(&Section::empty(&Faults::default()))
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut map = f.debug_map();
        for (name, engine) in &self.stt {
            map.entry(&format_args!("stt.{name}"), engine);
        }
        for (name, engine) in &self.tts {
            map.entry(&format_args!("tts.{name}"), engine);
        }
        for (name, engine) in &self.duplex {
            map.entry(&format_args!("duplex.{name}"), engine);
        }
        map.finish()
    }
}

impl PartialEq for Config {
    /// Two configurations are equal when they print alike: engines show all of theirs.
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}
