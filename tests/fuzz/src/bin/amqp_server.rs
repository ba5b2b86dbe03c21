//! Runs [`dps_fuzz::amqp_server`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::amqp_server::run(data));
