//! Operations, allocation and the script of faults.

use super::*;

/// A service with one device, `dev-1`, and a way to speak for it.
struct Bench {
    service: Service,
    who: Authenticated,
}

impl Bench {
    fn new(enrollment: Enrollment) -> Self {
        let service = service([enrollment]);
        let token = token("dev-1", &key("one"));
        let who = service.authenticate(now(), SCOPE, "dev-1", Credential::Sas(&token)).unwrap();
        Self { service, who }
    }

    fn behaving(behavior: Behavior) -> Self {
        Self::new(individual("dev-1").behavior(behavior))
    }

    fn register(&mut self) -> Reply {
        self.service.register(now(), &self.who, Ok(plain()))
    }

    fn force(&mut self) -> Reply {
        let forced = Registration { force: true, ..plain() };
        self.service.register(now(), &self.who, Ok(forced))
    }

    fn query(&mut self, operation: &str) -> Reply {
        self.service.query(now(), &self.who, plain().api_version, operation)
    }
}

fn operation(reply: &Reply) -> String {
    body(reply)["operationId"].as_str().unwrap().to_owned()
}

#[test]
fn an_assignment_at_once_has_all_that_the_service_tells() {
    let mut bench = Bench::new(individual("dev-1").assign_to("hub-1"));
    let reply = bench.register();
    assert_eq!(
        (reply.status, reply.pending.as_deref(), &reply.retry_after[..]),
        (200, None, &[][..])
    );
    let mut body = body(&reply);
    assert_eq!(operation(&reply).split('.').count(), 3);
    assert_eq!(body["status"], "assigned");
    let state = body["registrationState"].as_object_mut().unwrap();
    assert!(state.remove("etag").is_some_and(|etag| !etag.as_str().unwrap().is_empty()));
    let expected = json!({
        "registrationId": "dev-1",
        "createdDateTimeUtc": "2025-01-01T00:00:00.000Z",
        "lastUpdatedDateTimeUtc": "2025-01-01T00:00:00.000Z",
        "assignedHub": "hub-1",
        "deviceId": "dev-1",
        "status": "assigned",
        "substatus": "initialAssignment",
        "symmetricKey": {},
    });
    assert_eq!(Value::Object(state.clone()), expected);
}

#[test]
fn it_takes_as_many_polls_as_it_says() {
    let behavior = Behavior::new().polls(3).retry_after(RetryAfter::Seconds(7));
    let mut bench = Bench::behaving(behavior);
    let first = bench.register();
    let id = operation(&first);
    assert_eq!((first.status, first.pending.as_ref()), (202, Some(&id)));
    assert_eq!(body(&first), json!({"operationId": id, "status": "assigning"}));
    assert_eq!(first.retry_after, ["7"]);
    let seen: Vec<_> =
        (0..4).map(|_| bench.query(&id)).map(|r| (r.status, r.registration_status)).collect();
    let word = |word: &str| Some(word.to_owned());
    let assigned = (200, word("assigned"));
    let assigning = (202, word("assigning"));
    assert_eq!(seen, [assigning.clone(), assigning, assigned.clone(), assigned]);
}

#[test]
fn a_poll_is_told_the_state_of_a_registration_that_is_under_way() {
    let mut bench = Bench::behaving(Behavior::new().polls(2));
    let id = operation(&bench.register());
    let mut state = body(&bench.query(&id))["registrationState"].take();
    assert!(state["etag"].take().as_str().is_some_and(|etag| !etag.is_empty()));
    let expected = json!({
        "registrationId": "dev-1",
        "createdDateTimeUtc": "2025-01-01T00:00:00.000Z",
        "lastUpdatedDateTimeUtc": "2025-01-01T00:00:00.000Z",
        "status": "assigning",
        "etag": null,
    });
    assert_eq!(state, expected);
}

