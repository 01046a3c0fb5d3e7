//! What is wrong with files at the start, as the operator reads it.

use std::{
    fs,
    os::unix::{
        fs::{PermissionsExt, symlink},
        process::CommandExt,
    },
    process::Command,
};

use rcgen::KeyPair;

use crate::support::{
    certs::{Authority, Files, Pair, openssl, set_life},
    process::{command, ended},
    server::TestServer,
    skipped,
    tls_client::Client,
};

/// The one line with which the start fails, without names that change from run to run.
fn complaint(files: &Files) -> String {
    let output = ended(command().args(["--config", &files.config(&["pair"])]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let line = stderr.strip_prefix("gemmapod-signal: ").unwrap_or_else(|| panic!("{stderr}"));
    assert_eq!(line.lines().count(), 1, "{line}");
    line.trim_end().replace(files.0.path().to_str().unwrap(), "DIR")
}

#[test]
fn every_wrong_pair_has_its_sentence() {
    let (root, files) = (Authority::named("Root"), Files::new());
    let middle = root.below("Middle");
    let pair = middle.issue(&["pods.example", "192.0.2.7"]);
    let other = middle.issue(&["pods.example"]);
    let impostor = root.below("Middle");
    fs::write(files.path("plain.key"), &pair.key).unwrap();
    let (good, encrypted) =
        openssl(&["pkey", "-in", "plain.key", "-aes256", "-passout", "pass:secret"], files.0.path());
    assert!(good, "{encrypted}");
    let (mut end, mut begin) = (String::new(), String::new());
    let expired = root.issue_with(&["old.example"], |params| {
        set_life(params, -100, -10);
        end = params.not_after.date().to_string();
    });
    let early = root.issue_with(&["new.example"], |params| {
        set_life(params, 10, 100);
        begin = params.not_before.date().to_string();
    });
    let weak = {
        let (good, key) = openssl(&["genrsa", "1024"], files.0.path());
        assert!(good, "{key}");
        key[key.find("-----BEGIN").unwrap()..].to_owned()
    };
    let half = &pair.chain[..pair.chain.len() / 2];
    let damaged = pair.chain.replacen("MII", "*II", 1);
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let both = |chain: &str| format!("{chain}{}", pair.key);
    let ordered = |chain: [&str; 2]| chain.concat();
    for (chain, key, sentence) in [
        ("", &*pair.key, "DIR/pair.pem is empty: expected PEM text, which begins with -----BEGIN"),
        (&pair.chain, " \n", "DIR/pair.key is empty: expected PEM text, which begins with -----BEGIN"),
        (
            "hello",
            &pair.key,
            "DIR/pair.pem holds no certificate: expected PEM text with -----BEGIN CERTIFICATE-----",
        ),
        (
            &pair.chain,
            "hello",
            "DIR/pair.key holds no private key: expected PEM text with -----BEGIN PRIVATE KEY-----",
        ),
        (
            &pair.key,
            &pair.key,
            "DIR/pair.pem holds a private key: move the key to the file that `key` names, and leave only certificates here",
        ),
        (
            &both(&pair.chain),
            &pair.key,
            "DIR/pair.pem holds a private key: move the key to the file that `key` names, and leave only certificates here",
        ),
        (
            &encrypted,
            &pair.key,
            "DIR/pair.pem holds a private key: move the key to the file that `key` names, and leave only certificates here",
        ),
        (
            &pair.chain,
            &pair.chain,
            "DIR/pair.key holds a certificate and no private key: `key` must name the file of the key, `chain` this one",
        ),
        (
            &pair.chain,
            &encrypted,
            "DIR/pair.key is encrypted, and nobody is there to type the password: decrypt it with `openssl pkey -in FILE -out NEW`",
        ),
        (
            &pair.chain,
            &weak,
            "DIR/pair.key holds a private key that TLS cannot use here: expected RSA of 2048 to 8192 bits, ECDSA on P-256, P-384 or P-521, or Ed25519",
        ),
        (
            &pair.chain,
            &other.key,
            "DIR/pair.key holds a key that does not fit the first certificate in DIR/pair.pem: take the two that were made together",
        ),
        (
            half,
            &pair.key,
            "DIR/pair.pem is not whole PEM text (line 1: what begins there has no -----END line): write it again from where it came",
        ),
        (
            &damaged,
            &pair.key,
            "DIR/pair.pem is not whole PEM text (line 1: what begins there is not in base64): write it again from where it came",
        ),
        (
            &format!("{}{}", &pair.chain, middle.pem().replace("-----B", "----B")),
            &pair.key,
            &format!(
                "DIR/pair.pem is not whole PEM text (line {}: there is base64 without a -----BEGIN line): write it again from where it came",
                pair.chain.lines().count() + 2
            ),
        ),
        (
            &format!("{}{}", &pair.chain, middle.pem().replace(" CERT", " TRUSTED CERT")),
            &pair.key,
            &format!(
                "DIR/pair.pem holds \"TRUSTED CERTIFICATE\" in line {}, which is not read here: expected nothing but -----BEGIN CERTIFICATE-----",
                pair.chain.lines().count() + 1
            ),
        ),
        (
            no_certificate,
            &pair.key,
            "DIR/pair.pem holds something in place 1 that is no X.509 certificate: write it again from where it came",
        ),
        (
            &ordered([&middle.pem(), &pair.chain]),
            &pair.key,
            "DIR/pair.pem is out of order: certificate 1 (CN=Middle) was issued by CN=Root, but CN=a server comes next; expected the server's certificate first, then each one's issuer",
        ),
        (
            &ordered([&pair.chain, &root.pem()]),
            &pair.key,
            "DIR/pair.pem is out of order: certificate 1 (CN=a server) was issued by CN=Middle, but CN=Root comes next; expected the server's certificate first, then each one's issuer",
        ),
        (
            &ordered([&pair.chain, &impostor.pem()]),
            &pair.key,
            "DIR/pair.pem is out of order: certificate 1 was not signed with the key of the next one, although that has its issuer's name; take the chain that came with the certificate",
        ),
        (
            &expired.chain,
            &expired.key,
            &format!("DIR/pair.pem holds a certificate for old.example that expired on {end}: get a new one"),
        ),
        (
            &early.chain,
            &early.key,
            &format!(
                "DIR/pair.pem holds a certificate for new.example that is not valid before {begin}: see whether the host's clock is right"
            ),
        ),
    ] {
        fs::write(files.path("pair.pem"), chain).unwrap();
        fs::write(files.path("pair.key"), key).unwrap();
        assert_eq!(complaint(&files), sentence);
    }
}

#[test]
fn missing_and_unreadable_files() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    let key = KeyPair::generate().unwrap();
    let pair = authority.issue_for(&key, key.serialize_pem(), &["pods.example"], |_| {});
    let missing = |name| {
        format!(
            "DIR/{name} is not there: correct its path in the configuration, or have the certificate made first"
        )
    };
    assert_eq!(complaint(&files), missing("pair.pem"));
    fs::write(files.path("pair.pem"), &pair.chain).unwrap();
    assert_eq!(complaint(&files), missing("pair.key"));
    let key = files.path("pair.key");
    let irregular = "cannot be read: it is a directory, a device or a pipe; expected a regular file";
    fs::create_dir(&key).unwrap();
    assert_eq!(complaint(&files), format!("DIR/pair.key {irregular}"));
    fs::remove_dir(&key).unwrap();
    fs::write(&key, vec![b' '; (1 << 20) + 1]).unwrap();
    assert_eq!(complaint(&files), "DIR/pair.key cannot be read: it is larger than 1 MiB");
    assert!(Command::new("mkfifo").arg(files.path("pipe")).status().unwrap().success());
    for (name, target) in [("pair.key", "pipe"), ("pair.pem", "pipe"), ("pair.pem", "/dev/zero")] {
        fs::remove_file(files.path(name)).unwrap();
        symlink(target, files.path(name)).unwrap();
        assert_eq!(complaint(&files), format!("DIR/{name} {irregular}"), "{target}");
    }
}

/// The binary as a user who may not read everything, but may reach `files`. Returns `None` if it cannot be run so.
pub fn command_without_rights(files: &Files) -> Option<Command> {
    let without_rights = || {
        let mut command = command();
        if nix::unistd::geteuid().is_root() {
            command.uid(65_534).gid(65_534);
        }
        command
    };
    fs::set_permissions(files.0.path(), fs::Permissions::from_mode(0o755)).unwrap();
    match without_rights().arg("--version").output() {
        Ok(_) => Some(without_rights()),
        Err(error) => {
            skipped(&format!("the binary cannot be run as another user: {error}"));
            None
        }
    }
}

#[test]
fn a_file_that_may_not_be_read() {
    let (authority, files) = (Authority::named("CA"), Files::new());
    files.write("pair", &authority.issue(&["pods.example"]));
    let key = files.path("pair.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o000)).unwrap();
    let Some(mut command) = command_without_rights(&files) else { return };
    let output = ended(command.args(["--config", &files.config(&["pair"])]));
    let stderr = String::from_utf8(output.stderr).unwrap();
    let sentence = format!(
        "gemmapod-signal: {} cannot be read by this process: give its user the permission to read it\n",
        key.display()
    );
    assert_eq!((output.status.code(), stderr), (Some(1), sentence));
}

/// A client that knows the root alone needs every certificate of the chain.
#[tokio::test]
async fn a_chain_is_served_whole_however_it_was_put_together() {
    let (root, files) = (Authority::named("Root"), Files::new());
    let (client, middle) = (Client::trusting(&root.pem()), root.below("Middle"));
    let Pair { chain: leaf, key } = middle.issue(&["pods.example"]);
    let (issuer, joined) = (middle.pem(), leaf.trim_end());
    for chain in [
        format!("{leaf}{issuer}"),
        format!("{joined}{issuer}"),
        format!("\u{feff}{leaf}\u{feff}{issuer}"),
        format!(" {leaf} {issuer}"),
        format!("subject=CN = a server\n{leaf}# Middle\n# {issuer}"),
        format!("{leaf}{}", issuer.replace(" CERTIFICATE", " X509 CERTIFICATE")),
        format!("{leaf}{issuer}").replace('\n', "\r\n"),
    ] {
        for key in [key.clone(), format!("\u{feff}{key}"), format!("{joined}{key}")] {
            fs::write(files.path("pair.pem"), &chain).unwrap();
            fs::write(files.path("pair.key"), key).unwrap();
            let server = TestServer::with(&files.toml(&["pair"])).await;
            let connected = client.connect(&server.address, "pods.example").await;
            assert!(connected.is_ok(), "{connected:?}: {chain}");
        }
    }
}
