//! The listener: accepts, bounds how many sockets there are in all and from one address, and shakes TLS hands.
//!
//! Refusing is cheap and early; running out of descriptors pauses accepting and hurts nobody connected. Where strangers take all
//! the room there is for them, the oldest of the address with the most makes way for a newcomer.

use super::conn::{Conn, Slot};
use crate::{base::settings::Section, metrics};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, HashMap},
    future::Future,
    io::{self, Write},
    net::{IpAddr, Shutdown, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::TlsAcceptor;

/// Keys of `[listen]`.
#[derive(Clone, Debug)]
pub struct Config {
    /// Where everything listens: webhooks, media, frontends, REST.
    pub address: SocketAddr,
    /// More addresses where the same is served: `call_events`, `audio_stream` and `frontend_audio`, for set-ups with a port for each.
    pub more: Vec<(&'static str, SocketAddr)>,
    /// Where `/metrics` listens; nowhere if `None`.
    pub metrics: Option<SocketAddr>,
    /// Certificate chain and private key, both PEM; plain TCP without them.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Bounds on sockets.
    pub limits: Limits,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            address: ([127, 0, 0, 1], 8080).into(),
            more: Vec::new(),
            metrics: Some(([127, 0, 0, 1], 9090).into()),
            tls: None,
            limits: Limits {
                total: 8192,
                per_address: 64,
                unproven: 256,
                tls_handshake: Duration::from_secs(5),
            },
        }
    }
}

impl Config {
    /// Reads `[listen]`.
    pub fn read(s: &Section<'_>) -> Self {
        let d = Self::default();
        let shown = |a: Option<SocketAddr>| a.map(|a| a.to_string()).unwrap_or_default();
        let metrics = s.text("metrics", &shown(d.metrics));
        let metrics = (!metrics.is_empty())
            .then(|| metrics.parse())
            .transpose()
            .unwrap_or_else(|_| {
                s.fault(
                    "metrics",
                    format!("{metrics:?} is not an address"),
                    "write 127.0.0.1:9090, or nothing for none",
                );
                None
            });
        let (cert, key) = (s.text("tls_cert", ""), s.text("tls_key", ""));
        if cert.is_empty() != key.is_empty() {
            s.fault(
                "tls_cert",
                "certificate and key go together",
                "set both tls_cert and tls_key, or neither",
            );
        }
        let address = s.parsed("address", d.address, "an address such as 0.0.0.0:8080");
        let more = ["call_events", "audio_stream", "frontend_audio"];
        let more = more
            .into_iter()
            .filter_map(|key| Some((key, read_more(s, key, address)?)));
        Self {
            more: more.collect(),
            address,
            metrics,
            tls: (!cert.is_empty()).then(|| (cert.into(), key.into())),
            limits: Limits {
                total: s.int("max_sockets", d.limits.total, 0..=1_000_000),
                per_address: s.int("max_sockets_per_address", d.limits.per_address, 0..=1_000_000),
                unproven: s.int("max_unauthenticated_sockets", d.limits.unproven, 0..=1_000_000),
                tls_handshake: s.duration(
                    "tls_handshake_timeout",
                    d.limits.tls_handshake,
                    Duration::from_millis(100)..=Duration::from_secs(60),
                ),
            },
        }
    }
}

/// An address, or a port of the main address.
fn read_more(s: &Section<'_>, key: &str, main: SocketAddr) -> Option<SocketAddr> {
    let text = s.text(key, "");
    if text.is_empty() {
        return None;
    }
    let address = match text.parse() {
        Ok(port) => Ok(SocketAddr::new(main.ip(), port)),
        Err(_) => text.parse(),
    };
    if address.is_err() {
        let hint = "write a port, an address such as 0.0.0.0:8081, or nothing for none";
        s.fault(key, format!("{text:?} is neither a port nor an address"), hint);
    }
    address.ok()
}

