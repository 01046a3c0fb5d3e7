//! Which certificate a client is shown, and which keys can be used.

use rcgen::{KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};

use crate::support::{
    certs::{Authority, Files, openssl},
    server::TestServer,
    tls_client::{Client, first, get},
};

#[tokio::test]
async fn the_name_that_a_client_asks_for_chooses() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let everywhere = ["one.example", "other.test", "127.0.0.1", "deep.below.wild.example"];
    let pairs = [
        ("one", authority.issue(&everywhere)),
        ("two", authority.issue(&["two.example", "both.example"])),
        ("three", authority.issue(&["*.wild.example", "three.example", "both.example", "Upper.Example"])),
        ("exact", authority.issue(&["exact.wild.example"])),
    ];
    for (name, pair) in &pairs {
        files.write(name, pair);
    }
    let server = TestServer::with(&files.toml(&["one", "two", "three", "exact"])).await;
    let mut client = Client::trusting(&authority.pem());
    for (name, expected) in [
        ("one.example", 0),
        ("two.example", 1),
        ("TWO.example", 1),
        ("both.example", 1),
        ("three.example", 2),
        ("upper.example", 2),
        ("any.wild.example", 2),
        ("exact.wild.example", 3),
        // Unknown names, one label too many for the wildcard, and no name at all: the first.
        ("other.test", 0),
        ("deep.below.wild.example", 0),
        ("127.0.0.1", 0),
    ] {
        let shown = client.shown(&server.address, name).await;
        assert_eq!(shown, first(&pairs[expected].1.chain), "for {name}");
    }
    client.0.enable_sni = false;
    assert_eq!(client.shown(&server.address, "one.example").await, first(&pairs[0].1.chain));
    let refused = client.connect(&server.address, "two.example").await;
    assert!(refused.is_err(), "without its name, the second certificate cannot be found");
}

#[tokio::test]
async fn pkcs8_pkcs1_and_sec1_keys_of_all_usual_kinds() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let traditional = |pem: &str| {
        std::fs::write(files.path("in.key"), pem).unwrap();
        let (good, text) = openssl(&["pkey", "-in", "in.key", "-traditional"], files.0.path());
        assert!(good, "{text}");
        text
    };
    let rsa = {
        let (good, text) = openssl(&["genrsa", "2048"], files.0.path());
        assert!(good, "{text}");
        text[text.find("-----BEGIN").unwrap()..].to_owned()
    };
    let rsa = KeyPair::from_pkcs8_pem_and_sign_algo(&rsa, &PKCS_RSA_SHA256).unwrap();
    let [p256, p384, ed25519] = [&PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384, &PKCS_ED25519]
        .map(|algorithm| KeyPair::generate_for(algorithm).unwrap());
    for (key, pem, label) in [
        (&rsa, rsa.serialize_pem(), "BEGIN PRIVATE KEY"),
        (&rsa, traditional(&rsa.serialize_pem()), "BEGIN RSA PRIVATE KEY"),
        (&p256, p256.serialize_pem(), "BEGIN PRIVATE KEY"),
        (&p256, traditional(&p256.serialize_pem()), "BEGIN EC PRIVATE KEY"),
        (&p384, traditional(&p384.serialize_pem()), "BEGIN EC PRIVATE KEY"),
        (&ed25519, ed25519.serialize_pem(), "BEGIN PRIVATE KEY"),
    ] {
        assert!(pem.contains(label), "{pem}");
        // As `openssl ecparam -genkey` writes it.
        let pem =
            format!("-----BEGIN EC PARAMETERS-----\nBggqhkjOPQMBBw==\n-----END EC PARAMETERS-----\n{pem}");
        files.write("pair", &authority.issue_for(key, pem, &["key.example"], |_| {}));
        let server = TestServer::with(&files.toml(&["pair"])).await;
        let client = Client::trusting(&authority.pem());
        let mut stream = client.connect(&server.address, "key.example").await.unwrap();
        let answer = get(&mut stream, "key.example", "/health").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{label}: {answer}");
        server.stop().await;
    }
}

#[tokio::test]
async fn a_chain_with_intermediates() {
    let (root, files) = (Authority::named("Root"), Files::new());
    let middle = root.below("Middle");
    let mut pair = middle.issue(&["chain.example"]);
    pair.chain += &middle.pem();
    files.write("pair", &pair);
    let server = TestServer::with(&files.toml(&["pair"])).await;
    let client = Client::trusting(&root.pem());
    assert_eq!(client.shown(&server.address, "chain.example").await, first(&pair.chain));
}
