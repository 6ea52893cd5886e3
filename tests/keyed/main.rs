//! Keyed executors: order, turns, bounds, joins and ends.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod awaiting;
mod bounds;
mod ends;
mod joins;
mod keys;
mod order;
#[cfg(feature = "retry")]
mod retry;