/// Bounds on sockets. 0 lifts one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Sockets at once.
    pub total: usize,
    /// Sockets at once from one address that have proven nothing yet: vendors and proxies have few addresses and many sockets.
    pub per_address: usize,
    /// Sockets at once that have proven nothing yet; beyond it one of the greediest address is closed for each newcomer.
    pub unproven: usize,
    /// A TLS handshake that takes longer is dropped.
    pub tls_handshake: Duration,
}

/// Counts sockets.
#[derive(Debug)]
pub struct Census {
    limits: Limits,
    open: Mutex<Open>,
}

/// The sockets of one address that have proven nothing, the oldest first, each with a second handle to close it by.
type Strangers = BTreeMap<u64, Option<OwnedFd>>;

#[derive(Debug, Default)]
struct Open {
    total: usize,
    /// Sockets counted in so far.
    entered: u64,
    unproven: usize,
    by_address: HashMap<IpAddr, Strangers>,
}

impl Open {
    /// A stranger at `address` is none any more. Returns its handle, if it was one.
    fn proves(&mut self, address: IpAddr, number: u64) -> Option<OwnedFd> {
        let strangers = self.by_address.get_mut(&address)?;
        let handle = strangers.remove(&number)?;
        if strangers.is_empty() {
            self.by_address.remove(&address);
        }
        self.unproven -= 1;
        handle
    }

    fn of(&self, address: IpAddr) -> usize {
        self.by_address.get(&address).map_or(0, Strangers::len)
    }

    /// Takes the oldest stranger out that can be closed, of the address that would have the most with one more at `newcomer`.
    fn make_way(&mut self, newcomer: IpAddr) -> Option<OwnedFd> {
        let greediest = self.by_address.iter().filter_map(|(address, strangers)| {
            let (number, _) = strangers.iter().find(|(_, handle)| handle.is_some())?;
            let count = strangers.len() + usize::from(*address == newcomer);
            Some((count, Reverse(*number), *address))
        });
        let (_, Reverse(number), address) = greediest.max_by_key(|(count, age, _)| (*count, *age))?;
        self.proves(address, number)
    }
}

impl Census {
    /// A count that refuses beyond `limits`.
    pub fn new(limits: Limits) -> Arc<Self> {
        Arc::new(Self {
            limits,
            open: Mutex::default(),
        })
    }

    fn lock(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Counts a socket from `address` in, or says which bound refused it. `handle` is a second handle of it, by which it is closed
    /// where it makes way for others.
    pub fn enter(self: &Arc<Self>, address: IpAddr, handle: Option<OwnedFd>) -> Result<Permit, &'static str> {
        let mut open = self.lock();
        let over = |limit, n| limit != 0 && n >= limit;
        if over(self.limits.total, open.total) {
            return Err("total");
        }
        if over(self.limits.per_address, open.of(address)) {
            return Err("per_address");
        }
        let evicted = match over(self.limits.unproven, open.unproven) {
            true => Some(open.make_way(address).ok_or("unauthenticated")?),
            false => None,
        };
        open.total += 1;
        open.unproven += 1;
        open.entered += 1;
        let number = open.entered;
        open.by_address.entry(address).or_default().insert(number, handle);
        drop(open);
        if let Some(handle) = evicted {
            metrics::refused("socket", "evicted");
            // Whoever serves it reads its end, on whatever thread that is; a socket that is gone already needs no more.
            let _ = socket2::SockRef::from(&handle).shutdown(Shutdown::Both);
        }
        Ok(Permit(Arc::new(Entry {
            census: self.clone(),
            address,
            number,
            proven: AtomicBool::new(false),
        })))
    }

    /// A second handle of a socket, where strangers are bounded.
    fn handle(&self, stream: &TcpStream) -> Option<OwnedFd> {
        match self.limits.unproven {
            0 => None,
            _ => stream.as_fd().try_clone_to_owned().ok(),
        }
    }
}

/// A counted socket, counted out when the last clone is dropped.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Entry>);

