//! `sidetone bench`: many calls against a daemon's `echo` agent, and the yardstick to compare it with.

use crate::{
    base::settings::parse_duration,
    sim::{
        address::Address,
        floor,
        load::{self, Measure, Percentiles},
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

/// Arguments of `sidetone bench`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Calls at once
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub calls: u32,

    /// How long to measure, after 2 s of warm-up
    #[arg(long, value_name = "TIME", default_value = "20s", value_parser = time)]
    pub duration: Duration,

    /// Whose dialect to speak
    #[arg(long, value_parser = vendor_named, default_value = VENDORS[0].name)]
    pub vendor: &'static Descriptor,

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
        calls: args.calls as usize,
        duration: args.duration,
        pid: args.pid,
        hooks_per_s: args.hooks,
    };
    let measure = match load::run(&plan) {
        Ok(measure) => measure,
        Err(e) => return fail(EXIT_UNAVAILABLE, &e),
    };
    if args.json {
        match serde_json::to_string_pretty(&measure) {
            Ok(text) => println!("{text}"),
            Err(e) => return fail(EXIT_DATA, &e),
        }
    } else {
        print!("{}", table(&measure, versus.as_ref()));
    }
    let faults = measure.lost + measure.doubled + measure.reordered + measure.changed + measure.broken;
    if faults > 0 {
        ExitCode::from(EXIT_AUDIO)
    } else {
        ExitCode::SUCCESS
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
    row("seconds", &|m| Some(m.seconds), 1);
    row("frames sent", &|m| Some(m.sent as f64), 0);
    row("frames lost", &|m| Some(m.lost as f64), 0);
    row("frames doubled", &|m| Some(m.doubled as f64), 0);
    row("frames reordered", &|m| Some(m.reordered as f64), 0);
    row("frames changed", &|m| Some(m.changed as f64), 0);
    row("sockets broken", &|m| Some(m.broken as f64), 0);
    for (name, of) in PERCENTILES {
        row(&format!("echo {name}, µs"), &|m| Some(of(&m.echo_us)), 0);
    }
    row("generator late p99, µs", &|m| Some(m.send_late_us.p99.into()), 0);
    for (name, of) in PERCENTILES {
        row(&format!("webhook {name}, µs"), &|m| m.hook_us.as_ref().map(of), 0);
    }
    row("CPU per frame, µs", &|m| m.cpu_us_per_frame, 2);
    row(
        "memory per call, KiB",
        &|m| m.bytes_per_call.map(|b| b as f64 / 1024.0),
        1,
    );
    let mut out = format!(
        "{:<26}{:>12}{:>12}{:>8}\n",
        "",
        "measured",
        if floor.is_some() { "floor" } else { "" },
        if floor.is_some() { "ratio" } else { "" }
    );
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
        assert!(!text.contains("webhook"), "{text}");
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
            calls: 40,
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
