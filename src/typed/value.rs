//! How values become bytes.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::finite::has_finite_floats;

/// What JSON has for no value, and `serde_json` for a float that is not finite.
const NULL: &[u8] = b"null";

/// An encoding of values: [`Postcard`] or [`Json`].
///
/// This trait is sealed: no other type can implement it, so encodings can be added later.
pub trait ValueCodec: sealed::ValueForm {}

mod sealed {
    use serde::Serialize;
    use serde::de::DeserializeOwned;

    /// An encoding. Code outside this crate cannot name this trait.
    pub trait ValueForm {
        /// Returns the bytes of a value, or what is wrong with it.
        fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>, String>;

        /// Returns the value of which these are all bytes, or what is wrong with them.
        fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, String>;
    }
}

/// Encodes values with [postcard](https://postcard.jamesmunns.com): without names, and integers as
/// short as their value allows. Values must have a fixed form: types that decide how to decode by
/// what follows, such as untagged enums, do not decode.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Postcard;

/// Encodes values as JSON, in one line and with the names of fields. Keys of maps must be strings
/// or numbers, and floats must be finite: others are [`Unencodable`](crate::Error::Unencodable).
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct Json;

impl ValueCodec for Postcard {}
impl ValueCodec for Json {}

impl sealed::ValueForm for Postcard {
    fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>, String> {
        postcard::to_stdvec(value).map_err(|error| error.to_string())
    }

    fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, String> {
        match postcard::take_from_bytes(bytes) {
            Ok((value, [])) => Ok(value),
            // Bytes of another type often decode up to some point.
            Ok((_, rest)) => Err(format!("{} bytes are left after the value", rest.len())),
            Err(error) => Err(error.to_string()),
        }
    }
}

impl sealed::ValueForm for Json {
    fn encode<V: Serialize>(value: &V) -> Result<Vec<u8>, String> {
        let bytes = serde_json::to_vec(value).map_err(|error| error.to_string())?;
        let has_null = bytes.windows(NULL.len()).any(|part| part == NULL);
        if has_null && !has_finite_floats(value) {
            return Err("JSON cannot express a float that is not finite".into());
        }
        Ok(bytes)
    }

    fn decode<V: DeserializeOwned>(bytes: &[u8]) -> Result<V, String> {
        serde_json::from_slice(bytes).map_err(|error| error.to_string())
    }
}
