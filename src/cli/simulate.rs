//! `sidetone simulate`: a phone call to a daemon over real sockets, from a WAV file, with transcript and replies as they come.

use crate::{
    audio::{resample::any::AnyResampler, wav::Wav},
    base::{secret::Secret, settings::parse_duration, time::Mono},
    sim::{
        address::Address,
        announce,
        caller::{self, Opening, Outcome, Plan, Progress, Webhook},
        fault::Fault,
        report::{Ended, Line, Report},
        script::Manner,
        watch::{Sight, Watch, What},
    },
    vendor::{self, Descriptor, VENDORS},
};
use std::{
    fmt::Write as _,
    io::{self, IsTerminal, Write as _},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::sync::mpsc;

/// The call was placed, and did not go as it should: the socket broke, or the vendor would have refused what was sent.
const EXIT_CALL: u8 = 1;
/// The recording cannot be used (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;
/// The call could not be placed (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// What the caller heard cannot be written (`EX_CANTCREAT`).
const EXIT_CREATE: u8 = 73;
/// This machine lacks something (`EX_OSERR`).
const EXIT_OS: u8 = 71;

/// Arguments of `sidetone simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose dialect to speak
    #[arg(long, value_parser = vendor_named, default_value = VENDORS[0].name)]
    pub vendor: &'static Descriptor,

    /// The daemon; with a path, the media socket is opened there and no webhook is posted first
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    pub url: Address,

    /// What the caller says: PCM or G.711 of any usual rate
    #[arg(long, value_name = "FILE")]
    pub wav: PathBuf,

    /// Where to write what the caller heard
    #[arg(long, value_name = "FILE")]
    pub save: Option<PathBuf>,

    /// The calling number; a fresh one if not given
    #[arg(long, value_name = "NUMBER")]
    pub from: Option<String>,

    /// The called number
    #[arg(long, value_name = "NUMBER", default_value = "+15550000001")]
    pub to: String,

    /// Where to post the voice webhook, if not at the daemon's usual path
    #[arg(long, value_name = "URL")]
    pub webhook: Option<Address>,

    /// Open the media socket without a webhook (a daemon in --dev takes it)
    #[arg(long, conflicts_with = "webhook")]
    pub unannounced: bool,

    /// What goes wrong on the way: drop-stop, reorder, duplicate, jitter=80ms, burst, stall=500ms, wrong-rate
    #[arg(long, value_name = "FAULT", value_delimiter = ',')]
    pub fault: Vec<Fault>,

    /// Where to serve the vendor's REST interface, if calls are answered by commands: what the daemon has as base_url
    #[arg(long, value_name = "ADDRESS", conflicts_with = "unannounced")]
    pub rest: Option<SocketAddr>,

    /// File with the account's secret, to sign webhooks or to put into their URLs; SIDETONE_VENDOR_SECRET holds it as well
    #[arg(long, value_name = "FILE")]
    pub secret_file: Option<PathBuf>,

    /// The account's id at the vendor; one made up if not given
    #[arg(long, value_name = "ID")]
    pub account: Option<String>,

    /// The daemon's public URL, which the signature covers
    #[arg(long, value_name = "URL")]
    pub public_url: Option<String>,

    /// Token of a frontend, to see the transcript; SIDETONE_TOKEN if not given, none for a daemon in --dev
    #[arg(long)]
    pub token: Option<String>,

    /// At each pause of the recording wait until the far end has answered
    #[arg(long)]
    pub polite: bool,

    /// Hang up after this much silence from both sides
    #[arg(long, value_name = "TIME", default_value = "2500ms", value_parser = time)]
    pub linger: Duration,

    /// Hang up after this time whatever happens
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = time)]
    pub limit: Duration,

    /// Print the report as JSON on standard output, the rest on standard error
    #[arg(long)]
    pub json: bool,
}

fn vendor_named(name: &str) -> Result<&'static Descriptor, String> {
    vendor::by_name(name).ok_or_else(|| {
        let known: Vec<_> = vendor::all().iter().map(|v| v.name).collect();
        format!("known are {}", known.join(", "))
    })
}

