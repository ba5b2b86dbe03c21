//! Runs [`dps_fuzz::sas`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::sas::run(data));
