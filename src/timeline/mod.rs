//! What each worker of a pool ran, and how many tasks waited: as a trace for [Perfetto], and as an
//! SVG.
//!
//! A [`Timeline`] is an [`Observer`](crate::Observer). It keeps the latest spans of each worker, so
//! its memory is bounded. The trace is JSON in Chromium's trace event format.
//!
//! [Perfetto]: https://ui.perfetto.dev

mod recorder;
mod spans;
mod svg;
mod trace;

pub use recorder::Timeline;
