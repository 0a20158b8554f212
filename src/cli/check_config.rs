//! `sidetone check-config`: everything that is wrong with a configuration, with the place of each fault and what to do about it.

use crate::{
    base::settings::{Fault, Place},
    config::{self, Config, Env},
};
use std::{
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// The exit code of a configuration that cannot be used (`EX_CONFIG` of sysexits.h).
pub const EX_CONFIG: u8 = 78;

/// What the command takes.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct Args {
    /// The file to check; without one, the environment alone
    #[arg(long, short, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Checks with the process's environment and prints to standard output.
pub fn main(args: &Args) -> ExitCode {
    run(args, &config::environment(), &mut io::stdout()).unwrap_or(ExitCode::FAILURE)
}

/// Prints all faults, or what was found to be in order.
pub fn run(args: &Args, env: &Env, out: &mut impl Write) -> io::Result<ExitCode> {
    let loaded = Config::load(args.config.as_deref(), env, &[]);
    match loaded.and_then(|config| config.check_guarded().map(|()| config)) {
        Ok(config) => {
            summary(args.config.as_deref(), &config, out)?;
            Ok(ExitCode::SUCCESS)
        }
        Err(faults) => {
            report(args.config.as_deref(), &faults, out)?;
            Ok(ExitCode::from(EX_CONFIG))
        }
    }
}

/// Prints faults, one a line: `file:line: key: what (hint)`. Other places are named in words.
pub fn report(file: Option<&Path>, faults: &[Fault], out: &mut impl Write) -> io::Result<()> {
    for fault in faults {
        match (file, &fault.place) {
            (Some(file), Some(Place::Line(line))) => {
                let rest = Fault {
                    place: None,
                    ..fault.clone()
                };
                writeln!(out, "{}:{line}: {rest}", file.display())?;
            }
            _ => writeln!(out, "{fault}")?,
        }
    }
    let s = if faults.len() == 1 { "" } else { "s" };
    writeln!(out, "{} fault{s} in the configuration", faults.len())
}

fn summary(file: Option<&Path>, config: &Config, out: &mut impl Write) -> io::Result<()> {
    let source = file.map_or_else(|| "defaults and environment".to_owned(), |f| f.display().to_string());
    writeln!(out, "ok: {source}")?;
    writeln!(out, "  database    {}", config.database())?;
    writeln!(out, "  recordings  {}", config.recordings().display())?;
    writeln!(
        out,
        "  agents      {}",
        config.agents.names().collect::<Vec<_>>().join(", ")
    )?;
    let vendors = config.trunks.iter().map(|(vendor, trunk)| {
        let dials = if trunk.can_dial() {
            ""
        } else {
            " (no credentials to place calls)"
        };
        format!("{}{dials}", vendor.name)
    });
    writeln!(out, "  vendors     {}", vendors.collect::<Vec<_>>().join(", "))?;
    if !config.access.has_credentials() {
        writeln!(
            out,
            "  note: no key in [access] opens anything: nobody can connect a frontend"
        )?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> (ExitCode, String) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("c.toml");
        std::fs::write(&file, text).unwrap();
        let (args, mut out) = (Args { config: Some(file) }, Vec::new());
        let code = run(&args, &Env::new(), &mut out).unwrap();
        let said = String::from_utf8(out).unwrap();
        (code, said.replace(&format!("{}/", folder.path().display()), ""))
    }

    #[test]
    fn all_faults_are_printed_with_file_line_and_hint() {
        let (code, said) = check("[store]\nreaders = 0\n\n[media]\npinned = true\n");
        assert_eq!(code, ExitCode::from(78));
        assert_eq!(
            said,
            "c.toml:2: store.readers: 0 is out of range (1 to 16)\n\
             c.toml:5: media.pinned: no such key (known here: threads, pin, max_frame_bytes, max_message_bytes, \
             max_legs_per_thread, write_stall, start_timeout, plan_timeout, idle_timeout, ping_every, \
             messages_per_second, protocol_strikes, bad_payloads)\n\
             2 faults in the configuration\n"
        );
    }

    #[test]
    fn a_key_that_is_known_is_named_once() {
        let (_, said) = check("zzzzzzzzzz = 1\n");
        assert_eq!(said.matches(" agents,").count(), 1, "{said}");
    }

    #[test]
    fn a_syntax_error_is_printed_with_its_line() {
        let (code, said) = check("[store\n");
        assert_eq!(code, ExitCode::from(78));
        assert!(
            said.starts_with("c.toml:1: ") && said.ends_with("1 fault in the configuration\n"),
            "{said}"
        );
    }

    #[test]
    fn a_good_file_is_summed_up() {
        let (code, said) = check("state_dir = \"/tmp/x\"\n");
        assert_eq!(code, ExitCode::SUCCESS);
        assert!(
            said.starts_with("ok: c.toml\n  database    /tmp/x/sidetone.db\n"),
            "{said}"
        );
        assert!(said.contains("echo, human, listen"), "{said}");
    }

    #[test]
    fn a_secret_is_never_printed() {
        let (_, said) = check("[[access.jwt]]\nsecret = \"hunter2 hunter2\"\nalgorithm = \"none\"\n");
        assert!(!said.contains("hunter2"), "{said}");
    }
}
