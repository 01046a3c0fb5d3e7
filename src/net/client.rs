//! Who a request comes from: the peer, or whom a trusted proxy speaks for.
//!
//! | the connection comes from | headers | the client is |
//! | --- | --- | --- |
//! | anybody else | any | the peer; the headers are passed over |
//! | a trusted proxy | none | the peer |
//! | a trusted proxy, with a PROXY header | none | whom the PROXY header names |
//! | a trusted proxy, with a PROXY header that names nobody | any | unknown; the headers are passed over |
//! | a trusted proxy | `X-Forwarded-For`, or `Forwarded: for=` | the last address in the list that is no trusted proxy |
//! | a trusted proxy | the same, all of them trusted | the first address in the list |
//! | a trusted proxy | something in the list is no address | the last address before it, seen from the end |
//! | a trusted proxy | the last in the list is no address | nobody in particular ([`UNNAMED`]) |
//! | a trusted proxy | both, and they name different clients | the same: one of the two is forged |
//!
//! After a PROXY header, the address that it names is the peer: its headers count only if it is trusted too.
//! Scheme and host come from `Forwarded: proto=` and `host=` of the same element, or from `X-Forwarded-Proto` and
//! `X-Forwarded-Host`. Where those are lists, the item counts that stands as far from the end as the client does in
//! `X-Forwarded-For`: what stands before it may be the client's own.
//!
//! A line of `Forwarded` that breaks the grammar counts as one element without an address, so that nothing within
//! a quoted text is ever taken for an element.

use std::net::{IpAddr, Ipv6Addr, SocketAddr as StdSocketAddr};

use salvo::{
    Request,
    conn::SocketAddr,
    http::{HeaderMap, header, uri::Authority},
};

use super::network::ClientNetwork;
use crate::{config::TrustedProxy, host};

/// The address of all clients whom the headers of a trusted proxy do not name. It has limits as any other has, while that of
/// the proxy may be exempt from them.
const UNNAMED: IpAddr = IpAddr::V6(Ipv6Addr::UNSPECIFIED);

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

/// Returns the network of the client that sent `request`. The client claims nothing from it if the address may be that of a
/// proxy or tunnel, whose clients all have it: the peer names another client without being trusted, or is this machine.
pub fn network_of(request: &Request, proxies: &[TrustedProxy]) -> ClientNetwork {
    let Some(client) = Client::of(request, proxies).address.map(|address| address.to_canonical()) else {
        return ClientNetwork::default();
    };
    let is_forwarded = [header::FORWARDED.as_str(), "x-forwarded-for"]
        .iter()
        .any(|name| request.headers().contains_key(*name));
    let is_of_stranger = is_forwarded && !trusts(proxies, request.remote_addr());
    let is_shared = is_of_stranger || client == UNNAMED || is_this_machine(client, request);
    let network = ClientNetwork::of(client);
    ClientNetwork { claims_from: network.claims_from.filter(|_| !is_shared), ..network }
}

/// Returns whether a client that sent `request` is on this machine: what dials one of its addresses has the same one, and
/// nobody else reaches its loopback addresses.
fn is_this_machine(client: IpAddr, request: &Request) -> bool {
    let canonical = |address: &SocketAddr| address.ip().map(|address| address.to_canonical());
    let (peer, local) = (canonical(request.remote_addr()), canonical(request.local_addr()));
    let is_peer = peer == Some(client);
    client.is_loopback()
        || local == Some(client)
        || (is_peer && local.is_some_and(|local| local.is_loopback()))
}

impl Client {
    /// Who sent `request`.
    pub fn of(request: &Request, proxies: &[TrustedProxy]) -> Self {
        // HTTP/2 has the host in the URI; so has HTTP/1 where a whole URL is asked for, and then it counts.
        let host = request.uri().authority().cloned();
        let peer = Self {
            address: request.remote_addr().ip(),
            scheme: request.scheme().to_string(),
            host: host
                .filter(is_valid)
                .or_else(|| authority(text(request.headers(), header::HOST.as_str())?)),
        };
        peer.seen_through(request.remote_addr(), request.headers(), proxies)
    }

