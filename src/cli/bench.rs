//! `sidetone bench`: many calls against a daemon, the most that it carries, and the yardstick to compare it with.

use crate::{
    base::settings::parse_duration,
    sim::{
        address::Address,
        floor,
        load::{
            self, Measure, Percentiles,
            search::{Search, search},
        },
    },
    vendor::{self, Descriptor, VENDORS},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Frames were lost, doubled, reordered or changed.
const EXIT_AUDIO: u8 = 1;
/// The file to compare with cannot be read (`EX_DATAERR`).
const EXIT_DATA: u8 = 65;
/// The daemon could not be measured (`EX_UNAVAILABLE`).
const EXIT_UNAVAILABLE: u8 = 69;

/// The most calls that are tried.
const MOST_CALLS: u32 = 20_000;

/// Arguments of `sidetone bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Calls at once
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=i64::from(MOST_CALLS)))]
    pub calls: u32,

    /// How long to measure, after 2 s of warm-up
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    pub duration: Duration,

    /// Whose dialect to speak
    #[arg(long, value_parser = vendor_named, default_value = VENDORS[0].name)]
    pub vendor: &'static Descriptor,

    /// Frontends that listen on /frontend-audio meanwhile, each to one call, in the vendor's own format
    #[arg(long, default_value_t = 0, conflicts_with = "against_floor")]
    pub viewers: u32,

    /// Measure a relay: the daemon's agent hears with this recogniser and speaks for itself (config/examples/relay.toml)
    #[arg(long, value_name = "RECOGNISER", value_parser = ["fake"], conflicts_with = "against_floor")]
    pub stt: Option<String>,

    /// Search for the most calls, from --calls up, that keep --p99 with no frame lost; --duration is the length of each run
    #[arg(long, conflicts_with_all = ["stt", "versus"])]
    pub search: bool,

    /// What 99 of 100 echoes must keep in a search
    #[arg(long, value_name = "TIME", default_value = "5ms", value_parser = time)]
    pub p99: Duration,

    /// The daemon, started with `--dev --agent echo`
    #[arg(long, value_name = "URL", default_value = "ws://127.0.0.1:8080")]
    pub url: Address,

    /// The daemon's process id on this machine, for its CPU time and memory
    #[arg(long)]
    pub pid: Option<u32>,

    /// Webhooks a second, announcing further calls meanwhile
    #[arg(long, default_value_t = 0)]
    pub hooks: u32,

    /// The far end is the yardstick: it sends every message back as it is
    #[arg(long)]
    pub against_floor: bool,

    /// Print the measure as JSON
    #[arg(long)]
    pub json: bool,

    /// An earlier measure in JSON, to print the ratio to
    #[arg(long, value_name = "FILE")]
    pub versus: Option<PathBuf>,

    /// Be the yardstick instead: the least that an echo over WebSocket can do on one tokio thread
    #[arg(long, requires = "listen")]
    pub floor: bool,

    /// Where the yardstick listens
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
}

fn vendor_named(name: &str) -> Result<&'static Descriptor, String> {
    vendor::by_name(name).ok_or_else(|| "no such vendor".to_owned())
}

fn time(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text).ok_or("write 500ms, 30s or 5m")
}

/// Measures and prints, or serves as the yardstick until it is ended.
pub fn run(args: &Args) -> ExitCode {
    let fail = |code: u8, what: &dyn std::fmt::Display| {
        eprintln!("sidetone bench: {what}");
        ExitCode::from(code)
    };
    if let (true, Some(listen)) = (args.floor, args.listen) {
        return match floor::serve(listen, |bound| eprintln!("yardstick on {bound}")) {
            Ok(()) => ExitCode::SUCCESS,
            Err(e) => fail(EXIT_UNAVAILABLE, &e),
        };
    }
    let versus = match args.versus.as_ref().map(read_measure).transpose() {
        Ok(versus) => versus,
        Err(e) => return fail(EXIT_DATA, &e),
    };
    let plan = load::Plan {
        vendor: args.vendor,
        daemon: args.url.clone(),
        floor: args.against_floor,
        relay: args.stt.is_some(),
        calls: args.calls as usize,
        viewers: args.viewers as usize,
        duration: args.duration,
        pid: args.pid,
        hooks_per_s: args.hooks,
    };
    let result = match args.search {
        true => search(&plan, MOST_CALLS as usize, args.p99).map(|found| {
            let text = show(args.json, &found, searched);
            (text, found.best.is_none())
        }),
        false => load::run(&plan).map(|measure| {
            let text = show(args.json, &measure, |m| table(m, versus.as_ref()));
            (text, measure.faults() > 0)
        }),
    };
    match result {
        Ok((text, faulty)) => {
            print!("{text}");
            ExitCode::from(if faulty { EXIT_AUDIO } else { 0 })
        }
        Err(e) => fail(EXIT_UNAVAILABLE, &e),
    }
}

