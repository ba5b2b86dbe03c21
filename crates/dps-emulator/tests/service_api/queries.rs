//! Queries, page by page.

use dps_emulator::{Attestation, Emulator, Enrollment, GroupAttestation, GroupKey, SymmetricKey};
use serde_json::json;

use crate::tool::{Tool, refused};

/// The names in all pages of a query, and how many were in each.
async fn pages(tool: &Tool, path: &str, size: Option<&str>, field: &str) -> Vec<Vec<String>> {
    let query = json!({ "query": "*" }).to_string();
    let mut pages = Vec::new();
    let mut token = None;
    loop {
        let mut headers: Vec<(&str, &str)> = Vec::new();
        headers.extend(size.map(|size| ("x-ms-max-item-count", size)));
        headers.extend(token.as_deref().map(|token| ("x-ms-continuation", token)));
        let answer = tool.send("POST", path, &headers, &query).await;
        assert_eq!(answer.status, 200, "{}", answer.json());
        let items = answer.json();
        let name = |item: &serde_json::Value| item[field].as_str().unwrap().to_owned();
        pages.push(items.as_array().unwrap().iter().map(name).collect());
        assert!(answer.header("x-ms-item-type").is_some());
        match answer.header("x-ms-continuation") {
            Some(next) => token = Some(next.to_owned()),
            None => return pages,
        }
    }
}

#[tokio::test]
async fn all_of_one_kind_come_in_pages() {
    let key = SymmetricKey::random().unwrap();
    let group_key = GroupKey::random().unwrap();
    let devices = (0..5).map(|n| {
        Enrollment::individual(
            format!("d{n}").parse().unwrap(),
            Attestation::symmetric_key(key.clone()),
        )
    });
    let groups = (0..3).map(|n| {
        Enrollment::group(format!("d{n}"), GroupAttestation::symmetric_key(group_key.clone()))
    });
    let config =
        devices.chain(groups).fold(Emulator::builder(), |config, it| config.enrollment(it));
    let tool = Tool::at(config).await;
    let individual = pages(&tool, "/enrollments/query", Some("2"), "registrationId").await;
    assert_eq!(individual, [vec!["d0", "d1"], vec!["d2", "d3"], vec!["d4"]]);
    let exactly = pages(&tool, "/enrollmentGroups/query", Some("3"), "enrollmentGroupId").await;
    assert_eq!(exactly, [["d0", "d1", "d2"]], "no empty page at the end");
    assert_eq!(pages(&tool, "/enrollments/query", None, "registrationId").await.concat().len(), 5);
    // The page after a device that was deleted meanwhile.
    let first = tool
        .send(
            "POST",
            "/enrollments/query",
            &[("x-ms-max-item-count", "2")],
            r#"{"query":"SELECT * FROM enrollments"}"#,
        )
        .await;
    let next = first.header("x-ms-continuation").unwrap();
    assert_eq!(
        (first.header("x-ms-item-type"), first.header("x-ms-max-item-count")),
        (Some("enrollment"), Some("2"))
    );
    tool.emulator.remove_enrollment("d1").unwrap();
    let second = tool
        .send("POST", "/enrollments/query", &[("x-ms-continuation", next)], r#"{"query":"*"}"#)
        .await;
    assert_eq!(second.json()[0]["registrationId"], "d2");
    // A token of another query.
    let other = tool
        .send("POST", "/enrollmentGroups/query", &[("x-ms-continuation", next)], r#"{"query":"*"}"#)
        .await;
    refused(&other, 400_000, "x-ms-continuation");
}

#[tokio::test]
async fn what_is_no_query_is_refused_with_the_reason() {
    let tool = Tool::start().await;
    let path = "/enrollments/query";
    for (body, code, says) in [
        (json!({}), 400_012, "query: it is missing"),
        (json!({ "query": 1 }), 400_012, "query: invalid type"),
        (json!({ "query": "*", "size": 1 }), 400_012, "size: there is no such field"),
        (
            json!({ "query": "SELECT * FROM enrollments WHERE a = 1" }),
            400_000,
            "SELECT * FROM enrollments",
        ),
        (
            json!({ "query": "select * from enrollmentGroups" }),
            400_000,
            "SELECT * FROM enrollments",
        ),
    ] {
        refused(&tool.post(path, &body).await, code, says);
    }
    for (header, value) in
        [("x-ms-max-item-count", "0"), ("x-ms-max-item-count", "many"), ("x-ms-continuation", "%")]
    {
        let answer = tool.send("POST", path, &[(header, value)], r#"{"query":"*"}"#).await;
        refused(&answer, 400_000, header);
    }
    let answer = tool.post("/registrations/nobody/query", &json!({ "query": "*" })).await;
    refused(&answer, 404_201, "not found");
}

#[tokio::test]
async fn the_registrations_of_a_group_are_read_queried_and_deleted() {
    let key: GroupKey = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=".parse().unwrap();
    let group = Enrollment::group("Factory", GroupAttestation::symmetric_key(key.clone()));
    let tool = Tool::at(Emulator::builder().enrollment(group.assign_to("hub"))).await;
    let device_key = |id: &str| key.derive(&id.parse().unwrap()).expose_base64().to_string();
    for id in ["b", "a", "C"] {
        assert_eq!(tool.register(id, &device_key(id)).await.json()["status"], "assigned");
    }
    let found = pages(&tool, "/registrations/factory/query", Some("2"), "registrationId").await;
    assert_eq!(found, [vec!["a", "b"], vec!["C"]]);
    let state = tool.get("/registrations/B").await.json();
    assert_eq!((&state["assignedHub"], &state["status"]), (&json!("hub"), &json!("assigned")));
    assert!(state.get("symmetricKey").is_none(), "{state}");
    let stale = tool.send("DELETE", "/registrations/b", &[("If-Match", "old")], "").await;
    refused(&stale, 412_201, "get it again");
    let etag = state["etag"].as_str().unwrap();
    let deleted = tool.send("DELETE", "/registrations/b", &[("If-Match", etag)], "").await;
    assert_eq!(deleted.status, 204);
    refused(&tool.get("/registrations/b").await, 404_201, "not found");
    refused(&tool.send("DELETE", "/registrations/b", &[], "").await, 404_201, "not found");
    let again = tool.register("b", &device_key("b")).await.json();
    assert_eq!(again["registrationState"]["substatus"], "initialAssignment");
}
