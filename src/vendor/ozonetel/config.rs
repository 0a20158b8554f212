//! The `[ozonetel]` section: the key of the API, what the call flow holds, how its requests are told from anybody's.

use crate::{
    base::{secret::Secret, settings::Section},
    vendor::{account::endpoint, gate::Gate},
};
use std::time::Duration;

/// An account at Ozonetel as configured. Without a secret or credentials for webhooks none is believed; without `api_key` no
/// call can be placed.
#[derive(Clone, Debug)]
pub struct Config {
    /// `api_key`: key of the outbound API.
    pub(super) api_key: Option<Secret>,
    /// `base_url`: where that API is, without a trailing slash. Default `https://in1-cpaas.ozonetel.com`.
    pub(super) base_url: String,
    /// `api_timeout`: how long to wait for a REST reply. Default `10s`.
    pub(super) api_timeout: Duration,
    /// `sip_number`: the SIP registration number that Ozonetel gave for `<stream>`; empty writes none.
    pub(super) sip_number: String,
    /// `frame_ms`: audio in each of our messages: 10 (default), 20 or 100 ms.
    pub(super) frame_ms: u32,
    /// What webhooks must bring.
    pub(super) gate: Gate,
}

impl Config {
    /// Reads and checks the section.
    pub fn read(s: &Section<'_>) -> Self {
        let sip_number = s.text("sip_number", "");
        if !sip_number.bytes().all(|b| b.is_ascii_alphanumeric()) {
            s.fault("sip_number", "is not a number", "digits, as Ozonetel gave them");
        }
        let frame_ms: u32 = s.int("frame_ms", 10, 10..=100);
        if !frame_ms.is_multiple_of(10) {
            s.fault(
                "frame_ms",
                format!("{frame_ms} is not a multiple of 10"),
                "10, 20 or 100",
            );
        }
        Self {
            api_key: s.secret("api_key"),
            base_url: endpoint(s, "base_url", "https://in1-cpaas.ozonetel.com"),
            api_timeout: s.duration(
                "api_timeout",
                Duration::from_secs(10),
                Duration::from_secs(1)..=Duration::from_secs(60),
            ),
            sip_number,
            frame_ms,
            gate: Gate::read(s),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::account::tests::configured;

    #[test]
    fn the_section_is_read_and_faults_are_told_by_key() {
        let keys = [
            ("api_key", "k"),
            ("sip_number", "524431"),
            ("frame_ms", "20"),
            ("webhook_secret", "w"),
        ];
        let (config, faults) = configured(&keys, Config::read);
        assert_eq!(faults, [""; 0]);
        assert_eq!((&*config.sip_number, config.frame_ms), ("524431", 20));
        for bad in [
            ("sip_number", "<x>"),
            ("frame_ms", "5"),
            ("frame_ms", "15"),
            ("base_url", "x"),
            ("api_kee", "k"),
        ] {
            assert_eq!(configured(&[bad], Config::read).1.len(), 1, "{bad:?}");
        }
    }
}
