//! Which addresses a URL that a tenant wrote may lead to: those of the public Internet, whatever a name resolves to.
//!
//! The check sits in the resolver, so that what was checked is what is connected to. Literal addresses in a URL never reach
//! a resolver; whoever sends requests checks them with [`is_public`].

use hyper_util::client::legacy::connect::dns::{GaiAddrs, GaiFuture, GaiResolver, Name};
use std::{
    future::Future,
    io,
    iter::Filter,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    task::{Context, Poll, ready},
};
use tower_service::Service;

/// Whether an address is one of the public Internet (IANA's special-purpose registries, RFC 6890): not of this machine, a
/// private network, a link, a carrier, a multicast group or a document, in whatever form of IPv6 it is wrapped.
pub fn is_public(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(a: Ipv4Addr) -> bool {
    let [o1, o2, o3, _] = a.octets();
    let special = a.is_loopback()
        || a.is_private()
        || a.is_link_local()
        || a.is_multicast()
        || a.is_documentation()
        || o1 == 0
        || o1 >= 240
        || (o1 == 100 && o2 & 0xc0 == 64)
        || (o1 == 192 && o2 == 0 && o3 == 0)
        || (o1 == 192 && o2 == 88 && o3 == 99)
        || (o1 == 198 && o2 & 0xfe == 18);
    !special
}

fn is_public_v6(a: Ipv6Addr) -> bool {
    let s = a.segments();
    let v4 = |high: u16, low: u16| is_public_v4(Ipv4Addr::from((u32::from(high) << 16) | u32::from(low)));
    match s {
        // NAT64 and 6to4 carry an IPv4 address that counts.
        [0x64, 0xff9b, 0, 0, 0, 0, high, low] => v4(high, low),
        [0x2002, high, low, ..] => v4(high, low),
        // Protocol assignments (Teredo among them), documentation.
        [0x2001, second, ..] => second >= 0x200 && second != 0xdb8,
        // Global unicast; the rest is loopback, links, private networks, groups, and what nobody has.
        [first, ..] => first & 0xe000 == 0x2000 && first != 0x3fff,
    }
}

/// Resolves names with the system's resolver, and keeps all addresses or the public ones alone.
#[derive(Clone, Debug)]
pub struct Resolver {
    inner: GaiResolver,
    public_only: bool,
}

impl Resolver {
    /// A resolver; whether it is `public_only`.
    pub fn new(public_only: bool) -> Self {
        Self {
            inner: GaiResolver::new(),
            public_only,
        }
    }
}

/// The addresses of a name.
pub type Addresses = Filter<GaiAddrs, fn(&SocketAddr) -> bool>;

/// Addresses on their way.
#[derive(Debug)]
pub struct Resolving {
    inner: GaiFuture,
    public_only: bool,
}

impl Future for Resolving {
    type Output = io::Result<Addresses>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let found = ready!(Pin::new(&mut self.inner).poll(cx))?;
        let keep: fn(&SocketAddr) -> bool = match self.public_only {
            true => |a| is_public(a.ip()),
            false => |_| true,
        };
        Poll::Ready(Ok(found.filter(keep)))
    }
}

impl Service<Name> for Resolver {
    type Response = Addresses;
    type Error = io::Error;
    type Future = Resolving;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, name: Name) -> Resolving {
        Resolving {
            inner: self.inner.call(name),
            public_only: self.public_only,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_public_internet_is_public() {
        for public in [
            "8.8.8.8",
            "1.1.1.1",
            "100.63.0.1",
            "100.128.0.1",
            "172.32.0.1",
            "2606:4700::1111",
            "::ffff:8.8.8.8",
            "64:ff9b::808:808",
            "2002:808:808::1",
        ] {
            assert!(is_public(public.parse().unwrap()), "{public}");
        }
        for special in [
            "127.0.0.1",
            "127.255.255.254",
            "0.0.0.0",
            "0.1.2.3",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "192.0.0.8",
            "192.88.99.1",
            "198.18.0.1",
            "198.51.100.7",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b:1::1",
            "2002:7f00:1::1",
            "2002:a00:1::",
            "2001::1",
            "2001:db8::1",
            "3fff::1",
            "fc00::1",
            "fd12::1",
            "fe80::1",
            "fec0::1",
            "ff02::1",
            "100::1",
        ] {
            assert!(!is_public(special.parse().unwrap()), "{special}");
        }
    }

    #[tokio::test]
    async fn a_name_that_leads_inside_leads_nowhere() {
        let resolve = async |public_only| {
            let name = "localhost".parse().unwrap();
            let found = Resolver::new(public_only).call(name).await.unwrap();
            found.count()
        };
        assert!(resolve(false).await > 0);
        assert_eq!(resolve(true).await, 0);
    }
}
