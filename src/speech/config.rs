//! The configuration of speech: one section per backend, read by the backend itself.

use super::{stt, tts};
use crate::base::settings::Section;
use std::{fmt, sync::Arc};

/// The configured backends, in the order of their lists.
#[derive(Clone)]
pub struct Config {
    /// Recognisers by name.
    pub stt: Vec<(&'static str, Arc<dyn stt::Engine>)>,
    /// Synthesizers by name.
    pub tts: Vec<(&'static str, Arc<dyn tts::Engine>)>,
}

impl Config {
    /// Reads `[speech]`: `[speech.stt.NAME]` and `[speech.tts.NAME]` for each backend. An absent section is all defaults.
    pub fn read(section: &Section<'_>) -> Self {
        let (ears, mouths) = (section.section("stt"), section.section("tts"));
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
        ears.finish();
        mouths.finish();
        Self { stt, tts }
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
        map.finish()
    }
}

impl PartialEq for Config {
    /// Two configurations are equal when they print alike: engines show all of theirs.
    fn eq(&self, other: &Self) -> bool {
        format!("{self:?}") == format!("{other:?}")
    }
}
