//! The `[exotel]` section: the account, where its API is, how its requests are told from anybody's, and how calls are answered.

use crate::{
    base::{secret::Secret, settings::Section},
    vendor::{account::endpoint, gate::Gate},
};
use std::time::Duration;

/// An account at Exotel as configured. Without a secret or credentials for webhooks none is believed; without `sid`, `api_key`
/// and `api_token` no call can be placed.
#[derive(Clone, Debug)]
pub struct Config {
    /// `api_key`: user of the REST API.
    pub(super) api_key: Option<String>,
    /// `api_token`: its password.
    pub(super) api_token: Option<Secret>,
    /// `sid`: the account. A stream that names another one is refused.
    pub(super) sid: Option<String>,
    /// `base_url`: where the REST API is, without a trailing slash: that of `domain`, else of `region`
    /// (`in`, the default: Mumbai; `sg`, `us`, `ae`: Singapore), unless written.
    pub(super) base_url: String,
    /// `api_timeout`: how long to wait for a REST reply. Default `10s`.
    pub(super) api_timeout: Duration,
    /// `sample_rate`: asked for in the URL of the media socket: 8000 (default), 16000 or 24000 Hz.
    pub(super) sample_rate: u32,
    /// `say`: said by Exotel before the stream is connected, where it is answered in XML; empty for nothing.
    pub(super) say: String,
    /// What webhooks must bring.
    pub(super) gate: Gate,
}

impl Config {
    /// Reads and checks the section.
    pub fn read(s: &Section<'_>) -> Self {
        let text = |key: &str| s.text_opt(key).filter(|t| !t.is_empty());
        // A part of the vendor's own settings; calls are answered by our media socket and not by one of its apps.
        let _app_id = text("app_id");
        let config = Self {
            api_key: text("api_key"),
            api_token: s.secret("api_token"),
            sid: text("sid"),
            base_url: base_url(s),
            api_timeout: s.duration(
                "api_timeout",
                Duration::from_secs(10),
                Duration::from_secs(1)..=Duration::from_secs(60),
            ),
            sample_rate: rate(s),
            say: s.text("say", "Hello! Please wait..."),
            gate: Gate::read(s),
        };
        let parts = [
            config.api_key.is_some(),
            config.api_token.is_some(),
            config.sid.is_some(),
        ];
        if parts[0] != parts[1] || (parts[0] && !parts[2]) {
            s.fault(
                "api_key",
                "is of use only with api_token and sid",
                "copy all three from the API settings of the account",
            );
        }
        config
    }

    /// Account, user and password for REST, if they are configured.
    pub(super) fn credentials(&self) -> Option<(&str, &str, &Secret)> {
        Some((self.sid.as_deref()?, self.api_key.as_deref()?, self.api_token.as_ref()?))
    }
}

fn rate(s: &Section<'_>) -> u32 {
    let rate = s.int("sample_rate", 8000, 8000..=24000);
    if ![8000, 16000, 24000].contains(&rate) {
        s.fault("sample_rate", format!("{rate} is not offered"), "8000, 16000 or 24000");
    }
    rate
}

fn base_url(s: &Section<'_>) -> String {
    const SINGAPORE: &str = "api.exotel.com";
    const MUMBAI: &str = "api.in.exotel.com";
    let region = s.choice(
        "region",
        MUMBAI,
        // Only two hosts are known; the other regions are served from Singapore.
        &[("in", MUMBAI), ("sg", SINGAPORE), ("us", SINGAPORE), ("ae", SINGAPORE)],
    );
    let domain = s.text_opt("domain").filter(|d| !d.is_empty());
    if let Some(domain) = &domain
        && !domain.bytes().all(|b| b.is_ascii_alphanumeric() || b"-.:".contains(&b))
    {
        s.fault(
            "domain",
            format!("{domain:?} is not a host"),
            "such as api.in.exotel.com",
        );
    }
    endpoint(
        s,
        "base_url",
        &format!("https://{}", domain.as_deref().unwrap_or(region)),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vendor::account::tests::configured;

    #[test]
    fn the_region_chooses_a_host_and_a_domain_or_url_goes_over_it() {
        let base = |pairs: &[(&str, &str)]| {
            let (config, faults) = configured(pairs, Config::read);
            assert_eq!(faults, [""; 0]);
            config.base_url
        };
        assert_eq!(base(&[]), "https://api.in.exotel.com");
        for region in ["sg", "us", "ae"] {
            assert_eq!(base(&[("region", region)]), "https://api.exotel.com");
        }
        assert_eq!(
            base(&[("region", "sg"), ("domain", "api.x.example")]),
            "https://api.x.example"
        );
        assert_eq!(base(&[("base_url", "http://127.0.0.1:9/")]), "http://127.0.0.1:9");
    }

    #[test]
    fn faults_are_told_by_key() {
        for bad in [
            &[("region", "mars")][..],
            &[("domain", "api exotel")],
            &[("base_url", "ftp://x")],
            &[("sample_rate", "11025")],
            &[("api_key", "k")],
            &[("api_key", "k"), ("api_token", "t")],
            &[("webhook_user", "u")],
            &[("colour", "red")],
        ] {
            let (_, faults) = configured(bad, Config::read);
            assert_eq!(faults.len(), 1, "{bad:?} {faults:?}");
        }
    }
}
