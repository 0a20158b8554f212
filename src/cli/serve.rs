//! `sidetone serve`: the daemon in the foreground, as systemd and people start it.

use super::check_config::{self, EX_CONFIG};
use crate::{
    access::{Role, jwt::Grant},
    app,
    base::{ids::TenantId, settings::Fault, time::Wall},
    config::{self, Config, Flag},
};
use std::{net::SocketAddr, path::PathBuf, process::ExitCode, time::Duration};

/// Arguments of `sidetone serve`.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// The configuration file; without one the defaults and the environment apply
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,

    /// For a developer's own machine: loopback only, one tenant, no credentials, no limits
    #[arg(long)]
    dev: bool,

    /// Who answers calls to numbers that name no agent
    #[arg(long, value_name = "NAME")]
    agent: Option<String>,

    /// Where everything listens
    #[arg(long, value_name = "ADDRESS")]
    listen: Option<SocketAddr>,

    /// Where `/metrics` listens
    #[arg(long, value_name = "ADDRESS")]
    metrics_listen: Option<SocketAddr>,

    /// The folder of database and recordings
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
}

/// Runs the daemon: 0 after an orderly stop, 78 where configuration or database must be mended first, 71 where the system refused.
pub fn run(args: &Args) -> ExitCode {
    let config = match load(args) {
        Ok(config) => config,
        Err(faults) => {
            let _ = check_config::report(args.config.as_deref(), &faults, &mut std::io::stderr());
            return ExitCode::from(EX_CONFIG);
        }
    };
    app::log::start(&config.log);
    // What callers said is nobody else's on this machine, whoever starts the daemon.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let welcome = args.dev.then(|| welcome(&config));
    let announce = |address: SocketAddr| {
        if let Some(welcome) = welcome {
            println!("{}", welcome.replace("{address}", &address.to_string()));
        }
    };
    match app::run(config, announce) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("sidetone: {e}");
            ExitCode::from(e.exit_code())
        }
    }
}

fn load(args: &Args) -> Result<Config, Vec<Fault>> {
    let state = args.state.as_ref().map(|p| p.display().to_string());
    let given = [
        ("--agent", "calls.default_agent", args.agent.clone()),
        ("--listen", "listen.address", args.listen.map(|a| a.to_string())),
        (
            "--metrics-listen",
            "listen.metrics",
            args.metrics_listen.map(|a| a.to_string()),
        ),
        (
            "--state",
            "state_dir",
            state.or_else(|| args.dev.then(|| "state".to_owned())),
        ),
    ];
    let flags: Vec<_> = given
        .into_iter()
        .filter_map(|(name, key, value)| {
            Some(Flag {
                name,
                key,
                value: value?,
            })
        })
        .collect();
    let mut config = Config::load(args.config.as_deref(), &config::environment(), &flags)?;
    match args.dev {
        true => config.open_for_dev()?,
        false => config.check_guarded()?,
    }
    Ok(config)
}

/// What a developer sees first: what is open, where, and a token for clients that insist on one.
fn welcome(config: &Config) -> String {
    let grant = Grant {
        tenant: TenantId(1),
        role: Role::Admin,
        scopes: Default::default(),
        subject: "dev".to_owned(),
        ttl: Duration::from_secs(12 * 3600),
    };
    let token = config.access.verifier().mint(&grant, Wall::now());
    let token = token
        .as_ref()
        .map_or("none: no shared secret is configured", |t| t.expose());
    format!(
        "sidetone --dev on http://{{address}}: loopback only, one tenant, no credentials asked for, unsigned webhooks and \
         unannounced streams accepted, limits lifted; where a vendor has no account, calls ring at a simulated phone\n\
         frontend  ws://{{address}}/api/ws/telephony/stream\n\
         agent     {}\n\
         state     {}\n\
         token     {token}",
        config.calls.default_agent,
        config.state_dir.display(),
    )
}
