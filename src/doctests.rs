//! The README and the pages of `docs`, included so that their examples are compiled and run.

#[cfg(feature = "events")]
#[doc = include_str!("../README.md")]
mod readme {}

#[cfg(feature = "events")]
#[doc = include_str!("../docs/coming-from.md")]
mod coming_from {}

#[doc = include_str!("../docs/cookbook.md")]
mod cookbook {}

#[doc = include_str!("../docs/observability.md")]
mod observability {}

#[cfg(feature = "events")]
#[doc = include_str!("../docs/events.md")]
mod events {}

#[cfg(feature = "grpc")]
#[doc = include_str!("../docs/grpc.md")]
mod grpc {}

#[cfg(feature = "nats")]
#[doc = include_str!("../docs/nats.md")]
mod nats {}
