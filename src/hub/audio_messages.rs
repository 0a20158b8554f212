//! The messages of `/frontend-audio` and how audio is written in them. Pure.
//!
//! `{"event":"connected","config":{…}}`, then for each stream `start`, `media`, `stop`, each with its `stream_id`. A client's
//! format is that of both sides of every call, or, for `native`, whatever the call's vendor writes.

use crate::{
    audio::{codec, opus, resample::Resampler},
    base::{
        fault::{Fault, Kind},
        format::{AudioFormat, Encoding},
    },
    record::Side,
    wire::{base64, form::Form},
};
use schemars::JsonSchema;
use serde::{Serialize, Serializer};

/// How a client wants audio.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Wanted {
    /// In this format.
    Format(AudioFormat),
    /// In the vendor's.
    Native,
}

/// What a client of `/frontend-audio` wants to hear, from its query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AudioSettings {
    /// One call by either id; the whole tenant when `None`.
    pub call_id: Option<String>,
    /// Whether it hears the caller.
    pub inbound: bool,
    /// Whether it hears what the caller is sent.
    pub outbound: bool,
    /// How.
    pub wanted: Wanted,
}

impl AudioSettings {
    /// What the query of the upgrade request may hold, beside `token`.
    pub const QUERY: &'static [(&'static str, &'static str)] = &[
        (
            "call_id",
            "The one call to hear, by either id; without one, every call of the tenant.",
        ),
        (
            "track",
            "`inbound` (the caller; the default), `outbound` (what the caller is sent) or `both`.",
        ),
        (
            "format",
            "PCMU (the default), PCMA, L16 (little-endian) or `native`: whatever the vendor writes.",
        ),
        (
            "sample_rate",
            "8000 (the default), 16000, 24000 or 48000; not with `native`.",
        ),
    ];

    /// Reads the query of the upgrade request. An empty value is no value.
    pub fn from_query(query: &Form<'_>) -> Result<Self, Fault> {
        let value = |name| query.get(name).filter(|v| !v.is_empty());
        let bad = |message| Fault::client(Kind::Malformed, message);
        let (inbound, outbound) = match value("track") {
            None | Some("inbound" | "inbound_track") => (true, false),
            Some("outbound" | "outbound_track") => (false, true),
            Some("both" | "both_tracks") => (true, true),
            Some(_) => return Err(bad("track is none of inbound, outbound, both")),
        };
        let rate = value("sample_rate").map(|r| r.parse().ok().filter(|r| AudioFormat::RATES.contains(r)));
        let rate = match rate {
            Some(None) => return Err(bad("sample_rate is none of 8000, 16000, 24000, 48000")),
            Some(rate) => rate,
            None => None,
        };
        let wanted = match value("format") {
            Some(name) if name.eq_ignore_ascii_case("native") => match rate {
                None => Wanted::Native,
                Some(_) => {
                    return Err(bad(
                        "sample_rate does not go with format=native: the rate is the vendor's",
                    ));
                }
            },
            Some(name) if name.eq_ignore_ascii_case("opus") => Wanted::Format(AudioFormat {
                encoding: Encoding::Opus,
                rate: rate.unwrap_or(AudioFormat::ULAW_8K.rate),
            }),
            name => {
                let encoding = name.map_or(Some(Encoding::Ulaw), Encoding::parse);
                Wanted::Format(AudioFormat {
                    encoding: encoding.ok_or_else(|| bad("format is none of PCMU, PCMA, L16, opus, native"))?,
                    rate: rate.unwrap_or(AudioFormat::ULAW_8K.rate),
                })
            }
        };
        Ok(Self {
            call_id: value("call_id").map(str::to_owned),
            inbound,
            outbound,
            wanted,
        })
    }

    /// Whether it hears that side.
    pub const fn hears(&self, side: Side) -> bool {
        match side {
            Side::Caller => self.inbound,
            Side::Agent => self.outbound,
        }
    }

    /// The greeting.
    pub fn connected(&self) -> String {
        let (format, rate) = match self.wanted {
            Wanted::Format(format) => (name(format.encoding), Some(format.rate)),
            Wanted::Native => ("native", None),
        };
        let connected = AudioMessage::Connected {
            message: "Connected to audio stream",
            config: Hearing {
                format,
                sample_rate: rate,
                channels: 1,
            },
        };
        connected.text()
    }
}

