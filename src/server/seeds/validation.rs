//! Bodies of the older dialects, checked as `FastAPI` checks them.
//!
//! A body that is not as expected is refused with 422, and the answer says which field is wrong.

use std::collections::BTreeMap;

use axum::http::HeaderMap;
use serde::de::{Error as _, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value as JsonValue;
use serde_json::value::RawValue;

use crate::server::body::may_be_json;
use crate::server::failure::{ApiFailure, FieldProblem};

/// The fields of a body that any of the dialects knows. All others are ignored.
#[derive(Debug, Default)]
pub(super) struct BodyFields<'a> {
    /// `None` if it is missing. A field that is there can be `null`.
    key: Option<&'a RawValue>,
    value: Option<&'a RawValue>,
    data: Option<&'a RawValue>,
}

impl<'de: 'a, 'a> Deserialize<'de> for BodyFields<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(FieldsVisitor)
    }
}

/// Reads fields. If one is there twice, the last one counts, as in Python.
struct FieldsVisitor;

impl<'de> Visitor<'de> for FieldsVisitor {
    type Value = BodyFields<'de>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = BodyFields::default();
        while let Some(name) = map.next_key::<String>()? {
            let value = Some(map.next_value()?);
            match name.as_str() {
                "key" => fields.key = value,
                "value" => fields.value = value,
                "data" => fields.data = value,
                _ => {}
            }
        }
        Ok(fields)
    }
}

fn problem(loc: &[&str], msg: impl Into<String>, kind: &'static str) -> ApiFailure {
    let loc = loc.iter().map(|part| JsonValue::from(*part)).collect();
    ApiFailure::fields(FieldProblem { loc, msg: msg.into(), kind })
}

/// Returns the refusal of a body that is not JSON, with the offset of what is wrong.
fn not_json(body: &[u8], error: &serde_json::Error) -> ApiFailure {
    let lines = body.split(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let offset = lines.map(|line| line.len() + 1).sum::<usize>() + error.column();
    let loc = vec!["body".into(), offset.saturating_sub(1).into()];
    let msg = "JSON decode error".into();
    ApiFailure::fields(FieldProblem { loc, msg, kind: "json_invalid" })
}

impl<'a> BodyFields<'a> {
    pub(super) fn read(headers: &HeaderMap, body: &'a [u8]) -> Result<Self, ApiFailure> {
        if body.is_empty() {
            return Err(problem(&["body"], "Field required", "missing"));
        }
        let no_object = "Input should be a valid dictionary or object to extract fields from";
        if !may_be_json(headers) {
            return Err(problem(&["body"], no_object, "model_attributes_type"));
        }
        // The fields of an object could also stand in a list, as far as the parser is concerned.
        let whole: &RawValue =
            serde_json::from_slice(body).map_err(|error| not_json(body, &error))?;
        if !whole.get().starts_with('{') {
            return Err(problem(&["body"], no_object, "model_attributes_type"));
        }
        serde_json::from_str(whole.get())
            .map_err(|error| problem(&["body"], error.to_string(), "value_error"))
    }

    /// Returns the key.
    fn key(&self) -> Result<String, ApiFailure> {
        string("key", self.key)
    }

    /// Returns the value, which has to be text.
    pub(super) fn text_value(&self) -> Result<String, ApiFailure> {
        string("value", self.value)
    }

    /// Returns the key, and the value, which can be any JSON.
    pub(super) fn pair(&self) -> Result<(String, &'a RawValue), ApiFailure> {
        match (self.key(), self.json_value()) {
            (Ok(key), Ok(value)) => Ok((key, value)),
            (Err(key), Err(value)) => Err(key.and(value)),
            (Err(failure), Ok(_)) | (Ok(_), Err(failure)) => Err(failure),
        }
    }

    /// Returns the value, which can be any JSON.
    fn json_value(&self) -> Result<&'a RawValue, ApiFailure> {
        self.value.ok_or_else(|| problem(&["body", "value"], "Field required", "missing"))
    }

    /// Returns the pairs of a batch. If a key is there twice, its last value counts.
    pub(super) fn pairs(&self) -> Result<BTreeMap<String, &'a RawValue>, ApiFailure> {
        let data = self.data;
        let data = data.ok_or_else(|| problem(&["body", "data"], "Field required", "missing"))?;
        if !data.get().starts_with('{') {
            let msg = "Input should be a valid dictionary";
            return Err(problem(&["body", "data"], msg, "dict_type"));
        }
        match serde_json::from_str::<BatchPairs<'a>>(data.get()) {
            Ok(pairs) => Ok(pairs.0),
            Err(error) if error.to_string().starts_with(TOO_MANY) => {
                Err(ApiFailure::too_many_items(PAIRS_MAX))
            }
            Err(error) => Err(problem(&["body", "data"], error.to_string(), "value_error")),
        }
    }
}