#[test]
fn the_pace_counts_for_what_an_enrollment_does_not_say() {
    let none: &[&str] = &[];
    for (pace, behavior, polls, retry_after) in [
        (Pace::Fast, Behavior::new(), 0, none),
        (Pace::Service, Behavior::new(), 1, &["3"]),
        (Pace::Service, Behavior::new().polls(2), 2, &["3"]),
        (Pace::Service, Behavior::new().polls(0), 0, none),
        (Pace::Service, Behavior::new().retry_after(RetryAfter::Seconds(9)), 1, &["9"]),
        (Pace::Service, Behavior::new().retry_after(RetryAfter::Absent), 1, none),
    ] {
        let mut bench = Bench::behaving(behavior.clone());
        bench.service.instance.pace = pace;
        let mut reply = bench.register();
        assert_eq!(reply.retry_after, retry_after, "{pace:?} {behavior:?}");
        let id = operation(&reply);
        let mut polled = 0;
        while reply.status == 202 {
            reply = bench.query(&id);
            polled += 1;
        }
        assert_eq!(polled, polls, "{pace:?} {behavior:?}");
    }
}

#[test]
fn a_registration_under_way_is_joined_and_a_finished_one_is_begun_anew() {
    let mut bench = Bench::behaving(Behavior::new().polls(1));
    let first = operation(&bench.register());
    assert_eq!(operation(&bench.register()), first);
    assert_eq!(bench.query(&first).status, 200);
    let second = operation(&bench.register());
    assert_ne!(second, first);
    assert_eq!(bench.query(&first).error_code, Some(404_202), "it is over");
    assert_eq!(bench.query("4.x.y").error_code, Some(404_202));
}

#[test]
fn polls_without_end_never_end() {
    let mut bench = Bench::behaving(Behavior::new().polls(u32::MAX));
    let id = operation(&bench.register());
    assert!((0..1000).all(|_| bench.query(&id).status == 202));
}

#[test]
fn every_outcome_has_its_status() {
    for (outcome, status) in [
        (Outcome::failed(400_207, "no"), "failed"),
        (Outcome::Disabled, "disabled"),
        (Outcome::status("blue"), "blue"),
    ] {
        for polls in [0, 1] {
            let mut bench = Bench::behaving(Behavior::new().polls(polls).outcome(outcome.clone()));
            let mut reply = bench.register();
            if polls == 1 {
                reply = bench.query(&operation(&reply));
            }
            let body = body(&reply);
            assert_eq!((reply.status, &body["status"]), (200, &json!(status)));
            let state = &body["registrationState"];
            assert_eq!(state["status"], status);
            assert_eq!(state.get("assignedHub").is_some(), status == "blue");
            if status == "failed" {
                assert_eq!(
                    (&state["errorCode"], &state["errorMessage"]),
                    (&json!(400_207), &json!("no"))
                );
            }
        }
    }
    let mut disabled = Bench::new(individual("dev-1").disabled());
    assert_eq!(body(&disabled.register())["status"], "disabled");
    disabled.service.set_enabled(now(), "dev-1".into(), true).unwrap();
    assert_eq!(body(&disabled.register())["status"], "assigned");
}

#[test]
fn payloads_are_echoed_fixed_or_left_out() {
    let sent = json!({"a": [1, {"b": null}]});
    for (policy, gets) in [
        (ReturnedPayload::None, None),
        (ReturnedPayload::Echo, Some(&sent)),
        (ReturnedPayload::Fixed(json!({"c": 2}).into()), Some(&json!({"c": 2}))),
    ] {
        let behavior = Behavior::new().polls(1);
        let mut bench = Bench::new(individual("dev-1").payload(policy).behavior(behavior));
        let registration = Registration { payload: Some(sent.clone().into()), ..plain() };
        let reply = bench.service.register(now(), &bench.who, Ok(registration));
        let done = bench.query(&operation(&reply));
        assert_eq!(body(&done)["registrationState"].get("payload"), gets);
    }
    let mut nothing_to_echo = Bench::new(individual("dev-1").payload(ReturnedPayload::Echo));
    assert!(body(&nothing_to_echo.register())["registrationState"].get("payload").is_none());
}