    /// Returns the address of the client for which a trusted proxy sends these headers, or `None` if it names none.
    pub fn forwarded(headers: &HeaderMap, proxies: &[TrustedProxy]) -> Option<IpAddr> {
        let proxy = Self { address: None, scheme: String::new(), host: None };
        proxy.behind_proxy(headers, proxies).address
    }

    /// The client where `peer` handed over a request with these headers.
    fn seen_through(self, peer: &SocketAddr, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        if trusts(proxies, peer) { self.behind_proxy(headers, proxies) } else { self }
    }

    fn behind_proxy(self, headers: &HeaderMap, proxies: &[TrustedProxy]) -> Self {
        let (x_forwarded, forwarded) = (x_forwarded(headers), forwarded(headers));
        let (by_x, by_forwarded) = (client_among(&x_forwarded, proxies), client_among(&forwarded, proxies));
        let address = |hop: Option<(usize, &Hop)>| hop.and_then(|(_, hop)| hop.address);
        let is_forwarded = !x_forwarded.is_empty() || !forwarded.is_empty();
        if !x_forwarded.is_empty() && !forwarded.is_empty() && address(by_x) != address(by_forwarded) {
            return Self { address: Some(UNNAMED), ..self };
        }
        // An element without an address still tells what the proxy that wrote it was asked for.
        let element = by_forwarded.map(|(_, hop)| hop).or(forwarded.last());
        let (scheme, host) = match element {
            Some(hop) if x_forwarded.is_empty() => (hop.scheme.as_deref(), hop.host.as_deref()),
            _ => {
                let distance = by_x.map_or(0, |(distance, _)| distance);
                (
                    from_end(headers, "x-forwarded-proto", distance),
                    from_end(headers, "x-forwarded-host", distance),
                )
            }
        };
        let scheme = scheme.map(str::to_ascii_lowercase);
        Self {
            address: address(by_x).or(address(by_forwarded)).or(if is_forwarded {
                Some(UNNAMED)
            } else {
                self.address
            }),
            scheme: scheme
                .filter(|scheme| matches!(scheme.as_str(), "http" | "https"))
                .unwrap_or(self.scheme),
            host: host.and_then(authority).or(self.host),
        }
    }
}

/// One element of a forwarding header: who handed the request to the proxy that wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Hop {
    address: Option<IpAddr>,
    scheme: Option<String>,
    host: Option<String>,
}

/// The last hop that is no trusted proxy, and how many follow it; where all are trusted, the first.
fn client_among<'a>(hops: &'a [Hop], proxies: &[TrustedProxy]) -> Option<(usize, &'a Hop)> {
    let mut client = None;
    for (distance, hop) in hops.iter().rev().enumerate() {
        let Some(address) = hop.address else { break };
        client = Some((distance, hop));
        if !trusts_address(proxies, address) {
            break;
        }
    }
    client
}

fn x_forwarded(headers: &HeaderMap) -> Vec<Hop> {
    list(headers, "x-forwarded-for").map(|item| Hop { address: address(item), ..Hop::default() }).collect()
}

/// The elements of `Forwarded` (RFC 7239, section 4), over all its lines, in order.
fn forwarded(headers: &HeaderMap) -> Vec<Hop> {
    let lines = headers.get_all(header::FORWARDED).iter();
    lines
        .flat_map(|line| line.to_str().ok().and_then(hops_of_line).unwrap_or_else(|| vec![Hop::default()]))
        .collect()
}

/// The elements of one line, unless it breaks the grammar. Addresses need not be quoted: some proxies do not.
fn hops_of_line(mut rest: &str) -> Option<Vec<Hop>> {
    let mut hops = Vec::new();
    let (mut hop, mut seen) = (Hop::default(), Vec::new());
    loop {
        rest = rest.trim_start_matches(WHITESPACE);
        if !rest.is_empty() && !rest.starts_with([',', ';']) {
            let (name, after) = rest.split_once('=')?;
            let name = name.to_ascii_lowercase();
            let is_new = !name.is_empty() && !name.contains(NO_TOKEN) && !seen.contains(&name);
            let (value, after) = value(after).filter(|_| is_new)?;
            match name.as_str() {
                "for" => hop.address = address(&value),
                "proto" => hop.scheme = Some(value),
                "host" => hop.host = Some(value),
                _ => {}
            }
            seen.push(name);
            rest = after.trim_start_matches(WHITESPACE);
        }
        match rest.chars().next() {
            Some(';') => {}
            // An empty element counts for nothing.
            None | Some(',') if seen.is_empty() => {}
            None | Some(',') => {
                hops.push(std::mem::take(&mut hop));
                seen.clear();
            }
            Some(_) => return None,
        }
        match rest.get(1..) {
            Some(after) => rest = after,
            None => return Some(hops),
        }
    }
}

