//! The kinds of values that say where to listen and whom to believe.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    path::PathBuf,
    str::FromStr,
};

use ipnet::{IpNet, Ipv4Net};

use super::value::{Value, expected, named_values};
use crate::host;

/// An address that a listener is made for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenAddress {
    /// A TCP address; the host may be a name.
    Tcp {
        /// Host name or IP address, without brackets.
        host: String,
        /// Port; 0 lets the system choose.
        port: u16,
    },
    /// A Unix socket, by its path.
    Unix(PathBuf),
    /// A socket that systemd hands over, by the name that its unit gives it (`FileDescriptorName=`).
    Systemd(String),
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Systemd(name) => write!(f, "systemd:{name}"),
        }
    }
}

impl Value for ListenAddress {
    const EXPECTED: &'static str =
        "an address such as \"0.0.0.0:443\", \"[::]:80\", \"unix:/run/signal.sock\" or \"systemd:https\"";

    fn from_text(text: &str) -> Result<Self, String> {
        let wrong = || expected::<Self>(&format!("{text:?}"));
        if let Some(path) = text.strip_prefix("unix:").filter(|path| path.starts_with('/')) {
            return Ok(Self::Unix(path.into()));
        }
        if let Some(name) =
            text.strip_prefix("systemd:").filter(|name| !name.is_empty() && !name.contains(':'))
        {
            return Ok(Self::Systemd(name.into()));
        }
        let (host, port) = text.rsplit_once(':').ok_or_else(wrong)?;
        let port = port.parse().map_err(|_| wrong())?;
        let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
            Some(bare) => bare.parse::<Ipv6Addr>().map_err(|_| wrong())?.to_string(),
            None if host::is_host(host) => host.into(),
            None => return Err(wrong()),
        };
        Ok(Self::Tcp { host, port })
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("{:?}", self.to_string()))
    }
}

/// What a listener serves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// All routes.
    Public,
    /// Only the redirect to https, and the answers to ACME's http-01.
    Redirect,
}

named_values!(Purpose, "\"public\" or \"redirect\"", "public" => Purpose::Public, "redirect" => Purpose::Redirect);

/// The permissions of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileMode(pub u32);

impl Value for FileMode {
    const EXPECTED: &'static str = "permissions in octal such as \"0660\"";

    fn from_text(text: &str) -> Result<Self, String> {
        match u32::from_str_radix(text, 8) {
            Ok(mode) if mode <= 0o777 => Ok(Self(mode)),
            _ => Err(expected::<Self>(&format!("{text:?}"))),
        }
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{:04o}\"", self.0))
    }
}

/// Whose word about a client's address is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustedProxy {
    /// Peers with an address in this network.
    Network(IpNet),
    /// Peers of Unix sockets.
    Unix,
}

impl Value for TrustedProxy {
    const EXPECTED: &'static str = "an address, a network such as \"10.0.0.0/8\", or \"unix\"";

    fn from_text(text: &str) -> Result<Self, String> {
        if text == "unix" {
            return Ok(Self::Unix);
        }
        network::<Self>(text).map(Self::Network)
    }

    fn to_toml(&self) -> Option<String> {
        Some(match self {
            Self::Network(network) => format!("\"{network}\""),
            Self::Unix => "\"unix\"".into(),
        })
    }
}

/// Reads an address or a network. One of IPv4-mapped IPv6 addresses becomes the IPv4 network that it means, since that
/// is what becomes of the addresses of clients.
fn network<T: Value>(text: &str) -> Result<IpNet, String> {
    let network = IpNet::from_str(text).or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    let network = network.map_err(|_| expected::<T>(&format!("{text:?}")))?;
    let mapped = match network {
        IpNet::V6(network) => network.addr().to_ipv4_mapped().map(|address| (address, network.prefix_len())),
        IpNet::V4(_) => None,
    };
    let Some((address, prefix)) = mapped else { return Ok(network) };
    let of_ipv4 = prefix.checked_sub(96).and_then(|prefix| Ipv4Net::new(address, prefix).ok());
    of_ipv4.map(IpNet::V4).ok_or_else(|| {
        format!(
            "expected a prefix of at least 96 with an IPv4-mapped address, found {text:?}: \
             write an IPv4 network such as \"10.0.0.0/8\""
        )
    })
}

/// Addresses that belong together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network(IpNet);

impl Network {
    /// Whether `address` is one of them.
    pub fn contains(&self, address: IpAddr) -> bool {
        self.0.contains(&address)
    }
}

impl Value for Network {
    const EXPECTED: &'static str = "an address or a network such as \"10.0.0.0/8\"";

    fn from_text(text: &str) -> Result<Self, String> {
        network::<Self>(text).map(Self)
    }

    fn to_toml(&self) -> Option<String> {
        Some(format!("\"{}\"", self.0))
    }
}
