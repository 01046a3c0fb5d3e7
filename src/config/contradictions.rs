//! Settings that contradict one another.

use bytesize::ByteSize;

use super::{
    access::UploadPolicy,
    net::{ListenAddress, Purpose, TrustedProxy},
    settings::{Config, JanitorSettings, Listen},
    tls::{Domain, TlsMode},
    value::{Isolation, RegistryKind},
};

impl Config {
    /// Settings that contradict one another: the key to blame, the other one, and the rest of the sentence.
    pub(super) fn contradictions(&self) -> Vec<(&'static str, &'static str, String)> {
        let Self { signal, pods, registry, .. } = self;
        // A key, the other key that it is measured by, and what is wrong.
        let mut wrong = Vec::new();
        if signal.max_queue < signal.max_frame + ByteSize::kib(1) {
            wrong.push((
                "signal.max_queue",
                "signal.max_frame",
                "must be at least signal.max_frame and 1 KiB, or the largest frame could never be sent",
            ));
        }
        if signal.max_queue_total < signal.max_queue {
            wrong.push(("signal.max_queue_total", "signal.max_queue", "must be at least signal.max_queue"));
        }
        if signal.max_frame.as_u64() > 16 << 20 {
            wrong.push(("signal.max_frame", "signal.max_frame", "must be 16 MiB or less"));
        }
        if pods.upload_memory.as_u64() / 3 < pods.max_blob.as_u64() {
            wrong.push((
                "pods.upload_memory",
                "pods.max_blob",
                "must be at least three times pods.max_blob, or one upload could leave too little to the others",
            ));
        }
        if *registry == RegistryKind::Memory && pods.memory_limit < pods.max_blob {
            wrong.push(("pods.memory_limit", "pods.max_blob", "must be at least pods.max_blob"));
        }
        let uploads = &self.uploads;
        if uploads.policy == UploadPolicy::Owners
            && uploads.owners.is_empty()
            && uploads.owners_file.is_none()
        {
            let problem = "is \"owners\", but uploads.owners and uploads.owners_file name nobody";
            wrong.push(("uploads.policy", "uploads.owners", problem));
        }
        if uploads.policy == UploadPolicy::Token && uploads.tokens_file.is_none() {
            let problem = "is \"token\", but uploads.tokens_file names no tokens";
            wrong.push(("uploads.policy", "uploads.tokens_file", problem));
        }
        wrong.extend(self.tls_contradictions());
        wrong.extend(self.isolation_contradictions());
        wrong.extend(self.janitor_contradictions());
        let mut wrong: Vec<_> =
            wrong.into_iter().map(|(key, other, problem)| (key, other, problem.to_owned())).collect();
        let listen = listeners_contradiction(&self.listen, &self.trusted_proxies);
        wrong.extend(listen.map(|problem| ("listen", "trusted_proxies", problem)));
        wrong
    }

