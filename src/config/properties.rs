//! What holds for every configuration: it is read or it is told what is wrong and where, and it is printed as it is.

use proptest::{collection::vec, prelude::*, sample::select};
use salvo::http::uri::Uri;
use toml::de::DeTable;

use super::*;

/// Keys and sections, what is nearly one, and what is none.
fn key() -> impl Strategy<Value = String> {
    let real = (0..SETTINGS.len()).prop_map(|at| SETTINGS[at].key.to_owned());
    let section =
        select(["log", "signal", "pods", "http", "tls", "acme", "listen"].as_slice()).prop_map(String::from);
    let near = (real.clone(), any::<prop::sample::Index>(), select(["", "x", "_", "."].as_slice())).prop_map(
        |(mut key, at, with)| {
            let at = at.index(key.len());
            key.replace_range(at..=at, with);
            key
        },
    );
    let odd = select(
        ["\"\"", "\"\".port", "\"signal.max_frame\"", "signal.\"\"", "a.b.c", "\"ü\"", "'\\'"].as_slice(),
    );
    prop_oneof![6 => real, 1 => section, 2 => near, 1 => odd.prop_map(String::from)]
}

/// Values of all types, of the right kind for some setting or for none.
fn value() -> impl Strategy<Value = String> {
    const VALUES: &[&str] = &[
        "0",
        "1",
        "+7",
        "-1",
        "65_535",
        "65536",
        "0x10",
        "1_000_000_000",
        "99999999999999999999",
        "1.5",
        "nan",
        "-inf",
        "true",
        "1979-05-27T07:32:00Z",
        "07:32:00",
        "[]",
        "[1, [2]]",
        "{}",
        "{ max_frame = 1 }",
        "{ level = \"info\" }",
        "{ \"\" = { \"\" = 1 } }",
        "\"\"",
        "\"1 KiB\"",
        "\"17 MiB\"",
        "\"1 TiB\"",
        "\"-1 B\"",
        "\"1.5e3 kB\"",
        "\"10s\"",
        "\"0s\"",
        "\"9999999y\"",
        "\"::\"",
        "\"[::1]\"",
        "\"localhost\"",
        "\"memory\"",
        "\"sqlite\"",
        "\"json\"",
        "\"debug,hyper=warn\"",
        "\"https://pods.example.org/\"",
        "\"a\\u0000b\"",
        "\"./data\"",
        "'''\nx'''",
        "\"ü🦀\"",
    ];
    prop_oneof![8 => select(VALUES).prop_map(String::from), 1 => ".{0,6}".prop_map(|text| format!("{text:?}"))]
}

/// TOML of settings and of what is nearly one, text that is nearly TOML, and any text.
fn toml_text() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "port",
        "=",
        "=",
        ".",
        "\n",
        "\n",
        "\r\n",
        "[",
        "]",
        "[[",
        "{",
        "}",
        ",",
        "\"",
        "\"\"\"",
        "'",
        "#",
        "1",
        "-",
        "e",
        "\\",
        "\\u",
        "\u{feff}",
        "ü",
        "🦀",
        "\0",
        "signal",
        "max_frame",
        " ",
        "\t",
        "true",
        "\"1s\"",
        "[signal]\n",
    ];
    let line = || (key(), value()).prop_map(|(key, value)| format!("{key} = {value}\n"));
    let table = (key(), vec(line(), 0..3)).prop_map(|(key, lines)| format!("[{key}]\n{}", lines.concat()));
    prop_oneof![
        1 => any::<String>(),
        2 => vec(select(PIECES), 0..24).prop_map(|pieces| pieces.concat()),
        4 => (vec(line(), 0..3), vec(table, 0..3)).prop_map(|(lines, tables)| lines.concat() + &tables.concat()),
    ]
}

/// Text as flags and variables may hold it.
fn text() -> impl Strategy<Value = String> {
    let quantity =
        ("[+-]?[0-9]{0,20}(\\.[0-9]{0,3})?(e[0-9]{1,3})?", "[ ]?(|B|kB|KiB|MiB|TB|s|ms|m|h|day|y|ns|µs)");
    let url = ("(http|https|ftp|HTTPS)://", "[a-z0-9.:\\[\\]@%ü-]{0,12}", "(|/|//|/x|\\?|/\\?q|#|/#f)");
    prop_oneof![
        2 => any::<String>(),
        3 => vec(quantity, 1..3).prop_map(|parts| parts.into_iter().map(|(n, unit)| n + &unit).collect()),
        2 => url.prop_map(|(scheme, authority, rest)| scheme + &authority + &rest),
        1 => "[a-z0-9:.\\[\\]_-]{0,20}",
        1 => "(info|debug|off|a=warn|\u{7f}x=trace|b::c\\[d\\]=error)(,(info|debug|\"=off)){0,2}",
        1 => "(/|\\./)?[a-zü\"\\\\ \u{7f}\u{200b}\t\n\u{1b}]{0,8}",
        1 => select(["redb", "memory", "sqlite", "json", "text", "default-src 'self' \"\\"].as_slice()).prop_map(String::from),
    ]
}

