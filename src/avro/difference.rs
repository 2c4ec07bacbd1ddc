//! How two record schemas differ, in words: for whoever has to decide what to do about it.

use serde_json::Value;

/// What of the fields of `now` is another than in `was`, both as JSON; a schema that isn't a record's is shown whole.
pub(super) fn difference(was: &str, now: &str) -> String {
    let parse = |text: &str| serde_json::from_str::<Value>(text).ok();
    let (Some(was), Some(now)) = (parse(was), parse(now)) else { return format!("{was} became {now}") };
    let mut words = Vec::new();
    if full_name(&was) != full_name(&now) {
        words.push(format!("the record is called {}, and was {}", full_name(&now), full_name(&was)));
    }
    let (before, after) = (fields(&was), fields(&now));
    for (name, schema) in &after {
        match before.iter().find(|(other, _)| other == name) {
            None => words.push(format!("field {name:?} is new: {schema}")),
            Some((_, other)) if other != schema => words.push(format!("field {name:?} is {schema}, and was {other}")),
            Some(_) => {}
        }
    }
    let gone = before.iter().filter(|(name, _)| after.iter().all(|(other, _)| other != name));
    words.extend(gone.map(|(name, schema)| format!("field {name:?} is gone: {schema}")));
    if words.is_empty() { "the fields have the same types".to_owned() } else { words.join("; ") }
}

fn full_name(schema: &Value) -> String {
    let part = |key: &str| schema[key].as_str().unwrap_or_default().to_owned();
    format!("{}.{}", part("namespace"), part("name"))
}

fn fields(schema: &Value) -> Vec<(String, String)> {
    let field = |field: &Value| Some((field["name"].as_str()?.to_owned(), field["type"].to_string()));
    schema["fields"].as_array().into_iter().flatten().filter_map(field).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_field_that_differs_is_named() {
        let was = r#"{"type":"record","name":"Value","namespace":"a","fields":[
            {"name":"id","type":"int"},{"name":"v","type":["null","int"]},{"name":"w","type":"string"}]}"#;
        let now = r#"{"type":"record","name":"Value","namespace":"b","fields":[
            {"name":"id","type":"int"},{"name":"v","type":["null","string"]},{"name":"x","type":"long"}]}"#;
        assert_eq!(
            difference(was, now),
            "the record is called b.Value, and was a.Value; field \"v\" is [\"null\",\"string\"], and was \
             [\"null\",\"int\"]; field \"x\" is new: \"long\"; field \"w\" is gone: \"string\""
        );
        assert_eq!(difference(was, was), "the fields have the same types");
    }
}
