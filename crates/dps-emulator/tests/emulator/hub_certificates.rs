//! The certificates by which devices know the hubs that they are assigned to.

use dps_emulator::{Attestation, Config, Emulator, Enrollment, GroupAttestation, GroupKey};

use crate::support::{connect_to, tls};

/// Whether TLS comes up with the server of this name, on the port of MQTT and on that of WebSocket.
async fn is_known(emulator: &Emulator, name: &str) -> bool {
    let mut known = Vec::new();
    for port in [emulator.mqtt_port(), emulator.https_port()] {
        for version in rustls::DEFAULT_VERSIONS {
            let config = tls(emulator, &[version], None);
            let connected = connect_to(([127, 0, 0, 1], port).into(), config, name).await;
            known.push(connected.is_ok());
        }
    }
    assert!(known.iter().all(|is_known| *is_known == known[0]), "{name}: {known:?}");
    known[0]
}

fn enrollment(id: &str, hub: &str) -> Enrollment {
    let key = "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap();
    Enrollment::individual(id.parse().unwrap(), Attestation::symmetric_key(key)).assign_to(hub)
}

#[tokio::test]
async fn each_hub_that_the_service_has_by_now_is_known_by_its_certificate() {
    let key = GroupKey::from_bytes(b"some group's key").unwrap();
    let group = Enrollment::group("group", GroupAttestation::symmetric_key(key));
    let config = Config::new()
        .linked_hubs(["linked.localhost"])
        .server_names(["given.localhost"])
        .enrollment(group.assign_to_each(["one.localhost", "Two.localhost"]))
        .enrollment(enrollment("address", "192.0.2.7"));
    let emulator = config.start().await.unwrap();
    for name in ["localhost", "127.0.0.1", "::1", "given.localhost", "linked.localhost"] {
        assert!(is_known(&emulator, name).await, "{name}");
    }
    for name in ["one.localhost", "two.localhost", "ONE.localhost", "192.0.2.7"] {
        assert!(is_known(&emulator, name).await, "{name}");
    }
    for (id, hub) in [("dev-1", "north.localhost"), ("dev-2", "192.0.2.8")] {
        assert!(!is_known(&emulator, hub).await, "{hub}");
        emulator.add_enrollment(enrollment(id, hub)).unwrap();
        assert!(is_known(&emulator, hub).await, "{hub}");
    }
    assert!(is_known(&emulator, "192.0.2.7").await);
    assert!(!is_known(&emulator, "south.localhost").await);
}

#[tokio::test]
async fn more_hubs_than_are_remembered_are_known_too() {
    let emulator = Config::new().start().await.unwrap();
    for number in 0..120 {
        let (id, hub) = (format!("dev-{number}"), format!("hub-{number}.localhost"));
        emulator.add_enrollment(enrollment(&id, &hub)).unwrap();
        let config = tls(&emulator, rustls::DEFAULT_VERSIONS, None);
        let port = emulator.mqtt_port();
        connect_to(([127, 0, 0, 1], port).into(), config, &hub).await.unwrap();
    }
    assert!(is_known(&emulator, "hub-0.localhost").await);
}