/// Whether an error stands within the text, and says which key it is about or that the whole is no TOML.
fn is_told(error: &ConfigError, text: &str) -> Result<(), TestCaseError> {
    let Origin::File { name, line, column } = &error.origin else {
        return Err(TestCaseError::fail(format!("no place: {error}")));
    };
    prop_assert_eq!(name, "configuration");
    let there = text.split('\n').nth(line.wrapping_sub(1)).map(|line| line.chars().count());
    prop_assert!(there.is_some_and(|length| (1..=length + 1).contains(column)), "{}", error);
    let names_a_key = SETTINGS.iter().any(|setting| {
        let (section, _) = setting.split();
        error.problem.starts_with(setting.key)
            || !section.is_empty() && error.problem.starts_with(&format!("{section}:"))
    });
    let known_sentence =
        ["this is not TOML: ", "unknown key \""].iter().any(|start| error.problem.starts_with(start));
    prop_assert!(names_a_key || known_sentence, "{}", error);
    Ok(())
}

/// A file that says what `config` says of one setting.
fn file_of(setting: &Setting<Config>, config: &Config) -> String {
    let Some(value) = (setting.to_toml)(config) else { return String::new() };
    match setting.split() {
        ("", name) => format!("{name} = {value}"),
        (section, name) => format!("[{section}]\n{name} = {value}"),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 10_000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_error_has_a_place_in_the_file_and_a_key(text in toml_text()) {
        if let Err(errors) = Config::from_toml(&text) {
            prop_assert!(!errors.is_empty());
            errors.iter().try_for_each(|error| is_told(error, &text))?;
        }
    }

    #[test]
    fn a_file_sets_what_it_names_and_nothing_else(text in toml_text()) {
        let Ok(config) = Config::from_toml(&text) else { return Ok(()) };
        let table = DeTable::parse(&text).map_err(|error| TestCaseError::fail(error.to_string()))?;
        let mut names = 0;
        for setting in SETTINGS {
            let (section, name) = setting.split();
            let within = match section {
                "" => Some(table.get_ref()),
                section => table.get_ref().get(section).and_then(|table| table.get_ref().as_table()),
            };
            let value = within.and_then(|table| table.get(name));
            names += usize::from(value.is_some());
            let mut alone = Config::default();
            if let Some(value) = value {
                prop_assert!((setting.set_toml)(&mut alone, value).is_ok());
            }
            prop_assert_eq!((setting.to_toml)(&config), (setting.to_toml)(&alone), "{}", setting.key);
        }
        let leaves = |table: &DeTable<'_>| table.values().filter(|value| !value.get_ref().is_table()).count();
        let tables = table.get_ref().values().filter_map(|value| value.get_ref().as_table());
        prop_assert_eq!(names, leaves(table.get_ref()) + tables.map(leaves).sum::<usize>(), "some key was passed over");
    }

    #[test]
    fn a_setting_is_printed_as_it_is_read(at in 0..SETTINGS.len(), text in text()) {
        let setting = &SETTINGS[at];
        let mut config = Config::default();
        if (setting.set_text)(&mut config, &text).is_err() {
            return Ok(());
        }
        let file = file_of(setting, &config);
        match Config::from_toml(&file) {
            Ok(read) => prop_assert_eq!(read, config),
            // Read alone it may contradict the defaults of others.
            Err(errors) => {
                let is_of_value = |error: &ConfigError| error.problem.starts_with(&format!("{}:", setting.key));
                prop_assert!(!errors.iter().any(is_of_value), "{:?} {}", errors, file);
                errors.iter().try_for_each(|error| is_told(error, &file))?;
            }
        }
    }

    #[test]
    fn text_is_read_or_refused_with_its_source(at in 0..SETTINGS.len(), text in text()) {
        let setting = &SETTINGS[at];
        let env = Layers::default().env(|name| (name == setting.env()).then(|| text.clone())).finish();
        let flag = Layers::default().flag("--set", setting.key, &text).finish();
        for (read, origin) in [(&env, Origin::Env(setting.env())), (&flag, Origin::Flag("--set".into()))] {
            for error in read.as_ref().err().into_iter().flatten() {
                prop_assert_eq!(&error.origin, &origin);
            }
        }
        if text.is_empty() {
            prop_assert_eq!(env, Ok(Config::default()));
        } else {
            prop_assert_eq!(env.ok(), flag.ok());
        }
    }

    #[test]
    fn a_public_url_is_a_scheme_and_a_host(text in text()) {
        let Ok(Some(url)) = <Option<PublicUrl> as Value>::from_text(&text) else { return Ok(()) };
        let (scheme, authority) = url.to_string().split_once("://").map(|(s, a)| (s.to_owned(), a.to_owned())).unwrap();
        prop_assert!(["http", "https"].contains(&&*scheme.to_ascii_lowercase()), "{}", url);
        let pod: Uri = format!("{url}/abc").parse().expect("a URL with a path behind it is a URL");
        prop_assert_eq!(pod.path(), "/abc");
        let host = pod.host().unwrap_or_default();
        prop_assert!(!host.is_empty(), "{}", url);
        let with_port = pod.port_u16().map_or(host.to_owned(), |port| format!("{host}:{port}"));
        prop_assert_eq!(authority, with_port);
    }
}

#[test]
fn the_defaults_as_printed_are_the_defaults() {
    let defaults = Config::default();
    for setting in SETTINGS {
        assert_eq!(
            Config::from_toml(&file_of(setting, &defaults)).as_ref(),
            Ok(&defaults),
            "{}",
            setting.key
        );
    }
    let (mut text, mut last) = (String::new(), "");
    for setting in SETTINGS {
        let (section, name) = setting.split();
        if section != last {
            text += &format!("[{section}]\n");
            last = section;
        }
        if let Some(value) = setting.default() {
            text += &format!("{name} = {value}\n");
        }
    }
    assert_eq!(Config::from_toml(&text), Ok(defaults));
}
