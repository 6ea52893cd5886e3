//! Durations of every size in everything that takes one.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(difference) = workcrew_verify::bytes::run_deadlines(bytes) {
        panic!("{difference}");
    }
});
