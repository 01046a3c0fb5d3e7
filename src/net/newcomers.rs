//! Tries of every pool of places whether a newcomer finds one, however others fill it up.

use std::{any::Any, net::IpAddr, sync::Arc};

use super::{
    connection_limiter::{ConnectionCapacity, ConnectionLimiter},
    limits::Limits,
};
use crate::{config::Config, http::downloads::Downloads};

/// A place, which is free again when it is dropped.
type Place = Box<dyn Any>;

/// Takes a place for a client, where so many are taken.
type Take = Box<dyn Fn(IpAddr, usize) -> Option<Place>>;

fn pools() -> Vec<(&'static str, Take)> {
    let config = Arc::new(Config::default());
    let limit = config.http.max_connections_per_address;
    let pool = ConnectionCapacity::of(config.http.max_connections as usize, usize::MAX);
    let max_sockets = config.signal.max_sockets as usize;
    let (limits, connections) = (Limits::new(&config), Arc::<ConnectionLimiter>::default());
    let downloads = Downloads::new(pool);
    vec![
        (
            "sockets",
            Box::new(move |client, taken| {
                let permit = limits.socket(Some(client), taken).ok()?;
                (taken < max_sockets).then(|| Box::new(permit) as Place)
            }),
        ),
        (
            "connections",
            Box::new(move |client, taken| {
                let permit = connections.enter(client, pool.share(limit, pool.places - taken))?;
                (taken < pool.places).then(|| Box::new(permit) as Place)
            }),
        ),
        (
            "downloads",
            Box::new(move |client, _| {
                downloads.begin(Some(client), limit).ok().map(|permit| Box::new(permit) as Place)
            }),
        ),
    ]
}

/// Lets each client take all that it can, `at_once` places at a time, until none finds any.
fn fill(take: &Take, clients: &[IpAddr], at_once: usize, held: &mut Vec<Place>) {
    loop {
        let before = held.len();
        for client in clients {
            for _ in 0..at_once {
                let Some(place) = take(*client, held.len()) else { break };
                held.push(place);
            }
        }
        if held.len() == before {
            return;
        }
    }
}

#[test]
fn a_newcomer_finds_a_place_however_many_networks_take_all_they_can() {
    let ip = |address: String| address.parse::<IpAddr>().unwrap();
    for count in [1, 4, 16, 64, 200] {
        let addresses: Vec<_> = (0..count).map(|n| ip(format!("192.0.2.{n}"))).collect();
        let networks = 0..count * 8;
        let of_few_sites = (0..count).map(|n| ip(format!("2001:db8:{}:{n:x}::1", n % 4))).collect();
        let of_many_sites = networks.map(|n| ip(format!("2001:db8:{:x}:{}::1", n / 8, n % 8))).collect();
        for clients in [addresses, of_few_sites, of_many_sites] {
            // One after the other, and side by side.
            for at_once in [usize::MAX, 1] {
                for (name, take) in pools() {
                    let mut held = Vec::new();
                    fill(&take, &clients, at_once, &mut held);
                    let at = format!("{name}: {count} networks such as {}, {at_once} at once", clients[0]);
                    for newcomer in ["198.51.100.1", "2001:db8:ffff::1"] {
                        let place = take(newcomer.parse().unwrap(), held.len());
                        held.push(place.unwrap_or_else(|| panic!("{at}: {} places are held", held.len())));
                    }
                }
            }
        }
    }
}

#[test]
fn one_that_is_alone_has_all_that_the_settings_promise() {
    let config = Config::default();
    for (name, take) in pools() {
        let mut held = Vec::new();
        fill(&take, &["192.0.2.1".parse().unwrap()], 1, &mut held);
        let expected = match name {
            "sockets" => config.limits.sockets_per_address,
            _ => config.http.max_connections_per_address,
        };
        assert_eq!(held.len(), expected as usize, "{name}");
    }
}