fn time(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("write 500ms, 30s or 5m")
}

/// Places the call and prints what happens. Returns when it is over.
pub fn run(args: Args) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        eprintln!("sidetone simulate: {what}");
        ExitCode::from(code)
    };
    let samples = match read_wav(&args.wav, Plan::rate(args.vendor)) {
        Ok(samples) => samples,
        Err(e) => return fail(EXIT_DATA, &e),
    };
    let webhook = match webhook(&args) {
        Ok(webhook) => webhook,
        Err(e) => return fail(EXIT_DATA, &e),
    };
    let plan = Plan {
        vendor: args.vendor,
        daemon: args.url.clone(),
        opening: webhook.map_or(Opening::Unannounced, Opening::Webhook),
        from: args.from.clone().unwrap_or_else(announce::new_number),
        to: args.to.clone(),
        samples,
        manner: if args.polite {
            Manner::Polite
        } else {
            Manner::AsRecorded
        },
        faults: args.fault.clone(),
        linger: args.linger,
        limit: args.limit,
    };
    // Two threads: a terminal that blocks must not delay a frame.
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(e) => return fail(EXIT_OS, &e),
    };
    let mut screen = Screen::new(args.json);
    let mut outcome = match runtime.block_on(place(&args, plan, &mut screen)) {
        Ok(outcome) => outcome,
        Err(e) => return fail(EXIT_UNAVAILABLE, &e),
    };
    screen.conclude(&mut outcome.report);
    if let Some(path) = &args.save
        && let Err(e) = save(path, &outcome)
    {
        return fail(EXIT_CREATE, &format_args!("{}: {e}", path.display()));
    }
    if args.json {
        match serde_json::to_string_pretty(&outcome.report) {
            Ok(text) => println!("{text}"),
            Err(e) => return fail(EXIT_OS, &e),
        }
    }
    if outcome.report.ended == Ended::Lost || !outcome.report.refused.is_empty() {
        return ExitCode::from(EXIT_CALL);
    }
    ExitCode::SUCCESS
}

fn webhook(args: &Args) -> Result<Option<Webhook>, String> {
    if args.unannounced || (args.webhook.is_none() && !args.url.path.is_empty()) {
        return Ok(None);
    }
    let Some(path) = announce::hook_path(args.vendor) else {
        return Ok(None);
    };
    let address = args.webhook.clone().unwrap_or(Address {
        path: path.to_owned(),
        ..args.url.clone()
    });
    let secret = args.secret_file.as_ref().map(|file| {
        let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
        Ok::<_, String>(Secret::new(text.trim()))
    });
    let signed_as = match &args.public_url {
        Some(base) => format!("{}{}", base.trim_end_matches('/'), address.path),
        None => address.at("http", &address.path),
    };
    Ok(Some(Webhook {
        rest: args.rest,
        address,
        signed_as,
        secret: match secret.transpose()? {
            Some(secret) => Some(secret),
            None => std::env::var("SIDETONE_VENDOR_SECRET").ok().map(Secret::new),
        },
        account: args.account.clone(),
    }))
}

fn read_wav(path: &Path, rate: u32) -> Result<Vec<i16>, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let wav = Wav::parse(&std::fs::read(path).map_err(|e| named(&e))?).map_err(|e| named(&e))?;
    let from = wav.rate;
    AnyResampler::convert(from, rate, &wav.into_mono()).map_err(|e| named(&e))
}

fn save(path: &Path, outcome: &Outcome) -> io::Result<()> {
    let wav = Wav {
        rate: outcome.rate,
        channels: 1,
        samples: outcome.heard.clone(),
    };
    std::fs::write(path, wav.to_bytes())
}

