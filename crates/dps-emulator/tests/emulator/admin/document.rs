//! `openapi.json` and what is served are the same: each example of it is sent, and each answer held against its schema.

use serde_json::{Value, json};

use super::{Got, register, schema, started};

/// The answer's description in the document, of its status or of all others.
fn described<'a>(document: &'a Value, operation: &'a Value, status: u16) -> &'a Value {
    let responses = &operation["responses"];
    let response = responses.get(status.to_string()).unwrap_or(&responses["default"]);
    let pointer = response["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
    pointer.map_or(response, |path| document.pointer(path).expect("a response"))
}

fn check(document: &Value, operation: &Value, got: &Got) -> Result<(), String> {
    let response = described(document, operation, got.status);
    let Some(content) = response.get("content") else {
        return if got.body.is_empty() { Ok(()) } else { Err("a body".into()) };
    };
    let kind = got.header("content-type").ok_or("no content type")?;
    let kind = kind.split(';').next().unwrap_or_default();
    let schema = &content.get(kind).ok_or(format!("{kind} is not documented"))?["schema"];
    match kind {
        "application/json" => schema::check(document, schema, &got.json()),
        "application/x-ndjson" => got.body.lines().try_for_each(|line| {
            schema::check(document, schema, &serde_json::from_str(line).expect("JSON"))
        }),
        _ => schema::check(document, schema, &got.body.clone().into()),
    }
}

#[tokio::test]
async fn every_example_of_the_document_is_served_and_every_answer_is_as_it_says() {
    let (emulator, port) = started().await;
    let document = port.get("/openapi.json").await.json();
    let mut tried = 0;
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            emulator.reset().unwrap();
            assert_eq!(register(&emulator, "pump-17").await, 200);
            let method = method.to_uppercase();
            let (mut target, mut query) = (path.clone(), Vec::new());
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                let name = parameter["name"].as_str().unwrap();
                let Some(example) = parameter.get("example") else { continue };
                schema::check(&document, &parameter["schema"], example).unwrap();
                let example = example.as_str().map_or(example.to_string(), str::to_owned);
                match parameter["in"].as_str().unwrap() {
                    "path" => target = target.replace(&format!("{{{name}}}"), &example),
                    _ => query.push(format!("{name}={example}")),
                }
            }
            let body = &operation["requestBody"]["content"]["application/json"];
            let examples = body["examples"].as_object().into_iter().flat_map(|all| all.values());
            let mut bodies: Vec<String> = examples
                .map(|example| {
                    schema::check(&document, &body["schema"], &example["value"]).unwrap();
                    example["value"].to_string()
                })
                .collect();
            if body.is_null() {
                bodies.push(String::new());
            }
            assert!(!bodies.is_empty(), "{method} {path} has no example");
            let target = format!("{method} {target}?{}", query.join("&"));
            for sent in bodies {
                let got = port.send(target.trim_end_matches('?'), &sent).await;
                let documented = operation["responses"].get(got.status.to_string());
                assert!(
                    (200..300).contains(&got.status) && documented.is_some(),
                    "{target} {sent}: {got:?}"
                );
                check(&document, operation, &got)
                    .unwrap_or_else(|error| panic!("{target} {sent}: {error}"));
                tried += 1;
            }
            // What is wrong is refused as the document says, and every body that can't be read.
            if !body.is_null() {
                for wrong in ["{", "[]", "7", r#"{"nonsense":1}"#] {
                    let got = port.send(&target, wrong).await;
                    assert_eq!(got.status, 400, "{target} {wrong}: {got:?}");
                    check(&document, operation, &got).unwrap();
                }
                let got = port.ask(&target, "Content-Type: text/plain\r\n", "{}").await;
                assert_eq!(got.status, 415, "{target}");
                check(&document, operation, &got).unwrap();
            }
            let got = port.send(&target.replacen(&method, "PATCH", 1), "").await;
            let allowed = got.header("allow").unwrap_or_default().to_owned();
            assert!(got.status == 405 && allowed.contains(&method), "{target}: {got:?}");
            check(&document, operation, &got).unwrap();
        }
    }
    assert!(tried > 20, "{tried}");
    let all = json!({ "$ref": "#/components/schemas/Problem" });
    let got = port.get("/nope").await;
    assert_eq!(got.status, 404);
    schema::check(&document, &all, &got.json()).unwrap();
}
