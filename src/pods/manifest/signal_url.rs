//! A `signal_url` with userinfo holds the credential of a host: published in a manifest, it would be everybody's.

use ciborium::Value;

/// Returns whether any `signal_url` in the payload, wherever it stands, has userinfo.
pub fn has_credential(payload: &[u8]) -> bool {
    // The payload was checked, and its nesting is bounded.
    ciborium::from_reader(payload).is_ok_and(|payload: Value| any_in(&payload))
}

fn any_in(value: &Value) -> bool {
    match value {
        Value::Map(fields) => fields.iter().any(|(key, value)| match (key.as_text(), value.as_text()) {
            (Some("signal_url"), Some(url)) => has_userinfo(url),
            _ => any_in(value),
        }),
        Value::Array(values) => values.iter().any(any_in),
        Value::Tag(_, value) => any_in(value),
        _ => false,
    }
}

/// Returns whether clients that parse `url` as browsers do (WHATWG URL) find userinfo in it.
fn has_userinfo(url: &str) -> bool {
    let url: String = url.chars().filter(|character| !matches!(character, '\t' | '\n' | '\r')).collect();
    let Some((_, rest)) = url.split_once(':') else { return false };
    let rest = rest.trim_start_matches(['/', '\\']);
    rest.split(['/', '\\', '?', '#']).next().is_some_and(|authority| authority.contains('@'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::pods::signed::encode;

    #[test]
    fn userinfo_is_found_however_it_is_written() {
        for url in [
            "wss://home:secret@pods.example.org/signal",
            "wss://secret@pods.example.org",
            "https://:secret@pods.example.org:8443/signal",
            " WSS:\\\\home:secret@pods.example.org\\signal",
            "wss:home:secret@pods.example.org/signal",
            "wss:/home:secret@pods.example.org/signal",
            "w\nss:/\t/home:sec\rret@pods.example.org/signal",
        ] {
            assert!(has_userinfo(url), "{url:?}");
        }
        for url in [
            "wss://pods.example.org/signal",
            "wss://[::1]:8080/signal",
            "https://pods.example.org/a@b",
            "wss://pods.example.org?a@b",
            "wss://pods.example.org#@",
            "pods.example.org/signal",
            "",
        ] {
            assert!(!has_userinfo(url), "{url:?}");
        }
    }

    fn text(text: &str) -> Value {
        Value::Text(text.into())
    }

    /// A map with a `signal_url`, some levels down.
    fn nested(url: &str, path: &[u8]) -> Value {
        let innermost = Value::Map(vec![(text("pod_id"), text("pod")), (text("signal_url"), text(url))]);
        path.iter().fold(innermost, |value, kind| match kind % 3 {
            0 => Value::Map(vec![(text("dartc"), value)]),
            1 => Value::Array(vec![text("x"), value]),
            _ => Value::Tag(7, Box::new(value)),
        })
    }

    proptest! {
        /// For every place in a payload.
        #[test]
        fn it_is_found_wherever_it_stands(path in prop::collection::vec(any::<u8>(), 0..20)) {
            prop_assert!(has_credential(&encode(&nested("wss://home:secret@pods.example.org/signal", &path))));
            prop_assert!(!has_credential(&encode(&nested("wss://pods.example.org/signal", &path))));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes: Vec<u8>) {
            let _ = has_credential(&bytes);
        }
    }
}
