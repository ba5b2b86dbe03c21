//! Runs [`dps_fuzz::x509`] on whatever libFuzzer makes up.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| dps_fuzz::x509::run(data));
