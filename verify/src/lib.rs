//! Checks of `workcrew` that a plain test cannot hold.
//!
//! [`pool`] and [`group`] are sequential models: a program of steps is done to the real thing,
//! whose tasks wait at gates, and to a model of a few fields; after each step both must agree.
//! [`history`] records what four threads did at the same time and looks for an order in which a
//! sequential pool would have answered the same. [`deadlines`] tries durations of every size. The
//! programs come from proptest (`tests/`) or, made of [`bytes`], from a fuzzer (`fuzz/` of the
//! repository).

pub mod bytes;
pub mod deadlines;
pub mod gates;
pub mod group;
pub mod history;
pub mod pool;

#[path = "../../tests/common/rng.rs"]
pub mod rng;
