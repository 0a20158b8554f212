//! `sidetone simulate`: a phone call to a daemon over real sockets, from a WAV file, with transcript and replies as they come.

mod screen;

use crate::{
    audio::{resample::any::AnyResampler, wav::Wav},
    base::{
        format::{AudioFormat, Encoding},
        secret::Secret,
        settings::parse_duration,
    },
    sim::{
        address::{Address, Trust},
        announce::{self, AnnounceError},
        caller::{self, CallError, Opening, Outcome, Plan, Webhook},
        fault::Fault,
        report::Ended,
        script::Manner,
        watch::Watch,
    },
    vendor::{self, Descriptor, VENDORS},
};
use screen::Screen;
use std::{
    fs::File,
    io::{self, Read},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};
use tokio::sync::mpsc;

/// The call was placed, and did not go as it should: the socket broke, or the vendor would have refused what was sent.
const EXIT_CALL: u8 = 1;
/// The vendor has no such codec or rate (`EX_USAGE`).
const EXIT_USAGE: u8 = 64;
/// The recording, or a file beside it, cannot be used (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;
/// The call could not be placed (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;
/// What the caller heard cannot be written (`EX_CANTCREAT`).
const EXIT_CREATE: u8 = 73;
/// The longest recording that is read: an hour of stereo at 48 kHz is less.
const MAX_WAV_BYTES: u64 = 1 << 30;
/// This machine lacks something (`EX_OSERR`).
const EXIT_OS: u8 = 71;

/// Arguments of `sidetone simulate`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Whose dialect to speak
    #[arg(long, value_parser = vendor_named, default_value = VENDORS[0].name)]
    pub vendor: &'static Descriptor,

    /// The daemon, ws:// or wss://; with a path, the media socket is opened there and no webhook is posted first
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    pub url: Address,

    /// PEM file with the certificates to believe behind wss://, instead of the well-known authorities'
    #[arg(long, value_name = "FILE")]
    pub ca: Option<PathBuf>,

    /// What the vendor sends: PCMU, PCMA, L16, G722, OPUS, as far as it has them
    #[arg(long, value_name = "NAME", value_parser = codec_named)]
    pub codec: Option<Encoding>,

    /// Its sample rate in Hz, where the vendor has several
    #[arg(long, value_name = "HZ")]
    pub rate: Option<u32>,

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

    /// File with the secret in the webhooks' URLs (`webhook_secret`), for a vendor that signs with another; SIDETONE_WEBHOOK_SECRET holds it as well
    #[arg(long, value_name = "FILE")]
    pub webhook_secret_file: Option<PathBuf>,

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

/// Codecs as vendors name them.
const CODECS: [(&str, Encoding); 5] = [
    ("PCMU", Encoding::Ulaw),
    ("PCMA", Encoding::Alaw),
    ("L16", Encoding::L16Le),
    ("G722", Encoding::G722),
    ("OPUS", Encoding::Opus),
];

fn codec_named(name: &str) -> Result<Encoding, String> {
    let found = CODECS.iter().find(|(n, _)| n.eq_ignore_ascii_case(name));
    found
        .map(|(_, encoding)| *encoding)
        .ok_or_else(|| format!("known are {}", CODECS.map(|(name, _)| name).join(", ")))
}

/// The format that is asked for, if any is: the vendor's first of that codec and rate.
fn format(args: &Args) -> Result<Option<AudioFormat>, String> {
    if args.codec.is_none() && args.rate.is_none() {
        return Ok(None);
    }
    let fits = |f: &&AudioFormat| {
        let codec = args.codec.unwrap_or(args.vendor.caps.inbound.encoding);
        codec == f.encoding && args.rate.is_none_or(|rate| rate == f.rate)
    };
    let offers = args.vendor.caps.offers;
    let name = |f: &AudioFormat| {
        let codec = CODECS.iter().find(|(_, encoding)| *encoding == f.encoding);
        format!("{} at {} Hz", codec.map_or("", |(name, _)| name), f.rate)
    };
    offers.iter().find(fits).copied().map(Some).ok_or_else(|| {
        let offers: Vec<_> = offers.iter().map(name).collect();
        format!("{} sends {}", args.vendor.name, offers.join(", "))
    })
}

