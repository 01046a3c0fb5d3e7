//! The broker's own authority, judged by others.

use std::{fs, os::unix::fs::PermissionsExt, path::Path, process::Output, sync::Arc};

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use tokio_rustls::rustls::{
    client::{WebPkiServerVerifier, danger::ServerCertVerifier},
    crypto::ring,
    pki_types::{ServerName, UnixTime},
};

use crate::support::{
    certs::{Files, openssl},
    process::{Broker, command, ended},
    server::TestServer,
    tls_client::{Client, first, get, roots},
};

const DOMAINS: &[&str] = &["pods.example", "*.wild.example", "127.0.0.1", "2001:db8::7"];

fn toml(files: &Files, domains: &[&str]) -> String {
    format!("data_dir = {:?}\n[tls]\nmode = \"self-signed\"\ndomains = {domains:?}\n", files.path("data"))
}

fn config(files: &Files, domains: &[&str]) -> String {
    let file = files.path("signal.toml");
    fs::write(&file, format!("port = 0\nhostname = \"127.0.0.1\"\n{}", toml(files, domains))).unwrap();
    file.to_str().unwrap().to_owned()
}

/// Before the broker's first start, too: its data directory is there.
fn ca(files: &Files, domains: &[&str]) -> Output {
    fs::create_dir_all(files.path("data")).unwrap();
    command().args(["ca", "--config", &config(files, domains)]).output().unwrap()
}

fn read(files: &Files, name: &str) -> String {
    fs::read_to_string(files.path("data/tls").join(name)).unwrap()
}

#[tokio::test]
async fn clients_that_trust_the_authority_trust_the_host() {
    let files = Files::new();
    let server = TestServer::with(&toml(&files, DOMAINS)).await;
    let client = Client::trusting(&read(&files, "ca.pem"));
    for name in ["pods.example", "any.wild.example", "127.0.0.1", "2001:db8::7"] {
        let mut stream = client.connect(&server.address, name).await.unwrap();
        let answer = get(&mut stream, "pods.example", "/health").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{name}: {answer}");
    }
    assert!(client.connect(&server.address, "other.example").await.is_err());
    assert!(client.connect(&server.address, "192.0.2.1").await.is_err());
    let directory = files.path("data/tls");
    assert_eq!(mode(&directory), 0o700);
    for name in ["ca.pem", "ca.key", "leaf.pem", "leaf.key"] {
        assert_eq!(mode(&directory.join(name)), 0o600, "{name}");
    }
    assert_eq!(fs::read_dir(&directory).unwrap().count(), 4);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Whether rustls, and whether OpenSSL, believe a certificate for `name` that was signed with the authority's key.
fn believed(files: &Files, name: &str, change: impl FnOnce(&mut CertificateParams)) -> [bool; 2] {
    let authority = read(files, "ca.pem");
    let issuer = KeyPair::from_pem(&read(files, "ca.key")).unwrap();
    let issuer = Issuer::from_ca_cert_pem(&authority, issuer).unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.distinguished_name.push(DnType::CommonName, "a forged one");
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    change(&mut params);
    let pem = params.signed_by(&key, &issuer).unwrap().pem();
    let provider = Arc::new(ring::default_provider());
    let verifier =
        WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&authority)), provider).build().unwrap();
    let server_name = ServerName::try_from(name.to_owned()).unwrap();
    let rustls = verifier.verify_server_cert(&first(&pem), &[], &server_name, &[], UnixTime::now());
    fs::write(files.path("forged.pem"), pem).unwrap();
    let (openssl, _) = openssl(&["verify", "-CAfile", "data/tls/ca.pem", "forged.pem"], files.0.path());
    [rustls.is_ok(), openssl]
}

