//! What a person sees of a simulated call: transcript and replies as they come, and the report in a few lines.

use crate::{
    base::time::Mono,
    sim::{
        caller::Progress,
        report::{Ended, Line, Report},
        watch::{Sight, What},
    },
};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
};

/// What a person sees. Lines go to standard output, or to standard error when that is JSON's; the progress bar only to a terminal.
pub(super) struct Screen {
    json: bool,
    bar: bool,
    started: Option<Mono>,
    pub(super) ended: bool,
    /// The bar as drawn last.
    drawn: String,
    call_id: Option<String>,
    /// When the caller's last stretch of speech ended, as far as known here.
    transcripts: Vec<Line>,
    replies: Vec<Line>,
    faults: Vec<Line>,
}

impl Screen {
    pub(super) fn new(json: bool) -> Self {
        Self {
            json,
            bar: io::stderr().is_terminal(),
            started: None,
            ended: false,
            drawn: String::new(),
            call_id: None,
            transcripts: Vec::new(),
            replies: Vec::new(),
            faults: Vec::new(),
        }
    }

    pub(super) fn progress(&mut self, step: &Progress) {
        match step {
            Progress::Started(at) => self.started = Some(*at),
            Progress::Sent(done, total) => self.draw(*done, *total),
            Progress::Answering => self.timed(Mono::now(), "        the far end speaks"),
            Progress::Cut => self.timed(Mono::now(), "        the far end is cut off"),
            Progress::Announced | Progress::Ended => {}
        }
    }

    pub(super) fn sight(&mut self, sight: Sight) {
        let at_ms = self.started.map_or(0, |s| sight.at.millis_since(s));
        match sight.what {
            What::CallStatusUpdate {
                call_id,
                status,
                end_reason,
                ..
            } => {
                self.ended |= status == "ended";
                let reason = end_reason.map(|r| format!(" ({r})")).unwrap_or_default();
                self.timed(sight.at, &format!("        {status}{reason}"));
                self.call_id = Some(call_id);
            }
            What::CustomerTranscript {
                transcript,
                is_final: true,
                confidence,
                ..
            } => {
                let sure = confidence
                    .map(|c| format!("  ({:.0} %)", c * 100.0))
                    .unwrap_or_default();
                self.timed(sight.at, &format!("caller  {transcript}{sure}"));
                self.transcripts.push(Line {
                    at_ms,
                    text: transcript,
                });
            }
            What::AgentMessageStatus {
                message,
                status,
                heard_ms,
                ..
            } => match status.as_str() {
                "stored" => {
                    self.timed(sight.at, &format!("agent   {message}"));
                    self.replies.push(Line { at_ms, text: message });
                }
                "cut" | "failed" => {
                    self.timed(sight.at, &format!("        {status} after {heard_ms} ms: {message}"));
                }
                _ => {}
            },
            What::TelephonyError {
                error_code, message, ..
            } => {
                self.timed(sight.at, &format!("fault   {error_code}: {message}"));
                self.faults.push(Line {
                    at_ms,
                    text: format!("{error_code}: {message}"),
                });
            }
            What::CustomerTranscript { .. } | What::TelephonyConnected {} | What::Other => {}
        }
    }

    fn timed(&mut self, at: Mono, text: &str) {
        let seconds = self.started.map_or(0.0, |s| at.since(s).as_secs_f64());
        self.line(&format!("{seconds:7.2}  {text}"));
    }

    pub(super) fn line(&mut self, text: &str) {
        self.wipe();
        // Words from the far end go to a terminal: nothing in them may steer it.
        let text: String = text.chars().filter(|c| !c.is_control()).collect();
        if self.json {
            eprintln!("{text}");
        } else {
            println!("{text}");
        }
    }

