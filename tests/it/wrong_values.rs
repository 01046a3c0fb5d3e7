//! For each setting a wrong value, and the sentence that comes back: `tests/snapshots/wrong_values.txt`.
//! `UPDATE=1 cargo test --test it wrong_values` writes that file anew; look at what changed.

use std::{env, fmt::Write, fs, path::Path};

use gemmapod_signal::{
    Config,
    config::{CertificateFiles, Layers, Listen, SETTINGS},
};

/// What is written: a setting, and a value in TOML that it does not take.
const WRONG: &[(&str, &str)] = &[
    ("port", "70000"),
    ("port", "-1"),
    ("port", "true"),
    ("hostname", r#""a host""#),
    ("hostname", r#""[::1""#),
    ("hostname", "1"),
    ("hostname", r#""999.1.1.1""#),
    ("listen", r#""0.0.0.0:80""#),
    ("listen", r#"["0.0.0.0:80"]"#),
    ("listen", "[{ tls = false }]"),
    ("listen", r#"[{ adress = "0.0.0.0:80" }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80", purpose = "redirect", tls = true }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80", tls = true }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80" }, { address = "0.0.0.0:80", purpose = "redirect" }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80" }, { address = "[::]:80" }]"#),
    ("listen", r#"[{ address = "unix:/run/a" }, { address = "unix:/run/a" }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80", purpose = "redirect" }]"#),
    ("listen", r#"[{ address = "0.0.0.0:80", proxy_protocol = true }]"#),
    ("listen", r#"[{ address = "999.1.1.1:80" }]"#),
    ("trusted_proxies", r#"["10.0.0.0/33"]"#),
    ("trusted_proxies", r#"["10.0.0.0/8", "proxy.example.org"]"#),
    ("trusted_proxies", r#""10.0.0.0/8""#),
    ("trusted_proxies", "[10]"),
    ("trusted_proxies", r#"["::ffff:10.0.0.0/95"]"#),
    ("registry", r#""sqlite""#),
    ("registry", r#""s3""#),
    ("data_dir", r#""""#),
    ("data_dir", "1"),
    ("public_url", r#""pods.example.org""#),
    ("public_url", r#""https://pods.example.org/pods""#),
    ("public_url", r#""ftp://pods.example.org""#),
    ("public_url", r#""https://999.1.1.1""#),
    ("drain_timeout", "10"),
    ("drain_timeout", r#""2days""#),
    ("log.level", r#""loud""#),
    ("log.level", r#""info,access=loud""#),
    ("log.format", r#""xml""#),
    ("tls.mode", r#""on""#),
    ("tls.mode", r#""acme""#),
    ("tls.mode", r#""files""#),
    ("tls.domains", r#"["https://pods.example.org"]"#),
    ("tls.domains", r#"["-pods.example.org"]"#),
    ("tls.domains", r#"["999.1.1.1"]"#),
    ("tls.domains", r#"["*.example.org"]"#),
    ("tls.domains", r#"["192.0.2.1"]"#),
    ("tls.certificates", r#""cert.pem""#),
    ("tls.certificates", r#"[{ chain = "chain.pem" }]"#),
    ("tls.certificates", r#"[{ key = "key.pem" }]"#),
    ("tls.certificates", r#"[{ chain = "chain.pem", key = "key.pem" }]"#),
    ("tls.hsts", r#""yes""#),
    ("acme.directory", r#""http://acme.example.org/directory""#),
    ("acme.directory", r#""buypass""#),
    ("acme.contact", r#"["admin"]"#),
    ("acme.contact", r#""admin@example.org""#),
    ("acme.challenges", r#"["dns-01"]"#),
    ("acme.challenges", "[]"),
    ("acme.root", "[]"),
    ("acme.eab_key_id", r#""""#),
    ("acme.eab_key_id", r#""kid""#),
    ("acme.eab_key_file", "false"),
    ("acme.eab_key_file", r#""key""#),
    ("signal.max_sockets", "0"),
    ("signal.max_sockets", r#""many""#),
    ("signal.max_sockets", r#""128 B""#),
    ("signal.ping_interval", r#""half a minute""#),
    ("signal.max_frame", r#""256 KB/s""#),
    ("signal.max_frame", r#""17 MiB""#),
    ("signal.max_queue", "0"),
    ("signal.max_queue", r#""1 KiB""#),
    ("signal.max_unfinished_total", "\"1 MB/s\""),
    ("signal.max_queue_total", "1.5"),
    ("signal.max_queue_total", r#""-1""#),
    ("signal.max_queue_total", r#""512 KiB""#),
    ("signal.frames_per_second", "0x10"),
    ("signal.frames_per_second", "-1"),
    ("signal.frames_per_second", "1e3"),
    ("signal.frames_per_second", "2000000000"),
    ("signal.takeover_timeout", "3"),
    ("signal.offline_grace", "0"),
    ("signal.offline_grace", r#""2m""#),
    ("signal.bind", r#""upload""#),
    ("signal.require_owner", r#""always""#),
    ("uploads.policy", r#""public""#),
    ("uploads.policy", r#""owners""#),
    ("uploads.policy", r#""token""#),
    ("uploads.owners", r#"["alice"]"#),
    ("uploads.owners_file", "1"),
    ("uploads.tokens_file", r#""""#),
    ("uploads.lifetime", r#""forever""#),
    ("uploads.lifetime", r#""500ms""#),
    ("pods.max_blob", r#""1 TiB""#),
    ("pods.max_blob", r#""4 KiB/s""#),
    ("pods.max_blob", r#""100 MiB""#),
    ("pods.max_uploads", "0"),
    ("pods.max_uploads_per_address", "0"),
    ("pods.upload_memory", r#""1 MiB""#),
    ("pods.upload_memory", "{}"),
    ("pods.compression_memory", "0"),
    ("pods.upload_wait", r#""0s""#),
    ("pods.upload_wait", "10"),
    ("pods.memory_limit", r#""lots""#),
    ("pods.isolation", r#""iframe""#),
    ("pods.isolation", r#""subdomain""#),
    ("pods.domain", r#""pods.example.org""#),
    ("pods.domain", r#""https://pods.example.org""#),
    ("pods.domain", r#""pods.example.1""#),
    ("pods.content_security_policy", r#""a\nb""#),
    ("pods.permissions_policy", r#""""#),
    ("http.max_connections", "0"),
    ("http.max_connections", "1979-05-27"),
    ("http.max_connections_per_address", r#""unlimited""#),
    ("http.head_timeout", r#""0ms""#),
    ("http.head_timeout", r#""25h""#),
    ("http.idle_timeout", "60"),
    ("http.idle_timeout", "false"),
    ("limits.exempt", r#"["10.0.0.0/33"]"#),
    ("limits.exempt", r#""unix""#),
    ("limits.exempt", r#"["::ffff:0:0/8"]"#),
    ("limits.uploads", "10"),
    ("limits.uploads", r#""10""#),
    ("limits.uploads_per_address", r#""10/m""#),
    ("limits.uploads_per_owner", r#""0/s""#),
    ("limits.reads", r#""10/s burst""#),
    ("limits.reads_per_address", r#""2000000/s""#),
    ("limits.upgrades", r#""10/s burst 0""#),
    ("limits.uploads", r#""1/day burst 1000000""#),
    ("limits.upgrades_per_address", r#""unlimited""#),
    ("limits.registrations", r#""1.5/s""#),
    ("limits.registrations_per_address", "false"),
    ("limits.offers_per_address", r#""10 per second""#),
    ("limits.sockets_per_address", "0"),
    ("quotas.pods", "0"),
    ("quotas.bytes", r#""lots""#),
    ("quotas.pods_per_owner", "-1"),
    ("quotas.bytes_per_owner", r#""2 TiB""#),
    ("quotas.pods_per_address_and_day", r#""1000/day""#),
    ("quotas.bytes_per_address_and_day", r#""1 GiB/day""#),
    ("janitor.enabled", "1"),
    ("drain_timeout", r#""30days""#),
    ("janitor.grace", r#""0s""#),
    ("janitor.unused_for", "90"),
    ("janitor.high_water", r#""10 GiB""#),
    ("janitor.low_water", r#""10 GiB""#),
    ("janitor.low_water", r#""full""#),
    ("health.origins", r#""all""#),
    ("health.origins", "true"),
    ("listen.address", r#""80""#),
    ("listen.address", r#""::1:80""#),
    ("listen.address", r#""0.0.0.0:http""#),
    ("listen.address", r#""unix:run/signal.sock""#),
    ("listen.address", r#""systemd:""#),
    ("listen.address", "80"),
    ("listen.purpose", r#""admin""#),
    ("listen.tls", r#""yes""#),
    ("listen.ipv6_only", "1"),
    ("listen.ipv6_only", "true"),
    ("listen.proxy_protocol", r#""v2""#),
    ("listen.mode", "660"),
    ("listen.mode", r#""0999""#),
    ("listen.mode", r#""0600""#),
    ("listen.group", "33"),
    ("listen.group", r#""www-data""#),
    ("tls.certificates.chain", "1"),
    ("tls.certificates.key", r#""""#),
];

/// A configuration in which `key` has `value`, on the last line of which nothing else stands.
fn toml(key: &str, value: &str) -> String {
    let entry = |list: &str, key: &str, others: &[(&str, &str)]| {
        let others = others.iter().filter(|(other, _)| *other != key);
        let others: String = others.map(|(other, value)| format!("{other} = {value}\n")).collect();
        format!("[[{list}]]\n{others}{key} = {value}\n")
    };
    if let Some(key) = key.strip_prefix("listen.") {
        entry("listen", key, &[("address", r#""127.0.0.1:80""#)])
    } else if let Some(key) = key.strip_prefix("tls.certificates.") {
        entry("tls.certificates", key, &[("chain", r#""chain.pem""#), ("key", r#""key.pem""#)])
    } else {
        format!("{key} = {value}\n")
    }
}

#[test]
fn each_wrong_value_has_its_sentence() {
    let mut page = String::new();
    for (key, value) in WRONG {
        let toml = toml(key, value);
        let errors = Config::from_toml(&toml).expect_err(&toml);
        write!(page, "{toml}").unwrap();
        for error in errors {
            writeln!(page, "    {error}").unwrap();
        }
        page.push('\n');
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/snapshots/wrong_values.txt");
    if env::var_os("UPDATE").is_some() {
        fs::write(&path, &page).unwrap();
    }
    let snapshot = fs::read_to_string(&path).unwrap_or_default();
    let differs = page.lines().zip(snapshot.lines()).find(|(now, then)| now != then);
    assert!(
        page == snapshot,
        "{} is out of step: UPDATE=1 cargo test --test it wrong_values\nfirst difference (now, then): {differs:#?}",
        path.display()
    );
}

#[test]
fn each_setting_has_a_row_and_each_row_a_setting() {
    let top = SETTINGS.iter().map(|setting| setting.key.to_owned());
    let listen = Listen::SETTINGS.iter().map(|setting| format!("listen.{}", setting.key));
    let files = CertificateFiles::SETTINGS.iter().map(|setting| format!("tls.certificates.{}", setting.key));
    let settings: Vec<_> = top.chain(listen).chain(files).collect();
    let missing: Vec<_> =
        settings.iter().filter(|setting| !WRONG.iter().any(|(key, _)| key == setting)).collect();
    assert!(missing.is_empty(), "no wrong value for {missing:?}");
    for (key, _) in WRONG {
        assert!(settings.iter().any(|setting| setting == key), "{key} is no setting");
    }
}

/// Variables and flags are text: what is wrong there has a sentence too, and names the variable.
#[test]
fn a_variable_that_is_wrong_is_named() {
    // Almost any text is the path of a file.
    let settings = SETTINGS.iter().filter(|setting| setting.expected != "the path of a file or directory");
    for setting in settings {
        let name = setting.env();
        let errors =
            Layers::default().env(|asked| (asked == name).then(|| "\u{1}\u{2}".into())).finish().unwrap_err();
        let begin = format!("environment variable {name}: {}", setting.key);
        assert!(errors[0].to_string().starts_with(&begin), "{}", errors[0]);
    }
}
