//! The session of an ear with a service that listens as the caller speaks: one driver for every such protocol.
//!
//! A [`Dialect`] turns audio into messages and messages into what was heard, and knows no socket and no clock; its times are seconds
//! of the audio it was given, which the driver turns into positions since the ear opened. What the service has settled is never sent again;
//! what it has not is heard by the next session.

use super::SttError;
use crate::{
    audio::codec,
    base::format::Encoding,
    metrics,
    net::dial::Dialer,
    speech::{
        Hearing, Transcript,
        link::{Frame, Link, LinkError, Service, Spare},
    },
};
use http::HeaderMap;
use std::{collections::VecDeque, time::Duration};
use tokio::time::Instant;
use tokio_tungstenite::tungstenite::Message;

/// Messages in a row that nobody can read, after which the session is broken off.
const STRANGE: u32 = 3;

/// How long the last words may take after the last audio.
const LAST: Duration = Duration::from_secs(5);

/// Root mean square above which audio counts as a voice that a service should have something to say about: −35 dBFS.
pub(in crate::speech) const LOUD: i64 = 583;

/// Words of a service.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Words {
    /// The words.
    pub(super) text: String,
    /// 0..1, where it is told.
    pub(super) confidence: Option<f32>,
    /// BCP 47, where it is told.
    pub(super) language: Option<String>,
    /// When they began and ended, in seconds of audio; from what was settled to now where it is not told.
    pub(super) times: Option<(f64, f64)>,
}

/// What a message of a service says.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Heard {
    /// Speech began.
    Started,
    /// Words that may change.
    Interim(Words),
    /// Words that will not.
    Final(Words),
    /// Nothing before this time, in seconds of audio, will be told any more; all that was sent where there is none.
    Settled(Option<f64>),
    /// Everything was told.
    Over,
}

/// What is wrong with a message of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trouble {
    /// It is not of the protocol.
    Strange(&'static str),
    /// It says that the service cannot go on.
    Failed(LinkError),
}

/// One session in the words of one service. Pure.
pub(super) trait Dialect {
    /// What is said first.
    fn open(&mut self) -> Option<Message> {
        None
    }

    /// Audio in the format agreed on.
    fn audio(&mut self, bytes: Vec<u8>) -> Message;

    /// What keeps the session alive when no audio came for a while, and how many samples of silence the service takes it for.
    fn keep_alive(&mut self) -> Option<(Message, u64)> {
        None
    }

    /// What follows the last audio.
    fn finish(&mut self) -> Option<Message>;

    /// Reads a text message.
    fn read(&mut self, text: &str, heard: &mut Vec<Heard>) -> Result<(), Trouble>;

    /// The session is over, however: tells what the service had settled and its utterance had not ended with.
    fn rest(&mut self, _heard: &mut Vec<Heard>) {}
}

/// How long a service may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Patience {
    /// Without audio for this long, the session is kept alive.
    pub(super) keep_alive: Duration,
    /// From half a second of voice to anything said about it; zero is for ever.
    pub(super) answer: Duration,
}

/// Where the audio of a session lies among what the ear heard.
#[derive(Debug, Default)]
pub(in crate::speech) struct Timeline {
    /// Samples that the service has been given, silence of ours included.
    sent: u64,
    /// From this many sent on, the next one has this position; until the next entry.
    runs: VecDeque<(u64, u64)>,
}

/// Gaps that are remembered; older times are taken for those of the oldest.
const RUNS: usize = 64;

impl Timeline {
    /// `samples` ending at `position` were sent.
    pub(in crate::speech) fn sent(&mut self, samples: u64, position: u64) {
        let from = position - samples;
        let continues = self
            .runs
            .back()
            .is_some_and(|(sent, at)| at + (self.sent - sent) == from);
        if !continues {
            self.runs.push_back((self.sent, from));
            if self.runs.len() > RUNS {
                self.runs.pop_front();
            }
        }
        self.sent += samples;
    }

    /// `samples` of silence were sent which nobody heard.
    fn padded(&mut self, samples: u64) {
        self.sent += samples;
        if let Some((sent, at)) = self.runs.back() {
            let heard = at + (self.sent - samples - sent);
            self.runs.push_back((self.sent, heard));
            if self.runs.len() > RUNS {
                self.runs.pop_front();
            }
        }
    }

    /// The position of what was sent as the `n`-th sample.
    pub(in crate::speech) fn position(&self, n: u64) -> u64 {
        let n = n.min(self.sent);
        let run = self
            .runs
            .iter()
            .rev()
            .find(|(sent, _)| *sent <= n)
            .or(self.runs.front());
        let next = |sent: u64| self.runs.iter().find(|(s, _)| *s > sent).map(|(_, at)| *at);
        run.map_or(0, |(sent, at)| {
            let at_n = at + n.saturating_sub(*sent);
            next(*sent).map_or(at_n, |bound| at_n.min(bound))
        })
    }
}