fn time(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("write 500ms, 30s or 5m")
}

/// Places the call and prints what happens. Returns when it is over.
pub fn run(mut args: Args) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        eprintln!("sidetone simulate: {what}");
        ExitCode::from(code)
    };
    if let Err(e) = believe(&mut args) {
        return fail(EXIT_DATA, &e);
    }
    let format = match format(&args) {
        Ok(format) => format,
        Err(e) => return fail(EXIT_USAGE, &e),
    };
    let samples = match read_wav(&args.wav, Plan::rate(args.vendor)) {
        Ok(samples) => samples,
        Err(e) => return fail(EXIT_DATA, &e),
    };
    let webhook = match webhook(&args) {
        Ok(webhook) => webhook,
        Err(e) => return fail(EXIT_DATA, &e),
    };
    if let Some(path) = &args.save
        && let Err(e) = can_save(path)
    {
        return fail(EXIT_CREATE, &format_args!("{}: {e}", path.display()));
    }
    let plan = Plan {
        vendor: args.vendor,
        daemon: args.url.clone(),
        opening: webhook.map_or(Opening::Unannounced, Opening::Webhook),
        from: args.from.clone().unwrap_or_else(announce::new_number),
        to: args.to.clone(),
        format,
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
        Err(e) => return fail(EXIT_UNAVAILABLE, &format_args!("{e}{}", advice(&args, &e))),
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
    if outcome.report.ended == Ended::Daemon(1008) && outcome.report.audio_received_ms == 0 {
        return fail(
            EXIT_CALL,
            &format_args!("the stream was not taken{}", nobody_has(&args)),
        );
    }
    if outcome.report.ended == Ended::Lost || !outcome.report.refused.is_empty() {
        return ExitCode::from(EXIT_CALL);
    }
    ExitCode::SUCCESS
}

/// Takes the certificates of `--ca` for everything that is reached with TLS.
fn believe(args: &mut Args) -> Result<(), String> {
    let Some(file) = &args.ca else { return Ok(()) };
    let trust = Trust::only(file).map_err(|e| e.to_string())?;
    for address in [Some(&mut args.url), args.webhook.as_mut()].into_iter().flatten() {
        if address.tls.is_some() {
            address.tls = Some(trust.clone());
        }
    }
    Ok(())
}

/// What to do about a call that was not taken.
fn advice(args: &Args, error: &CallError) -> String {
    match error {
        CallError::Announce(AnnounceError::HungUp | AnnounceError::Refused(404, _)) => nobody_has(args),
        _ => String::new(),
    }
}

/// Why a daemon hangs up on a call at once, most often.
fn nobody_has(args: &Args) -> String {
    format!(
        "\nnobody may have {number} there: list it ([[numbers]] number = \"{number}\", vendor = \"{vendor}\"), add it over \
         /api/phone-numbers, or call a number that is known with --to",
        number = args.to,
        vendor = args.vendor.name,
    )
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
    let signed_as = match &args.public_url {
        Some(base) => format!("{}{}", base.trim_end_matches('/'), address.path),
        None => address.at("http", &address.path),
    };
    Ok(Some(Webhook {
        rest: args.rest,
        address,
        signed_as,
        secret: secret(args.secret_file.as_deref(), "SIDETONE_VENDOR_SECRET")?,
        url_secret: secret(args.webhook_secret_file.as_deref(), "SIDETONE_WEBHOOK_SECRET")?,
        account: args.account.clone(),
    }))
}

/// A secret in a file, else in a variable of the environment.
fn secret(file: Option<&Path>, variable: &str) -> Result<Option<Secret>, String> {
    let Some(file) = file else {
        return Ok(std::env::var(variable).ok().map(Secret::new));
    };
    let text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    Ok(Some(Secret::new(text.trim())))
}