#[test]
fn the_authority_can_vouch_for_nothing_else() {
    let both = (&["pods.example", "192.0.2.1"][..], &["pods.example", "a.pods.example", "192.0.2.1"][..]);
    let names = (&["pods.example"][..], &["pods.example"][..]);
    let addresses = (&["192.0.2.1"][..], &["192.0.2.1"][..]);
    for ((domains, good), bad) in [
        (both, &["other.example", "example", "xpods.example", "192.0.2.2", "2001:db8::1"][..]),
        (names, &["other.example", "192.0.2.1", "2001:db8::1"]),
        (addresses, &["pods.example", "localhost", "192.0.2.2", "2001:db8::1"]),
    ] {
        let files = Files::new();
        assert!(ca(&files, domains).status.success());
        for name in good {
            assert_eq!(believed(&files, name, |_| {}), [true; 2], "{domains:?} must vouch for {name}");
        }
        for name in bad {
            assert_eq!(believed(&files, name, |_| {}), [false; 2], "{domains:?} must not vouch for {name}");
        }
    }
}

#[test]
fn openssl_finds_the_certificates_right() {
    let files = Files::new();
    let mut broker = Broker::spawn(command().args(["--config", &config(&files, DOMAINS)]));
    assert!(broker.terminate().success());
    let leaf = ["verify", "-x509_strict", "-purpose", "sslserver", "-CAfile", "data/tls/ca.pem"];
    for name in ["-verify_hostname pods.example", "-verify_ip 127.0.0.1", "-verify_ip 2001:db8::7"] {
        let name: Vec<_> = name.split(' ').collect();
        let (good, said) = openssl(&[&leaf[..], &name, &["data/tls/leaf.pem"]].concat(), files.0.path());
        assert!(good, "{said}");
    }
    let (_, authority) = openssl(&["x509", "-in", "data/tls/ca.pem", "-noout", "-text"], files.0.path());
    for line in [
        "CA:TRUE, pathlen:0",
        "Certificate Sign, CRL Sign",
        "X509v3 Name Constraints: critical",
        "DNS:pods.example",
        "DNS:wild.example",
        "IP:127.0.0.1/255.255.255.255",
    ] {
        assert!(authority.contains(line), "{line} is missing in {authority}");
    }
}

#[test]
fn authority_and_certificate_outlast_the_process() {
    let files = Files::new();
    let config = config(&files, DOMAINS);
    let mut seen = Vec::new();
    for _ in 0..2 {
        let mut broker = Broker::spawn(command().args(["--config", &config]));
        assert!(broker.terminate().success());
        seen.push(["ca.pem", "ca.key", "leaf.pem", "leaf.key"].map(|name| read(&files, name)));
    }
    assert_eq!(seen[0], seen[1]);
}

#[test]
fn ca_prints_the_authority_and_how_to_trust_it() {
    let files = Files::new();
    let before = ca(&files, DOMAINS);
    assert!(before.status.success());
    let pem = String::from_utf8(before.stdout).unwrap();
    assert_eq!(pem, read(&files, "ca.pem"));
    assert!(!files.path("data/leaf.pem").exists());
    let advice = String::from_utf8(before.stderr).unwrap();
    for word in [
        "update-ca-certificates",
        "update-ca-trust",
        "trust anchor",
        "add-trusted-cert",
        "certutil -addstore",
        "security.pki.certificateFiles",
        "nssdb",
        "NODE_EXTRA_CA_CERTS",
        "--cacert",
    ] {
        assert_eq!(advice.lines().filter(|line| line.contains(word)).count(), 1, "{word} in {advice}");
    }
    // The same while the broker runs.
    let _broker = Broker::spawn(command().args(["--config", &config(&files, DOMAINS)]));
    assert_eq!(String::from_utf8(ca(&files, DOMAINS).stdout).unwrap(), pem);
    // Another configuration than the broker's does not take the authority away from it.
    let other = ca(&files, &["other.example"]);
    assert_eq!(String::from_utf8(other.stdout).unwrap(), pem);
    assert!(String::from_utf8(other.stderr).unwrap().contains("cannot vouch for other.example"));
}

#[test]
fn ca_makes_no_data_directory() {
    let files = Files::new();
    let output = command().args(["ca", "--config", &config(&files, DOMAINS)]).output().unwrap();
    let sentence = format!(
        "gemmapod-signal: there is no data directory {}; name that of a broker with --data-dir or data_dir, start the \
         broker once, or make the directory\n",
        files.path("data").display()
    );
    assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(2), sentence));
    assert!(output.stdout.is_empty() && !files.path("data").exists());
}

