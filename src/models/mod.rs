//! Models: small programs on the crate's own modules. A model checker runs them in every schedule, or in
//! very many.
//!
//! - `races` are for loom: two or three operations on a few threads, in every schedule up to a bound of
//!   preemptions, with the effects of weak memory. shuttle runs them too, as a second opinion.
//! - `scenarios` are for shuttle alone: whole pools, in hundreds of thousands of random schedules.
//!
//! `docs/reliability-models.md` lists both, and the seeded bugs that they must find. `.ci/models` runs
//! them.
//!
//! A model asserts on its first thread, since a pool catches the panics of its tasks.

mod explore;
mod races;
#[cfg(workcrew_shuttle)]
mod scenarios;
