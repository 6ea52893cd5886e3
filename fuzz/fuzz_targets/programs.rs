//! Programs of steps, against the model of a pool.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Err(difference) = workcrew_verify::bytes::run_pool(bytes) {
        panic!("{difference}");
    }
});
