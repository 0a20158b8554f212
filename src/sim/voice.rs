//! What simulated callers say, by the daemon's own synthesizer.

use crate::{
    audio::{codec, resample::any::AnyResampler, ring::downlink},
    base::{
        fault::{Fault, Kind, Origin},
        format::Encoding,
        ids::UtteranceId,
    },
    speech::{MouthSpec, Speech, SpeechEvent},
};
use std::time::Duration;
use tokio::sync::mpsc;

/// The longest speech in samples at 8 kHz: two minutes.
const MOST_SPEECH: usize = 8000 * 120;
/// How long synthesis may take.
const SYNTHESIS: Duration = Duration::from_secs(30);

/// The words as a person would say them, at `rate` Hz.
pub(super) async fn speak(speech: &Speech, text: String, rate: u32) -> Result<Vec<i16>, Fault> {
    let failed = |message: String| Fault::new(Origin::Backend, Kind::Unavailable, message);
    let spec = MouthSpec {
        backend: speech.backends().1.first().copied().unwrap_or_default().to_owned(),
        ..MouthSpec::default()
    };
    // What frontends are told is what is wanted here; the ring has room for all, so the mouth never waits for a reader.
    let (tx, _unread) = downlink(8000, MOST_SPEECH, 256);
    let (events_tx, mut events) = mpsc::channel(256);
    let mouth = speech.open_mouth(0, spec, tx, events_tx);
    if !mouth.say(UtteranceId(1), text, None) {
        return Err(failed("the synthesizer takes no words now".to_owned()));
    }
    let listen = async {
        let mut codes = Vec::new();
        while let Some(event) = events.recv().await {
            match event {
                SpeechEvent::Audio { audio, last, .. } => {
                    codes.extend_from_slice(&audio);
                    if last {
                        return Ok(codes);
                    }
                }
                SpeechEvent::TtsFailed { message, .. } => return Err(failed(message)),
                _ => {}
            }
        }
        Err(failed("the synthesizer ended without a word".to_owned()))
    };
    let codes = tokio::time::timeout(SYNTHESIS, listen)
        .await
        .map_err(|_| failed("the synthesizer took too long".to_owned()))??;
    let mut samples = vec![0; codes.len()];
    codec::decode(Encoding::Ulaw, &codes, &mut samples).map_err(|e| Fault::internal(e.to_string()))?;
    AnyResampler::convert(8000, rate, &samples).map_err(|e| Fault::internal(e.to_string()))
}
