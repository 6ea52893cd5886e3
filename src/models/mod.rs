//! Models: small programs on the crate's own modules, run by a model checker in every schedule, or in very many.
//!
//! `meetings` are for loom: few threads, one meeting of two or three operations each, every schedule up to a bound of
//! preemptions, and what a weak memory may show. shuttle runs them too, as a second opinion. `scenarios` are for shuttle
//! alone: whole pools, in hundreds of thousands of random schedules. `docs/reliability-models.md` lists both, and what each has
//! been shown to find; `.ci/models` runs them.
//!
//! A model asserts on the thread that began it, since a pool contains the panics of its tasks.

mod explore;
mod meetings;
#[cfg(workcrew_shuttle)]
mod scenarios;
