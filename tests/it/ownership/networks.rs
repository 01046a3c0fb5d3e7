//! From which network a client comes: for what it may claim, and for what it is counted by.

use std::net::{IpAddr, UdpSocket};

use reqwest::{Client, Method};
use tokio::net::TcpSocket;
use tokio_tungstenite::{client_async, tungstenite::client::IntoClientRequest};

use super::proof::{HOST, Owner, broker, later, register};
use crate::support::{frames::registered, server::TestServer, skipped, socket::Socket};

/// An address of this machine that others reach it by, in the family of `far`.
fn own_address(far: &str) -> Option<IpAddr> {
    let any = if far.contains("::") { "[::]:0" } else { "0.0.0.0:0" };
    let socket = UdpSocket::bind(any).ok()?;
    // Nothing is sent.
    socket.connect(far).ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

fn with_port(address: IpAddr, server: &TestServer) -> String {
    std::net::SocketAddr::new(address, server.addresses[0].port()).to_string()
}

/// A claim that `http` sends to `address`.
async fn claim(http: &Client, owner: &Owner, address: &str, pod_id: &str, fields: &[(&str, &str)]) -> u16 {
    let path = format!("/owner/{}/pod-ids/{pod_id}", owner.key());
    let headers = owner.signature(&Method::PUT, super::proof::BROKER, &path, None, later());
    let claim = http.put(format!("http://{address}{path}")).headers(headers).header("host", HOST);
    let claim = fields.iter().fold(claim, |claim, (name, value)| claim.header(*name, *value));
    claim.send().await.unwrap().status().as_u16()
}

/// A client whose address is `from`.
fn http_from(from: &str) -> Client {
    Client::builder().local_address(from.parse::<IpAddr>().ok()).build().unwrap()
}

/// A tunnel or proxy may dial any address of the machine that it shares with the broker, and it speaks for anybody.
#[tokio::test]
async fn whoever_dials_the_broker_from_its_own_machine_claims_nothing_that_is_in_use() {
    let addresses: Vec<_> =
        ["192.0.2.1:9", "[2001:db8::1]:9"].iter().filter_map(|far| own_address(far)).collect();
    if addresses.is_empty() {
        return skipped("this machine has no address but those of loopback");
    }
    let addresses = addresses.into_iter().chain(["127.0.0.1".parse().unwrap(), "::1".parse().unwrap()]);
    // IPv4 comes to it as IPv4 within IPv6.
    let both = broker("[[listen]]\naddress = \"[::]:0\"").await;
    let ipv4 = broker("[[listen]]\naddress = \"0.0.0.0:0\"").await;
    for address in addresses {
        let servers = if address.is_ipv4() { vec![&both, &ipv4] } else { vec![&both] };
        for server in servers {
            let there = with_port(address, server);
            let pod_id = format!("pod-{}", address.to_string().replace(':', "-"));
            let mut host = Socket::connect(&there).await;
            host.register(&pod_id).await;
            let stranger = Owner::new();
            assert_eq!(claim(&server.http, &stranger, &there, &pod_id, &[]).await, 409, "{there}");
            // A free one is free for all.
            let free = format!("free-{pod_id}");
            assert_eq!(claim(&server.http, &stranger, &there, &free, &[]).await, 204, "{there}");
            host.nothing().await;
        }
    }
}

/// The source may be another address of the machine than the one that is dialled.
#[tokio::test]
async fn whoever_dials_a_loopback_address_is_on_this_machine() {
    let Some(own) = own_address("192.0.2.1:9") else {
        return skipped("this machine has no address but those of loopback");
    };
    let server = broker("").await;
    let tcp = TcpSocket::new_v4().unwrap();
    tcp.bind((own, 0).into()).unwrap();
    let stream = tcp.connect(server.addresses[0]).await.unwrap();
    let request = format!("ws://{}/signal", server.address).into_client_request().unwrap();
    let (stream, _) = client_async(request, stream).await.unwrap();
    let mut host = Socket { stream };
    host.register("pod").await;
    let stranger = Owner::new();
    let http = http_from(&own.to_string());
    assert_eq!(claim(&http, &stranger, &server.address, "pod", &[]).await, 409);
    host.nothing().await;
}

/// Some proxies that nobody trusts name clients, and a client can do so too. It is counted by its own address.
#[tokio::test]
async fn a_stranger_who_names_another_uses_up_its_own_room_alone() {
    let server = broker("[limits]\nregistrations = \"off\"").await;
    const NAMED: [(&str, &str); 1] = [("x-forwarded-for", "x")];
    let stranger = http_from("127.0.6.1");
    // As keys that own nothing, and as one that owns something.
    let owner = Owner::new();
    owner.upload(&server, &owner.pod("mine").html()).await;
    let mut last = [0; 2];
    for n in 0..66 {
        let fresh = Owner::new();
        for (at, key) in [&fresh, &owner].into_iter().enumerate() {
            let pod_id = format!("flood-{n}-{at}");
            last[at] = claim(&stranger, key, &server.address, &pod_id, &NAMED).await;
            assert!(last[at] == 204 || n >= 64, "{n}: {last:?}");
        }
    }
    assert_eq!(last, [429; 2]);
    // Others come through a proxy that adds the same field.
    let other = Owner::new();
    let http = http_from("127.0.7.1");
    assert_eq!(claim(&http, &other, &server.address, "others", &NAMED).await, 204);
    let mut host = Socket::forwarded(&server.address, "x").await;
    host.send(register("host", &other.token("host"))).await;
    host.expect(registered("host")).await;
    drop(host);
    server.until_health("no origin", |health| health["origins"] == serde_json::json!([])).await;
    let mut stranger = server.connect().await;
    stranger.send(crate::support::frames::register("host")).await;
    assert_eq!(stranger.receive().await["t"], "error", "the registration is on record");
}
