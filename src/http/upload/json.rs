//! The HTML in the JSON of an upload. It is found and unescaped in its place, so that it takes no more than the JSON does.

use std::{fmt, ops::Range};

use memchr::memchr2;
use serde::{
    Deserialize, Deserializer,
    de::{Error, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::unescape::unescape;

/// The byte order mark of UTF-8, which editors and PowerShell write before JSON (RFC 8259, section 8.1).
const BOM: &[u8] = "\u{feff}".as_bytes();
/// How deep arrays and objects lie in one another at most, as in serde_json, which takes a byte for each that it ignores.
const MAX_DEPTH: usize = 128;
/// The longest way to write `html` in quotes: each letter as an escape.
const LONGEST_NAME: usize = 2 + 4 * 6;

/// Returns where the HTML in JSON is, once its escapes are replaced.
///
/// # Errors
///
/// Returns what is wrong if the JSON is no object with the HTML in its field `html`.
pub fn html_of_json(body: &mut [u8]) -> Result<Range<usize>, &'static str> {
    const NO_STRING: &str = "expected the 'html' field to be a string";
    let string = html_string(body)?;
    if body[string.start] != b'"' {
        return Err(NO_STRING);
    }
    let html = string.start + 1..string.end - 1;
    if html.is_empty() {
        return Err("missing 'html' field");
    }
    let length = unescape(&mut body[html.clone()]).ok_or(NO_STRING)?;
    Ok(html.start..html.start + length)
}

/// Returns where the value of the field `html` is.
fn html_string(body: &[u8]) -> Result<Range<usize>, &'static str> {
    const NOT_AN_OBJECT: &str = "the body is not a JSON object with one field 'html'";
    let json = body.strip_prefix(BOM).unwrap_or(body);
    if is_deep(json) {
        return Err(NOT_AN_OBJECT);
    }
    let Upload { html } = serde_json::from_slice(json).map_err(|_| NOT_AN_OBJECT)?;
    let html = html.map(RawValue::get).filter(|html| *html != "null").ok_or("missing 'html' field")?;
    // It is borrowed from the body.
    let start = html.as_ptr().addr() - body.as_ptr().addr();
    Ok(start..start + html.len())
}

/// Whether more arrays and objects lie in one another than are read.
fn is_deep(json: &[u8]) -> bool {
    let (mut rest, mut depth) = (json, 0_usize);
    while let [byte, after @ ..] = rest {
        rest = after;
        match byte {
            b'"' => rest = after_string(after),
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > MAX_DEPTH {
            return true;
        }
    }
    false
}

/// Returns what follows a string, of which `text` is all but its first quote.
fn after_string(mut text: &[u8]) -> &[u8] {
    while let Some(at) = memchr2(b'"', b'\\', text) {
        let length = if text[at] == b'"' { 1 } else { 2 };
        text = text.get(at + length..).unwrap_or_default();
        if length == 1 {
            return text;
        }
    }
    &[]
}

/// The object of an upload. Names are read as they are written: serde would copy those that have escapes.
struct Upload<'a> {
    html: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Upload<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Fields)
    }
}

struct Fields;

impl<'de> Visitor<'de> for Fields {
    type Value = Upload<'de>;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Upload<'de>, A::Error> {
        let mut html = None;
        while let Some(name) = map.next_key::<&RawValue>()? {
            if !is_html(name.get()) {
                map.next_value::<IgnoredAny>()?;
            } else if html.replace(map.next_value()?).is_some() {
                return Err(A::Error::duplicate_field("html"));
            }
        }
        Ok(Upload { html })
    }
}

fn is_html(name: &str) -> bool {
    name.len() <= LONGEST_NAME && serde_json::from_str::<String>(name).is_ok_and(|name| name == "html")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(json: &str) -> Result<String, &'static str> {
        let mut body = json.as_bytes().to_vec();
        let html = html_of_json(&mut body)?;
        Ok(String::from_utf8(body[html].to_vec()).unwrap())
    }

    #[test]
    fn the_field_is_found_whatever_is_beside_it() {
        for json in [
            r#"{"html":"<p>"}"#,
            "\u{feff} {\"html\" : \"<p>\" } ",
            r#"{"a":[{"html":"no"},"]}\"{[",1e3,null],"\u0068\u0074\u006d\u006c":"\u003cp>","HTML":0}"#,
            &format!(r#"{{"a":{}{},"html":"<p>"}}"#, "[".repeat(MAX_DEPTH - 1), "]".repeat(MAX_DEPTH - 1)),
        ] {
            assert_eq!(html(json).as_deref(), Ok("<p>"), "{json}");
        }
    }

    #[test]
    fn what_has_no_such_field_is_refused() {
        for json in [
            "",
            "{",
            "[\"<p>\"]",
            "\"<p>\"",
            "{}",
            "{\"html\":null}",
            "{\"html\":\"\"}",
            "{\"html\":1}",
            "{\"html\":[\"<p>\"]}",
            "{\"html\":\"<p>\",\"html\":\"<p>\"}",
            "{\"html\":\"<p>\"} x",
            "{\"html\":\"<p>",
            "{\"html\":\"<p>\\",
            "{html:\"<p>\"}",
            &format!(r#"{{"a":{}{},"html":"<p>"}}"#, "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH)),
        ] {
            assert!(html(json).is_err(), "{json}");
        }
    }

    /// Of megabytes of whatever there is in JSON, nothing is copied.
    #[test]
    fn json_takes_no_memory_beside_its_own() {
        const LENGTH: usize = 1 << 20;
        let long = r"\u0061".repeat(LENGTH);
        for json in [
            format!("{{\"html\":\"{long}\"}}"),
            format!("{{\"{long}\":1,\"html\":\"<p>\"}}"),
            format!("{{\"a\":\"{long}\",\"html\":\"<p>\"}}"),
            format!("{{\"a\":{{\"{long}\":\"{long}\"}},\"html\":\"<p>\"}}"),
            format!("{{\"html\":{}", "[".repeat(LENGTH)),
            format!("{{\"a\":{}", "{\"a\":".repeat(LENGTH)),
            format!("{{\"a\":1{},\"html\":\"<p>\"}}", "0".repeat(LENGTH)),
        ] {
            let mut body = json.clone().into_bytes();
            let taken = allocation_counter::measure(|| drop(html_of_json(&mut body)));
            assert!(taken.bytes_max < 16 << 10, "{} bytes for {}…", taken.bytes_max, &json[..20]);
        }
    }
}
