//! Scopes: borrowing tasks, and every order of panics and drops.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../common/mod.rs"]
mod common;
mod borrow;
mod cancel;
mod fallible;
mod map;
mod panic;
mod pool;
mod values;
