//! So much of JSON Schema as `openapi.json` uses. What it does not know is an error, so that nothing goes unchecked.

use serde_json::Value;

/// What of a value is not as its schema says.
pub(super) fn check(document: &Value, schema: &Value, value: &Value) -> Result<(), String> {
    let wrong = |what: String| Err(format!("{what}: {value}"));
    for (keyword, wanted) in schema.as_object().ok_or("a schema is an object")? {
        let fits = match keyword.as_str() {
            "$ref" => {
                let pointer = wanted.as_str().and_then(|path| path.strip_prefix('#'));
                let schema = pointer.and_then(|path| document.pointer(path));
                check(document, schema.ok_or(format!("{wanted} leads nowhere"))?, value)?;
                true
            }
            "type" => match wanted {
                Value::Array(types) => types.iter().any(|name| is_a(name, value)),
                name => is_a(name, value),
            },
            "const" => wanted == value,
            "enum" => wanted.as_array().is_some_and(|values| values.contains(value)),
            "minimum" => value.as_f64() >= wanted.as_f64(),
            "maximum" => value.as_f64() <= wanted.as_f64(),
            "minProperties" => length(value) >= wanted.as_u64(),
            "maxProperties" => length(value) <= wanted.as_u64(),
            "format" => {
                wanted == "date-time" && value.as_str().is_some_and(|text| text.ends_with('Z'))
            }
            "required" => {
                let mut names = wanted.as_array().into_iter().flatten().filter_map(Value::as_str);
                names.all(|name| value.get(name).is_some())
            }
            "properties" => {
                for (name, schema) in wanted.as_object().into_iter().flatten() {
                    value.get(name).map_or(Ok(()), |value| check(document, schema, value))?;
                }
                true
            }
            "additionalProperties" if *wanted == false => {
                let known = schema.get("properties").and_then(Value::as_object);
                let mut names = value.as_object().into_iter().flat_map(|fields| fields.keys());
                names.all(|name| known.is_some_and(|known| known.contains_key(name)))
            }
            "items" => {
                let items = value.as_array().into_iter().flatten();
                items.map(|item| check(document, wanted, item)).collect::<Result<Vec<()>, _>>()?;
                true
            }
            "description" => true,
            _ => return wrong(format!("{keyword} is not known here")),
        };
        if !fits {
            return wrong(format!("{keyword} {wanted}"));
        }
    }
    Ok(())
}

fn length(value: &Value) -> Option<u64> {
    value.as_object().map(|fields| fields.len() as u64)
}

fn is_a(name: &Value, value: &Value) -> bool {
    match name.as_str() {
        Some("object") => value.is_object(),
        Some("array") => value.is_array(),
        Some("string") => value.is_string(),
        Some("integer") => value.is_u64() || value.is_i64(),
        Some("number") => value.is_number(),
        Some("boolean") => value.is_boolean(),
        Some("null") => value.is_null(),
        _ => false,
    }
}
