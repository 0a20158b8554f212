//! Recognition by Deepgram, live over a WebSocket: Nova models (`/v1/listen`) and Flux, which tells turns (`/v2/listen`).
//!
//! Takes the vendor's G.711 as it is. Source: Deepgram's AsyncAPI description of July 2026, and `reference` in its documentation.

pub mod double;
mod flux;
mod nova;

use super::{
    Descriptor, Engine, Stt, SttError,
    live::{self, Dialect, Patience},
};
use crate::{
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    net::dial::Dialer,
    speech::{
        EarSpec, Hearing,
        link::{Service, with_query},
    },
};
use futures_util::{FutureExt as _, future::LocalBoxFuture};
use http::header;
use std::{fmt, rc::Rc, sync::Arc, time::Duration};

/// This backend.
pub static DESCRIPTOR: Descriptor = Descriptor {
    name: "deepgram",
    read: |section| Arc::new(Deepgram(Arc::new(Config::read(section)))),
    double: Some(|key| Arc::new(double::Listen::new(key))),
};

/// Without audio for this long a session is kept alive: the service ends it after ten seconds.
const KEEP_ALIVE: Duration = Duration::from_secs(4);

/// Phrases that are told to the service as terms to expect.
const TERMS: usize = 50;

/// `[speech.stt.deepgram]`.
#[derive(Clone, Debug)]
struct Config {
    service: Service,
    /// `nova-3`, `nova-2-phonecall`…, or `flux-general-en`.
    model: String,
    /// Version of the model; empty is the latest.
    version: String,
    /// Silence after which an utterance counts as over.
    endpointing: Duration,
    /// Time without words after which it does too (Nova).
    utterance_end: Duration,
    /// Whether numbers, dates and the like are written as people write them.
    smart_format: bool,
    /// Whether Deepgram is asked not to learn from the audio.
    mip_opt_out: bool,
    /// How long it may take to say something about speech.
    answer: Duration,
}

impl Config {
    fn read(section: &Section<'_>) -> Self {
        let (ms, s) = (Duration::from_millis, Duration::from_secs);
        Self {
            service: Service::read(section, "Deepgram", "https://api.deepgram.com"),
            model: section.text("model", "nova-3"),
            version: section.text("version", ""),
            endpointing: section.duration("endpointing", ms(300), ms(10)..=s(5)),
            utterance_end: section.duration("utterance_end", ms(1000), s(1)..=s(5)),
            smart_format: section.bool("smart_format", false),
            mip_opt_out: section.bool("mip_opt_out", false),
            answer: section.duration("answer", s(8), Duration::ZERO..=s(60)),
        }
    }

    fn is_flux(&self) -> bool {
        self.model.starts_with("flux")
    }

    fn dialect(&self, format: AudioFormat) -> Box<dyn Dialect> {
        match self.is_flux() {
            true => Box::new(flux::Turns::new(format)),
            false => Box::new(nova::Slices::default()),
        }
    }

    /// Where a session is asked for.
    fn path(&self, spec: &EarSpec, encoding: Encoding, rate: u32) -> String {
        let encoding = match encoding {
            Encoding::Ulaw => "mulaw",
            Encoding::Alaw => "alaw",
            _ => "linear16",
        };
        let mut query = vec![
            ("model", self.model.clone()),
            ("encoding", encoding.to_owned()),
            ("sample_rate", rate.to_string()),
        ];
        let language = spec.language.as_str();
        let any = matches!(language, "" | "auto");
        if self.is_flux() {
            if self.model.ends_with("-multi") && !any {
                let primary = language.split(['-', '_']).next().unwrap_or_default();
                query.push(("language_hint", primary.to_owned()));
            }
        } else {
            let language = if any { "multi" } else { language };
            query.extend([
                ("channels", "1".to_owned()),
                ("language", language.to_owned()),
                ("interim_results", "true".to_owned()),
                ("punctuate", "true".to_owned()),
                ("vad_events", "true".to_owned()),
                ("endpointing", self.endpointing.as_millis().to_string()),
                ("utterance_end_ms", self.utterance_end.as_millis().to_string()),
                ("smart_format", self.smart_format.to_string()),
            ]);
            if !self.version.is_empty() {
                query.push(("version", self.version.clone()));
            }
        }
        if self.mip_opt_out {
            query.push(("mip_opt_out", "true".to_owned()));
        }
        if self.is_flux() || self.model.starts_with("nova-3") {
            let terms = spec.phrases.iter().filter(|p| p.split_whitespace().count() <= 8);
            query.extend(terms.take(TERMS).map(|p| ("keyterm", p.clone())));
        }
        with_query(if self.is_flux() { "/v2/listen" } else { "/v1/listen" }, &query)
    }
}