impl Permit {
    /// Who is at the other end has proven who it is.
    pub fn vouch(&self) {
        if !self.0.proven.swap(true, Relaxed) {
            // The handle is closed after the lock is let go.
            let _handle = self.0.census.lock().proves(self.0.address, self.0.number);
        }
    }
}

#[derive(Debug)]
struct Entry {
    census: Arc<Census>,
    address: IpAddr,
    /// How many sockets had been counted in with it.
    number: u64,
    proven: AtomicBool,
}

impl Drop for Entry {
    fn drop(&mut self) {
        let mut open = self.census.lock();
        open.total -= 1;
        if !*self.proven.get_mut() {
            let handle = open.proves(self.address, self.number);
            drop(open);
            drop(handle);
        }
    }
}

/// Accepts for ever, giving each connection to `serve` in a task of its own.
pub async fn accept<F, S>(listener: TcpListener, tls: Option<TlsAcceptor>, census: Arc<Census>, serve: S)
where
    S: Fn(Conn, SocketAddr, Permit) -> F + Clone + Send + 'static,
    F: Future<Output = ()> + Send + 'static,
{
    loop {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(e) => {
                // Out of descriptors or memory, or the peer left already: pause, never spin.
                metrics::refused(
                    "socket",
                    if e.kind() == io::ErrorKind::ConnectionAborted {
                        "aborted"
                    } else {
                        "accept"
                    },
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
                continue;
            }
        };
        let permit = match census.enter(address.ip(), census.handle(&stream)) {
            Ok(permit) => permit,
            Err(bound) => {
                metrics::refused("socket", bound);
                if tls.is_none() {
                    turn_away(stream);
                }
                continue;
            }
        };
        tune(&stream);
        let (tls, serve, patience) = (tls.clone(), serve.clone(), census.limits.tls_handshake);
        tokio::spawn(async move {
            let conn = match tls {
                None => Conn::plain(stream),
                Some(tls) => match tokio::time::timeout(patience, tls.accept(Slot::Live(stream))).await {
                    Ok(Ok(stream)) => Conn::Tls(Box::new(stream)),
                    Ok(Err(_)) => return metrics::refused("socket", "tls"),
                    Err(_) => return metrics::refused("socket", "tls_timeout"),
                },
            };
            serve(conn, address, permit).await;
        });
    }
}

/// Says that there is no room, as far as that can be said without waiting.
fn turn_away(stream: TcpStream) {
    const BUSY: &[u8] =
        b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";
    if let Ok(mut stream) = stream.into_std() {
        let _ = stream.write(BUSY);
    }
}