/// What a client hears, and what is said of it.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(tag = "event", rename_all = "snake_case")]
pub(super) enum AudioMessage<'a> {
    /// The client is served from now on.
    Connected {
        /// For people.
        message: &'static str,
        /// How this client hears audio.
        config: Hearing,
    },
    /// A stream begins.
    Start {
        /// The vendor's id of the stream.
        stream_id: &'a str,
        /// Of which call, and how it is written.
        start: Start<'a>,
    },
    /// A piece of a stream.
    Media {
        /// The vendor's id of the stream.
        stream_id: &'a str,
        /// The piece.
        media: Media<'a>,
    },
    /// A stream ends.
    Stop {
        /// The vendor's id of the stream.
        stream_id: &'a str,
    },
}

impl AudioMessage<'_> {
    fn text(&self) -> String {
        // Writing strings and numbers into memory has no way to fail.
        serde_json::to_string(self).unwrap_or_default()
    }
}

/// How a client hears audio.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub(super) struct Hearing {
    /// PCMU, PCMA, L16 or native.
    format: &'static str,
    /// Samples a second; null where they are the vendor's.
    sample_rate: Option<u32>,
    /// One: each message is of one side.
    channels: u8,
}

/// A stream that begins.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Start<'a> {
    /// audio/PCMU, audio/PCMA, audio/L16, …
    media_format: String,
    /// Samples a second.
    sample_rate: u32,
    /// One: each message is of one side.
    channels: u8,
    /// The vendor's id of the call.
    call_control_id: &'a str,
    /// Ours.
    call_id: &'a str,
    /// What the caller is sent, where both sides come as the vendor writes them.
    #[serde(skip_serializing_if = "Option::is_none")]
    outbound: Option<Written>,
}

/// How a side is written.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Written {
    /// audio/PCMU, audio/PCMA, audio/L16, …
    media_format: String,
    /// Samples a second.
    sample_rate: u32,
}

/// A piece of a stream.
#[derive(Debug, Serialize, JsonSchema)]
pub(super) struct Media<'a> {
    /// Whose side.
    track: Track,
    /// Its number on this side, from 1, as text.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    chunk: u64,
    /// Milliseconds since the stream began, as text.
    #[serde(serialize_with = "as_text")]
    #[schemars(with = "String")]
    timestamp: u64,
    /// Base64.
    payload: &'a str,
}

/// A side of a call.
#[derive(Debug, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Track {
    /// The caller.
    Inbound,
    /// What the caller is sent.
    Outbound,
}

fn as_text<S: Serializer>(number: &u64, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(number)
}

/// Names as the frontends of `/frontend-audio` write them.
const fn name(encoding: Encoding) -> &'static str {
    match encoding {
        Encoding::Ulaw => "PCMU",
        Encoding::Alaw => "PCMA",
        other => other.name(),
    }
}

/// The stream of one call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stream {
    /// The vendor's id of it.
    pub stream_id: String,
    /// The vendor's id of the call.
    pub call_control_id: String,
    /// Ours.
    pub call_id: String,
    /// How the vendor writes the caller's audio.
    pub inbound: AudioFormat,
    /// How it is sent audio.
    pub outbound: AudioFormat,
}

impl Stream {
    /// The vendor's format of a side.
    pub const fn format(&self, side: Side) -> AudioFormat {
        match side {
            Side::Caller => self.inbound,
            Side::Agent => self.outbound,
        }
    }

    /// The vendor writes a side at another rate from now on.
    pub const fn retune(&mut self, side: Side, rate: u32) {
        match side {
            Side::Caller => self.inbound.rate = rate,
            Side::Agent => self.outbound.rate = rate,
        }
    }

