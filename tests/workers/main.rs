//! What belongs to one worker: its index, its start hook, its own values, and its share of a broadcast.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod broadcast;
mod current;
mod local;
mod start_hook;