/// What was found, as JSON or as people read it.
fn show<T: serde::Serialize>(json: bool, found: &T, table: impl FnOnce(&T) -> String) -> String {
    match json {
        // Numbers and names only: that cannot fail.
        true => serde_json::to_string_pretty(found).unwrap_or_default() + "\n",
        false => table(found),
    }
}

/// A search as a table, and the best run in full.
fn searched(found: &Search) -> String {
    let mut out = format!(
        "{:>8}{:>12}{:>8}  p99 within {} µs\n",
        "calls", "p99, µs", "faults", found.bound_us
    );
    for t in &found.trials {
        let verdict = match (t.passed, t.generator_late) {
            (true, _) => "passed",
            (false, false) => "too much",
            (false, true) => "too much, for the load generator too",
        };
        out += &format!("{:>8}{:>12}{:>8}  {verdict}\n", t.calls, t.p99_us, t.faults);
    }
    match &found.best {
        Some(best) => out + "\n" + &table(best, None),
        None => out + "\nnot even one call passed\n",
    }
}

fn read_measure(path: &PathBuf) -> Result<Measure, String> {
    let named = |e: &dyn std::fmt::Display| format!("{}: {e}", path.display());
    let text = std::fs::read_to_string(path).map_err(|e| named(&e))?;
    serde_json::from_str(&text).map_err(|e| named(&e))
}

/// The measure as a table, beside the yardstick's where it is known.
fn table(m: &Measure, floor: Option<&Measure>) -> String {
    let mut rows: Vec<[String; 4]> = Vec::new();
    let mut row = |name: &str, of: &dyn Fn(&Measure) -> Option<f64>, digits: usize| {
        let Some(own) = of(m) else { return };
        let show = |v: f64| format!("{v:.digits$}");
        let other = floor.and_then(of);
        let ratio = other.filter(|o| *o > 0.0).map(|o| format!("{:.2}", own / o));
        rows.push([
            name.to_owned(),
            show(own),
            other.map(show).unwrap_or_default(),
            ratio.unwrap_or_default(),
        ]);
    };
    row("calls", &|m| Some(m.calls as f64), 0);
    row("milliseconds a frame", &|m| Some(m.frame_ms.into()), 0);
    row("seconds", &|m| Some(m.seconds), 1);
    row("frames sent", &|m| Some(m.sent as f64), 0);
    row("messages heard", &|m| Some(m.heard as f64), 0);
    row("frames lost", &|m| Some(m.lost as f64), 0);
    row("frames doubled", &|m| Some(m.doubled as f64), 0);
    row("frames reordered", &|m| Some(m.reordered as f64), 0);
    row("frames changed", &|m| Some(m.changed as f64), 0);
    row("sockets broken", &|m| Some(m.broken as f64), 0);
    for (name, of) in PERCENTILES {
        row(
            &format!("echo {name}, µs"),
            &|m| (m.echo_us.count > 0).then(|| of(&m.echo_us)),
            0,
        );
    }
    for (name, of) in PERCENTILES {
        row(&format!("pacing {name}, µs"), &|m| Some(of(&m.pacing_us)), 0);
    }
    for (name, of) in PERCENTILES {
        row(&format!("generator late {name}, µs"), &|m| Some(of(&m.send_late_us)), 0);
    }
    let viewed = |of: fn(&Measure) -> u64| move |m: &Measure| (m.viewers > 0).then(|| of(m) as f64);
    row("viewers", &viewed(|m| m.viewers as u64), 0);
    row("messages viewed", &viewed(|m| m.viewed), 0);
    row("viewers' gaps", &viewed(|m| m.viewer_gaps), 0);
    row("viewers' sockets broken", &viewed(|m| m.viewers_broken), 0);
    for (name, of) in PERCENTILES {
        row(&format!("webhook {name}, µs"), &|m| m.hook_us.as_ref().map(of), 0);
    }
    row("webhooks failed", &|m| m.hook_us.map(|_| m.hooks_failed as f64), 0);
    row("CPU per frame, µs", &|m| m.cpu_us_per_frame, 2);
    row(
        "memory per call, KiB",
        &|m| m.bytes_per_call.map(|b| b as f64 / 1024.0),
        1,
    );
    let mut out = format!(
        "{:<26}{:>12}{:>12}{:>8}\n",
        m.vendor,
        "measured",
        if floor.is_some() { "floor" } else { "" },
        if floor.is_some() { "ratio" } else { "" }
    );
    out.truncate(out.trim_end().len());
    out.push('\n');
    for [name, own, other, ratio] in rows {
        out += format!("{name:<26}{own:>12}{other:>12}{ratio:>8}").trim_end();
        out.push('\n');
    }
    for thread in m.threads.iter().filter(|t| t.us_per_frame >= 0.005) {
        out += &format!("  thread {:<17}{:>12.2}\n", thread.name, thread.us_per_frame);
    }
    out
}

