//! Runs [`dps_fuzz::tunnel`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::tunnel::run(data));
