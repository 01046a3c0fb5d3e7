//! What of another configuration can be put in place while the broker runs.

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

impl Setting {
    /// Whether another value holds only after a restart.
    pub fn is_read_at_start(&self) -> bool {
        AT_START.contains(&self.key)
    }
}

impl Config {
    /// The settings in which `other` differs, and which hold only after a restart.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let differs = SETTINGS.iter().filter(|setting| (setting.to_toml)(self) != (setting.to_toml)(other));
        differs.filter(|setting| setting.is_read_at_start()).map(|setting| setting.key).collect()
    }
}

#[cfg(test)]
mod tests {
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
        let before = config("port = 1\n[signal]\nmax_pod_id = 5");
        let after = config(
            "port = 2\ntrusted_proxies = [\"::1\"]\n[signal]\nmax_pod_id = 6\n[http]\nmax_connections = 7",
        );
        assert_eq!(before.needs_restart(&after), ["port", "http.max_connections"]);
        assert!(before.needs_restart(&before).is_empty());
    }
}
