//! Which settings apply on a reload, and which need a restart.

use super::{Config, SETTINGS, Setting};

/// Keys that are only read at start.
const AT_START: &[&str] = &[
    "port",
    "hostname",
    "listen",
    "registry",
    "data_dir",
    "log.format",
    "tls.mode",
    "pods.memory_limit",
    "http.max_connections",
];

impl Setting<Config> {
    /// Whether another value takes effect only after a restart.
    pub fn is_read_at_start(&self) -> bool {
        AT_START.contains(&self.key)
    }
}

impl Config {
    /// Returns what applies when `new` is read while this configuration is running, and the keys of `new` that have to
    /// wait for a restart.
    ///
    /// Settings that are read at start keep the values that are running. So do those that contradict one of these in
    /// `new`: the domains of a configuration without TLS must not take the certificates from a broker that serves TLS.
    pub fn reloaded(&self, new: &Self) -> (Self, Vec<&'static str>) {
        let mut applied = new.clone();
        let mut kept: Vec<_> =
            SETTINGS.iter().filter(|setting| setting.is_read_at_start()).map(|setting| setting.key).collect();
        applied.keep(self, &kept);
        // Names and files for another mode are none for this one. Where the mode is not set, the domains decide about it.
        if new.tls_mode() != self.tls_mode() || applied.tls_mode() != self.tls_mode() {
            let certificates = ["tls.domains", "tls.certificates"];
            applied.keep(self, &certificates);
            kept.extend(certificates);
        }
        while let Some((key, other, _)) = applied.contradictions().into_iter().next() {
            let more: Vec<_> = [key, other].into_iter().filter(|key| !kept.contains(key)).collect();
            if more.is_empty() {
                // The settings that are running contradict one another: nothing of the new ones is to blame.
                break;
            }
            applied.keep(self, &more);
            kept.extend(more);
        }
        let waits = |setting: &&Setting<Config>| {
            kept.contains(&setting.key) && (setting.to_toml)(self) != (setting.to_toml)(new)
        };
        let waiting = SETTINGS.iter().filter(waits).map(|setting| setting.key).collect();
        (applied, waiting)
    }

    /// Takes the values of `keys` over from `running`.
    fn keep(&mut self, running: &Self, keys: &[&str]) {
        for setting in SETTINGS.iter().filter(|setting| keys.contains(&setting.key)) {
            (setting.copy)(self, running);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*, sample::select};

    use super::*;

    #[test]
    fn every_key_that_is_read_at_start_exists() {
        for start in AT_START {
            let exists = SETTINGS.iter().any(|setting| setting.key == *start);
            assert!(exists, "{start}");
        }
    }

    #[test]
    fn only_what_changed_and_cannot_change_live_is_named() {
        let config = |toml| Config::from_toml(toml).unwrap();
        let before = config("port = 1\n[signal]\nmax_sockets = 5");
        let after = config(
            "port = 2\ntrusted_proxies = [\"::1\"]\n[signal]\nmax_sockets = 6\n[http]\nmax_connections = 7",
        );
        let (applied, waiting) = before.reloaded(&after);
        assert_eq!(waiting, ["port", "http.max_connections"]);
        assert_eq!((applied.port, applied.signal.max_sockets), (Some(1), 6));
        // They are named until the restart.
        assert_eq!(applied.reloaded(&after).1, waiting);
        assert_eq!(before.reloaded(&before), (before.clone(), vec![]));
    }

    #[test]
    fn certificates_stay_where_the_new_configuration_has_none() {
        let config = |toml| Config::from_toml(toml).unwrap();
        let acme = config("tls.domains = [\"a.example\"]");
        let own = config("[tls]\nmode = \"self-signed\"\ndomains = [\"a.example\"]");
        let files = config("[tls]\nmode = \"files\"\ncertificates = [{ chain = \"c\", key = \"k\" }]");
        let off = Config::default();
        for running in [&acme, &own, &files, &off] {
            for new in [&acme, &own, &files, &off] {
                let (applied, waiting) = running.reloaded(new);
                if running.tls_mode() != new.tls_mode() {
                    assert_eq!(applied.tls, running.tls);
                    assert!(!waiting.is_empty());
                }
            }
        }
        // Names can change under way.
        let others = config("tls.domains = [\"a.example\", \"b.example\"]");
        assert_eq!(acme.reloaded(&others), (others.clone(), vec![]));
    }

    /// Configurations in which what is read at start, and what hangs on it, has several values.
    fn config() -> impl Strategy<Value = Config> {
        const LINES: &[&str] = &[
            "port = 81",
            "port = 82",
            "hostname = \"::1\"",
            "listen = [{ address = \"[::]:8443\", tls = true }]",
            "listen = [{ address = \"[::]:8080\" }]",
            "listen = [{ address = \"unix:/run/b\", proxy_protocol = true }]",
            "trusted_proxies = [\"unix\"]",
            "trusted_proxies = [\"::1\"]",
            "registry = \"memory\"",
            "data_dir = \"/a\"",
            "data_dir = \"/b\"",
            "log.format = \"json\"",
            "log.level = \"debug\"",
            "tls.mode = \"off\"",
            "tls.mode = \"acme\"",
            "tls.mode = \"self-signed\"",
            "tls.mode = \"files\"",
            "tls.certificates = [{ chain = \"c\", key = \"k\" }]",
            "tls.domains = [\"a.example\"]",
            "tls.domains = [\"a.example\", \"b.example\"]",
            "tls.domains = [\"192.0.2.1\"]",
            "acme.challenges = [\"http-01\"]",
            "pods.memory_limit = \"60 MiB\"",
            "pods.memory_limit = \"1 GiB\"",
            "pods.max_blob = \"70 MiB\"",
            "pods.max_blob = \"1 MiB\"",
            "pods.isolation = \"subdomain\"\npods.domain = \"pods.example\"",
            "http.max_connections = 7",
            "http.max_connections = 8",
            "signal.max_sockets = 9",
        ];
        vec(select(LINES), 0..7)
            .prop_filter_map("a wrong configuration", |lines| Config::from_toml(&lines.join("\n")).ok())
    }

    /// What a key says in a configuration.
    fn value(config: &Config, setting: &Setting<Config>) -> Option<String> {
        (setting.to_toml)(config)
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

        #[test]
        fn nothing_that_is_read_at_start_changes_before_the_restart(start in config(), news in vec(config(), 1..4)) {
            let mut live = start.clone();
            for new in news {
                let (applied, waiting) = live.reloaded(&new);
                live = applied;
                prop_assert_eq!(live.tls_mode(), start.tls_mode());
                prop_assert_eq!(live.listeners(), start.listeners());
                prop_assert!(live.contradictions().is_empty());
                for setting in SETTINGS {
                    let holds = value(&live, setting);
                    if setting.is_read_at_start() {
                        prop_assert_eq!(&holds, &value(&start, setting));
                        // Compared with the start, however often there was a reload.
                        let differs = value(&start, setting) != value(&new, setting);
                        prop_assert_eq!(waiting.contains(&setting.key), differs);
                    }
                    // Everything else applies, or is said to wait.
                    let applies = holds == value(&new, setting);
                    prop_assert_eq!(waiting.contains(&setting.key), !applies);
                }
            }
        }
    }
}
