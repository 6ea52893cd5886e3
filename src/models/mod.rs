//! Models: small programs that use the crate's own modules and run under a model checker.
//!
//! `races` are for loom: few threads and one race of two or three operations each. loom runs
//! every schedule up to a limit of preemptions, and every result that a weak memory allows. shuttle
//! runs them too, as a second opinion. `scenarios` are for shuttle alone: whole pools, in hundreds
//! of thousands of random schedules. `docs/reliability-models.md` lists both and the bugs that each
//! has been shown to find; `.ci/models` runs them.
//!
//! A model makes its assertions on its main thread, because a pool contains the panics of its
//! tasks.

mod explore;
mod races;
#[cfg(workcrew_shuttle)]
mod scenarios;
