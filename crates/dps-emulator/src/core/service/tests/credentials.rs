//! Symmetric keys, and who is asked for at all.

use super::*;

fn code(service: &Service, scope: &str, id: &str, token: &str) -> Result<String, u32> {
    service
        .authenticate(now(), scope, id, Credential::Sas(token))
        .map(|who| who.enrollment_name)
        .map_err(|error| error.error_code)
}

#[test]
fn the_right_key_opens_the_right_enrollment() {
    let service = service([individual("dev-1"), group("factory")]);
    let derived = |name| group_key(name).derive(&"dev-2".parse().unwrap());
    for (id, key, expected) in [
        ("dev-1", key("one"), Ok("dev-1")),
        ("dev-1", key("two"), Ok("dev-1")),
        ("DEV-1", key("one"), Ok("dev-1")),
        ("dev-1", key("other"), Err(401_002)),
        // The individual enrollment decides alone, even if a group would take the device.
        ("dev-1", group_key("g1").derive(&"dev-1".parse().unwrap()), Err(401_002)),
        ("dev-2", derived("g1"), Ok("factory")),
        ("dev-2", derived("g2"), Ok("factory")),
        ("dev-2", derived("other"), Err(401_002)),
        ("dev-3", derived("g1"), Err(401_002)),
        // The group's own key is no device's key.
        ("dev-2", key("g1"), Err(401_002)),
        // A group's name is no registration id of its own.
        ("factory", key("g1"), Err(401_002)),
        ("factory", group_key("g1").derive(&"factory".parse().unwrap()), Ok("factory")),
    ] {
        let found = code(&service, SCOPE, id, &token(id, &key));
        assert_eq!(found, expected.map(str::to_owned), "{id} {key:?}");
    }
}

#[test]
fn a_token_is_for_one_device_of_one_scope_and_holds_until_its_expiry() {
    let service = service([individual("dev-1"), individual("dev-2")]);
    let good = token("dev-1", &key("one"));
    assert_eq!(code(&service, SCOPE, "dev-2", &good), Err(401_002));
    assert_eq!(code(&service, "0ne00OTHER", "dev-1", &good), Err(404_201));
    let at = |seconds| {
        let later = now() + Duration::from_secs(seconds);
        service.authenticate(later, SCOPE, "dev-1", Credential::Sas(&good))
    };
    assert!(at(3599).is_ok());
    let expired = at(3601).unwrap_err();
    assert_eq!((expired.error_code, &*expired.message), (401_002, "Unauthorized"));
    assert!(expired.reason.contains("expired 1 s ago"), "{}", expired.reason);
}

#[test]
fn an_unknown_device_and_a_missing_credential_have_errors_of_their_own() {
    let alone = service([individual("dev-1")]);
    let good = token("dev-9", &key("one"));
    assert_eq!(code(&alone, SCOPE, "dev-9", &good), Err(404_201));
    assert_eq!(code(&alone, SCOPE, "dev 9", &good), Err(400_004));
    assert_eq!(code(&alone, SCOPE, "", &good), Err(400_004));
    assert_eq!(code(&alone, SCOPE, "dev-1", "Bearer x"), Err(401_002));
    assert_eq!(code(&alone, SCOPE, "dev-1", ""), Err(401_002));
    for service in [alone, service([group("factory")]), service([])] {
        let nothing = service.authenticate(now(), SCOPE, "dev-1", Credential::None);
        assert_eq!(nothing.unwrap_err().error_code, 401_000);
    }
}

#[test]
fn enrollments_have_names_of_their_own_and_a_hub() {
    let mut service = service([individual("dev-1"), group("factory")]);
    for (enrollment, says) in [
        (individual("DEV-1"), "another enrollment"),
        (group("FACTORY"), "another enrollment"),
        (group(""), "no name"),
        (individual("dev-2").assign_to_each(Vec::<String>::new()), "no hub"),
        (individual("dev-2").assign_to_each(["hub", ""]), "host name"),
    ] {
        let message = service.add(now(), enrollment).unwrap_err().to_string();
        assert!(message.contains(says), "{message}");
    }
    let nobody = EnrollmentName::Individual("factory");
    assert!(service.set_behavior(now(), nobody, Behavior::new()).is_err());
    assert!(service.remove("dev-1".into()).is_ok() && service.remove("dev-1".into()).is_err());
}