/// No delay for small frames; little unsent audio in the kernel, where no barge-in can reach it; dead peers found by keepalive.
fn tune(stream: &TcpStream) {
    let socket = socket2::SockRef::from(stream);
    let keepalive = socket2::TcpKeepalive::new()
        .with_time(Duration::from_secs(30))
        .with_interval(Duration::from_secs(10));
    // None of these is worth refusing a call for.
    let _ = socket.set_tcp_nodelay(true);
    let _ = socket.set_tcp_keepalive(&keepalive);
    let _ = socket.set_tcp_user_timeout(Some(Duration::from_secs(30)));
    let _ = socket.set_tcp_notsent_lowat(16 * 1024);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{io::Read, os::unix::net::UnixStream};

    #[test]
    fn sockets_that_have_proven_nothing_have_a_bound_of_their_own() {
        let census = Census::new(Limits {
            total: 0,
            per_address: 0,
            unproven: 2,
            tls_handshake: Duration::ZERO,
        });
        let a = IpAddr::from([10, 0, 0, 1]);
        let known: Vec<_> = (0..9)
            .map(|_| {
                let permit = census.enter(a, None).unwrap();
                permit.vouch();
                permit.vouch();
                permit
            })
            .collect();
        let strangers = [census.enter(a, None).unwrap(), census.enter(a, None).unwrap()];
        assert_eq!(census.enter(a, None).unwrap_err(), "unauthenticated");
        drop(known);
        assert_eq!(
            census.enter(a, None).unwrap_err(),
            "unauthenticated",
            "those who left had been let in"
        );
        drop(strangers);
        assert!(census.enter(a, None).is_ok());
    }

    /// Both ends of a connection.
    type Line = (UnixStream, UnixStream);

    /// A second handle of our end, and the connection.
    fn line() -> (OwnedFd, Line) {
        let (near, far) = UnixStream::pair().unwrap();
        far.set_nonblocking(true).unwrap();
        (near.as_fd().try_clone_to_owned().unwrap(), (near, far))
    }

    fn is_shut((_, far): &Line) -> bool {
        let mut far = far;
        matches!(far.read(&mut [0]), Ok(0))
    }

    #[test]
    fn the_oldest_stranger_of_the_greediest_address_makes_way_for_a_newcomer() {
        let census = Census::new(Limits {
            total: 0,
            per_address: 3,
            unproven: 5,
            tls_handshake: Duration::ZERO,
        });
        let at = |n| IpAddr::from([10, 0, 0, n]);
        let mut lines = Vec::new();
        let mut enter = |n: u8| {
            let (handle, both) = line();
            let permit = census.enter(at(n), Some(handle));
            lines.push(both);
            permit
        };
        let mut permits: Vec<_> = [1, 2, 2, 2, 3].into_iter().map(|n| enter(n).unwrap()).collect();
        assert_eq!(
            enter(2).unwrap_err(),
            "per_address",
            "no address has more than its share"
        );
        // One who has proven who he is cannot be turned out, however many others of his address are.
        permits[1].vouch();
        permits.push(enter(4).unwrap());
        permits.push(enter(5).unwrap());
        permits.push(enter(6).unwrap());
        let gone: Vec<_> = (0..lines.len()).filter(|n| is_shut(&lines[*n])).collect();
        assert_eq!(
            gone,
            [0, 2],
            "the oldest of the two of address 2, then the oldest of all"
        );
        assert_eq!(census.lock().unproven, 5);
        drop(permits);
        let open = census.lock();
        assert_eq!((open.total, open.unproven, open.by_address.len()), (0, 0, 0));
    }

    #[test]
    fn who_would_be_the_greediest_makes_way_himself() {
        let census = Census::new(Limits {
            total: 0,
            per_address: 0,
            unproven: 4,
            tls_handshake: Duration::ZERO,
        });
        let (a, b) = (IpAddr::from([10, 0, 0, 1]), IpAddr::from([10, 0, 0, 2]));
        let lines: Vec<_> = [a, a, b, b, b]
            .into_iter()
            .map(|address| {
                let (handle, both) = line();
                (census.enter(address, Some(handle)).unwrap(), both)
            })
            .collect();
        let shut: Vec<_> = lines.iter().map(|(_, both)| is_shut(both)).collect();
        assert_eq!(shut, [false, false, true, false, false]);
    }

    #[test]
    fn sockets_are_bounded_in_all_and_per_address_and_counted_out_once() {
        let census = Census::new(Limits {
            total: 3,
            per_address: 2,
            unproven: 0,
            tls_handshake: Duration::ZERO,
        });
        let (a, b, c) = (
            IpAddr::from([10, 0, 0, 1]),
            IpAddr::from([10, 0, 0, 2]),
            IpAddr::from([10, 0, 0, 3]),
        );
        let first = census.enter(a, None).unwrap();
        let second = census.enter(a, None).unwrap();
        assert_eq!(census.enter(a, None).unwrap_err(), "per_address");
        let _third = census.enter(b, None).unwrap();
        second.vouch();
        assert!(
            census.lock().of(a) == 1,
            "who has proven who it is takes no stranger's place"
        );
        assert_eq!(census.enter(c, None).unwrap_err(), "total");
        let clone = first.clone();
        drop(first);
        assert_eq!(census.enter(c, None).unwrap_err(), "total");
        drop(clone);
        let _fourth = census.enter(c, None).unwrap();
        assert!(census.enter(a, None).is_err());
    }
}