#[test]
fn ca_without_an_authority_says_so() {
    let output = command().arg("ca").output().unwrap();
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "gemmapod-signal: there is no certificate authority: tls.mode is not \"self-signed\"; name the \
         configuration of the broker with --config\n"
    );
}

#[test]
fn other_domains_need_another_authority_and_say_so() {
    let files = Files::new();
    ca(&files, &["pods.example"]);
    let old = read(&files, "ca.pem");
    // What the old one covers is no reason for a new one.
    Broker::spawn(command().args(["--config", &config(&files, &["a.pods.example"])]));
    assert_eq!(read(&files, "ca.pem"), old);
    let mut broker = Broker::spawn(command().args(["--config", &config(&files, &["other.example"])]));
    let new = read(&files, "ca.pem");
    assert_ne!(new, old);
    assert!(broker.terminate().success());
    let warnings = broker.before_listening.iter().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    is_told(&files, warnings[0], "other.example", &old);
}

/// Checks that `line` says that the authority `old` cannot vouch for `domain`, which other there is, and where the old one is.
fn is_told(files: &Files, line: &str, domain: &str, old: &str) {
    let fingerprint = |pem: &str| {
        fs::write(files.path("authority.pem"), pem).unwrap();
        let (_, says) =
            openssl(&["x509", "-in", "authority.pem", "-noout", "-fingerprint", "-sha256"], files.0.path());
        says.trim().rsplit('=').next().unwrap().to_owned()
    };
    let (before, now) = (fingerprint(old), fingerprint(&read(files, "ca.pem")));
    let (line, kept) = line.split_once(&format!("the old one, {before}, is kept as ")).expect(line);
    let sentence = format!(
        "the old one cannot vouch for {domain}: a new certificate authority is made, with the SHA-256 fingerprint \
         {now}; give it to every client again with `gemmapod-signal ca --config FILE`; "
    );
    assert!(line.ends_with(&sentence), "{line}");
    let kept = Path::new(kept.strip_suffix(" with its key").expect(kept));
    assert_eq!(fs::read_to_string(kept).unwrap(), old);
    let key = KeyPair::from_pem(&fs::read_to_string(kept.with_extension("key")).unwrap()).unwrap();
    Issuer::from_ca_cert_pem(old, &key).unwrap();
    assert_eq!([mode(kept), mode(&kept.with_extension("key"))], [0o600; 2]);
}

#[test]
fn a_reload_keeps_the_authority_if_it_can() {
    let files = Files::new();
    let file = config(&files, &["pods.example"]);
    let mut broker = Broker::spawn(command().args(["--config", &file]));
    let old = read(&files, "ca.pem");
    config(&files, &["a.pods.example", "pods.example"]);
    broker.signal("HUP");
    broker.wait_for("a certificate for a.pods.example, pods.example was made");
    assert_eq!(read(&files, "ca.pem"), old);
    config(&files, &["pods.example", "192.0.2.1"]);
    broker.signal("HUP");
    let line = broker.wait_for("a new certificate authority is made");
    broker.wait_for("a certificate for pods.example, 192.0.2.1 was made");
    is_told(&files, &line, "192.0.2.1", &old);
}

#[test]
fn a_damaged_authority_is_not_replaced() {
    let files = Files::new();
    ca(&files, &["pods.example"]);
    let (key, other) = (files.path("data/tls/ca.key"), KeyPair::generate().unwrap().serialize_pem());
    let broken = |text: &str| text.replace("DIR", files.0.path().to_str().unwrap());
    for (text, problem) in [
        (Some(other), "has a key beside it that does not fit"),
        (Some("hello".into()), "has no key that can be used beside it"),
        (None, "has no ca.key beside it"),
    ] {
        match text {
            Some(text) => fs::write(&key, text).unwrap(),
            None => fs::remove_file(&key).unwrap(),
        }
        let output = ended(command().args(["--config", &config(&files, &["pods.example"])]));
        let sentence = broken(&format!(
            "gemmapod-signal: DIR/data/tls/ca.pem {problem}: put both files back from a backup, or remove the \
             directory to have a new authority made, which every client must then be given again\n"
        ));
        assert_eq!((output.status.code(), String::from_utf8(output.stderr).unwrap()), (Some(1), sentence));
    }
}
