//! An application's test with the emulator: three lines, on every transport, and in paused time.
#![cfg(all(
    feature = "amqp",
    feature = "emulator",
    feature = "http",
    feature = "mqtt",
    feature = "websocket"
))]

use std::time::Duration;

use dps_client::{
    Error, RegistrationRequest, Settings, Transport, client,
    emulator::{Behavior, Emulator, EmulatorExt as _, RetryAfter},
};

/// A device's id with every character that a token writes in another way.
const DEVICE: &str = "Pump.17_a:b-c";

#[tokio::test(start_paused = true)]
async fn a_wait_of_hours_takes_no_time_when_time_is_paused() {
    for transport in Transport::ALL {
        let began = tokio::time::Instant::now();
        let emulator =
            Emulator::builder().with_any_device(None, None).unwrap().start().await.unwrap();
        let behavior = Behavior::new().polls(5).retry_after(RetryAfter::raw("7200"));
        emulator.set_behavior("group", behavior).unwrap();
        let mut settings = Settings::default();
        settings.registration_timeout = Duration::from_secs(24 * 3600);
        let client = client(transport, emulator.config(transport).unwrap(), settings).unwrap();
        let device = client.register(RegistrationRequest::new(DEVICE.parse().unwrap())).await;
        let device = device.unwrap_or_else(|error| panic!("{transport}: {error}"));
        assert_eq!((device.device_id.as_str(), device.polls), (DEVICE, 5), "{transport}");
        client.end_session().await.unwrap();
        emulator.stop().await;
        // The hours did pass, by the clock that is paused.
        assert!(began.elapsed() >= 5 * Duration::from_secs(7200), "{transport}");
    }
}

#[tokio::test]
async fn an_emulator_without_a_group_for_any_device_says_what_to_set() {
    let emulator = Emulator::builder().start().await.unwrap();
    for transport in Transport::ALL {
        let config = emulator.config(transport).unwrap();
        let client = client(transport, config, Settings::default()).unwrap();
        let request = RegistrationRequest::new(DEVICE.parse().unwrap());
        let error = client.register(request).await.unwrap_err();
        assert!(matches!(error, Error::Credential(_)), "{transport}: {error}");
        assert!(error.to_string().contains("no group that takes any device"), "{error}");
        assert!(error.hint().unwrap().contains("with_any_device"), "{transport}");
    }
}
