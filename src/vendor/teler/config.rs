//! The `[teler]` section: the API key, the webhooks' signing secret, and what a call flow asks for.

use crate::{
    base::{secret::Secret, settings::Section},
    vendor::{account::endpoint, gate::Gate},
};
use std::time::Duration;

/// An account at Teler as configured. Without a secret or credentials for webhooks no flow is served; without `api_key` no call
/// can be placed.
#[derive(Clone, Debug)]
pub struct Config {
    /// `api_key`: sent as `x-api-key`. `access_token` is another name for it.
    pub(super) api_key: Option<Secret>,
    /// `signing_secret`: the secret attached to the voice app, with which it signs webhooks.
    pub(super) signing_secret: Option<Secret>,
    /// `base_url`: where the REST API is, without a trailing slash. Default `https://api.frejun.ai/api/v1`.
    pub(super) base_url: String,
    /// `api_timeout`: how long to wait for a REST reply. Default `10s`.
    pub(super) api_timeout: Duration,
    /// `chunk_size`: audio in each message from Teler: 20 to 2000 ms in steps of 20. Default 500, which existing set-ups
    /// expect; less hears the caller sooner.
    pub(super) chunk_ms: u32,
    /// `sample_rate`: of the audio from Teler: 8000 (default) or 16000 Hz. Playback is always at 8000.
    pub(super) sample_rate: u32,
    /// `playback_chunk`: audio in each of our messages: 20 to 2000 ms in steps of 20. Default 500, as Teler recommends.
    pub(super) playback_ms: u32,
    /// `record`: whether Teler records. Default `true`, as its own tools have it.
    pub(super) record: bool,
    /// What requests that are not signed must bring.
    pub(super) gate: Gate,
}

impl Config {
    /// Reads and checks the section.
    pub fn read(s: &Section<'_>) -> Self {
        let chunk = |key: &str| {
            let ms: u32 = s.int(key, 500, 20..=2000);
            if !ms.is_multiple_of(20) {
                s.fault(
                    key,
                    format!("{ms} is not a multiple of 20"),
                    "milliseconds in steps of 20",
                );
            }
            ms
        };
        let (key, token) = (s.secret("api_key"), s.secret("access_token"));
        if key.is_some() && token.is_some() && key != token {
            s.fault("access_token", "contradicts api_key", "they are two names of one key");
        }
        Self {
            api_key: key.or(token),
            signing_secret: s.secret("signing_secret"),
            base_url: endpoint(s, "base_url", "https://api.frejun.ai/api/v1"),
            api_timeout: s.duration(
                "api_timeout",
                Duration::from_secs(10),
                Duration::from_secs(1)..=Duration::from_secs(60),
            ),
            chunk_ms: chunk("chunk_size"),
            sample_rate: rate(s),
            playback_ms: chunk("playback_chunk"),
            record: s.bool("record", true),
            gate: Gate::read(s),
        }
    }
}

fn rate(s: &Section<'_>) -> u32 {
    let rate = s.int("sample_rate", 8000, 8000..=16000);
    if rate != 8000 && rate != 16000 {
        s.fault("sample_rate", format!("{rate} is not offered"), "8000 or 16000");
    }
    rate
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::account::tests::configured;

    #[test]
    fn the_section_is_read_and_faults_are_told_by_key() {
        let keys = [("access_token", "k"), ("chunk_size", "40"), ("sample_rate", "16000")];
        let (config, faults) = configured(&keys, Config::read);
        assert_eq!(faults, [""; 0]);
        assert!(config.api_key.is_some_and(|k| k.matches("k")));
        assert_eq!(
            (config.chunk_ms, config.playback_ms, config.sample_rate),
            (40, 500, 16000)
        );
        for bad in [
            &[("chunk_size", "30")][..],
            &[("playback_chunk", "4000")],
            &[("sample_rate", "11025")],
            &[("base_url", "x")],
            &[("api_key", "a"), ("access_token", "b")],
        ] {
            assert_eq!(configured(bad, Config::read).1.len(), 1, "{bad:?}");
        }
    }
}
