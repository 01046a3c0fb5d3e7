//! What a signature covers: the components of a request, and the text that is signed (RFC 9421, sections 2 and 2.5).

use salvo::http::{HeaderMap, HeaderName, Method};
use sfv::{BareItem, FieldType, InnerList, ListEntry};

use super::{
    fields::{Combined, combined},
    signature_error::SignatureError,
};
use crate::net::path::normalize;

/// The parts of a request that a signature can cover.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    /// The method.
    pub method: &'a Method,
    /// Scheme and authority of the server as the client knows it, in lower case and without a default port:
    /// `https://pods.example.org`.
    pub origin: &'a str,
    /// Path and query as they stand in the request's first line, to the letter.
    pub path_and_query: &'a str,
    /// The header fields.
    pub headers: &'a HeaderMap,
}

impl Parts<'_> {
    fn path(&self) -> &str {
        self.path_and_query.split_once('?').map_or(self.path_and_query, |(path, _)| path)
    }

    /// The query with its `?`; one that is missing counts as empty.
    fn query(&self) -> String {
        let query = self.path_and_query.split_once('?').map_or("", |(_, query)| query);
        format!("?{query}")
    }

    fn value(&self, name: &str) -> Result<String, SignatureError> {
        let (scheme, authority) = self.origin.split_once("://").unwrap_or_default();
        Ok(match name {
            "@method" => self.method.as_str().into(),
            "@target-uri" => format!("{}{}", self.origin, self.path_and_query),
            "@authority" => authority.into(),
            "@scheme" => scheme.into(),
            "@request-target" => self.path_and_query.into(),
            // As the client signs it, which may not be how a proxy spells it (RFC 9421, section 2.2.6).
            "@path" => normalize(self.path()).into(),
            "@query" => self.query(),
            _ => {
                let unknown = || SignatureError::UnknownComponent(name.into());
                let is_field = !name.starts_with('@') && !name.bytes().any(|b| b.is_ascii_uppercase());
                let field = name.parse::<HeaderName>().ok().filter(|_| is_field).ok_or_else(unknown)?;
                match combined(self.headers, &field) {
                    Combined::Value(value) => value,
                    Combined::Missing | Combined::Unfit => {
                        return Err(SignatureError::NoSuchField(name.into()));
                    }
                }
            }
        })
    }
}

/// The names of the components in the order in which they are signed: each once, none with parameters.
///
/// # Errors
///
/// A component is not a plain name, or stands twice.
pub fn names(covered: &InnerList) -> Result<Vec<&str>, SignatureError> {
    let mut names = Vec::with_capacity(covered.items.len());
    for item in &covered.items {
        let BareItem::String(name) = &item.bare_item else { return Err(SignatureError::Malformed) };
        if !item.params.is_empty() {
            return Err(SignatureError::UnknownComponent(name.as_str().into()));
        }
        if names.contains(&name.as_str()) {
            return Err(SignatureError::Twice(name.as_str().into()));
        }
        names.push(name.as_str());
    }
    Ok(names)
}

/// The text that is signed.
///
/// # Errors
///
/// A component is not known, or the request has no such field.
pub fn signature_base(covered: &InnerList, parts: &Parts<'_>) -> Result<String, SignatureError> {
    let mut base = String::new();
    for name in names(covered)? {
        base += &format!("\"{name}\": {}\n", parts.value(name)?);
    }
    let params = vec![ListEntry::InnerList(covered.clone())].serialize();
    base += &format!("\"@signature-params\": {}", params.ok_or(SignatureError::Malformed)?);
    Ok(base)
}