type Pick = fn(&Percentiles) -> f64;
const PERCENTILES: [(&str, Pick); 4] = [
    ("p50", |p| p.p50.into()),
    ("p99", |p| p.p99.into()),
    ("p99.9", |p| p.p999.into()),
    ("max", |p| p.max.into()),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        config::{Config, Env, Flag},
        sim::load::search::Trial,
    };

    #[test]
    fn the_table_sets_the_daemon_beside_the_floor() {
        let floor = Measure {
            calls: 400,
            cpu_us_per_frame: Some(8.0),
            ..Measure::default()
        };
        let daemon = Measure {
            cpu_us_per_frame: Some(10.0),
            ..floor.clone()
        };
        let text = table(&daemon, Some(&floor));
        let cpu = text.lines().find(|l| l.starts_with("CPU")).unwrap();
        assert_eq!(
            cpu.split_whitespace().collect::<Vec<_>>()[4..],
            ["10.00", "8.00", "1.25"]
        );
        assert!(!text.contains("webhook") && !text.contains("viewe"), "{text}");
    }

    #[test]
    fn the_relay_that_the_help_names_is_a_valid_configuration() {
        let file = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("config/examples/relay.toml");
        let agent = Flag {
            name: "--agent",
            key: "calls.default_agent",
            value: "relay".into(),
        };
        Config::load(Some(&file), &Env::default(), &[agent]).expect("no faults");
    }

    #[test]
    fn a_search_says_what_every_run_gave_and_shows_the_best() {
        let trial = |calls, passed, generator_late| Trial {
            calls,
            p99_us: 900,
            faults: 0,
            passed,
            generator_late,
        };
        let found = Search {
            bound_us: 5000,
            trials: vec![trial(400, true, false), trial(800, false, true)],
            best: Some(Measure {
                calls: 400,
                ..Measure::default()
            }),
        };
        let text = searched(&found);
        assert!(
            text.contains("p99 within 5000") && text.contains("     400         900       0  passed"),
            "{text}"
        );
        assert!(
            text.contains("too much, for the load generator too") && text.contains("calls"),
            "{text}"
        );
        let json: Search = serde_json::from_str(&show(true, &found, searched)).unwrap();
        assert_eq!(json, found);
    }

    #[test]
    fn the_yardstick_returns_every_frame_of_many_calls() {
        let (tx, rx) = std::sync::mpsc::channel();
        std::thread::spawn(move || floor::serve("127.0.0.1:0".parse().unwrap(), |bound| tx.send(bound).unwrap()));
        let address = rx.recv().unwrap();
        let measure = load::run(&load::Plan {
            vendor: VENDORS[0],
            daemon: format!("ws://{address}/any").parse().unwrap(),
            floor: true,
            relay: false,
            calls: 40,
            viewers: 0,
            duration: Duration::from_millis(300),
            pid: Some(std::process::id()),
            hooks_per_s: 0,
        })
        .unwrap();
        assert!(measure.sent > 40 * 50, "{measure:?}");
        assert_eq!(measure.sent, measure.returned);
        assert_eq!(
            (
                measure.lost,
                measure.doubled,
                measure.reordered,
                measure.changed,
                measure.broken
            ),
            (0, 0, 0, 0, 0)
        );
        assert!(
            measure.cpu_us_per_frame.unwrap() > 0.0 && measure.echo_us.count > 0,
            "{measure:?}"
        );
    }
}
