//! What the tests and examples share: a gRPC client and a scripted server without generated code, so without `protoc`.
//!
//! Messages are bytes as they are. `server.py` serves the same script by another implementation of gRPC.
#![allow(clippy::unwrap_used, reason = "what tests share fails by panicking")]

mod peer;
mod raw;
mod server;

pub use peer::{Act, Peer};
pub use raw::{RawClient, RawCodec};
pub use server::{Script, Server, vacant_address};