    fn draw(&mut self, done: u64, total: u64) {
        const WIDTH: u64 = 40;
        if !self.bar || total == 0 {
            return;
        }
        let full = done * WIDTH / total;
        let mut bar = String::new();
        let _ = write!(bar, "{:7.1} s of {:.1}  ", done as f64 / 1000.0, total as f64 / 1000.0);
        (0..WIDTH).for_each(|i| bar.push(if i < full { '█' } else { '·' }));
        if bar != self.drawn {
            eprint!("\r{bar}");
            let _ = io::stderr().flush();
            self.drawn = bar;
        }
    }

    fn wipe(&mut self) {
        if !self.drawn.is_empty() {
            eprint!("\r\x1b[2K");
            self.drawn.clear();
        }
    }

    /// Adds what a frontend saw to the report and prints its essence.
    pub(super) fn conclude(&mut self, report: &mut Report) {
        report.call_id = self.call_id.take();
        report.transcripts = std::mem::take(&mut self.transcripts);
        report.replies = std::mem::take(&mut self.replies);
        report.faults = std::mem::take(&mut self.faults);
        for line in essence(report) {
            self.line(&line);
        }
    }
}

/// The report for people.
fn essence(r: &Report) -> Vec<String> {
    let who = match r.ended {
        Ended::Caller => "the caller hung up".to_owned(),
        Ended::Daemon(code) => match &r.close_reason {
            Some(reason) => {
                let reason: String = reason.chars().filter(|c| !c.is_control()).collect();
                format!("the daemon hung up (close code {code}: {reason})")
            }
            None => format!("the daemon hung up (close code {code})"),
        },
        Ended::Vendor => "the vendor took the call elsewhere".to_owned(),
        Ended::Lost => "the media socket broke".to_owned(),
        Ended::Limit => "the call reached its time limit".to_owned(),
    };
    let gaps = match r.gaps.len() {
        0 => "no gap".to_owned(),
        n => format!("{n} gaps, {} ms in all", r.gaps.iter().map(|g| g.ms).sum::<u64>()),
    };
    let mut lines = vec![
        format!("{who} after {:.1} s", r.duration_ms as f64 / 1000.0),
        format!(
            "sent {} frames, at most {:.1} ms late; received {} messages, {:.1} s of audio, {gaps}",
            r.frames_sent,
            r.send_late_max_us as f64 / 1000.0,
            r.messages_received,
            r.audio_received_ms as f64 / 1000.0
        ),
    ];
    let mut times = Vec::new();
    times.extend(r.webhook_ms.map(|ms| format!("webhook answered in {ms:.1} ms")));
    times.extend(r.first_audio_ms.map(|ms| format!("first audio {ms} ms after start")));
    let answers: Vec<_> = r
        .turns
        .iter()
        .filter_map(|t| t.answered_after_ms)
        .map(|ms| ms.to_string())
        .collect();
    if !answers.is_empty() && r.echo.is_none() {
        times.push(format!(
            "answers {} ms after the caller fell silent",
            answers.join(", ")
        ));
    }
    if !times.is_empty() {
        lines.push(times.join("; "));
    }
    lines.extend(
        r.echo
            .filter(|e| e.changed * 2 < e.bytes)
            .map(|e| format!("an echo: {} of {} bytes changed", e.changed, e.bytes)),
    );
    lines.extend(r.refused.first().map(|why| {
        format!(
            "the vendor would refuse {} of the daemon's messages: {why}",
            r.refused.len()
        )
    }));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_report_is_told_in_a_few_lines() {
        let report = Report {
            ended: Ended::Daemon(1000),
            duration_ms: 1500,
            first_audio_ms: Some(40),
            refused: vec!["not JSON".into()],
            ..Report::default()
        };
        let text = essence(&report).join("\n");
        assert!(text.contains("hung up (close code 1000) after 1.5 s"), "{text}");
        assert!(text.contains("no gap") && text.contains("first audio 40 ms"), "{text}");
        assert!(text.contains("would refuse 1"), "{text}");
    }
}