/// How long a session that was opened ahead waits for its call: a phone may ring that long.
const AHEAD: Duration = Duration::from_secs(75);

/// Opens a session for a call that is about to come, and keeps it open until then.
pub(super) fn open_ahead(
    service: &Service,
    dialer: &Dialer,
    path: String,
    headers: Result<HeaderMap, LinkError>,
    every: Duration,
    keep_alive: Option<(Message, u64)>,
) {
    // What goes wrong is told to the ear, when it listens.
    let Ok(headers) = headers else { return };
    let (service, dialer) = (service.clone(), dialer.clone());
    tokio::task::spawn_local(async move {
        let Ok(link) = service.dial(&dialer, &path, headers).await else {
            return;
        };
        service.spares.put(Spare {
            path: path.clone(),
            line: link.set_aside(),
            opened: Instant::now(),
            spoken: (0, 0),
            nudges: 0,
        });
        service
            .tend(&path, AHEAD, every, keep_alive.map(|(message, _)| message))
            .await;
    });
}

/// Listens to the end of the audio.
pub(super) async fn session(
    service: &Service,
    dialer: &Dialer,
    path: &str,
    headers: HeaderMap,
    patience: Patience,
    dialect: &mut dyn Dialect,
    hearing: &mut Hearing,
) -> Result<(), SttError> {
    let mut timeline = Timeline::default();
    let mut link = match service.spares.take(path, AHEAD) {
        Some(spare) => {
            let padding = dialect.keep_alive().map_or(0, |(_, samples)| samples);
            timeline.padded(spare.nudges * padding);
            service.resume(spare.line)
        }
        None => service.dial(dialer, path, headers).await?,
    };
    let mut session = Session {
        dialect,
        hearing,
        timeline,
        settled: None,
        heard: Vec::new(),
        strange: 0,
        works: false,
        pending: false,
    };
    let outcome = session.run(&mut link, patience).await;
    session.dialect.rest(&mut session.heard);
    session.tell().await;
    link.close();
    outcome.map_err(Into::into)
}

struct Session<'a> {
    dialect: &'a mut dyn Dialect,
    hearing: &'a mut Hearing,
    timeline: Timeline,
    /// Position up to which everything was told.
    settled: Option<u64>,
    heard: Vec<Heard>,
    /// Messages in a row that were not understood.
    strange: u32,
    /// Whether one was.
    works: bool,
    /// Whether words were told that are not final yet.
    pending: bool,
}

/// Voice that was sent and not answered.
#[derive(Default)]
struct Unanswered {
    samples: u64,
    since: Option<Instant>,
}