#[test]
fn devices_are_spread_over_hubs_as_the_allocation_says() {
    for (allocation, first, again) in [
        (Allocation::Evenly, "abcabca", "abcabca"),
        (Allocation::Static, "aaaaaaa", "aaaaaaa"),
        (Allocation::EachRun, "aaaaaaa", "bbbbbbb"),
        (Allocation::GeoLatency, "bbbbbbb", "bbbbbbb"),
    ] {
        let group = GroupAttestation::symmetric_key(group_key("the group"));
        let group = Enrollment::group("factory", group).assign_to_each(["a", "b", "c"]);
        let mut service = service([group.allocation(allocation.clone())]);
        let hubs = |service: &mut Service| -> String {
            let hub = |number: usize| {
                let id = format!("dev-{number}");
                let token = token(&id, &group_key("the group").derive(&id.parse().unwrap()));
                let who = service.authenticate(now(), SCOPE, &id, Credential::Sas(&token)).unwrap();
                let reply = service.register(now(), &who, Ok(plain()));
                body(&reply)["registrationState"]["assignedHub"].as_str().unwrap().to_owned()
            };
            (0..7).map(hub).collect()
        };
        assert_eq!(hubs(&mut service), first, "{allocation:?}");
        assert_eq!(hubs(&mut service), again, "{allocation:?}");
        service.forget_devices();
        assert_eq!(hubs(&mut service), first, "{allocation:?}");
    }
}

#[test]
fn a_device_that_registers_again_moves_as_its_policy_says() {
    let on = |policy, hubs: &[&str]| {
        let enrollment = individual("dev-1").reprovisioning(policy).assign_to_each(hubs.to_vec());
        Bench::new(enrollment.allocation(Allocation::EachRun))
    };
    let place = |reply: Reply| {
        let state = body(&reply)["registrationState"].clone();
        let text = |name: &str| state[name].as_str().unwrap().to_owned();
        (text("assignedHub"), text("substatus"))
    };
    let at = |hub: &str, substatus: &str| (hub.to_owned(), substatus.to_owned());

    let mut stays = on(Reprovisioning::MigrateData, &["a"]);
    assert_eq!(place(stays.register()), at("a", "initialAssignment"));
    assert_eq!(place(stays.register()), at("a", "initialAssignment"), "the same hub is no move");
    assert_eq!(place(stays.force()), at("a", "reprovisionedToInitialAssignment"));

    let mut migrates = on(Reprovisioning::MigrateData, &["a", "b"]);
    assert_eq!(place(migrates.register()), at("a", "initialAssignment"));
    assert_eq!(place(migrates.register()), at("b", "deviceDataMigrated"));
    assert_eq!(place(migrates.register()), at("a", "reprovisionedToInitialAssignment"));

    let mut resets = on(Reprovisioning::ResetData, &["a", "b"]);
    resets.register();
    assert_eq!(place(resets.register()), at("b", "deviceDataReset"));

    let mut never = on(Reprovisioning::Never, &["a", "b"]);
    never.register();
    assert_eq!(place(never.register()), at("a", "initialAssignment"));
    assert_eq!(place(never.force()), at("b", "deviceDataMigrated"), "force runs the allocation");

    never.service.forget_devices();
    assert_eq!(place(never.register()), at("a", "initialAssignment"));
    let mut odd = Bench::new(individual("dev-1").substatus("somethingNew"));
    assert_eq!(place(odd.register()).1, "somethingNew");
}

#[test]
fn a_refusal_has_the_form_of_the_service() {
    let throttle = Fault::refuse(429).retry_after(RetryAfter::Seconds(3));
    let mut bench = Bench::behaving(Behavior::new().on_register(throttle));
    let reply = bench.register();
    assert_eq!((reply.status, reply.error_code), (429, Some(429_001)));
    assert_eq!(reply.retry_after, ["3"]);
    let expected = json!({
        "errorCode": 429_001,
        "trackingId": reply.tracking_id,
        "message": "Too many requests",
        "timestampUtc": "2025-01-01T00:00:00.000Z",
    });
    assert_eq!(body(&reply), expected);
    assert_eq!(bench.register().status, 200);
}

