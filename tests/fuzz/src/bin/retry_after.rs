//! Runs [`dps_fuzz::retry_after`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::retry_after::run(data));
