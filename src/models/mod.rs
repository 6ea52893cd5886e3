//! Models: small programs on the crate's own modules, run by a model checker in every schedule, or in very many.
//!
//! `exhaustive` is for loom: few threads, one meeting of two operations each, all schedules up to a bound of preemptions, and
//! what a weak memory may show. `random` is for shuttle: whole pools, and hundreds of thousands of random schedules.
//! `docs/reliability-models.md` lists them, and what each has been shown to find; `.ci/models` runs them.
//!
//! A model asserts on the thread that began it, since a pool contains the panics of its tasks.

#[cfg(workcrew_loom)]
mod exhaustive;
mod explore;
#[cfg(workcrew_shuttle)]
mod random;