#[test]
fn a_fault_in_the_place_of_a_request_counts_as_no_poll() {
    let behavior = Behavior::new()
        .polls(2)
        .on_query(Fault::refuse(503))
        .on_query(Fault::deliver(Delivery::Never))
        .on_query(Fault::deliver(Delivery::CloseBefore))
        .on_query(Fault::deliver(Delivery::CloseAfter));
    let mut bench = Bench::behaving(behavior);
    let id = operation(&bench.register());
    let seen: Vec<_> = (0..5).map(|_| bench.query(&id)).map(|r| (r.status, r.delivery)).collect();
    let expected = [
        (503, Delivery::Whole),
        (200, Delivery::Never),
        (200, Delivery::CloseBefore),
        (202, Delivery::CloseAfter),
        (200, Delivery::Whole),
    ];
    assert_eq!(seen, expected);
}

#[test]
fn faults_change_an_answer_in_all_ways_at_once() {
    let fault = Fault::without("registrationState.assignedHub")
        .and_with("operationId", 7)
        .status(201)
        .retry_after(RetryAfter::Raw(vec!["x".into(), "-1".into()]))
        .content_type("text/odd")
        .delivery(Delivery::CloseMid(4));
    let mut bench = Bench::behaving(Behavior::new().on_register(fault));
    let reply = bench.register();
    assert_eq!((reply.status, reply.content_type.as_str()), (201, "text/odd"));
    assert_eq!(reply.retry_after, ["x", "-1"]);
    assert_eq!(reply.delivery, Delivery::CloseMid(4));
    let body = body(&reply);
    assert_eq!(body["operationId"], 7);
    assert!(body["registrationState"].get("assignedHub").is_none());
    assert_eq!(body["registrationState"]["deviceId"], "dev-1");
}

#[test]
fn bodies_are_replaced() {
    let whole = Bench::behaving(Behavior::new()).register().body;
    for (kind, check) in [
        (Body::Empty, (|body| body.is_empty()) as fn(&[u8]) -> bool),
        (Body::Garbage, |body| std::str::from_utf8(body).is_err()),
        (Body::Html, |body| body.starts_with(b"<!DOCTYPE html>")),
        (Body::Text("x".into()), |body| body == b"x"),
        (Body::Cut(5), |body| body == b"{\"ope"),
        (Body::Oversized(5000), |body| {
            body.len() == 5000 && serde_json::from_slice::<Value>(body).is_ok()
        }),
        (Body::Oversized(1), |body| serde_json::from_slice::<Value>(body).is_ok()),
    ] {
        let mut bench =
            Bench::behaving(Behavior::new().on_register(Fault::with_body(kind.clone())));
        assert!(check(&bench.register().body), "{kind:?}");
        assert_eq!(bench.register().body.len(), whole.len(), "only once: {kind:?}");
    }
}

#[test]
fn each_device_of_a_group_has_its_own_place_in_the_script() {
    let mut service =
        service([group("g").behavior(Behavior::new().on_register(Fault::refuse(429)))]);
    let mut statuses = |id: &str| {
        let token = token(id, &group_key("g1").derive(&id.parse().unwrap()));
        let who = service.authenticate(now(), SCOPE, id, Credential::Sas(&token)).unwrap();
        [(); 2].map(|()| service.register(now(), &who, Ok(plain())).status)
    };
    assert_eq!(statuses("dev-1"), [429, 200]);
    assert_eq!(statuses("dev-2"), [429, 200]);
    service
        .set_behavior(now(), "G".into(), Behavior::new().on_register(Fault::refuse(500).forever()))
        .unwrap();
    let token = token("dev-1", &group_key("g1").derive(&"dev-1".parse().unwrap()));
    let who = service.authenticate(now(), SCOPE, "dev-1", Credential::Sas(&token)).unwrap();
    assert_eq!(service.register(now(), &who, Ok(plain())).status, 500);
    service.remove("g".into()).unwrap();
    assert_eq!(service.register(now(), &who, Ok(plain())).error_code, Some(404_201));
}
