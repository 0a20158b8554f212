//! Networks: addresses that share their first bits, as operators list those they trust.

use super::settings::Section;
use std::{net::IpAddr, str::FromStr};

/// Addresses that share their first bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// Not an address, or more bits than it has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadNetwork;

impl FromStr for Network {
    type Err = BadNetwork;
    fn from_str(text: &str) -> Result<Self, BadNetwork> {
        let (address, bits) = text.split_once('/').map_or((text, None), |(a, b)| (a, Some(b)));
        let address: IpAddr = address.parse().map_err(|_| BadNetwork)?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(most), |b| b.parse().map_err(|_| BadNetwork))?;
        if bits > most {
            Err(BadNetwork)
        } else {
            Ok(Self { address, bits })
        }
    }
}

impl Network {
    /// Whether every address of its kind is one of them.
    pub const fn is_all(&self) -> bool {
        self.bits == 0
    }

    /// Whether the address is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        let wide = |a: IpAddr| match a {
            IpAddr::V4(v4) => (u128::from(u32::from(v4)) << 96, true),
            IpAddr::V6(v6) => (u128::from(v6), false),
        };
        let ((ours, v4), (theirs, their_v4)) = (wide(self.address), wide(address.to_canonical()));
        let mask = u128::MAX.checked_shl(128 - u32::from(self.bits)).unwrap_or(0);
        v4 == their_v4 && ours & mask == theirs & mask
    }
}

/// The networks that are listed under `key`; what is none is told.
pub fn listed(section: &Section<'_>, key: &str) -> Vec<Network> {
    let mut networks = Vec::new();
    for text in section.texts(key, &[]) {
        match text.parse() {
            Ok(network) => networks.push(network),
            Err(BadNetwork) => section.fault(
                key,
                format!("{text:?} is not an address or network"),
                "write 203.0.113.7, 203.0.113.0/24 or 2001:db8::/32",
            ),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_shares_its_bits() {
        let holds = |network: &str, address: &str| {
            let network: Network = network.parse().unwrap();
            network.contains(address.parse().unwrap())
        };
        for (network, address, expected) in [
            ("10.0.0.7", "10.0.0.7", true),
            ("10.0.0.7", "10.0.0.8", false),
            ("10.0.0.0/24", "10.0.0.255", true),
            ("10.0.0.0/24", "10.0.1.0", false),
            ("0.0.0.0/0", "203.0.113.9", true),
            ("0.0.0.0/0", "2001:db8::1", false),
            ("10.0.0.0/8", "::ffff:10.1.2.3", true),
            ("2001:db8::/32", "2001:db8:1::1", true),
            ("2001:db8::/32", "2001:db9::1", false),
        ] {
            assert_eq!(holds(network, address), expected, "{network} {address}");
        }
        for bad in ["", "10.0.0", "10.0.0.0/33", "10.0.0.0/", "::/129", "host"] {
            assert_eq!(bad.parse::<Network>(), Err(BadNetwork), "{bad}");
        }
    }
}