async fn place(args: &Args, plan: Plan, screen: &mut Screen) -> Result<Outcome, caller::CallError> {
    let token = args
        .token
        .clone()
        .or_else(|| std::env::var("SIDETONE_TOKEN").ok())
        .map(Secret::new);
    let (sight_tx, mut sights) = mpsc::channel(1024);
    match Watch::open(&args.url, token.as_ref()).await {
        Ok(watch) => drop(tokio::spawn(watch.follow(plan.from.clone(), sight_tx))),
        Err(e) => screen.line(&format!("no transcript: {e}")),
    }
    screen.line(&format!("{} calls {} ({})", plan.from, plan.to, plan.vendor.name));
    let (tx, mut progress) = mpsc::channel(1024);
    let mut call = tokio::spawn(async move { caller::place(plan, &tx).await });
    let mut outcome = None;
    // Once the call is over, the news of its end may still be on its way.
    let mut until = tokio::time::Instant::now() + args.limit + Duration::from_secs(60);
    while !(outcome.is_some() && screen.ended) {
        tokio::select! {
            Some(step) = progress.recv() => screen.progress(&step),
            Some(sight) = sights.recv() => screen.sight(sight),
            result = &mut call, if outcome.is_none() => {
                outcome = Some(result.unwrap_or_else(|e| std::panic::resume_unwind(e.into_panic()))?);
                until = tokio::time::Instant::now() + Duration::from_millis(1500);
            }
            () = tokio::time::sleep_until(until) => break,
        }
        if outcome.is_some() && sights.is_closed() && sights.is_empty() {
            break;
        }
    }
    outcome.map_or_else(|| unreachable!("the call's own limit comes first"), Ok)
}

/// What a person sees. Lines go to standard output, or to standard error when that is JSON's; the progress bar only to a terminal.
struct Screen {
    json: bool,
    bar: bool,
    started: Option<Mono>,
    ended: bool,
    /// The bar as drawn last.
    drawn: String,
    call_id: Option<String>,
    /// When the caller's last stretch of speech ended, as far as known here.
    transcripts: Vec<Line>,
    replies: Vec<Line>,
    faults: Vec<Line>,
}

impl Screen {
    fn new(json: bool) -> Self {
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

    fn progress(&mut self, step: &Progress) {
        match step {
            Progress::Started(at) => self.started = Some(*at),
            Progress::Sent(done, total) => self.draw(*done, *total),
            Progress::Answering => self.timed(Mono::now(), "        the far end speaks"),
            Progress::Cut => self.timed(Mono::now(), "        the far end is cut off"),
            Progress::Announced | Progress::Ended => {}
        }
    }

    fn sight(&mut self, sight: Sight) {
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

    fn line(&mut self, text: &str) {
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
    fn conclude(&mut self, report: &mut Report) {
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
        Ended::Daemon(code) => format!("the daemon hung up (close code {code})"),
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
    use clap::Parser;

    #[derive(Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }

    fn args(line: &[&str]) -> Args {
        let line = ["simulate", "--wav", "in.wav"].iter().chain(line);
        Cli::try_parse_from(line).unwrap().args
    }

    #[test]
    fn a_call_is_announced_unless_told_otherwise() {
        let hook = |line: &[&str]| webhook(&args(line)).unwrap().map(|w| (w.address.path, w.signed_as));
        let path = announce::hook_path(VENDORS[0]).unwrap();
        let usual = hook(&["--url", "ws://127.0.0.1:9"]).unwrap();
        assert_eq!(usual, (path.to_owned(), format!("http://127.0.0.1:9{path}")));
        assert_eq!(hook(&["--url", "ws://127.0.0.1:9/stream"]), None);
        assert_eq!(hook(&["--unannounced"]), None);
        let public = hook(&["--public-url", "https://relay.example.com/"]).unwrap();
        assert_eq!(public.1, format!("https://relay.example.com{path}"));
        assert_eq!(hook(&["--webhook", "http://h:1/x?y=1"]).unwrap().0, "/x?y=1");
    }

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

    #[test]
    fn a_file_that_is_no_wave_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.wav");
        std::fs::write(&path, b"RIFF").unwrap();
        assert!(read_wav(&path, 8000).unwrap_err().contains("in.wav"));
        assert!(read_wav(&folder.path().join("none.wav"), 8000).is_err());
    }
}