/// The configured engine.
struct Deepgram(Arc<Config>);

impl fmt::Debug for Deepgram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Engine for Deepgram {
    fn lacks(&self) -> Option<String> {
        self.0.service.lacks_key("DEEPGRAM_API_KEY")
    }

    fn with_key(&self, key: &Secret) -> Option<Arc<dyn Engine>> {
        let service = self.0.service.with_key(key);
        Some(Arc::new(Deepgram(Arc::new(Config {
            service,
            ..(*self.0).clone()
        }))))
    }

    fn open(&self) -> Rc<dyn Stt> {
        Rc::new(Lane {
            config: Arc::clone(&self.0),
            dialer: Dialer::default(),
        })
    }
}

/// The engine on a lane.
struct Lane {
    config: Arc<Config>,
    dialer: Dialer,
}

impl Stt for Lane {
    fn rate(&self, ring: u32) -> u32 {
        ring
    }

    fn takes(&self, encoding: Encoding) -> bool {
        matches!(encoding, Encoding::Ulaw | Encoding::Alaw)
    }

    fn listen<'a>(&'a self, spec: &'a EarSpec, hearing: &'a mut Hearing) -> LocalBoxFuture<'a, Result<(), SttError>> {
        async move {
            let config = &*self.config;
            let format = hearing.format();
            let headers = config.service.credential(header::AUTHORIZATION, "Token ")?;
            let patience = Patience {
                keep_alive: KEEP_ALIVE,
                answer: config.answer,
            };
            let mut dialect = config.dialect(format);
            let path = config.path(spec, format.encoding, format.rate);
            let (service, dialer) = (&config.service, &self.dialer);
            live::session(service, dialer, &path, headers, patience, &mut *dialect, hearing).await
        }
        .boxed_local()
    }

    fn warm(&self, spec: &EarSpec, format: AudioFormat) {
        let config = &*self.config;
        let headers = config.service.credential(header::AUTHORIZATION, "Token ");
        let path = config.path(spec, format.encoding, format.rate);
        let keep_alive = config.dialect(format).keep_alive();
        live::open_ahead(&config.service, &self.dialer, path, headers, KEEP_ALIVE, keep_alive);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::settings::{Faults, Table};

    fn config(model: &str) -> Config {
        let (table, faults) = (Table::new(), Faults::default());
        let config = Config::read(&Section::root(&table, &faults));
        Config {
            model: model.to_owned(),
            ..config
        }
    }

    #[test]
    fn a_session_is_asked_for_in_the_models_own_words() {
        let spec = EarSpec {
            language: "auto".to_owned(),
            phrases: vec!["opening hours?".to_owned()],
            ..EarSpec::default()
        };
        let nova = config("nova-3").path(&spec, Encoding::Ulaw, 8000);
        assert!(
            nova.starts_with("/v1/listen?model=nova-3&encoding=mulaw&sample_rate=8000&"),
            "{nova}"
        );
        assert!(
            nova.contains("&language=multi&") && nova.ends_with("&keyterm=opening%20hours%3F"),
            "{nova}"
        );
        let older = config("nova-2").path(&spec, Encoding::L16Le, 16_000);
        assert!(
            older.contains("encoding=linear16&sample_rate=16000") && !older.contains("keyterm"),
            "{older}"
        );
        let flux = config("flux-general-en").path(&spec, Encoding::Alaw, 8000);
        assert!(
            flux.starts_with("/v2/listen?model=flux-general-en&encoding=alaw"),
            "{flux}"
        );
        assert!(!flux.contains("interim") && !flux.contains("language"), "{flux}");
        let german = EarSpec {
            language: "de-DE".to_owned(),
            ..EarSpec::default()
        };
        assert!(
            config("nova-3")
                .path(&german, Encoding::Ulaw, 8000)
                .contains("&language=de-DE&")
        );
        assert!(
            config("flux-general-multi")
                .path(&german, Encoding::Ulaw, 8000)
                .contains("language_hint=de")
        );
    }
}
