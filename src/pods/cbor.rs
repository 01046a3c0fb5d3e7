//! Bounds on CBOR (RFC 8949) before it is decoded: one item, of known length throughout, neither deep nor many.

use ciborium_ll::{Decoder, Header};

use ciborium_io::Read;

/// Arrays, maps and tags within one another.
const MAX_DEPTH: usize = 16;

/// Why CBOR is not decoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CborError {
    /// It ends within an item, or is not CBOR.
    #[error("it is not well-formed CBOR")]
    Malformed,
    /// An array, a map or a string has no length of its own.
    #[error("it has an item of indefinite length")]
    Indefinite,
    /// Items nest too deeply.
    #[error("it nests too deeply")]
    TooDeep,
    /// There are too many items.
    #[error("it has too many items")]
    TooMany,
    /// Bytes follow the one item.
    #[error("bytes follow its end")]
    Trailing,
}

/// Checks that `bytes` are exactly one CBOR item of at most `max_items` items in total.
pub fn check(bytes: &[u8], max_items: usize) -> Result<(), CborError> {
    let mut decoder = Decoder::from(bytes);
    // Items that are still to come, for each array, map or tag that is open.
    let mut open = vec![1_u64];
    let mut items = 0;
    while let Some(left) = open.last_mut() {
        if *left == 0 {
            open.pop();
            continue;
        }
        *left -= 1;
        items += 1;
        if items > max_items {
            return Err(CborError::TooMany);
        }
        let start = decoder.offset();
        let children = match decoder.pull().map_err(|_| CborError::Malformed)? {
            // A simple value below 32 has one byte.
            Header::Simple(..32) if decoder.offset() - start > 1 => return Err(CborError::Malformed),
            Header::Positive(_) | Header::Negative(_) | Header::Float(_) | Header::Simple(_) => 0,
            Header::Bytes(Some(length)) | Header::Text(Some(length)) => {
                skip(&mut decoder, length)?;
                0
            }
            Header::Array(Some(length)) => length as u64,
            Header::Map(Some(length)) => (length as u64).checked_mul(2).ok_or(CborError::TooMany)?,
            Header::Tag(_) => 1,
            Header::Bytes(None) | Header::Text(None) | Header::Array(None) | Header::Map(None) => {
                return Err(CborError::Indefinite);
            }
            Header::Break => return Err(CborError::Malformed),
        };
        if children > 0 {
            if open.len() > MAX_DEPTH {
                return Err(CborError::TooDeep);
            }
            open.push(children);
        }
    }
    if decoder.offset() == bytes.len() { Ok(()) } else { Err(CborError::Trailing) }
}

fn skip(decoder: &mut Decoder<&[u8]>, mut length: usize) -> Result<(), CborError> {
    let mut chunk = [0; 512];
    while length > 0 {
        let part = length.min(chunk.len());
        decoder.read_exact(&mut chunk[..part]).map_err(|_| CborError::Malformed)?;
        length -= part;
    }
    Ok(())
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_definite_shallow_item_passes() {
        for bytes in [&b"\x00"[..], b"\xa1\x61a\x82\x01\x02", b"\xc0\x60", b"\x43abc", b"\xf9\x3c\x00"] {
            assert_eq!(check(bytes, 100), Ok(()), "{bytes:x?}");
        }
    }

    #[test]
    fn everything_else_has_its_name() {
        let deep = [[0x81; 17].as_slice(), &[0]].concat();
        for (bytes, error) in [
            (&b""[..], CborError::Malformed),
            (b"\xff", CborError::Malformed),
            (b"\x82\x01", CborError::Malformed),
            (b"\x43ab", CborError::Malformed),
            (b"\x1c", CborError::Malformed),
            (b"\xf8\x18", CborError::Malformed),
            (b"\x7b\xff\xff\xff\xff\xff\xff\xff\xff", CborError::Malformed),
            (b"\x9f\x01\xff", CborError::Indefinite),
            (b"\xbf\xff", CborError::Indefinite),
            (b"\x5f\x41a\xff", CborError::Indefinite),
            (b"\x7f\x61a\xff", CborError::Indefinite),
            (b"\x00\x00", CborError::Trailing),
            (b"\xbb\xff\xff\xff\xff\xff\xff\xff\xff", CborError::TooMany),
            (&[[0x98, 200].as_slice(), &[0; 200]].concat(), CborError::TooMany),
            (&deep, CborError::TooDeep),
        ] {
            assert_eq!(check(bytes, 100), Err(error), "{bytes:x?}");
        }
    }
}
