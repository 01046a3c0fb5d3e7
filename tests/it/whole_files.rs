//! A file that stands for one thing is read whole: what follows the thing is not ignored, but refused.

use std::{fs, os::unix::fs::PermissionsExt};

use ed25519_dalek::SigningKey;
use gemmapod_signal::{MemoryRegistry, SignalServer};
use rcgen::KeyPair;

use crate::support::{
    certs::{Authority, Files},
    pod::hex,
    process::{command, ended},
    server::config,
};

/// Writes the file `name` as it should be, then with `more` at its end. What `read` says to the first does not hold
/// `sentence`, and what it says to the second does; in it, N stands for the line in which `more` begins.
async fn check(files: &Files, (name, more, sentence): (&str, &str, &str), read: impl AsyncFn() -> String) {
    let path = files.path(name);
    let good = fs::read_to_string(&path).unwrap();
    let sentence =
        format!("{} {}", path.display(), sentence.replace('N', &(good.lines().count() + 1).to_string()));
    let says = read().await;
    assert!(!says.contains(&sentence), "{says}");
    fs::write(&path, format!("{good}{more}")).unwrap();
    let says = read().await;
    assert!(says.contains(&sentence), "{says:?} is not {sentence:?}");
    fs::write(&path, good).unwrap();
}

#[tokio::test]
async fn files_of_the_broker() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    fs::write(files.path("root.pem"), authority.pem()).unwrap();
    fs::write(files.path("eab"), "c2VjcmV0\n").unwrap();
    let dir = files.0.path().display();
    let acme = |line: &str| {
        format!(
            "tls.domains = [\"pods.example\"]\ndata_dir = \"{dir}/data\"\n[[listen]]\naddress = \"127.0.0.1:0\"\n\
             tls = true\n[acme]\ndirectory = \"https://127.0.0.1:1/directory\"\n{line}\n"
        )
    };
    let of_files = files.toml(&["pair"]);
    let root = acme(&format!("root = \"{dir}/root.pem\""));
    let binding = acme(&format!("eab_key_id = \"kid\"\neab_key_file = \"{dir}/eab\""));
    let own = format!("data_dir = \"{dir}\"\ntls.mode = \"self-signed\"\ntls.domains = [\"pods.example\"]\n");
    let bind = async |toml: &str| {
        let registry = MemoryRegistry::new(1 << 20);
        let bound = SignalServer::builder().config(config(toml)).registry(registry).bind().await;
        bound.err().map(|error| error.to_string()).unwrap_or_default()
    };
    assert_eq!(bind(&own).await, "");
    let key = KeyPair::generate().unwrap().serialize_pem();
    let encrypted = key.replace("PRIVATE", "ENCRYPTED PRIVATE");
    let certificate = authority.pem();
    let trusted = certificate.replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
    let second_key = "holds a second private key in line N";
    for (toml, row) in [
        (&of_files, ("pair.key", &*key, second_key)),
        (&of_files, ("pair.key", &encrypted, second_key)),
        (&of_files, ("pair.pem", &trusted, "holds \"TRUSTED CERTIFICATE\" in line N")),
        (&root, ("root.pem", &trusted, "holds \"TRUSTED CERTIFICATE\" in line N")),
        (&binding, ("eab", "c2VjcmV0\n", "holds more than one line (line N)")),
        (&own, ("tls/ca.pem", &certificate, "holds more than one certificate")),
    ] {
        check(&files, row, async || bind(toml).await).await;
    }
    let ca_key = fs::read_to_string(files.path("tls/ca.key")).unwrap();
    fs::write(files.path("tls/ca.key"), format!("{ca_key}{key}")).unwrap();
    let says = bind(&own).await;
    assert!(says.contains("ca.pem has more than one key beside it"), "{says}");
}

#[tokio::test]
async fn files_of_an_owner() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let pair = |seed: u8| {
        let key = SigningKey::from_bytes(&[seed; 32]);
        let (public, secret) = (hex(key.verifying_key().as_bytes()), hex(key.as_bytes()));
        format!("{{\n  \"publicKey\": \"{public}\",\n  \"secretKey\": \"{secret}\"\n}}\n")
    };
    for (name, content) in [
        ("owner.key", pair(1)),
        ("ca.pem", authority.pem()),
        ("token", "secret\n".into()),
        ("pod.html", "x".into()),
    ] {
        fs::write(files.path(name), content).unwrap();
        fs::set_permissions(files.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }
    let path = |name: &str| files.path(name).to_str().unwrap().to_owned();
    // Nobody listens there: what is right is told so.
    let put = async || {
        let mut command = command();
        command.args(["pods", "put", &path("pod.html"), "--broker", "https://127.0.0.1:1"]);
        command.args(["--key", &path("owner.key"), "--ca", &path("ca.pem"), "--token-file", &path("token")]);
        String::from_utf8(ended(&mut command).stderr).unwrap()
    };
    assert!(put().await.contains("https://127.0.0.1:1 gave no answer"), "{}", put().await);
    let trusted = authority.pem().replace(" CERTIFICATE", " TRUSTED CERTIFICATE");
    for row in [
        ("owner.key", &*pair(2), "holds more than one key pair: expected nothing from line N on"),
        ("ca.pem", &trusted, "cannot be used: it holds \"TRUSTED CERTIFICATE\" in line N"),
        ("token", "another", "holds more than one token: expected nothing from line N on"),
    ] {
        check(&files, row, put).await;
    }
}
