//! Groups, completions, receipts, deadlines, idle and ending pools, awaited.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/alarm.rs"]
mod alarm;
#[path = "../common/mod.rs"]
mod common;
#[cfg(feature = "events")]
mod bus;
mod completions;
mod group_room;
mod groups;
mod pool;
#[cfg(feature = "events")]
mod publish;
#[cfg(feature = "driver")]
mod runtime;
mod tokens;
