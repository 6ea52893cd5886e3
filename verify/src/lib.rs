//! Checks of `workcrew` that a plain test cannot hold.
//!
//! [`pool`] and [`group`] are sequential models. The steps of a program run on a real pool or
//! group, whose tasks wait at gates, and on a model with a few fields. After each step both must
//! agree. [`history`] records concurrent calls of four threads, and searches an order in which a
//! sequential pool gives the same answers. [`deadlines`] tries durations of every size. The
//! programs come from proptest (`tests/`), or, made of [`bytes`], from a fuzzer (`fuzz/`).

pub mod bytes;
pub mod deadlines;
pub mod gates;
pub mod group;
pub mod history;
pub mod pool;

#[path = "../../tests/common/rng.rs"]
pub mod rng;
