//! How openraft's types lie in a store: with postcard, behind a byte that names the encoding.

use std::path::Path;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result, shown_key};

/// The only encoding so far.
const VERSION: u8 = 1;

/// Encodes what is about to be stored under a key.
pub(super) fn encode<T: Serialize>(key: &[u8], value: &T) -> Result<Vec<u8>> {
    postcard::to_extend(value, vec![VERSION])
        .map_err(|error| Error::Unencodable { key: key.to_vec(), reason: error.to_string() })
}

/// Encodes a value, and decodes it again: there are types that can be encoded, and never decoded.
pub(crate) fn encode_checked<T: Serialize + DeserializeOwned>(
    key: &[u8],
    value: &T,
) -> Result<Vec<u8>> {
    let bytes = encode(key, value)?;
    match decode::<T>(key, &bytes) {
        Ok(_) => Ok(bytes),
        Err(error) => {
            let reason = format!(
                "its type does not survive an encoding without the names of fields: {error}"
            );
            Err(Error::Unencodable { key: key.to_vec(), reason })
        }
    }
}

/// Decodes what was stored under a key.
pub(crate) fn decode<T: DeserializeOwned>(key: &[u8], bytes: &[u8]) -> Result<T> {
    let failed = |reason: String| Error::Undecodable { key: key.to_vec(), reason };
    match bytes.split_first() {
        Some((&VERSION, rest)) => match postcard::take_from_bytes(rest) {
            Ok((value, [])) => Ok(value),
            Ok((_, more)) => Err(failed(format!("{} bytes follow the value", more.len()))),
            Err(error) => Err(failed(error.to_string())),
        },
        Some((version, _)) => Err(failed(format!("the encoding {version} is unknown"))),
        None => Err(failed("there are no bytes".to_owned())),
    }
}

/// Decodes what a store holds under a key. The error names the store: nobody outside of it knows
/// the key.
pub(super) fn decode_in<T: DeserializeOwned>(store: &Path, key: &[u8], bytes: &[u8]) -> Result<T> {
    decode(key, bytes).map_err(|error| match error {
        Error::Undecodable { key, reason } => {
            let key = shown_key(&key);
            let reason = format!("what it holds under key {key} cannot be decoded: {reason}");
            Error::corrupt(store, 0, reason)
        }
        error => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_exactly_a_value_is_refused() {
        let bytes = encode(b"key", &(7u64, "seven".to_owned())).unwrap();
        assert_eq!(decode::<(u64, String)>(b"key", &bytes).unwrap(), (7, "seven".to_owned()));
        for len in 0..bytes.len() {
            let error = decode::<(u64, String)>(b"key", &bytes[..len]).unwrap_err();
            assert!(error.is_undecodable(), "{error}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(decode::<(u64, String)>(b"key", &longer).unwrap_err().is_undecodable());
        let newer = [&[VERSION + 1], &bytes[1..]].concat();
        let error = decode::<(u64, String)>(b"key", &newer).unwrap_err().to_string();
        assert!(error.contains("the encoding 2 is unknown"), "{error}");
    }
}