    /// It begins, for a client with these settings.
    pub fn start(&self, settings: &AudioSettings) -> String {
        let side = if settings.inbound { Side::Caller } else { Side::Agent };
        let format = match settings.wanted {
            Wanted::Format(format) => format,
            Wanted::Native => self.format(side),
        };
        let both = settings.wanted == Wanted::Native && settings.inbound && settings.outbound;
        let media_format = |format: AudioFormat| format!("audio/{}", name(format.encoding));
        let start = Start {
            media_format: media_format(format),
            sample_rate: format.rate,
            channels: 1,
            call_control_id: &self.call_control_id,
            call_id: &self.call_id,
            outbound: both.then(|| Written {
                media_format: media_format(self.outbound),
                sample_rate: self.outbound.rate,
            }),
        };
        let stream_id = &self.stream_id;
        AudioMessage::Start { stream_id, start }.text()
    }

    /// A piece of it; `payload` is base64.
    pub fn media(&self, side: Side, chunk: u64, at_ms: u64, payload: &str) -> String {
        let media = Media {
            track: match side {
                Side::Caller => Track::Inbound,
                Side::Agent => Track::Outbound,
            },
            chunk,
            timestamp: at_ms,
            payload,
        };
        let stream_id = &self.stream_id;
        AudioMessage::Media { stream_id, media }.text()
    }

    /// It ends.
    pub fn stop(&self) -> String {
        let stream_id = &self.stream_id;
        AudioMessage::Stop { stream_id }.text()
    }
}

/// Writes the samples of one side in one format.
#[derive(Debug)]
pub struct Writer {
    to: AudioFormat,
    resampler: Option<Resampler>,
    resampled: Vec<i16>,
    bytes: Vec<u8>,
    packer: Option<Packer>,
}

/// Samples on their way into packets of Opus.
#[derive(Debug)]
struct Packer {
    encoder: opus::Encoder,
    /// What is no whole packet yet.
    partial: Vec<i16>,
}

impl Writer {
    /// A writer of samples that come at `rate`.
    pub fn new(rate: u32, to: AudioFormat) -> Self {
        let encoder = match to.encoding {
            Encoding::Opus => opus::Encoder::new(to.rate, 0),
            _ => None,
        };
        Self {
            to,
            resampler: Resampler::fine(rate, to.rate).ok().filter(|_| rate != to.rate),
            resampled: Vec::new(),
            bytes: Vec::new(),
            packer: encoder.map(|encoder| Packer {
                partial: Vec::with_capacity(encoder.frame()),
                encoder,
            }),
        }
    }

