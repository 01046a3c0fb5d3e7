//! Under which URLs this broker is meant: what tokens and signatures are made for.

use std::net::SocketAddr;

use crate::config::Config;

/// How a request came in, where no `public_url` says how the world reaches the broker.
#[derive(Clone, Copy, Debug)]
pub struct ReceivedVia {
    /// Whether it came over TLS.
    pub tls: bool,
    /// The address of the listener.
    pub local: Option<SocketAddr>,
}

impl ReceivedVia {
    /// The URLs that mean this broker: `public_url`, or else the address that was reached. The name by which the
    /// client called it counts for nothing: who forwards a request can write there what they like.
    pub fn audience(self, config: &Config) -> Vec<String> {
        if let Some(url) = &config.public_url {
            return vec![plain_origin(&url.to_string())];
        }
        let scheme = if self.tls { "https" } else { "http" };
        let Some(local) = self.local else { return Vec::new() };
        let mut audience = vec![plain_origin(&format!("{scheme}://{local}"))];
        if local.ip().is_loopback() {
            audience.push(plain_origin(&format!("{scheme}://localhost:{}", local.port())));
        }
        audience
    }
}

/// Scheme and authority in the one way in which they are signed: in lower case, without a default port and a slash.
pub fn plain_origin(url: &str) -> String {
    let url = url.trim_end_matches('/').to_ascii_lowercase();
    let default_port = if url.starts_with("https:") { ":443" } else { ":80" };
    url.strip_suffix(default_port).map(Into::into).unwrap_or(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_origin_has_one_spelling() {
        for (url, origin) in [
            ("https://Pods.Example.org/", "https://pods.example.org"),
            ("https://pods.example.org:443", "https://pods.example.org"),
            ("https://pods.example.org:80", "https://pods.example.org:80"),
            ("http://[::1]:80/", "http://[::1]"),
            ("http://localhost:8080", "http://localhost:8080"),
        ] {
            assert_eq!(plain_origin(url), origin);
        }
    }

    #[test]
    fn a_public_url_is_the_only_one() {
        let received_via = ReceivedVia { tls: false, local: Some("127.0.0.1:8080".parse().unwrap()) };
        assert_eq!(
            received_via.audience(&Config::default()),
            ["http://127.0.0.1:8080", "http://localhost:8080"]
        );
        let config = Config::from_toml("public_url = \"https://pods.example.org\"").unwrap();
        assert_eq!(received_via.audience(&config), ["https://pods.example.org"]);
        assert!(ReceivedVia { tls: true, local: None }.audience(&Config::default()).is_empty());
    }
}
