//! `sidetone migrate`: brings the schema of the database up to date, or moves a SQLite database into PostgreSQL.

use super::check_config::{self, EX_CONFIG};
use crate::{
    config::{self, Config},
    store::{self, Engine, sqlite::SqliteStore},
};
use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The daemon's configuration file
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// The folder of the database, as `serve` has it
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Move everything from here, `sqlite:PATH`. Its daemon must have stopped
    #[arg(long, value_name = "URL", value_parser = Engine::read)]
    from: Option<Engine>,
    /// Move everything to here, `postgres://…`, which must be empty; the configured database when it is not given
    #[arg(long, value_name = "URL", value_parser = Engine::read, requires = "from")]
    to: Option<Engine>,
}

/// Runs the command: 0 when done, 78 where the configuration must be mended, 1 where nothing was changed.
pub fn main(args: &Args) -> ExitCode {
    let flag = args.state.as_ref().map(|path| config::Flag {
        name: "--state",
        key: "state_dir",
        value: path.display().to_string(),
    });
    let config = match Config::load(args.config.as_deref(), &config::environment(), flag.as_slice()) {
        Ok(config) => config,
        Err(faults) => {
            let _ = check_config::report(args.config.as_deref(), &faults, &mut io::stderr());
            return ExitCode::from(EX_CONFIG);
        }
    };
    super::told("migrate", run(args, &config, &mut io::stdout()))
}

fn run(args: &Args, config: &Config, out: &mut impl Write) -> io::Result<()> {
    let target = args.to.as_ref().unwrap_or(&config.store.engine);
    let place = target.place(&config.state_dir);
    match (&args.from, target) {
        (None, Engine::Sqlite(path)) => {
            SqliteStore::migrate(&config.state_dir.join(path), &config.store).map_err(io::Error::other)?;
        }
        (None, Engine::Postgres(url)) => {
            store::postgres::migrate(url.expose(), &config.store).map_err(io::Error::other)?;
        }
        (Some(Engine::Sqlite(file)), Engine::Postgres(url)) => {
            let moved = store::transfer(file, url.expose(), &config.store).map_err(io::Error::other)?;
            for (table, rows) in moved {
                writeln!(out, "{rows:>10}  {table}")?;
            }
        }
        (Some(_), _) => {
            let message = "only --from sqlite:PATH --to postgres://… is offered";
            return Err(io::Error::other(message));
        }
    }
    writeln!(out, "{place} has schema {}", store::migrations::CURRENT)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }

    fn told(line: &[&str]) -> String {
        let args = Line::parse_from([&["migrate"], line].concat()).args;
        let config = Config::load(
            None,
            &config::Env::new(),
            &[config::Flag {
                name: "--state",
                key: "state_dir",
                value: args.state.clone().unwrap().display().to_string(),
            }],
        );
        let mut out = Vec::new();
        match run(&args, &config.unwrap(), &mut out) {
            Ok(()) => String::from_utf8(out).unwrap(),
            Err(e) => e.to_string(),
        }
    }

    #[test]
    fn a_database_is_made_and_found_up_to_date() {
        let folder = tempfile::tempdir().unwrap();
        let state = folder.path().display().to_string();
        for _ in 0..2 {
            let said = told(&["--state", &state]);
            assert_eq!(
                said,
                format!("{state}/sidetone.db has schema {}\n", store::migrations::CURRENT)
            );
        }
    }

    #[test]
    fn what_is_not_offered_is_said() {
        let said = told(&[
            "--state",
            "/nowhere",
            "--from",
            "sqlite:/nowhere/a.db",
            "--to",
            "sqlite:b.db",
        ]);
        assert!(said.starts_with("only --from sqlite:PATH"), "{said}");
        let url = "postgres://u@%2Fnowhere/x";
        let said = told(&["--state", "/nowhere", "--from", "sqlite:/nowhere/a.db", "--to", url]);
        assert_eq!(said, "database /nowhere/a.db cannot be opened: there is no such file");
    }

    #[test]
    fn a_url_that_is_none_is_refused_at_once() {
        assert!(Line::try_parse_from(["migrate", "--from", "mysql://x"]).is_err());
        assert!(
            Line::try_parse_from(["migrate", "--to", "postgres://u@h/x"]).is_err(),
            "--from is missing"
        );
    }
}
