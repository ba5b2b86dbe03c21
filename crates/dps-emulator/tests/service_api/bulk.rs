//! Several enrollments with one request.

use serde_json::{Value, json};

use crate::tool::{Tool, refused};

fn individual(id: &str) -> Value {
    json!({ "registrationId": id, "attestation": { "type": "symmetricKey" } })
}

fn group(id: &str) -> Value {
    json!({ "enrollmentGroupId": id, "attestation": { "type": "symmetricKey" } })
}

#[tokio::test]
async fn each_mode_does_its_work_and_tells_of_each_failure() {
    let tool = Tool::start().await;
    for (path, list, id, record) in [
        ("/enrollments/", "enrollments", "registrationId", individual as fn(&str) -> Value),
        ("/enrollmentGroups", "enrollmentGroups", "enrollmentGroupId", group),
    ] {
        let run = async |mode: &str, records: &[Value]| {
            let answer = tool.post(path, &json!({ "mode": mode, list: records })).await;
            assert_eq!(answer.status, 200, "{}", answer.json());
            let body = answer.json();
            let errors = body["errors"].as_array().unwrap().clone();
            assert_eq!(body["isSuccessful"], errors.is_empty());
            let told = errors.iter().map(|error| {
                assert!(!error["errorStatus"].as_str().unwrap().is_empty());
                (error[id].as_str().unwrap().to_owned(), error["errorCode"].as_u64().unwrap())
            });
            told.collect::<Vec<_>>()
        };
        let all = ["a", "b"].map(record);
        let with = |id: &str, field: &str, value: Value| {
            let mut record = record(id);
            record[field] = value;
            record
        };
        assert_eq!(run("create", &all).await, []);
        let some = [record("a"), record("c"), with("d", "color", json!(1))];
        let expected = [("a".to_owned(), 409_201), ("d".to_owned(), 400_012)];
        assert_eq!(run("create", &some).await, expected);
        assert_eq!(run("update", &[record("a"), record("x")]).await, [("x".to_owned(), 404_201)]);
        let etag =
            tool.get(&format!("{}/a", path.trim_end_matches('/'))).await.json()["etag"].clone();
        let stale = with("b", "etag", json!("\"old\""));
        let without = record("c");
        let fresh = with("a", "etag", etag);
        let expected = [("b".to_owned(), 412_201), ("c".to_owned(), 400_012)];
        assert_eq!(run("updateIfMatchETag", &[fresh, stale, without]).await, expected);
        let gone = [record("a"), record("a"), record("b"), json!({ id: "c" })];
        assert_eq!(run("delete", &gone).await, [("a".to_owned(), 404_201)]);
    }
    assert!(tool.emulator.enrollments().is_empty());
}

#[tokio::test]
async fn a_request_that_is_wrong_as_a_whole_does_nothing() {
    let tool = Tool::start().await;
    let eleven: Vec<_> = (0..11).map(|number| individual(&number.to_string())).collect();
    for (body, says) in [
        (json!({ "enrollments": [individual("a")] }), "mode: it is missing"),
        (json!({ "mode": "replace", "enrollments": [individual("a")] }), "mode: it must be create"),
        (json!({ "mode": "create" }), "enrollments: it is missing"),
        (json!({ "mode": "create", "enrollments": [] }), "enrollments: give 1 to 10"),
        (json!({ "mode": "create", "enrollments": eleven }), "enrollments: give 1 to 10"),
        (
            json!({ "mode": "create", "enrollments": [individual("a"), 7] }),
            "enrollments[1] must be a JSON object",
        ),
        (
            json!({ "mode": "create", "enrollments": [individual("a"), {}] }),
            "enrollments[1].registrationId: it is missing",
        ),
        (
            json!({ "mode": "create", "enrollments": [individual("a"), individual("b c")] }),
            "enrollments[1].registrationId: ",
        ),
        (
            json!({ "mode": "create", "enrollments": [individual("a")], "x": 1 }),
            "x: there is no such field",
        ),
    ] {
        refused(&tool.post("/enrollments", &body).await, 400_012, says);
    }
    assert!(tool.emulator.enrollments().is_empty());
}