fn read_wav(path: &Path, rate: u32) -> Result<Vec<i16>, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let wav = Wav::parse(&read_file(path).map_err(|e| named(&e))?).map_err(|e| named(&e))?;
    let from = wav.rate;
    AnyResampler::convert(from, rate, &wav.into_mono()).map_err(|e| named(&e))
}

/// Reads a regular file that is not too long; a device or a pipe may never end, or wait for ever to be opened.
fn read_file(path: &Path) -> io::Result<Vec<u8>> {
    let about = std::fs::metadata(path)?;
    if !about.is_file() {
        return Err(io::Error::other("not a regular file"));
    }
    if about.len() > MAX_WAV_BYTES {
        return Err(io::Error::other(format!("longer than {MAX_WAV_BYTES} bytes")));
    }
    let mut bytes = Vec::new();
    File::open(path)?.take(MAX_WAV_BYTES).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Finds out before the call whether what is heard can be written after it. Leaves no new file behind.
fn can_save(path: &Path) -> io::Result<()> {
    let is_new = !path.exists();
    File::options().append(true).create(true).open(path)?;
    if is_new {
        std::fs::remove_file(path)?;
    }
    Ok(())
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
    fn codec_and_rate_are_the_vendors_or_refused_with_what_it_has() {
        let format = |line: &[&str]| format(&args(line)).map(|f| f.map(|f| (f.encoding, f.rate)));
        assert_eq!(format(&[]), Ok(None));
        let of = |vendor, more: &[&'static str]| format(&[&["--vendor", vendor], more].concat());
        assert_eq!(of("telnyx", &["--codec", "pcma"]), Ok(Some((Encoding::Alaw, 8000))));
        assert_eq!(of("telnyx", &["--codec", "L16"]), Ok(Some((Encoding::L16Le, 16_000))));
        let l16 = ["--codec", "L16", "--rate", "24000"];
        assert_eq!(of("telnyx", &l16), Ok(Some((Encoding::L16Le, 24_000))));
        assert_eq!(of("exotel", &["--rate", "16000"]), Ok(Some((Encoding::L16Le, 16_000))));
        let refused = of("teler", &["--rate", "48000"]).unwrap_err();
        assert_eq!(refused, "teler sends L16 at 8000 Hz, L16 at 16000 Hz");
        assert!(of("twilio", &["--codec", "G722"]).is_err());
        assert!(codec_named("mp3").unwrap_err().contains("PCMU, PCMA"));
    }

    #[test]
    fn a_call_that_is_not_taken_is_told_with_what_to_do() {
        let told = advice(&args(&["--to", "+15557"]), &CallError::Announce(AnnounceError::HungUp));
        assert!(
            told.contains("number = \"+15557\", vendor = \"twilio\"") && told.contains("--to"),
            "{told}"
        );
    }

    #[test]
    fn a_file_that_is_no_wave_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("in.wav");
        std::fs::write(&path, b"RIFF").unwrap();
        assert!(read_wav(&path, 8000).unwrap_err().contains("in.wav"));
        assert!(read_wav(&folder.path().join("none.wav"), 8000).is_err());
    }

    #[test]
    fn what_never_ends_or_is_too_long_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("long.wav");
        File::create(&path).unwrap().set_len(MAX_WAV_BYTES + 1).unwrap();
        assert!(read_wav(&path, 8000).unwrap_err().contains("longer"));
        for none in [Path::new("/dev/zero"), folder.path()] {
            let told = read_wav(none, 8000).unwrap_err();
            assert!(told.contains("not a regular file"), "{told}");
        }
    }

    #[test]
    fn where_nothing_can_be_saved_is_found_out_and_what_is_there_stays() {
        let folder = tempfile::tempdir().unwrap();
        assert!(can_save(&folder.path().join("none/heard.wav")).is_err());
        let (new, old) = (folder.path().join("new.wav"), folder.path().join("old.wav"));
        std::fs::write(&old, b"x").unwrap();
        can_save(&new).unwrap();
        can_save(&old).unwrap();
        assert!(!new.exists());
        assert_eq!(std::fs::read(&old).unwrap(), b"x");
    }
}
