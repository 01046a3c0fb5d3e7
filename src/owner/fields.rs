//! Header fields as signatures see them.

use salvo::http::{HeaderMap, HeaderName};

/// All values of a field, put together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Combined {
    /// There is no such field.
    Missing,
    /// A value is not printable ASCII.
    Unfit,
    /// The values with blanks around them cut off, and `, ` between them (RFC 9421, section 2.1).
    Value(String),
}

/// All values of the field `name`.
pub fn combined(headers: &HeaderMap, name: &HeaderName) -> Combined {
    let values: Result<Vec<_>, _> = headers.get_all(name).iter().map(|value| value.to_str()).collect();
    match values {
        Err(_) => Combined::Unfit,
        Ok(values) if values.is_empty() => Combined::Missing,
        Ok(values) => {
            let trimmed: Vec<_> = values.iter().map(|value| value.trim_matches([' ', '\t'])).collect();
            Combined::Value(trimmed.join(", "))
        }
    }
}
