//! Fixed bounds, set in place of their values for a test that cannot wait for as long or send as much.

use std::time::Duration;

use gemmapod_signal::Config;

/// Takes the tables `[SECTION.bounds]` out of `toml`. Returns what is left, and the bounds with their values.
pub fn split(toml: &str) -> (String, Vec<(String, String)>) {
    let (mut settings, mut bounds, mut section) = (String::new(), Vec::new(), None);
    for line in toml.lines() {
        if line.starts_with('[') {
            section = line.strip_prefix('[').and_then(|line| line.strip_suffix(".bounds]"));
        } else if let Some(section) = section {
            let (bound, value) = line.split_once(" = ").unwrap_or_else(|| panic!("{line} sets no bound"));
            bounds.push((format!("{section}.{bound}"), value.trim_matches('"').to_owned()));
        }
        if section.is_none() {
            settings += &format!("{line}\n");
        }
    }
    (settings, bounds)
}

pub fn set(config: &mut Config, bound: &str, value: &str) {
    let time = || -> Duration { humantime::parse_duration(value).unwrap() };
    let number = || value.parse().unwrap();
    let (signal, pods) = (&mut config.signal.bounds, &mut config.pods.bounds);
    let (http, janitor) = (&mut config.http.bounds, &mut config.janitor.bounds);
    match bound {
        "signal.first_frame_timeout" => signal.first_frame_timeout = time(),
        "signal.sessions_per_socket" => signal.sessions_per_socket = number(),
        "signal.candidates_per_session" => signal.candidates_per_session = number(),
        "signal.sockets_at_full_rate" => signal.sockets_at_full_rate = number(),
        "pods.min_upload_rate" => pods.min_upload_rate = value.parse().unwrap(),
        "pods.upload_grace" => pods.upload_grace = time(),
        "http.handshake_timeout" => http.handshake_timeout = time(),
        "http.write_timeout" => http.write_timeout = time(),
        "janitor.interval" => janitor.interval = time(),
        _ => panic!("there is no bound {bound}"),
    }
}