    /// The samples that begin at `at_ms`, as payloads in base64, each with the time when it begins. Of Opus there is one for each
    /// packet of 20 ms that is whole by now, of all else one.
    pub fn write(&mut self, at_ms: u64, samples: &[i16], mut put: impl FnMut(u64, &str)) {
        let samples = match &mut self.resampler {
            None => samples,
            Some(resampler) => {
                self.resampled.resize(resampler.output_len(samples.len()), 0);
                let n = resampler.process(samples, &mut self.resampled);
                &self.resampled[..n]
            }
        };
        let Some(Packer { encoder, partial }) = &mut self.packer else {
            self.bytes.resize(self.to.encoding.bytes(samples.len()), 0);
            let n = codec::encode(self.to.encoding, samples, &mut self.bytes);
            return put(at_ms, &base64::encode_string(&self.bytes[..n]));
        };
        self.bytes.resize(opus::MAX_PACKET, 0);
        let mut at_ms = at_ms.saturating_sub(partial.len() as u64 * 1000 / u64::from(self.to.rate));
        let mut left = samples;
        while !left.is_empty() {
            let (piece, rest) = left.split_at(left.len().min(encoder.frame() - partial.len()));
            partial.extend_from_slice(piece);
            left = rest;
            if partial.len() == encoder.frame() {
                let n = encoder.encode(partial, &mut self.bytes);
                put(at_ms, &base64::encode_string(&self.bytes[..n]));
                partial.clear();
                at_ms += u64::from(opus::FRAME_MS);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn read(query: &str) -> Result<AudioSettings, Fault> {
        AudioSettings::from_query(&Form::parse(query.as_bytes()).unwrap())
    }

    fn json_of(text: &str) -> Value {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn the_query_says_what_is_heard_and_how() {
        let plain = read("").unwrap();
        assert_eq!(
            (plain.inbound, plain.outbound, plain.wanted),
            (true, false, Wanted::Format(AudioFormat::ULAW_8K))
        );
        let wide = read("call_id=CA1&track=both&format=pcm_s16le&sample_rate=16000").unwrap();
        assert_eq!(
            (wide.call_id.as_deref(), wide.inbound && wide.outbound),
            (Some("CA1"), true)
        );
        let l16 = AudioFormat {
            encoding: Encoding::L16Le,
            rate: 16_000,
        };
        assert_eq!(wide.wanted, Wanted::Format(l16));
        assert_eq!(read("format=native").unwrap().wanted, Wanted::Native);
        for bad in [
            "track=left",
            "format=mp3",
            "sample_rate=44100",
            "sample_rate=x",
            "format=native&sample_rate=8000",
        ] {
            assert_eq!(read(bad).unwrap_err().kind, Kind::Malformed, "{bad}");
        }
    }

    #[test]
    fn messages_are_shaped_as_frontends_know_them() {
        let settings = read("").unwrap();
        assert_eq!(
            json_of(&settings.connected()),
            json!({"event": "connected", "message": "Connected to audio stream",
                "config": {"format": "PCMU", "sampleRate": 8000, "channels": 1}})
        );
        let stream = Stream {
            stream_id: "a\"b".into(),
            call_control_id: "v3:x".into(),
            call_id: "call_1".into(),
            inbound: AudioFormat::ULAW_8K,
            outbound: AudioFormat {
                encoding: Encoding::L16Le,
                rate: 16_000,
            },
        };
        let start = json_of(&stream.start(&settings));
        assert_eq!(start["start"]["media_format"], "audio/PCMU");
        assert_eq!(
            (&start["start"]["sample_rate"], &start["start"]["channels"]),
            (&json!(8000), &json!(1))
        );
        let both = json_of(&stream.start(&read("format=native&track=both").unwrap()));
        assert_eq!(both["start"]["outbound"]["sample_rate"], 16_000);
        assert_eq!(
            json_of(&stream.media(Side::Caller, 1, 20, "/w==")),
            json!({"event": "media", "stream_id": "a\"b",
                "media": {"track": "inbound", "chunk": "1", "timestamp": "20", "payload": "/w=="}})
        );
        assert_eq!(json_of(&stream.stop()), json!({"event": "stop", "stream_id": "a\"b"}));
    }

    #[test]
    fn a_writer_keeps_the_length_and_the_rate_it_was_asked_for() {
        let samples = vec![1000; 160];
        let bytes = |to| {
            let mut bytes = Vec::new();
            Writer::new(8000, to).write(7, &samples, |at_ms, text| {
                assert_eq!(at_ms, 7);
                bytes.extend(base64::decode_vec(text.as_bytes(), 10_000).unwrap());
            });
            bytes
        };
        assert_eq!(bytes(AudioFormat::ULAW_8K).len(), 160);
        let l16 = |rate| AudioFormat {
            encoding: Encoding::L16Le,
            rate,
        };
        assert_eq!(bytes(l16(8000)), 1000i16.to_le_bytes().repeat(160));
        assert_eq!(bytes(l16(24_000)).len(), 960);
    }

    #[test]
    fn opus_comes_in_packets_of_20_ms_with_their_times_however_it_was_cut() {
        let wanted = read("format=OPUS&sample_rate=16000").unwrap().wanted;
        let format = AudioFormat {
            encoding: Encoding::Opus,
            rate: 16_000,
        };
        assert_eq!(wanted, Wanted::Format(format));
        let mut writer = Writer::new(8000, format);
        let (mut times, mut at_ms) = (Vec::new(), 100);
        let mut decoder = opus::Decoder::new(16_000).unwrap();
        for piece in vec![1000; 8 * 110].chunks(8 * 30) {
            writer.write(at_ms, piece, |at, text| {
                let packet = base64::decode_vec(text.as_bytes(), 1000).unwrap();
                assert_eq!(decoder.decode(&packet, &mut [0; 640]), Ok(320));
                times.push(at);
            });
            at_ms += 30;
        }
        assert_eq!(times, [100, 120, 140, 160, 180], "10 ms wait for more");
    }
}