#[test]
fn a_group_and_a_device_may_have_the_same_name() {
    let group = group("dev-1").assign_to("of-the-group");
    let mut service = service([group, individual("dev-1").assign_to("of-the-device")]);
    let names: Vec<_> = service.enrollments().map(|it| (it.name(), it.is_group())).collect();
    assert_eq!(names, [("dev-1", false), ("dev-1", true)]);
    let hub = |service: &mut Service, key: &SymmetricKey| {
        let token = token("dev-1", key);
        let who = service.authenticate(now(), SCOPE, "dev-1", Credential::Sas(&token))?;
        let reply = service.register(now(), &who, Ok(plain()));
        Ok::<_, ServiceError>(body(&reply)["registrationState"]["assignedHub"].clone())
    };
    let derived = group_key("g1").derive(&"dev-1".parse().unwrap());
    assert_eq!(hub(&mut service, &key("one")).unwrap(), "of-the-device");
    assert!(hub(&mut service, &derived).is_err(), "the individual enrollment decides alone");
    service.remove("DEV-1".into()).unwrap();
    assert_eq!(hub(&mut service, &derived).unwrap(), "of-the-group");
    service.remove(EnrollmentName::Group("dev-1")).unwrap();
    assert_eq!(hub(&mut service, &derived).unwrap_err().error_code, 404_201);
}

#[test]
fn a_replaced_enrollment_keeps_its_devices_and_its_creation_time() {
    let mut service = service([individual("dev-1").assign_to("one")]);
    let id = EnrollmentId::new(Kind::Individual, "dev-1");
    let stored = |service: &Service| service.enrollments.get(&id).unwrap().clone();
    let before = stored(&service);
    let register = |service: &mut Service, key: &SymmetricKey| {
        let token = token("dev-1", key);
        let who = service.authenticate(now(), SCOPE, "dev-1", Credential::Sas(&token))?;
        let reply = service.register(now(), &who, Ok(plain()));
        let state = body(&reply)["registrationState"].clone();
        Ok::<_, ServiceError>(format!("{} {}", state["assignedHub"], state["substatus"]))
    };
    assert_eq!(register(&mut service, &key("one")).unwrap(), r#""one" "initialAssignment""#);
    let later = now() + Duration::from_secs(60);
    let attestation = Attestation::symmetric_key(key("new"));
    let moved = Enrollment::individual("Dev-1".parse().unwrap(), attestation).assign_to("two");
    assert_eq!(service.put(later, moved).unwrap().unwrap().hubs, ["one"]);
    assert_eq!(register(&mut service, &key("new")).unwrap(), r#""two" "deviceDataMigrated""#);
    assert_eq!(register(&mut service, &key("one")).unwrap_err().error_code, 401_002);
    let after = stored(&service);
    assert_eq!((after.created, after.updated), (before.created, later));
    assert_ne!(after.etag, before.etag);
}

#[test]
fn a_hundred_thousand_devices_are_found_as_fast_as_a_few() {
    let key = SymmetricKey::random().unwrap();
    let devices = (0..100_000).map(|number| {
        let id = format!("device-{number}").parse().unwrap();
        Enrollment::individual(id, Attestation::symmetric_key(key.clone()))
    });
    let service = service(devices.chain([group("factory")]));
    let member = group_key("g1").derive(&"elsewhere".parse().unwrap());
    // With a search through all of them, this would be 400 million comparisons.
    for _ in 0..2000 {
        for (id, key) in [("DEVICE-99999", &key), ("elsewhere", &member)] {
            let token = token(id, key);
            service.authenticate(now(), SCOPE, id, Credential::Sas(&token)).unwrap();
        }
    }
}
