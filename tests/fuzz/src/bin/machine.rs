//! Runs [`dps_fuzz::machine`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::machine::run(data));
