//! Every way to end a pool: shutdowns, drops, and ends inside tasks and destructors.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod cancel;
mod drain;
mod dropping;
mod handles;
mod idle;
mod inside;
mod tokens;
