//! Runs [`dps_fuzz::keys`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::keys::run(data));