    /// Settings of TLS that contradict one another: the key to blame, and the rest of the sentence.
    fn tls_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let (mode, tls, acme) = (self.tls_mode(), &self.tls, &self.acme);
        let listens_tls = self.listen.iter().any(|listen| listen.tls);
        let needs_domains = matches!(mode, TlsMode::Acme | TlsMode::SelfSigned);
        let is_wildcard = |domain: &Domain| matches!(domain, Domain::Name(name) if name.starts_with("*."));
        let not_for_acme = |domain: &Domain| matches!(domain, Domain::Address(_)) || is_wildcard(domain);
        [
            (mode == TlsMode::Off && listens_tls, "listen", "tls.mode", "has tls = true, but tls.mode is \"off\": set tls.mode, or tls = false"),
            (mode != TlsMode::Off && !self.listen.is_empty() && !listens_tls, "tls.mode", "listen", "gets certificates that no listener uses: set tls = true in one [[listen]], or tls.mode = \"off\""),
            (needs_domains && tls.domains.is_empty(), "tls.domains", "tls.mode", "must name at least one domain for this tls.mode"),
            (mode == TlsMode::Files && tls.certificates.is_empty(), "tls.certificates", "tls.mode", "must name at least one chain and key for tls.mode = \"files\""),
            (mode != TlsMode::Files && !tls.certificates.is_empty(), "tls.certificates", "tls.mode", "is for tls.mode = \"files\" only"),
            (mode == TlsMode::Acme && tls.domains.iter().any(not_for_acme), "tls.domains", "tls.mode", "must be plain domain names for tls.mode = \"acme\": no addresses, no wildcards"),
            (acme.challenges.is_empty(), "acme.challenges", "acme.challenges", "must name at least one challenge"),
            (acme.eab_key_id.is_some() != acme.eab_key_file.is_some(), "acme.eab_key_id", "acme.eab_key_file", "and acme.eab_key_file go together"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }

    /// Settings of isolation that contradict one another, in the same way.
    fn isolation_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let pods = &self.pods;
        let is_plain = |domain: &Domain| matches!(domain, Domain::Name(name) if !name.starts_with("*."));
        let by_host = pods.isolation == Isolation::Subdomain;
        [
            (by_host && pods.domain.is_none(), "pods.isolation", "pods.domain", "= \"subdomain\" needs pods.domain"),
            (!by_host && pods.domain.is_some(), "pods.domain", "pods.isolation", "is for pods.isolation = \"subdomain\" only"),
            (pods.domain.as_ref().is_some_and(|domain| !is_plain(domain)), "pods.domain", "pods.domain", "must be a domain name, without an asterisk: pods get hosts below it"),
            (by_host && self.tls_mode() == TlsMode::Acme, "pods.isolation", "tls.mode", "= \"subdomain\" needs a wildcard certificate, which tls.mode = \"acme\" does not get: use \"files\", or a proxy"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }

    /// Settings of the janitor that contradict one another, in the same way.
    fn janitor_contradictions(&self) -> Vec<(&'static str, &'static str, &'static str)> {
        let JanitorSettings { high_water, low_water, .. } = &self.janitor;
        let (high, low) = ("janitor.high_water", "janitor.low_water");
        [
            (high_water.is_some() != low_water.is_some(), high, low, "and janitor.low_water go together"),
            (high_water.is_some() && low_water > high_water, low, high, "must be at most janitor.high_water"),
        ]
        .into_iter()
        .filter_map(|(wrong, key, other, problem)| wrong.then_some((key, other, problem)))
        .collect()
    }
}

/// What of several listeners does not go together: the rest of a sentence.
fn listeners_contradiction(listens: &[Listen], trusted_proxies: &[TrustedProxy]) -> Option<String> {
    let addresses: Vec<_> = listens.iter().filter_map(|listen| listen.address.as_ref()).collect();
    let is_free = |address: &ListenAddress| matches!(address, ListenAddress::Tcp { port: 0, .. });
    let twice = addresses
        .iter()
        .enumerate()
        .find(|(at, address)| !is_free(address) && addresses[..*at].contains(*address));
    if let Some((_, address)) = twice {
        return Some(format!("names {address} twice"));
    }
    let ports = |wanted: &'static str| {
        listens.iter().filter_map(move |listen| match &listen.address {
            Some(ListenAddress::Tcp { host, port }) if host == wanted && !listen.ipv6_only => Some(*port),
            _ => None,
        })
    };
    if let Some(port) = ports("::").find(|port| *port != 0 && ports("0.0.0.0").any(|v4| v4 == *port)) {
        return Some(format!(
            "names [::]:{port}, which takes IPv4 too, beside 0.0.0.0:{port}: leave that out, or set ipv6_only = true"
        ));
    }
    if trusted_proxies.is_empty() && listens.iter().any(|listen| listen.proxy_protocol) {
        return Some(
            "has proxy_protocol = true, but trusted_proxies names nobody whose header would be read".into(),
        );
    }
    let only_redirects = listens.iter().all(|listen| listen.purpose == Purpose::Redirect);
    (only_redirects && !listens.is_empty()).then(|| "has no listener with purpose = \"public\"".into())
}
