//! `sidetone token`: a token for a frontend, signed with the first shared secret of the configuration.

use super::check_config::{self, EX_CONFIG};
use crate::{
    access::{Config, Role, jwt::Grant, scope::Scopes},
    base::{ids::TenantId, settings::parse_duration, time::Wall},
    config,
};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

/// The command with the configuration whose key signs.
#[derive(Clone, Debug, clap::Args)]
pub struct Command {
    /// The daemon's configuration file
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    #[command(flatten)]
    args: Args,
}

/// Prints a token that the daemon of this configuration believes.
pub fn main(command: &Command) -> ExitCode {
    let config = match config::Config::load(command.config.as_deref(), &config::environment(), &[]) {
        Ok(config) => config,
        Err(faults) => {
            let _ = check_config::report(command.config.as_deref(), &faults, &mut io::stderr());
            return ExitCode::from(EX_CONFIG);
        }
    };
    match run(&command.args, &config.access, Wall::now(), &mut io::stdout()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sidetone token: {e}");
            ExitCode::FAILURE
        }
    }
}

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Whose calls the token opens
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(i64).range(1..))]
    pub tenant: i64,
    /// What it allows: viewer, agent or admin
    #[arg(long, default_value_t = Role::Agent)]
    pub role: Role,
    /// What it is narrowed to, such as ws for frontends' sockets alone; all that the role allows if left out
    #[arg(long = "scope", value_name = "SCOPES", default_value = "")]
    pub scopes: Scopes,
    /// Who carries it
    #[arg(long, default_value = "cli", value_parser = read_subject)]
    pub subject: String,
    /// How long it lives: 5m, 1h, 1d
    #[arg(long, default_value = "1h", value_parser = read_ttl)]
    pub ttl: Duration,
}

fn read_subject(text: &str) -> Result<String, &'static str> {
    match text.trim() {
        "" => Err("say who carries it"),
        _ => Ok(text.to_owned()),
    }
}

fn read_ttl(text: &str) -> Result<Duration, &'static str> {
    parse_duration(text)
        .filter(|d| d.as_secs() > 0)
        .ok_or("write 30s, 5m, 1h or 1d")
}

/// Prints a token on a line of its own.
pub fn run(args: &Args, access: &Config, now: Wall, out: &mut impl Write) -> io::Result<()> {
    let grant = Grant {
        tenant: TenantId(args.tenant),
        role: args.role,
        scopes: args.scopes,
        subject: args.subject.clone(),
        ttl: args.ttl,
    };
    let token = access.verifier().mint(&grant, now).map_err(io::Error::other)?;
    writeln!(out, "{}", token.expose())
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

    #[test]
    fn the_printed_token_opens_what_was_asked_for() {
        let mut access = Config::default();
        access.add_ephemeral_key();
        let cli = Cli::parse_from([
            "token",
            "--tenant",
            "4",
            "--role",
            "viewer",
            "--subject",
            "ann",
            "--ttl",
            "5m",
        ]);
        let mut out = Vec::new();
        run(&cli.args, &access, Wall::default(), &mut out).unwrap();
        let token = String::from_utf8(out).unwrap();
        let who = access.verifier().verify(token.trim_end(), Wall::default()).unwrap();
        assert_eq!(
            (who.tenant, who.role, who.subject.as_str()),
            (TenantId(4), Role::Viewer, "ann")
        );
    }

    #[test]
    fn without_a_shared_secret_the_command_says_so() {
        let cli = Cli::parse_from(["token"]);
        let err = run(&cli.args, &Config::default(), Wall::default(), &mut Vec::new()).unwrap_err();
        assert!(err.to_string().starts_with("no shared secret"), "{err}");
    }

    #[test]
    fn nonsense_is_refused_by_name() {
        for bad in [
            ["--ttl", "0s"],
            ["--ttl", "soon"],
            ["--role", "root"],
            ["--tenant", "0"],
            ["--subject", ""],
            ["--subject", " "],
        ] {
            assert!(
                Cli::try_parse_from(["token"].into_iter().chain(bad)).is_err(),
                "{bad:?}"
            );
        }
    }
}