fn string(name: &str, field: Option<&RawValue>) -> Result<String, ApiFailure> {
    let loc = ["body", name];
    let field = field.ok_or_else(|| problem(&loc, "Field required", "missing"))?;
    if !field.get().starts_with('"') {
        return Err(problem(&loc, "Input should be a valid string", "string_type"));
    }
    serde_json::from_str(field.get()).map_err(|_| {
        let msg = "Input should be a valid string, unable to parse raw data as a unicode string";
        problem(&loc, msg, "string_unicode")
    })
}

/// Maximum number of pairs in a batch.
const PAIRS_MAX: usize = 100_000;
/// How the error begins if there are more.
const TOO_MANY: &str = "too many pairs";

/// The pairs of an object, whose values are not looked into.
struct BatchPairs<'a>(BTreeMap<String, &'a RawValue>);

impl<'de: 'a, 'a> Deserialize<'de> for BatchPairs<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PairsVisitor).map(BatchPairs)
    }
}

struct PairsVisitor;

impl<'de> Visitor<'de> for PairsVisitor {
    type Value = BTreeMap<String, &'de RawValue>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut pairs = BTreeMap::new();
        while let Some((key, value)) = map.next_entry::<String, &'de RawValue>()? {
            if pairs.len() == PAIRS_MAX {
                return Err(A::Error::custom(TOO_MANY));
            }
            pairs.insert(key, value);
        }
        Ok(pairs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::server::failure::FailureDetail;

    fn read(body: &str) -> Result<BodyFields<'_>, ApiFailure> {
        BodyFields::read(&HeaderMap::new(), body.as_bytes())
    }

    /// Returns the place and the kind of what is wrong.
    fn wrong<T: std::fmt::Debug>(result: Result<T, ApiFailure>) -> String {
        let failure = result.unwrap_err();
        assert_eq!(failure.status.as_u16(), 422);
        let FailureDetail::Fields(problems) = failure.detail else { panic!() };
        let [problem] = &problems[..] else { panic!() };
        format!("{} {}", serde_json::to_string(&problem.loc).unwrap(), problem.kind)
    }

    #[test]
    fn what_is_wrong_with_a_body_is_said_as_fastapi_says_it() {
        assert_eq!(wrong(read("")), r#"["body"] missing"#);
        assert_eq!(wrong(read("[\"k\",\"v\"]")), r#"["body"] model_attributes_type"#);
        assert_eq!(wrong(read("{\"key\": tru}")), r#"["body",11] json_invalid"#);
        assert_eq!(wrong(read("{\n\"key\": }")), r#"["body",9] json_invalid"#);
        let fields = read(r#"{"key":7,"data":[]}"#).unwrap();
        assert_eq!(wrong(fields.key()), r#"["body","key"] string_type"#);
        assert_eq!(wrong(fields.json_value()), r#"["body","value"] missing"#);
        assert_eq!(wrong(fields.pairs()), r#"["body","data"] dict_type"#);
        let half = read(r#"{"key":"\ud800"}"#).unwrap();
        assert_eq!(wrong(half.key()), r#"["body","key"] string_unicode"#);
    }

    #[test]
    fn all_that_is_missing_is_said() {
        let failure = read("{}").unwrap().pair().unwrap_err();
        let FailureDetail::Fields(problems) = failure.detail else { panic!() };
        let places: Vec<_> = problems.iter().map(|problem| problem.loc.last().unwrap()).collect();
        assert_eq!(places, ["key", "value"]);
        assert_eq!(wrong(read(r#"{"key":"k"}"#).unwrap().pair()), r#"["body","value"] missing"#);
        assert_eq!(wrong(read(r#"{"value":1}"#).unwrap().pair()), r#"["body","key"] missing"#);
    }

    #[test]
    fn the_last_field_of_a_name_counts() {
        let fields = read(r#"{"value":"a","other":1,"value":"b","other":2}"#).unwrap();
        assert_eq!(fields.text_value().unwrap(), "b");
    }

    #[test]
    fn a_value_that_is_null_is_there() {
        let fields = read(r#"{"key":"k","value":null,"other":1}"#).unwrap();
        assert_eq!(fields.json_value().unwrap().get(), "null");
        assert_eq!(wrong(fields.text_value()), r#"["body","value"] string_type"#);
    }

    #[test]
    fn the_last_value_of_a_key_counts() {
        let fields = read(r#"{"data":{"a":1,"b":[2],"a":"3"}}"#).unwrap();
        let pairs = fields.pairs().unwrap();
        let pairs: Vec<_> = pairs.iter().map(|(key, value)| (key.as_str(), value.get())).collect();
        assert_eq!(pairs, [("a", "\"3\""), ("b", "[2]")]);
    }

    #[test]
    fn a_batch_has_a_limit() {
        let pairs: Vec<_> = (0..=PAIRS_MAX).map(|number| format!("\"{number}\":0")).collect();
        let body = format!("{{\"data\":{{{}}}}}", pairs.join(","));
        assert_eq!(read(&body).unwrap().pairs().unwrap_err().status.as_u16(), 413);
    }
}
