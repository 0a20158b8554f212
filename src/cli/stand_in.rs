//! `sidetone stand-in stt|tts|duplex NAME`: a speech service's stand-in on a socket, to try a configuration without an account.

use crate::speech::{
    double::{Double, Fault, Make, Server},
    duplex, stt, tts,
};
use std::{io, net::SocketAddr, sync::Arc, time::Duration};

/// What the command takes.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// What the service does: stt, tts or duplex (both at once)
    #[arg(value_parser = ["stt", "tts", "duplex"])]
    pub kind: String,
    /// Its name in the configuration, such as deepgram
    pub name: String,
    /// Where it listens
    #[arg(long, default_value = "127.0.0.1:9100")]
    pub listen: SocketAddr,
    /// The key that it accepts
    #[arg(long, default_value = "stand-in")]
    pub key: String,
    /// What goes wrong with the next connections, one after the other: none, hang, half-open, close, garbage, slow, or a status such as 503
    #[arg(long, value_delimiter = ',', value_parser = read_fault)]
    pub fault: Vec<Fault>,
}

fn read_fault(text: &str) -> Result<Fault, String> {
    Ok(match text {
        "none" => Fault::None,
        "hang" => Fault::Hang,
        "half-open" => Fault::HalfOpen,
        "close" => Fault::CloseMidway,
        "garbage" => Fault::Garbage,
        "slow" => Fault::Slow(Duration::from_millis(300)),
        status => match status.parse() {
            Ok(status @ 400..=599) => Fault::Status(status),
            _ => {
                return Err(
                    "write none, hang, half-open, close, garbage, slow, or a status from 400 to 599".to_owned(),
                );
            }
        },
    })
}

/// The stand-in asked for, or which there are.
fn find(kind: &str, name: &str, key: &str) -> Result<Arc<dyn Double>, io::Error> {
    let listed: Vec<(&str, Option<Make>)> = match kind {
        "stt" => stt::BACKENDS.iter().map(|d| (d.name, d.double)).collect(),
        "duplex" => duplex::BACKENDS.iter().map(|d| (d.name, d.double)).collect(),
        _ => tts::BACKENDS.iter().map(|d| (d.name, d.double)).collect(),
    };
    let served: Vec<_> = listed
        .into_iter()
        .filter_map(|(name, make)| Some((name, make?)))
        .collect();
    let found = served.iter().find(|(n, _)| *n == name);
    found.map(|(_, make)| make(key)).ok_or_else(|| {
        let names: Vec<_> = served.iter().map(|(name, _)| *name).collect();
        io::Error::other(format!("no service {name:?}; there are {}", names.join(", ")))
    })
}

/// Serves until it is interrupted.
pub fn run(args: &Args) -> io::Result<()> {
    let double = find(&args.kind, &args.name, &args.key)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let server = Server::open(args.listen, double).await?;
        server.go_wrong(&args.fault);
        println!(
            "[speech.{}.{}]\nurl = \"{}\"\nkey = \"{}\"",
            args.kind,
            args.name,
            server.url(),
            args.key
        );
        tokio::signal::ctrl_c().await?;
        for complaint in server.complaints() {
            eprintln!("refused: {complaint}");
        }
        Ok(())
    })
}
