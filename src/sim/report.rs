//! What a simulated call measured, as people and machines read it.

use super::playout::Gap;
use serde::Serialize;

/// The measure of one call. Times in ms since the stream began unless said otherwise.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Report {
    /// Whose dialect.
    pub vendor: &'static str,
    /// The vendor's id of the call.
    pub call_sid: String,
    /// The daemon's own id of the call, where a frontend could be asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub call_id: Option<String>,
    /// The calling number.
    pub from: String,
    /// The called number.
    pub to: String,
    /// Who ended it.
    pub ended: Ended,
    /// Length of the stream.
    pub duration_ms: u64,
    /// From sending the webhook until its whole answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub webhook_ms: Option<f64>,
    /// From `start` until the first audio arrived.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub first_audio_ms: Option<u64>,
    /// Frames sent.
    pub frames_sent: u64,
    /// Audio messages received.
    pub messages_received: u64,
    /// Audio received.
    pub audio_received_ms: u64,
    /// Of that, audio dropped by `clear` before it was played.
    pub audio_cut_ms: u64,
    /// Marks sent back.
    pub marks: u64,
    /// Clears obeyed.
    pub clears: u64,
    /// Breaks in what was heard.
    pub gaps: Vec<Gap>,
    /// The worst lateness of a frame sent, in µs: how far this report may be trusted.
    pub send_late_max_us: u64,
    /// What the caller said, and how soon an answer came.
    pub turns: Vec<Turn>,
    /// What was recognised, as a frontend saw it.
    pub transcripts: Vec<Line>,
    /// What was answered, as a frontend saw it.
    pub replies: Vec<Line>,
    /// Faults that a frontend was told.
    pub faults: Vec<Line>,
    /// Where what came back is what was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub echo: Option<Echo>,
    /// What the daemon gave as its reason, where it closed the media socket.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub close_reason: Option<String>,
    /// Messages of the daemon that the vendor would refuse, and why.
    pub refused: Vec<String>,
}

/// Who ended a call.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Ended {
    /// The caller, having heard and said everything.
    #[default]
    Caller,
    /// The daemon closed the media socket, with this code.
    Daemon(u16),
    /// The vendor, which was told to take the call elsewhere.
    Vendor,
    /// The media socket broke.
    Lost,
    /// The call reached its time limit.
    Limit,
}

/// A stretch of the caller's speech and the answer to it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Turn {
    /// When the speech began.
    pub from_ms: u64,
    /// When it ended.
    pub to_ms: u64,
    /// From its end until audio arrived again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub answered_after_ms: Option<u64>,
}

/// Words and when they came.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Line {
    /// When.
    pub at_ms: u64,
    /// What.
    pub text: String,
}

/// Audio that came back as it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Echo {
    /// Bytes compared.
    pub bytes: u64,
    /// Of those, bytes that were not what was sent.
    pub changed: u64,
}

impl Echo {
    /// Bytes in which two streams must agree for one to be taken for the other's echo.
    const PROOF: usize = 400;

    /// Compares what came back with what was sent, both encoded. `None` where it is no echo.
    pub(super) fn find(sent: &[u8], back: &[u8]) -> Option<Self> {
        let (begin, at) = (0..sent.len().saturating_sub(Self::PROOF))
            .step_by(80)
            .find_map(|begin| {
                let piece = &sent[begin..begin + Self::PROOF];
                // A piece of speech stands at one place only; silence and hum would match anywhere.
                if distinct(piece) < Self::PROOF / 10 {
                    return None;
                }
                Some((begin, find(back, piece)?))
            })?;
        let before = begin.min(at);
        let (sent, back) = (&sent[begin - before..], &back[at - before..]);
        let changed = sent.iter().zip(back).filter(|(a, b)| !same(**a, **b)).count();
        Some(Self {
            bytes: sent.len().min(back.len()) as u64,
            changed: changed as u64,
        })
    }
}

/// How many different bytes there are.
fn distinct(piece: &[u8]) -> usize {
    let mut seen = [false; 256];
    piece
        .iter()
        .filter(|b| !std::mem::replace(&mut seen[usize::from(**b)], true))
        .count()
}

fn find(text: &[u8], piece: &[u8]) -> Option<usize> {
    text.windows(piece.len()).position(|w| w == piece)
}

/// Equal, or the two zeros of μ-law, which decode alike.
fn same(a: u8, b: u8) -> bool {
    a == b || (a == 0x7F && b == 0xFF)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(n: usize, mut seed: u32) -> Vec<u8> {
        (0..n)
            .map(|_| {
                seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (seed >> 24) as u8 & 0x7E
            })
            .collect()
    }

    #[test]
    fn an_echo_is_found_late_and_early_and_its_faults_are_counted() {
        let mut sent = vec![0xFF; 800];
        sent.extend(noise(2000, 1));
        sent.extend([0xFF; 400]);
        let mut late = vec![0xFF; 333];
        late.extend_from_slice(&sent);
        assert_eq!(
            Echo::find(&sent, &late),
            Some(Echo {
                bytes: 3200,
                changed: 0
            })
        );
        let mut early = sent[100..].to_vec();
        early[2500] ^= 1;
        early[2600] ^= 1;
        assert_eq!(
            Echo::find(&sent, &early),
            Some(Echo {
                bytes: 3100,
                changed: 2
            })
        );
    }

    #[test]
    fn other_speech_is_no_echo() {
        assert_eq!(Echo::find(&noise(3000, 1), &noise(3000, 2)), None);
        assert_eq!(Echo::find(&[0xFF; 3000], &[0xFF; 3000]), None);
        let hum: Vec<u8> = (0..3000).map(|i| [0x7F, 0xFF, 0xFE, 0x7E][i / 3 % 4]).collect();
        assert_eq!(Echo::find(&hum, &hum), None);
        assert_eq!(Echo::find(&[], &[]), None);
    }
}
