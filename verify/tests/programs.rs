//! Random programs against the sequential models; proptest shortens those that fail.
//!
//! `PROPTEST_CASES` sets how many; `PROPTEST_RNG_SEED` repeats a run.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use proptest::prelude::*;
use workcrew_verify::{deadlines, group, pool};

fn pool_steps() -> impl Strategy<Value = Vec<pool::Step>> {
    prop::collection::vec(any::<[u8; 3]>().prop_map(pool::Step::from_bytes), 1..50)
}

fn group_steps() -> impl Strategy<Value = Vec<group::Step>> {
    prop::collection::vec(any::<[u8; 2]>().prop_map(group::Step::from_bytes), 1..50)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, max_shrink_iters: 200, ..ProptestConfig::default() })]

    #[test]
    fn a_pool_behaves_like_its_model(workers in 1..4_usize, capacity in 1..6_usize, steps in pool_steps()) {
        pool::run(workers, capacity, &steps).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn a_group_behaves_like_its_model(settings: [u8; 4], steps in group_steps(), waits: u8) {
        group::run(group::Settings::from_bytes(settings), &steps, waits).map_err(TestCaseError::fail)?;
    }

    #[test]
    fn no_duration_is_too_long_or_too_short(bytes: [u8; 12]) {
        let pool = workcrew::WorkerPool::builder().workers(1).build().unwrap();
        deadlines::run(&pool, deadlines::from_bytes(bytes)).map_err(TestCaseError::fail)?;
    }
}
