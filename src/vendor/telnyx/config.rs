//! The `[telnyx]` section: the account, how to reach its API, what its webhooks are signed with, and what its streams carry.

use crate::{
    base::{
        fault::{Fault, Kind},
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::Section,
    },
    wire::sign::PublicKey,
};
use http::Uri;
use std::time::Duration;

/// Telnyx's account as configured. Without a `public_key` no webhook is believed; without `api_key` no call can be
/// answered, and without `application_id` none placed.
#[derive(Clone, Debug)]
pub struct Config {
    /// `api_key`: the API v2 key, `KEY…`.
    pub api_key: Option<Secret>,
    /// `application_id`: the Voice API application (`connection_id` of a placed call).
    pub application_id: Option<String>,
    /// `public_key`: the account's Ed25519 keys, parted by commas: base64 of 32 bytes each, or PEM.
    pub public_keys: Vec<PublicKey>,
    /// `base_url`: where the REST API is. Default `https://api.telnyx.com/v2`.
    pub base_url: String,
    /// `api_timeout`: how long to wait for a REST reply. Default `5s`; a command is sent again with the same id.
    pub api_timeout: Duration,
    /// `stream_url`: where Telnyx reaches our media sockets, as a host or `wss://` URL. Default `calls.public_url`.
    pub stream_url: Option<String>,
    /// `stream_track`: whose audio Telnyx sends. Default `inbound_track`: only the far party is listened to.
    pub track: Track,
    /// `stream_codec`: in what Telnyx sends audio; `default` is the codec of the call. Default `PCMU`.
    pub inbound: Codec,
    /// `stream_bidirectional_codec`: in what we send audio. Default `PCMU`.
    pub bidirectional: Codec,
    /// `stream_bidirectional_sampling_rate`: samples a second that we send in `L16`, and in `OPUS`, of which Telnyx
    /// takes 8000 and 16000. Default 16000.
    pub rate: u32,
    /// `l16_byte_order`: how `L16` is written: `little`, `big`, or `auto`, found from the caller's audio. Default `auto`.
    pub l16_byte_order: ByteOrder,
    /// `noise_suppression`: both directions, from the answer to the end. Default `true`.
    pub noise_suppression: bool,
    /// `insecure`: believe webhooks without a signature. Default `false`; only behind a gateway that has checked it.
    pub insecure: bool,
}

/// Whose audio a stream carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Track {
    /// The far party's.
    Inbound,
    /// Ours.
    Outbound,
    /// Both, each in messages of its own.
    Both,
}

impl Track {
    const WORDS: [(&str, Self); 3] = [
        ("inbound_track", Self::Inbound),
        ("outbound_track", Self::Outbound),
        ("both_tracks", Self::Both),
    ];

    /// The word in the API.
    pub(super) fn word(self) -> &'static str {
        word(&Self::WORDS, self)
    }
}

/// A codec by its name in the API.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Codec {
    /// G.711 μ-law, 8 kHz.
    Pcmu,
    /// G.711 A-law, 8 kHz.
    Pcma,
    /// G.722, 16 kHz (8000 by name, after RTP's clock).
    G722,
    /// Opus (RFC 6716).
    Opus,
    /// 16-bit linear PCM.
    L16,
    /// The codec of the call.
    Default,
}

impl Codec {
    const INBOUND: [(&str, Self); 6] = [
        ("PCMU", Self::Pcmu),
        ("PCMA", Self::Pcma),
        ("G722", Self::G722),
        ("OPUS", Self::Opus),
        ("L16", Self::L16),
        ("default", Self::Default),
    ];
    const OUTBOUND: [(&str, Self); 5] = [
        ("PCMU", Self::Pcmu),
        ("PCMA", Self::Pcma),
        ("G722", Self::G722),
        ("OPUS", Self::Opus),
        ("L16", Self::L16),
    ];

    /// The word in the API.
    pub(super) fn word(self) -> &'static str {
        word(&Self::INBOUND, self)
    }

    /// Rates that it comes in, as the API has them.
    const fn rates(self) -> &'static [u32] {
        match self {
            Self::Pcmu | Self::Pcma | Self::G722 => &[8000],
            Self::Opus => &[8000, 16_000],
            Self::L16 | Self::Default => &AudioFormat::RATES,
        }
    }

    /// The same in words.
    fn of_rates(self) -> String {
        let rates: Vec<_> = self.rates().iter().map(u32::to_string).collect();
        format!("{} with {}", rates.join(", "), self.word())
    }
}

/// How 16-bit samples are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByteOrder {
    /// As the caller's audio is.
    Auto,
    /// Little-endian.
    Little,
    /// Big-endian, as RFC 3551 has it.
    Big,
}

