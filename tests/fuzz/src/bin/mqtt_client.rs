//! Runs [`dps_fuzz::mqtt_client`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::mqtt_client::run(data));
