//! Runs [`dps_fuzz::http_codec`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::http_codec::run(data));
