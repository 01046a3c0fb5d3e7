//! How pods are kept apart from one another in a browser: `pods.isolation`.
//!
//! Browsers keep storage by origin. With `none` all pods share the broker's origin, as the reference's do; with
//! `sandbox` a pod has an origin that nobody shares and that keeps nothing; with `subdomain` it has the host
//! `LABEL.DOMAIN` to itself.

use salvo::{
    Request, Response,
    http::{HeaderValue, StatusCode, header, uri::Authority},
};

use crate::{
    config::{Config, Isolation, PodSettings},
    net::client::Client,
    pods::{Slug, label_of},
};

/// What a sandboxed pod may do. Without `allow-same-origin`, its origin is opaque.
const SANDBOX: &str = "; sandbox allow-scripts allow-forms allow-modals allow-downloads allow-popups \
    allow-popups-to-escape-sandbox";

/// What stands before the pods' domain in the host that was asked for.
pub fn label(client: &Client, domain: &str) -> Option<String> {
    let host = client.host.as_ref()?.host().to_ascii_lowercase();
    // A dot at the end makes a name absolute, and is no part of it.
    let host = host.strip_suffix('.').unwrap_or(&host);
    Some(host.strip_suffix(domain)?.strip_suffix('.')?.to_owned())
}

/// The domain below which each pod has its host, where it has one.
pub fn pod_domain(settings: &PodSettings) -> Option<String> {
    (settings.isolation == Isolation::Subdomain).then(|| settings.domain.as_ref().map(ToString::to_string))?
}

/// Leads to the host of a pod, where pods have hosts of their own.
pub fn redirect(slug: &Slug, request: &Request, response: &mut Response, config: &Config) -> bool {
    let Some(domain) = pod_domain(&config.pods) else { return false };
    let client = Client::of(request, &config.trusted_proxies);
    if label(&client, &domain).is_some() {
        return false;
    }
    let port = client.host.as_ref().and_then(Authority::port_u16).map(|port| format!(":{port}"));
    let query = request.uri().query().map(|query| format!("?{query}"));
    let (port, query) = (port.unwrap_or_default(), query.unwrap_or_default());
    let location = format!("{}://{}.{domain}{port}/{query}", client.scheme, label_of(slug));
    let location = HeaderValue::try_from(location).expect("what a URI holds fits a header");
    // Not for ever: isolation is a setting.
    response.status_code(StatusCode::TEMPORARY_REDIRECT);
    response.headers_mut().insert(header::LOCATION, location);
    response.headers_mut().insert(header::CONTENT_LENGTH, 0.into());
    true
}

/// Adds what the isolation asks for to the headers of a pod.
pub fn fence(request: &Request, response: &mut Response, config: &Config) {
    let settings = &config.pods;
    let policy = &settings.content_security_policy;
    let policy = match settings.isolation {
        Isolation::None => policy.clone(),
        Isolation::Sandbox => with(policy, |policy| policy + SANDBOX),
        Isolation::Subdomain => {
            let headers = response.headers_mut();
            headers.insert("origin-agent-cluster", HeaderValue::from_static("?1"));
            let client = Client::of(request, &config.trusted_proxies);
            match (pod_domain(settings), client.scheme.as_str()) {
                // Without TLS, the broker is no `wss:` and not the pod's own host either.
                (Some(domain), "http") => {
                    let port = client.host.as_ref().and_then(Authority::port_u16).unwrap_or(80);
                    let connect = format!("connect-src 'self' ws://{domain}:{port}");
                    with(policy, |policy| policy.replacen("connect-src 'self'", &connect, 1))
                }
                _ => policy.clone(),
            }
        }
    };
    response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
}

fn with(policy: &HeaderValue, change: impl FnOnce(String) -> String) -> HeaderValue {
    let text = policy.to_str().expect("the setting takes text only").to_owned();
    HeaderValue::try_from(change(text)).expect("names and numbers fit a header")
}