impl Session<'_> {
    async fn run(&mut self, link: &mut Link<'_>, patience: Patience) -> Result<(), LinkError> {
        if let Some(first) = self.dialect.open() {
            link.send(first).await?;
        }
        let format = self.hearing.format();
        let (least, most) = (format.rate as usize / 50, format.rate as usize / 5);
        let mut audio = Vec::new();
        let mut sent_at = Instant::now();
        let mut last_by: Option<Instant> = None;
        let mut unanswered = Unanswered::default();
        loop {
            let late_at = unanswered.since.map(|since| since + patience.answer);
            tokio::select! {
                biased;
                frame = link.next() => {
                    unanswered = Unanswered::default();
                    match frame? {
                        Frame::Text(text) => {
                            if self.read(&text, link.service).await? {
                                return Ok(());
                            }
                        }
                        Frame::Binary(_) => self.count_strange("a binary message", link.service)?,
                        Frame::Closed { .. } if last_by.is_some() => return Ok(()),
                        Frame::Closed { code, reason } => return Err(link.service.closed(code, &reason)),
                    }
                }
                n = self.hearing.read_bytes(most, &mut audio), if last_by.is_none() => {
                    let held = audio.len() / format.encoding.sample_bytes();
                    if n > 0 && held < least {
                        continue;
                    }
                    if !audio.is_empty() {
                        let voice = loudness(format.encoding, &audio);
                        if voice > LOUD * LOUD && !patience.answer.is_zero() {
                            unanswered.samples += held as u64;
                            if unanswered.samples > u64::from(format.rate / 2) {
                                unanswered.since.get_or_insert_with(Instant::now);
                            }
                        }
                        link.send(self.dialect.audio(std::mem::take(&mut audio))).await?;
                        self.timeline.sent(held as u64, self.hearing.position());
                        sent_at = Instant::now();
                    }
                    if n == 0 {
                        last_by = Some(Instant::now() + LAST);
                        if let Some(last) = self.dialect.finish() {
                            link.send(last).await?;
                        }
                    }
                }
                () = tokio::time::sleep_until(sent_at + patience.keep_alive), if last_by.is_none() => {
                    sent_at = Instant::now();
                    if let Some((message, samples)) = self.dialect.keep_alive() {
                        link.send(message).await?;
                        self.timeline.padded(samples);
                    }
                }
                () = tokio::time::sleep_until(last_by.unwrap_or(sent_at)), if last_by.is_some() => {
                    // A service that had heard nothing may have nothing to say about the end.
                    if self.works && !self.pending {
                        return Ok(());
                    }
                    return Err(link.service.late("last words", LAST));
                }
                () = tokio::time::sleep_until(late_at.unwrap_or(sent_at)), if late_at.is_some() => {
                    return Err(link.service.late("words for what was said", patience.answer));
                }
            }
        }
    }

    /// Reads a message and tells what it says. Returns whether it was the last.
    async fn read(&mut self, text: &str, service: &Service) -> Result<bool, LinkError> {
        match self.dialect.read(text, &mut self.heard) {
            Ok(()) => {
                self.strange = 0;
                if !std::mem::replace(&mut self.works, true) {
                    service.works();
                    self.hearing.ready().await;
                }
                Ok(self.tell().await)
            }
            Err(Trouble::Strange(what)) => {
                self.count_strange(what, service)?;
                Ok(false)
            }
            Err(Trouble::Failed(error)) => Err(error),
        }
    }

    fn count_strange(&mut self, what: &'static str, service: &Service) -> Result<(), LinkError> {
        self.strange += 1;
        if self.strange >= STRANGE {
            return Err(service.strange(what));
        }
        metrics::dropped("backend_message", "unreadable", 1);
        Ok(())
    }

    /// Tells what was heard. Returns whether that was all.
    async fn tell(&mut self) -> bool {
        let mut over = false;
        for heard in std::mem::take(&mut self.heard) {
            match heard {
                Heard::Started => self.hearing.started(),
                Heard::Interim(words) => {
                    self.pending = true;
                    self.words(words, false).await;
                }
                Heard::Final(words) => {
                    self.pending = false;
                    self.words(words, true).await;
                }
                Heard::Settled(time) => {
                    let position = time.map_or(self.hearing.position(), |t| self.position(t));
                    self.settled = Some(position);
                    self.hearing.settle(position);
                }
                Heard::Over => over = true,
            }
        }
        over
    }

    async fn words(&mut self, words: Words, is_final: bool) {
        let (from, to) = match words.times {
            Some((from, to)) => (self.position(from), self.position(to)),
            None => {
                let from = self.settled.or(self.timeline.runs.front().map(|(_, at)| *at));
                (from.unwrap_or_default(), self.hearing.position())
            }
        };
        let (from_ms, to_ms) = (self.hearing.ms(from), self.hearing.ms(to));
        if is_final {
            let now = self.hearing.ms(self.hearing.position());
            metrics::STT_FINAL.record(Duration::from_millis(now.saturating_sub(to_ms)));
        }
        let transcript = Transcript {
            text: words.text,
            is_final,
            confidence: words.confidence,
            language: words.language,
            from_ms,
            to_ms,
        };
        self.hearing.transcript(transcript).await;
    }

    fn position(&self, seconds: f64) -> u64 {
        let n = seconds.max(0.0) * f64::from(self.hearing.rate());
        self.timeline.position(n.round() as u64)
    }
}

/// Mean square of audio.
pub(in crate::speech) fn loudness(encoding: Encoding, bytes: &[u8]) -> i64 {
    let mut samples = vec![0; bytes.len() / encoding.sample_bytes()];
    let n = codec::decode(encoding, bytes, &mut samples).unwrap_or_default();
    samples[..n].iter().map(|&s| i64::from(s).pow(2)).sum::<i64>() / n.max(1) as i64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_a_service_are_times_of_the_call() {
        let mut line = Timeline::default();
        line.sent(160, 4160);
        line.sent(160, 4320);
        assert_eq!([0, 100, 320, 999].map(|n| line.position(n)), [4000, 4100, 4320, 4320]);
        // Some audio fell out before it was read.
        line.sent(160, 5160);
        assert_eq!([319, 320, 400].map(|n| line.position(n)), [4319, 5000, 5080]);
        // Silence of ours has no place of its own.
        line.padded(640);
        line.sent(160, 5320);
        assert_eq!(
            [480, 500, 1119, 1120, 1200].map(|n| line.position(n)),
            [5160, 5160, 5160, 5160, 5240]
        );
    }
}
