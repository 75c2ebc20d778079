//! What the description of the API says of requests beyond the types of their fields: which fields
//! exclude each other, and the form of texts.
//!
//! A client that is generated from the description can then make no request that is refused for
//! its form.

use serde_json::{Value, json};

/// Bytes as base64, with padding and without unused bits.
const BASE64: &str =
    "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}[AEIMQUYcgkosw048]=|[A-Za-z0-9+/][AQgw]==)?$";
/// A time in UTC, such as `2030-01-31T12:00:00Z`.
const TIME: &str = "^(19[7-9][0-9]|[2-9][0-9]{3})-\
    ((0[13578]|1[02])-(0[1-9]|[12][0-9]|3[01])|(0[469]|11)-(0[1-9]|[12][0-9]|30)|02-(0[1-9]|1[0-9]|2[0-8]))\
    T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](\\.[0-9]{1,9})?Z$";
/// `*`, or entity tags.
const TAGS: &str = "^(\\*|(W/)?\"[!#-+\\--~]*\"( *, *(W/)?\"[!#-+\\--~]*\")*)$";
/// Seconds, or `keep`, or both.
const LIFETIME: &str = "^(keep|[0-9]{1,9}(\\.[0-9]{1,9})?(, *keep)?)$";
/// Seconds that a duration cannot have.
const SECONDS_END: f64 = 18_446_744_073_709_551_616.0;

/// Adds it to the document.
pub(super) fn refine(document: &mut Value) {
    if let Some(Value::Object(schemas)) = document.pointer_mut("/components/schemas") {
        schemas.insert("GivenKey".to_owned(), given_key());
        schemas.insert("BatchOperation".to_owned(), batch_operation());
    }
    if let Some(Value::Object(paths)) = document.get_mut("paths") {
        let operations = paths.values_mut().filter_map(Value::as_object_mut);
        for operation in operations.flat_map(|path| path.values_mut()) {
            if let Some(Value::Array(parameters)) = operation.get_mut("parameters") {
                parameters.iter_mut().for_each(refine_parameter);
            }
        }
    }
    if let Some(Value::Object(path)) = document.pointer_mut("/paths/~1v1~1keys~1{key}")
        && let Some(mut head) = path.get("get").cloned()
    {
        without_bodies(&mut head);
        path.insert("head".to_owned(), head);
    }
    // A merge without a body is an ordinary one.
    if let Some(body) = document.pointer_mut("/paths/~1v1~1merge/post/requestBody/required") {
        *body = json!(false);
    }
}

/// Turns the description of a GET into that of the HEAD of the same path.
fn without_bodies(operation: &mut Value) {
    if let Some(Value::Object(responses)) = operation.get_mut("responses") {
        for response in responses.values_mut().filter_map(Value::as_object_mut) {
            response.remove("content");
        }
    }
    if let Some(operation) = operation.as_object_mut() {
        operation.insert("operationId".to_owned(), json!("v1_head"));
        operation.insert("summary".to_owned(), json!("Read only the headers of a value."));
    }
}

/// Gives a parameter its form.
fn refine_parameter(parameter: &mut Value) {
    let text = |form| json!({"type": "string", "minLength": 1, "pattern": form});
    let form = match parameter.get("name").and_then(Value::as_str) {
        Some("If-Match" | "If-None-Match") => text(TAGS),
        Some("X-Bitcask-TTL") => text(LIFETIME),
        // The name alone sets it, too.
        Some("reverse" | "values" | "durable") => json!({"enum": [true, false, ""]}),
        _ => return,
    };
    if let Some(schema) = parameter.get_mut("schema") {
        *schema = form;
    }
}

/// Describes a field that is text or base64, as two forms of which each has the other field at
/// most as null.
fn either(name: &str) -> [Value; 2] {
    let base64 = format!("{name}_base64");
    let text = json!({"type": "string"});
    let bytes = json!({"type": "string", "pattern": BASE64});
    [
        json!({"properties": {name: text, &base64: {"type": "null"}}, "required": [name]}),
        json!({"properties": {name: {"type": "null"}, &base64: bytes}, "required": [base64]}),
    ]
}

/// Merges the properties of several forms into the description of one object.
fn object<'a>(forms: impl IntoIterator<Item = &'a Value>) -> Value {
    let (mut properties, mut required) = (serde_json::Map::new(), Vec::new());
    for form in forms {
        if let Some(Value::Object(more)) = form.get("properties") {
            properties.extend(more.clone());
        }
        if let Some(Value::Array(more)) = form.get("required") {
            required.extend(more.iter().cloned());
        }
    }
    json!({
        "type": "object", "properties": properties, "required": required,
        "additionalProperties": false,
    })
}

fn given_key() -> Value {
    let forms: Vec<_> = either("key").iter().map(|form| object([form])).collect();
    json!({"description": "A key: `key` if it is text, otherwise `key_base64`.", "oneOf": forms})
}

fn batch_operation() -> Value {
    let delete = json!({
        "properties": {
            "op": {"const": "delete"}, "value": {"type": "null"}, "value_base64": {"type": "null"},
            "ttl": {"type": "null"}, "expires_at": {"type": "null"},
        },
        "required": ["op"],
    });
    let put = json!({"properties": {"op": {"const": "put"}}, "required": ["op"]});
    let seconds = json!({
        "type": ["number", "null"], "minimum": 0, "exclusiveMaximum": SECONDS_END,
        "description": "Seconds to live",
    });
    let time = json!({
        "type": "string", "pattern": TIME, "description": "When the key expires, in UTC",
    });
    let lifetimes = [
        json!({"properties": {"ttl": seconds, "expires_at": {"type": "null"}}}),
        json!({
            "properties": {"ttl": {"type": "null"}, "expires_at": time},
            "required": ["expires_at"],
        }),
    ];
    let mut forms = Vec::new();
    for key in &either("key") {
        forms.push(object([&delete, key]));
        for value in &either("value") {
            forms.extend(lifetimes.iter().map(|lifetime| object([&put, key, value, lifetime])));
        }
    }
    json!({"description": "A put or a delete of one key.", "oneOf": forms})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_that_exclude_each_other_are_described_as_forms() {
        let key = given_key();
        assert_eq!(key["oneOf"][0]["required"], json!(["key"]));
        assert_eq!(key["oneOf"][1]["properties"]["key"], json!({"type": "null"}));
        let operation = batch_operation();
        let forms = operation["oneOf"].as_array().unwrap();
        assert_eq!(forms.len(), 10);
        for form in forms {
            assert_eq!(form["additionalProperties"], json!(false));
            let is_delete = form["properties"]["op"]["const"] == "delete";
            assert_eq!(is_delete, form["required"].as_array().unwrap().len() == 2, "{form}");
        }
    }
}