const WHITESPACE: [char; 2] = [' ', '\t'];
const NO_TOKEN: [char; 7] = ['"', ',', ';', '=', '\\', ' ', '\t'];

/// A value, bare or quoted, and what follows it.
fn value(text: &str) -> Option<(String, &str)> {
    let Some(quoted) = text.strip_prefix('"') else {
        let (value, rest) = text.split_at(text.find(NO_TOKEN).unwrap_or(text.len()));
        return (!value.is_empty()).then(|| (value.into(), rest));
    };
    let mut value = String::new();
    let mut chars = quoted.chars();
    loop {
        match chars.next()? {
            '"' => return Some((value, chars.as_str())),
            '\\' => value.push(chars.next()?),
            char => value.push(char),
        }
    }
}

/// All items of a header that is a list without quotes, over all its lines, in order. Empty ones count for nothing.
fn list<'a>(headers: &'a HeaderMap, name: &'a str) -> impl DoubleEndedIterator<Item = &'a str> {
    let lines = headers.get_all(name).iter();
    // What is no text is one item that is no address.
    let items = lines.flat_map(|line| line.to_str().unwrap_or("?").split(','));
    items.map(str::trim).filter(|item| !item.is_empty())
}

/// The item of a list that has `distance` items behind it; the first of a shorter list.
fn from_end<'a>(headers: &'a HeaderMap, name: &'a str, distance: usize) -> Option<&'a str> {
    list(headers, name).rev().take(distance + 1).last()
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name)?.to_str().ok()
}

fn authority(text: &str) -> Option<Authority> {
    text.parse().ok().filter(is_valid)
}

fn is_valid(authority: &Authority) -> bool {
    host::is_host_and_port(authority.as_str())
}

