//! Who a request comes from: the peer, or whom a trusted proxy speaks for.
//!
//! | the connection comes from | headers | the client is |
//! | --- | --- | --- |
//! | anybody else | any | the peer; the headers are passed over |
//! | a trusted proxy | none | the peer |
//! | a trusted proxy, with a PROXY header | none | whom the PROXY header names |
//! | a trusted proxy | `X-Forwarded-For`, or `Forwarded: for=` | the last address in the list that is no trusted proxy |
//! | a trusted proxy | the same, all of them trusted | the first address in the list |
//! | a trusted proxy | something in the list is no address | the last address before it, seen from the end |
//! | a trusted proxy | both, and they name different clients | the peer: one of the two is forged |
//!
//! After a PROXY header, the address that it names is the peer: its headers count only if it is trusted too.
//! Scheme and host come from `Forwarded: proto=` and `host=` of the same element, or from `X-Forwarded-Proto` and
//! `X-Forwarded-Host`.

use std::net::{IpAddr, SocketAddr as StdSocketAddr};

use salvo::{
    Request,
    conn::SocketAddr,
    http::{HeaderMap, header, uri::Authority},
};

use crate::config::TrustedProxy;

/// Who a request comes from, and what they asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// The address; a peer of a Unix socket has none.
    pub address: Option<IpAddr>,
    /// `http` or `https`, as the client sees it.
    pub scheme: String,
    /// Host and port, as the client sees them.
    pub host: Option<Authority>,
}

/// Whether a peer's word is believed.
pub fn trusts(proxies: &[TrustedProxy], peer: &SocketAddr) -> bool {
    match peer.ip() {
        Some(address) => trusts_address(proxies, address),
        None => matches!(peer, SocketAddr::Unix(_)) && proxies.contains(&TrustedProxy::Unix),
    }
}

fn trusts_address(proxies: &[TrustedProxy], address: IpAddr) -> bool {
    proxies.iter().any(|proxy| matches!(proxy, TrustedProxy::Network(network) if network.contains(&address)))
}

impl Client {
    /// Who sent `request`.
    pub fn of(request: &Request, proxies: &[TrustedProxy]) -> Self {
        let headers = request.headers();
        let peer = Self {
            address: request.remote_addr().ip(),
            scheme: request.scheme().to_string(),
            // HTTP/2 has `:authority` in its place.
            host: text(headers, header::HOST.as_str())
                .and_then(|host| host.parse().ok())
                .or_else(|| request.uri().authority().cloned()),
        };
        if trusts(proxies, request.remote_addr()) { peer.behind_proxy(headers, proxies) } else { peer }
    }

    fn behind_proxy(self, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        let (x_forwarded, forwarded) = (x_forwarded(headers), forwarded(headers));
        let found = |hops: &[Hop]| client_among(hops, proxies);
        let hop = match (found(&x_forwarded), found(&forwarded)) {
            (Some(one), Some(other)) if one.address != other.address => return self,
            (Some(mut hop), _) => {
                hop.scheme = text(headers, "x-forwarded-proto").map(first_of_list);
                hop.host = text(headers, "x-forwarded-host").map(first_of_list);
                hop
            }
            (None, Some(hop)) => hop,
            (None, None) => Hop {
                address: self.address,
                scheme: text(headers, "x-forwarded-proto").map(first_of_list),
                host: text(headers, "x-forwarded-host").map(first_of_list),
            },
        };
        let scheme = hop.scheme.map(|scheme| scheme.to_ascii_lowercase());
        Self {
            address: hop.address,
            scheme: scheme
                .filter(|scheme| matches!(scheme.as_str(), "http" | "https"))
                .unwrap_or(self.scheme),
            host: hop.host.and_then(|host| host.parse().ok()).or(self.host),
        }
    }
}

/// One element of a forwarding header: who handed the request to the proxy that wrote it.
#[derive(Clone, Debug, Default)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<String>,
    host: Option<String>,
}

/// The last hop that is no trusted proxy; where all are, the first.
fn client_among(hops: &[Hop], proxies: &[TrustedProxy]) -> Option<Hop> {
    let mut client = None;
    for hop in hops.iter().rev() {
        let Some(address) = hop.address else { break };
        client = Some(hop.clone());
        if !trusts_address(proxies, address) {
            break;
        }
    }
    client
}

fn x_forwarded(headers: &HeaderMap) -> Vec<Hop> {
    list(headers, "x-forwarded-for").map(|item| Hop { address: address(item), ..Hop::default() }).collect()
}

/// The elements of `Forwarded` (RFC 7239, section 4).
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let hop = |element: &str| {
        let mut hop = Hop::default();
        for pair in element.split(';') {
            let Some((name, value)) = pair.split_once('=') else { continue };
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => hop.address = address(value),
                "proto" => hop.scheme = Some(value.into()),
                "host" => hop.host = Some(value.into()),
                _ => {}
            }
        }
        hop
    };
    list(headers, header::FORWARDED.as_str()).map(hop).collect()
}

/// All items of a header that is a list, over all its lines, in order.
fn list<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    lines.flat_map(|line| line.to_str().unwrap_or_default().split(',')).map(str::trim)
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn first_of_list(value: &str) -> String {
    value.split(',').next().unwrap_or_default().trim().to_owned()
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<StdSocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}