impl ByteOrder {
    const WORDS: [(&str, Self); 3] = [("auto", Self::Auto), ("little", Self::Little), ("big", Self::Big)];

    /// The encoding, where it is settled.
    pub(super) const fn encoding(self) -> Option<Encoding> {
        match self {
            Self::Auto => None,
            Self::Little => Some(Encoding::L16Le),
            Self::Big => Some(Encoding::L16Be),
        }
    }
}

fn word<T: Copy + PartialEq>(words: &[(&'static str, T)], of: T) -> &'static str {
    words.iter().find(|(_, t)| *t == of).map_or("", |(w, _)| w)
}

fn choose<T: Copy>(name: &str, word: &str, words: &[(&str, T)]) -> Result<T, Fault> {
    let found = words.iter().find(|(known, _)| *known == word).map(|(_, t)| *t);
    found.ok_or_else(|| {
        let known: Vec<_> = words.iter().map(|(w, _)| *w).collect();
        Fault::client(Kind::Invalid, format!("{name} is one of {}", known.join(", ")))
    })
}

const PUBLIC_API: &str = "https://api.telnyx.com/v2";

impl Config {
    /// Reads and checks the section.
    pub fn read(s: &Section<'_>) -> Self {
        let seconds = |n| Duration::from_secs(n);
        let config = Self {
            api_key: s.secret("api_key"),
            application_id: s.text_opt("application_id").filter(|t| !t.is_empty()),
            public_keys: public_keys(s),
            base_url: base_url(s),
            api_timeout: s.duration("api_timeout", seconds(5), seconds(1)..=seconds(60)),
            stream_url: stream_url(s),
            track: s.choice("stream_track", Track::Inbound, &Track::WORDS),
            inbound: s.choice("stream_codec", Codec::Pcmu, &Codec::INBOUND),
            bidirectional: s.choice("stream_bidirectional_codec", Codec::Pcmu, &Codec::OUTBOUND),
            rate: s.int("stream_bidirectional_sampling_rate", 16_000, 8000..=48_000),
            l16_byte_order: s.choice("l16_byte_order", ByteOrder::Auto, &ByteOrder::WORDS),
            noise_suppression: s.bool("noise_suppression", true),
            insecure: s.bool("insecure", false),
        };
        if !AudioFormat::RATES.contains(&config.rate) {
            s.fault(
                "stream_bidirectional_sampling_rate",
                format!("{} is not a rate sidetone sends", config.rate),
                "8000, 16000, 24000 or 48000",
            );
        } else if config.bidirectional == Codec::Opus && config.rate > 16_000 {
            s.fault(
                "stream_bidirectional_sampling_rate",
                format!("{} is not a rate that Telnyx takes Opus at", config.rate),
                "8000 or 16000",
            );
        }
        if config.application_id.is_some() && config.api_key.is_none() {
            s.fault(
                "api_key",
                "missing beside application_id",
                "copy it from Keys & Credentials in the portal",
            );
        }
        config
    }

    /// The same for one call whose stream is wished to be otherwise. Two spellings of a rate are known: the API's, and the
    /// one of older guides. The rate of what arrives is Telnyx's to tell, so one that is wished need only make sense.
    pub(super) fn wished(mut self, wishes: &[(&'static str, String)]) -> Result<Self, Fault> {
        let refused = |name: &str, may: &str| Fault::client(Kind::Invalid, format!("{name} is {may}"));
        let mut arriving = None;
        for (name, value) in wishes {
            let number = || value.parse().map_err(|_| refused(name, "a rate in Hz"));
            match *name {
                "stream_track" => self.track = choose(name, value, &Track::WORDS)?,
                "stream_codec" => self.inbound = choose(name, value, &Codec::INBOUND)?,
                "stream_sample_rate" => arriving = Some(number()?),
                "stream_bidirectional_mode" if value != "rtp" => {
                    return Err(refused(name, "rtp: files are no live audio"));
                }
                "stream_bidirectional_mode" => {}
                "stream_bidirectional_codec" => self.bidirectional = choose(name, value, &Codec::OUTBOUND)?,
                "stream_bidirectional_sample_rate" | "stream_bidirectional_sampling_rate" => self.rate = number()?,
                _ => return Err(refused(name, "no option of a stream")),
            }
        }
        if arriving.is_some_and(|rate| !self.inbound.rates().contains(&rate)) {
            return Err(refused("stream_sample_rate", &self.inbound.of_rates()));
        }
        let wished = |name: &str| wishes.iter().any(|(n, _)| *n == name);
        let rates = self.bidirectional.rates();
        if !rates.contains(&self.rate) {
            if wished("stream_bidirectional_sample_rate") || wished("stream_bidirectional_sampling_rate") {
                return Err(refused(
                    "stream_bidirectional_sampling_rate",
                    &self.bidirectional.of_rates(),
                ));
            }
            // The account's rate is that of another codec.
            self.rate = rates.last().copied().unwrap_or(8000);
        }
        Ok(self)
    }

    /// The key for REST, if one is configured.
    pub(super) const fn credentials(&self) -> Option<&Secret> {
        self.api_key.as_ref()
    }

    /// Format of the audio that we send.
    pub(super) fn outbound(&self) -> AudioFormat {
        let (encoding, rate) = match self.bidirectional {
            Codec::Pcma => (Encoding::Alaw, 8000),
            Codec::G722 => (Encoding::G722, 16_000),
            Codec::L16 => (self.l16_byte_order.encoding().unwrap_or(Encoding::L16), self.rate),
            Codec::Opus => (Encoding::Opus, self.rate),
            Codec::Pcmu | Codec::Default => (Encoding::Ulaw, 8000),
        };
        AudioFormat { encoding, rate }
    }

    /// The rate as the API has it: that of RTP's clock, which for G.722 is half the samples'.
    pub(super) fn bidirectional_rate(&self) -> u32 {
        match self.bidirectional {
            Codec::L16 | Codec::Opus => self.rate,
            _ => 8000,
        }
    }

    /// Whether the rate must be told. `answer` has no word for it, so the stream is then asked for afterwards.
    pub(super) fn needs_rate(&self) -> bool {
        self.bidirectional_rate() != 8000
    }
}

fn public_keys(s: &Section<'_>) -> Vec<PublicKey> {
    let text = s.text_opt("public_key").unwrap_or_default();
    let texts = text.split(',').map(str::trim).filter(|t| !t.is_empty());
    let keys = texts.filter_map(|text| {
        let key = PublicKey::parse(text);
        if key.is_none() {
            s.fault(
                "public_key",
                "is no Ed25519 key",
                "base64 of 32 bytes, from Keys & Credentials, Public Key, in the portal",
            );
        }
        key
    });
    keys.collect()
}

fn is_base(url: &str, schemes: [&str; 2]) -> bool {
    url.parse::<Uri>().is_ok_and(|u| {
        u.scheme_str().is_some_and(|s| schemes.contains(&s))
            && u.host().is_some_and(|h| !h.is_empty())
            && u.authority().is_some_and(|a| !a.as_str().contains('@'))
            && u.query().is_none()
    }) && !url.contains('#')
}

fn base_url(s: &Section<'_>) -> String {
    let url = s.text("base_url", PUBLIC_API);
    if !is_base(&url, ["http", "https"]) {
        s.fault(
            "base_url",
            format!("{url:?} is not a base URL"),
            "http:// or https://, a host, no user, no query",
        );
    }
    url.trim_end_matches('/').to_owned()
}

fn stream_url(s: &Section<'_>) -> Option<String> {
    let text = s.text_opt("stream_url").filter(|t| !t.is_empty())?;
    let url = if text.contains("://") {
        text
    } else {
        format!("wss://{text}")
    };
    if !is_base(&url, ["ws", "wss"]) {
        s.fault(
            "stream_url",
            format!("{url:?} is not a host"),
            "relay.example.com or wss://relay.example.com",
        );
    }
    Some(url.trim_end_matches('/').to_owned())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::base::settings::{Faults, Item, Place, Table, Value};

    pub(in crate::vendor::telnyx) fn read(pairs: &[(&str, &str)]) -> (Config, Vec<String>) {
        let item = |v: &str| Item {
            value: Value::String(v.to_owned()),
            place: Place::Line(1),
        };
        let table: Table = pairs.iter().map(|(k, v)| ((*k).to_owned(), item(v))).collect();
        let faults = Faults::default();
        let s = Section::root(&table, &faults);
        let config = Config::read(&s);
        s.finish();
        (config, faults.take().iter().map(ToString::to_string).collect())
    }

    const KEY: &str = "A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=";

    #[test]
    fn an_empty_section_is_an_account_that_can_do_nothing() {
        let (config, faults) = read(&[]);
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.base_url, "https://api.telnyx.com/v2");
        assert!(config.credentials().is_none() && config.public_keys.is_empty());
        assert_eq!(config.outbound(), AudioFormat::ULAW_8K);
        assert!(!config.needs_rate());
    }

    #[test]
    fn several_public_keys_are_taken_during_a_rotation() {
        let (config, faults) = read(&[("public_key", &format!("{KEY}, {KEY}"))]);
        assert_eq!((config.public_keys.len(), faults.len()), (2, 0));
    }

    #[test]
    fn the_codec_settles_format_and_rate() {
        for (codec, order, encoding, rate, told) in [
            ("PCMA", "auto", Encoding::Alaw, 8000, 8000),
            ("G722", "auto", Encoding::G722, 16_000, 8000),
            ("L16", "auto", Encoding::L16, 16_000, 16_000),
            ("L16", "big", Encoding::L16Be, 16_000, 16_000),
            ("L16", "little", Encoding::L16Le, 16_000, 16_000),
            ("OPUS", "auto", Encoding::Opus, 16_000, 16_000),
        ] {
            let (config, faults) = read(&[("stream_bidirectional_codec", codec), ("l16_byte_order", order)]);
            assert_eq!(faults, [""; 0]);
            assert_eq!(config.outbound(), AudioFormat { encoding, rate }, "{codec} {order}");
            assert_eq!((config.bidirectional_rate(), config.needs_rate()), (told, told != 8000));
        }
    }

    #[test]
    fn a_call_may_have_its_own_stream_and_what_it_cannot_have_is_said() {
        let wished = |wishes: &[(&'static str, &str)]| {
            let wishes: Vec<_> = wishes.iter().map(|(n, v)| (*n, (*v).to_owned())).collect();
            read(&[]).0.wished(&wishes)
        };
        let guide = wished(&[
            ("stream_track", "both_tracks"),
            ("stream_codec", "PCMU"),
            ("stream_sample_rate", "8000"),
            ("stream_bidirectional_mode", "rtp"),
            ("stream_bidirectional_codec", "PCMU"),
            ("stream_bidirectional_sample_rate", "8000"),
        ])
        .unwrap();
        assert_eq!((guide.track, guide.outbound()), (Track::Both, AudioFormat::ULAW_8K));
        let wide = wished(&[
            ("stream_bidirectional_codec", "L16"),
            ("stream_bidirectional_sampling_rate", "24000"),
        ]);
        let wide = wide.unwrap();
        assert_eq!((wide.outbound().rate, wide.needs_rate()), (24_000, true));
        let opus = wished(&[("stream_bidirectional_codec", "OPUS")]).unwrap();
        assert_eq!(opus.bidirectional_rate(), 16_000);
        for (bad, why) in [
            (
                &[("stream_track", "inbound")][..],
                "stream_track is one of inbound_track, outbound_track, both_tracks",
            ),
            (&[("stream_codec", "pcmu")], "stream_codec is one of PCMU"),
            (
                &[("stream_sample_rate", "16000")],
                "stream_sample_rate is 8000 with PCMU",
            ),
            (&[("stream_sample_rate", "-8000")], "stream_sample_rate is a rate in Hz"),
            (
                &[("stream_bidirectional_mode", "mp3")],
                "stream_bidirectional_mode is rtp",
            ),
            (&[("stream_bidirectional_sample_rate", "16000")], "8000 with PCMU"),
            (
                &[
                    ("stream_bidirectional_codec", "OPUS"),
                    ("stream_bidirectional_sampling_rate", "48000"),
                ],
                "8000, 16000 with OPUS",
            ),
            (&[("stream_url", "wss://x")], "stream_url is no option"),
        ] {
            let fault = wished(bad).unwrap_err();
            assert_eq!(fault.kind, Kind::Invalid);
            assert!(fault.message.contains(why), "{fault}");
        }
    }

    #[test]
    fn what_cannot_work_is_a_fault() {
        for bad in [
            &[("public_key", "A6EHv")][..],
            &[("application_id", "7267")],
            &[("base_url", "ftp://h")],
            &[("base_url", "https://u:p@h")],
            &[("stream_url", "https://h")],
            &[("stream_url", "h/?x=1")],
            &[("stream_codec", "pcmu")],
            &[
                ("stream_bidirectional_codec", "OPUS"),
                ("stream_bidirectional_sampling_rate", "48000"),
            ],
            &[("l16_byte_order", "middle")],
        ] {
            assert_eq!(read(bad).1.len(), 1, "{bad:?} {:?}", read(bad).1);
        }
        let (config, faults) = read(&[
            ("stream_url", "stream.example.com"),
            ("base_url", "http://127.0.0.1:9/v2/"),
        ]);
        assert_eq!(faults, [""; 0]);
        assert_eq!(config.stream_url.as_deref(), Some("wss://stream.example.com"));
        assert_eq!(config.base_url, "http://127.0.0.1:9/v2");
    }
}