/// An address with or without a port: `192.0.2.1`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`. A port may be
/// hidden (`192.0.2.1:_http`, RFC 7239, section 6.3).
fn address(text: &str) -> Option<IpAddr> {
    let shown = text.split_once(":_").map_or(text, |(address, _)| address);
    let bare = match shown.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(bare) => bare.parse().ok().map(IpAddr::V6),
        None => shown.parse().ok().or_else(|| Some(shown.parse::<StdSocketAddr>().ok()?.ip())),
    };
    bare.map(|address| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use salvo::http::{HeaderName, HeaderValue};

    use super::*;

    const PEER: &str = "10.0.0.9";
    /// [`UNNAMED`].
    const NOBODY: &str = "::";

    /// 10.0.0.0/8, fd00::/8 and Unix sockets.
    fn proxies() -> Vec<TrustedProxy> {
        let network = |text: &str| TrustedProxy::Network(text.parse().unwrap());
        vec![network("10.0.0.0/8"), network("fd00::/8"), TrustedProxy::Unix]
    }

    /// What a broker that is asked for `http://broker` makes of a connection from `peer`.
    fn client(peer: &SocketAddr, headers: &[(&str, &str)]) -> Client {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            // Bytes, as they come from the network.
            map.append(
                name.parse::<HeaderName>().unwrap(),
                HeaderValue::from_bytes(value.as_bytes()).unwrap(),
            );
        }
        bare(peer).seen_through(peer, &map, &proxies())
    }

    /// What the broker sees where headers count for nothing.
    fn bare(peer: &SocketAddr) -> Client {
        Client { address: peer.ip(), scheme: "http".into(), host: Some("broker".parse().unwrap()) }
    }

    fn tcp(address: &str) -> SocketAddr {
        StdSocketAddr::new(address.parse().unwrap(), 40_000).into()
    }

    fn unix() -> SocketAddr {
        tokio::net::unix::SocketAddr::from(std::os::unix::net::SocketAddr::from_pathname("/run/x").unwrap())
            .into()
    }

    /// The address of the client behind the proxy at 10.0.0.9.
    fn behind(headers: &[(&str, &str)]) -> String {
        client(&tcp(PEER), headers).address.unwrap().to_string()
    }

    fn wanted(client: &Client) -> String {
        format!("{}://{}", client.scheme, client.host.as_ref().unwrap())
    }

    #[test]
    fn anybody_else_is_the_peer_whatever_the_headers() {
        let headers = [
            ("x-forwarded-for", "192.0.2.1"),
            ("x-forwarded-proto", "https"),
            ("x-forwarded-host", "evil"),
            ("forwarded", "for=192.0.2.1;proto=https;host=evil"),
        ];
        for peer in [tcp("198.51.100.1"), tcp("2001:db8::1"), tcp("11.0.0.1"), SocketAddr::Unknown] {
            assert_eq!(client(&peer, &headers), bare(&peer));
        }
        assert!(!trusts(&proxies()[..2], &unix()), "a Unix socket is not named there");
    }

    /// What comes from a network that others may share is counted all the same.
    #[test]
    fn a_network_is_a_licence_to_claim_only_if_it_is_the_clients_own() {
        const NAMED: (&str, &str) = ("x-forwarded-for", "203.0.113.6");
        for (peer, local, field, counted, claims) in [
            ("198.51.100.1", "192.0.2.2", None, "198.51.100.1", true),
            ("2001:db8::1", "2001:db8:1::2", None, "2001:db8::", true),
            // A proxy that is not trusted, or a client that says so.
            ("198.51.100.1", "192.0.2.2", Some(NAMED), "198.51.100.1", false),
            ("198.51.100.1", "192.0.2.2", Some(("forwarded", "x")), "198.51.100.1", false),
            // This machine.
            ("127.0.0.1", "127.0.0.1", None, "127.0.0.1", false),
            ("::1", "::1", None, "::1", false),
            ("192.0.2.2", "192.0.2.2", None, "192.0.2.2", false),
            ("::ffff:192.0.2.2", "192.0.2.2", None, "192.0.2.2", false),
            ("192.0.2.2", "::ffff:192.0.2.2", None, "192.0.2.2", false),
            ("2001:db8::2", "2001:db8::2", None, "2001:db8::", false),
            ("192.0.2.3", "127.0.0.1", None, "192.0.2.3", false),
            ("2001:db8::2", "::1", None, "2001:db8::", false),
            // A trusted proxy, on this machine or another.
            ("10.0.0.9", "10.0.0.9", Some(NAMED), "203.0.113.6", true),
            ("10.0.0.9", "127.0.0.1", Some(NAMED), "203.0.113.6", true),
            ("10.0.0.9", "10.0.0.2", Some(NAMED), "203.0.113.6", true),
            ("10.0.0.9", "10.0.0.9", None, "10.0.0.9", false),
            ("10.0.0.9", "10.0.0.2", Some(("x-forwarded-for", "127.0.0.1")), "127.0.0.1", false),
            ("10.0.0.9", "10.0.0.2", Some(("x-forwarded-for", "unknown")), NOBODY, false),
        ] {
            let mut request = Request::default();
            *request.remote_addr_mut() = tcp(peer);
            *request.local_addr_mut() = tcp(local);
            if let Some((name, value)) = field {
                request.headers_mut().insert(name, value.parse().unwrap());
            }
            let network = network_of(&request, &proxies());
            let what = format!("{peer} to {local} with {field:?}");
            assert_eq!(network.counted.unwrap().to_string(), counted, "{what}");
            assert_eq!(network.claims_from, network.counted.filter(|_| claims), "{what}");
        }
    }

    #[test]
    fn a_trusted_proxy_without_headers_is_the_client() {
        for peer in [tcp(PEER), tcp("fd00::1"), unix()] {
            assert_eq!(client(&peer, &[]), bare(&peer));
        }
    }

    #[test]
    fn the_last_address_that_is_no_proxy_is_the_client() {
        for (list, found) in [
            ("192.0.2.1", "192.0.2.1"),
            ("192.0.2.1, 198.51.100.2", "198.51.100.2"),
            ("192.0.2.1, 10.1.1.1", "192.0.2.1"),
            ("203.0.113.6, 192.0.2.1, 10.1.1.1, 10.2.2.2", "192.0.2.1"),
            ("10.3.3.3, 192.0.2.1, 10.1.1.1", "192.0.2.1"),
            ("192.0.2.1,fd00::7", "192.0.2.1"),
            ("::ffff:192.0.2.1, ::ffff:10.1.1.1", "192.0.2.1"),
            ("2001:db8::5", "2001:db8::5"),
            ("192.0.2.1:4711", "192.0.2.1"),
            ("[2001:db8::5]:4711, 10.1.1.1:80", "2001:db8::5"),
        ] {
            assert_eq!(behind(&[("x-forwarded-for", list)]), found, "{list}");
            let quoted = list.split(',').map(|item| format!("for=\"{}\"", item.trim()));
            let forwarded = quoted.collect::<Vec<_>>().join(", ");
            assert_eq!(behind(&[("forwarded", &forwarded)]), found, "{forwarded}");
            let lines: Vec<_> = list.split(',').map(|item| ("x-forwarded-for", item)).collect();
            assert_eq!(behind(&lines), found, "{list} in as many lines");
        }
        let unix = client(&unix(), &[("x-forwarded-for", "192.0.2.1, 10.1.1.1")]);
        assert_eq!(unix.address, Some("192.0.2.1".parse().unwrap()));
    }

    #[test]
    fn where_all_are_trusted_the_first_is_the_client() {
        assert_eq!(behind(&[("x-forwarded-for", "10.5.5.5, 10.1.1.1")]), "10.5.5.5");
        assert_eq!(behind(&[("forwarded", "for=10.5.5.5, for=10.1.1.1")]), "10.5.5.5");
    }

    #[test]
    fn what_is_no_address_ends_the_list() {
        for nothing in
            ["unknown", "_hidden", "unix:", "192.0.2", "192.0.2.1:80:80", "[192.0.2.1]", "fe80::1%eth0"]
        {
            for (last, found) in [("10.1.1.1", "10.1.1.1"), ("192.0.2.8", "192.0.2.8")] {
                let list = format!("192.0.2.1, {nothing}, {last}");
                assert_eq!(behind(&[("x-forwarded-for", &list)]), found, "{list}");
                let forwarded = format!("for=192.0.2.1, for=\"{nothing}\", for={last}");
                assert_eq!(behind(&[("forwarded", &forwarded)]), found, "{forwarded}");
            }
            assert_eq!(behind(&[("x-forwarded-for", &format!("192.0.2.1, {nothing}"))]), NOBODY, "{nothing}");
            let forwarded = format!("for=192.0.2.1, for=\"{nothing}\"");
            assert_eq!(behind(&[("forwarded", &forwarded)]), NOBODY, "{nothing}");
        }
    }

    #[test]
    fn two_headers_that_disagree_name_nobody() {
        let both =
            |x_forwarded, forwarded| behind(&[("x-forwarded-for", x_forwarded), ("forwarded", forwarded)]);
        assert_eq!(both("192.0.2.1", "for=192.0.2.1"), "192.0.2.1");
        assert_eq!(both("192.0.2.1", "for=192.0.2.2"), NOBODY);
        assert_eq!(both("192.0.2.1", "for=unknown"), NOBODY);
        assert_eq!(both("unknown", "for=192.0.2.1"), NOBODY, "a header that names nobody is no licence");
        assert_eq!(both("192.0.2.1", "for=\"192.0.2.1"), NOBODY);
        let client = client(
            &tcp(PEER),
            &[("x-forwarded-for", "192.0.2.1"), ("forwarded", "for=192.0.2.1;proto=https;host=evil")],
        );
        assert_eq!(
            wanted(&client),
            "http://broker",
            "the client can write the header that its proxy does not"
        );
    }

    #[test]
    fn empty_elements_count_for_nothing() {
        for list in ["192.0.2.1,", ",192.0.2.1", "192.0.2.1, , 10.1.1.1", ",,192.0.2.1,,"] {
            assert_eq!(behind(&[("x-forwarded-for", list)]), "192.0.2.1", "{list}");
            let forwarded = list.replace("192", "for=192").replace("10.1", "for=10.1");
            assert_eq!(behind(&[("forwarded", &forwarded)]), "192.0.2.1", "{forwarded}");
        }
        for nothing in ["", ",", " , ,"] {
            assert_eq!(behind(&[("x-forwarded-for", nothing)]), PEER);
            assert_eq!(behind(&[("forwarded", nothing)]), PEER);
            assert_eq!(behind(&[("x-forwarded-for", nothing), ("forwarded", "for=192.0.2.1")]), "192.0.2.1");
        }
    }

    #[test]
    fn elements_of_forwarded_follow_its_grammar() {
        for (line, found) in [
            ("For=192.0.2.1;PROTO=https;by=10.0.0.9", "192.0.2.1"),
            ("for=192.0.2.43;proto=http ; host=\"a;b\"", "192.0.2.43"),
            ("for=\"[2001:db8:cafe::17]:4711\"", "2001:db8:cafe::17"),
            ("for=\"[2001:db8:cafe::17]:_http\"", "2001:db8:cafe::17"),
            ("for=[2001:db8:cafe::17]", "2001:db8:cafe::17"),
            ("for=2001:db8:cafe::17", "2001:db8:cafe::17"),
            ("for=\"192.0.\\2.1\"", "192.0.2.1"),
            ("host=x;for=192.0.2.1", "192.0.2.1"),
            // A name or a quoted text that holds an element is none.
            ("for=192.0.2.1;host=\"x;for=203.0.113.6\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"x,for=203.0.113.6\"", "192.0.2.1"),
            ("for=192.0.2.1;host=\"x\\\",for=203.0.113.6\"", "192.0.2.1"),
            ("for=203.0.113.6;for=192.0.2.1", NOBODY),
            ("for=192.0.2.1;secret", NOBODY),
            ("for=192.0.2.1;", "192.0.2.1"),
            ("for = 192.0.2.1", NOBODY),
            ("for=\"192.0.2.1", NOBODY),
            ("for=\"192.0.2.1\"x", NOBODY),
            ("for=192.0.2.1\\", NOBODY),
            ("for=", NOBODY),
            ("=192.0.2.1", NOBODY),
            // A client that opens a quote for its proxy to close.
            ("for=203.0.113.6;x=\", for=192.0.2.1;host=\"broker\"", NOBODY),
            ("for=203.0.113.6;x=\"\\, for=192.0.2.1;host=\"broker\"", NOBODY),
        ] {
            assert_eq!(behind(&[("forwarded", line)]), found, "{line}");
            // A broken line hides the lines before it, never those after it.
            assert_eq!(behind(&[("forwarded", line), ("forwarded", "for=192.0.2.9")]), "192.0.2.9", "{line}");
        }
        assert_eq!(behind(&[("forwarded", "for=203.0.113.6"), ("forwarded", "for=\"10.1.1.1")]), NOBODY);
    }

    #[test]
    fn text_that_is_not_ascii_is_no_address() {
        for header in ["x-forwarded-for", "forwarded"] {
            assert_eq!(behind(&[(header, "for=192.0.2.1, 192.0.2.1, \u{fe}")]), NOBODY);
            let last = if header == "forwarded" { "for=192.0.2.9" } else { "192.0.2.9" };
            assert_eq!(behind(&[(header, "ü"), (header, last)]), "192.0.2.9");
            assert_eq!(behind(&[(header, last), (header, "ü")]), NOBODY);
        }
    }

    #[test]
    fn ten_thousand_elements_take_no_time() {
        let start = std::time::Instant::now();
        let list = |element: &str| vec![element; 10_000].join(",");
        assert_eq!(behind(&[("x-forwarded-for", &format!("192.0.2.1,{}", list("10.1.1.1")))]), "192.0.2.1");
        assert_eq!(behind(&[("forwarded", &format!("for=192.0.2.1,{}", list("for=10.1.1.1")))]), "192.0.2.1");
        assert_eq!(behind(&[("x-forwarded-for", &list(""))]), PEER);
        assert_eq!(behind(&[("forwarded", &format!("for={}", "\"".repeat(10_000)))]), NOBODY);
        assert!(start.elapsed() < std::time::Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[test]
    fn scheme_and_host_are_those_that_the_client_asked_for() {
        for (headers, url) in [
            (&[("x-forwarded-for", "192.0.2.1"), ("x-forwarded-proto", "HTTPS")][..], "https://broker"),
            (
                &[("x-forwarded-proto", "https"), ("x-forwarded-host", "pods.example.org:444")],
                "https://pods.example.org:444",
            ),
            (&[("x-forwarded-proto", "ws"), ("x-forwarded-host", "a b")], "http://broker"),
            (&[("x-forwarded-host", "user@evil")], "http://broker"),
            (
                &[("forwarded", "for=192.0.2.1;proto=https;host=\"pods.example.org:444\"")],
                "https://pods.example.org:444",
            ),
            (&[("forwarded", "proto=https;host=pods.example.org")], "https://pods.example.org"),
            (&[("forwarded", "for=192.0.2.1;host=evil, for=192.0.2.2;host=good")], "http://good"),
            (&[("forwarded", "for=192.0.2.2;host=good, for=10.1.1.1;host=inner")], "http://good"),
            // A proxy that appends to what the client sent.
            (
                &[("x-forwarded-for", "203.0.113.6, 192.0.2.2"), ("x-forwarded-host", "evil, good")],
                "http://good",
            ),
            (&[("x-forwarded-host", "evil, good")], "http://good"),
            (
                &[
                    ("x-forwarded-for", "203.0.113.6, 192.0.2.2, 10.1.1.1"),
                    ("x-forwarded-host", "evil, good, inner"),
                ],
                "http://good",
            ),
            (&[("x-forwarded-for", "192.0.2.2, 10.1.1.1"), ("x-forwarded-host", "good")], "http://good"),
        ] {
            assert_eq!(wanted(&client(&tcp(PEER), headers)), url, "{headers:?}");
        }
    }

    proptest! {
        #[test]
        fn nobody_outside_of_trusted_proxies_is_believed(
            peer in any::<IpAddr>(),
            headers in headers(),
        ) {
            prop_assume!(!trusts_address(&proxies(), peer));
            let peer = StdSocketAddr::new(peer, 1).into();
            let headers: Vec<_> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
            prop_assert_eq!(client(&peer, &headers), bare(&peer));
        }

        /// Whatever a client sends, its proxy's own element, which comes last, is what counts.
        #[test]
        fn nothing_that_a_client_sends_hides_what_its_proxy_adds(headers in headers()) {
            let forwarded = headers.iter().filter(|(name, _)| *name == "forwarded");
            let mut forwarded: Vec<_> = forwarded.map(|(name, value)| (*name, value.as_str())).collect();
            forwarded.push(("forwarded", "for=192.0.2.1;proto=https;host=\"pods.example.org\""));
            let client = client(&tcp(PEER), &forwarded);
            prop_assert_eq!((client.address, wanted(&client)), (Some("192.0.2.1".parse().unwrap()), "https://pods.example.org".to_owned()));

            let appended = headers.iter().filter(|(name, _)| *name == "x-forwarded-for").map(|(_, value)| value.as_str());
            let appended = appended.chain(["192.0.2.1"]).collect::<Vec<_>>().join(", ");
            if appended.is_ascii() {
                prop_assert_eq!(behind(&[("x-forwarded-for", &appended)]), "192.0.2.1");
            }
        }

        /// The same for a proxy that appends to the client's own line: the client can make itself nobody, not another.
        #[test]
        fn a_line_that_a_proxy_appends_to_never_names_another(theirs in value_of_header()) {
            let line = format!("{theirs}, for=192.0.2.1;host=\"broker\";proto=https");
            let found = behind(&[("forwarded", &line)]);
            prop_assert!(found == "192.0.2.1" || found == NOBODY, "{} for {}", found, line);
        }
    }

    fn headers() -> impl Strategy<Value = Vec<(&'static str, String)>> {
        let names = ["forwarded", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-host"];
        proptest::collection::vec((proptest::sample::select(names.to_vec()), value_of_header()), 0..6)
    }

    fn value_of_header() -> impl Strategy<Value = String> {
        let pieces = [
            "for=",
            "FOR=",
            "host=",
            "proto=",
            "by=",
            "10.1.1.1",
            "203.0.113.6",
            "[2001:db8::1]:80",
            "unknown",
            "_x",
            "https",
            "evil",
            ",",
            ", ",
            ";",
            "\"",
            "\\",
            " ",
            "=",
            ":",
            "ä",
            "x",
        ];
        proptest::collection::vec(proptest::sample::select(pieces.to_vec()), 0..12)
            .prop_map(|pieces| pieces.concat())
    }
}
