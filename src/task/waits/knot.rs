//! Waits that can never end: circles, and knots.
//!
//! A wait has *conditions* that must all be met, and each has *alternatives* of which one is
//! enough. The end of a running task is one alternative, and so is the end of any of `n` tasks with
//! one id. The end of any of three things with different ids is three alternatives.
//!
//! | of a wait | it is *stuck* if |
//! |---|---|
//! | no condition | never: it may end, or a thread that does not wait may end it |
//! | one alternative: the end of everything with an id | a stuck wait blocks something with the id |
//! | one alternative: the end of any of `n` tasks with an id | stuck waits block `n` tasks with the id |
//! | several alternatives | each of them is as above |
//! | several conditions | one of them is as above |
//!
//! What is waited for reports no condition while another source may end it: a task that a worker
//! can start, a task that is delayed, a submitter that may add a task. So waits are stuck only if
//! every way out leads through waits that are stuck. The largest set of such waits is found by
//! removing those that may end, until none is left to remove.
//!
//! A *circle* is the simple case: each wait has a condition with a single alternative, which the
//! next one blocks. It is found first, and needs no removal.
//!
//! A wait of a future is never stuck. A wait with a time limit is not registered.
//!
//! A snapshot also looks for what can only be *suspected*, see [`Trust`]. There a wait of a driven
//! future may be stuck, too. A future that has polled several things is stuck only if each of these
//! waits is: it may go on with any of them. Nothing is refused because of a suspicion, and such a
//! search ends without a result after [`MAX_SUSPECTED`] waits.

use std::collections::{BTreeMap, VecDeque};
use std::iter;

use super::awaited::{Alternative, Kind, Needs};
use super::entry::{Entry, EntryId};
use crate::error::{Cycle, CycleTask, CycleWait, NamedPool};
use crate::observe::task_info::RunningTask;
use crate::sync::Arc;
use crate::task::context::{AwaitedId, PoolId};

/// The number of waits after which the search for a suspected knot ends.
const MAX_SUSPECTED: usize = 128;

/// Which waits may be in a knot.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Trust {
    /// Those that end only with their target.
    Certain,
    /// Also those of driven futures.
    Futures,
    /// The same, and the places of a driver, if all are taken.
    Places,
}

/// Returns the name of a pool.
pub(super) type PoolNames<'a> = dyn Fn(PoolId) -> NamedPool + 'a;

/// Returns what a cycle says of a task.
pub(super) fn name_task(task: &RunningTask, pool: NamedPool) -> CycleTask {
    CycleTask::new(task.id, task.label.as_ref(), task.location, pool)
}

/// Waits that can never end, unless one of them is refused. The first one closes the knot.
pub(super) struct Knot {
    steps: Vec<Step>,
    /// Whether each step is in the knot.
    stuck: Vec<bool>,
}

/// A wait on the way, and what it needs.
struct Step {
    entry: Arc<Entry>,
    /// The conditions that are not met. A step without any may end.
    conditions: Vec<Vec<Blocked>>,
    /// The step that led here.
    from: usize,
    /// Whether each step on the way here needs the next one.
    is_certain: bool,
}

/// The waits that block an alternative.
struct Blocked {
    /// How many blocked tasks make the alternative impossible.
    enough: usize,
    /// The waits.
    by: Vec<Blocker>,
}

/// A wait that blocks an alternative.
struct Blocker {
    /// Its step.
    at: usize,
    /// The number of tasks that it blocks.
    tasks: usize,
    /// The future that has begun it together with its other waits.
    future: Option<AwaitedId>,
}

impl Knot {
    /// Returns the knot that this wait would close. `blocking` returns the entries that block what
    /// has an id.
    pub(super) fn find<'a, I>(closing: &'a Arc<Entry>, blocking: impl Fn(AwaitedId) -> I, trust: Trust) -> Option<Self>
    where
        I: Iterator<Item = &'a Arc<Entry>>,
    {
        let counts = |other: &Entry| if trust == Trust::Certain { other.is_certain() } else { other.may_be_stuck() };
        let most = if trust == Trust::Certain { usize::MAX } else { MAX_SUSPECTED + 1 };
        let mut search = Search { steps: Vec::new(), places: BTreeMap::new() };
        search.place_of(closing, 0, true);
        let (mut next, mut returns) = (0, false);
        while next < search.steps.len() {
            if trust != Trust::Certain && search.steps.len() > MAX_SUSPECTED {
                return None;
            }
            let (entry, is_certain) = (Arc::clone(&search.steps[next].entry), search.steps[next].is_certain);
            let mut needs = Needs::default();
            entry.target.report_needs(&mut needs);
            let places = if trust == Trust::Places { needs.places } else { Vec::new() };
            for condition in needs.conditions.into_iter().chain(places) {
                let is_certain = is_certain && trust == Trust::Certain && matches!(*condition, [Alternative::All(_)]);
                let mut blocked = Vec::with_capacity(condition.len());
                for alternative in condition {
                    let id = alternative.id();
                    let is_closed = closing.blocks(id);
                    if is_closed && is_certain {
                        return Some(Self::circle(search.steps, next));
                    }
                    returns |= is_closed;
                    let closed = is_closed.then_some(closing);
                    let others = closed.into_iter().chain(blocking(id).filter(|other| counts(other)).take(most));
                    blocked.push(search.blocked(alternative, others, (next, is_certain)));
                }
                search.steps[next].conditions.push(blocked);
            }
            next += 1;
        }
        let stuck = returns.then(|| stuck(&search.steps, None))?;
        stuck[0].then_some(Self { steps: search.steps, stuck })
    }

    /// Returns the circle from the first step to the step `last`.
    fn circle(mut steps: Vec<Step>, last: usize) -> Self {
        steps.iter_mut().for_each(|step| step.conditions.clear());
        let (mut at, mut next) = (last, 0);
        loop {
            steps[at]
                .conditions
                .push(vec![Blocked { enough: 1, by: vec![Blocker { at: next, tasks: 1, future: None }] }]);
            if at == 0 {
                break;
            }
            (at, next) = (steps[at].from, at);
        }
        let stuck = stuck(&steps, None);
        Self { steps, stuck }
    }

    /// Refuses one of the waits other than the one that closes the knot, whose kind is `closing`.
    /// Returns it for the caller to wake; `None` if the one that closes the knot is to be refused,
    /// if any.
    pub(super) fn refuse_one(&self, closing: Kind, names: &PoolNames<'_>) -> Option<Arc<Entry>> {
        let yields = |entry: &Entry| entry.kind == Kind::Yielding;
        let is_refusable = |entry: &Entry| entry.kind.is_refusable();
        let place = match closing {
            Kind::Yielding => None,
            Kind::Certain => self.other_that_frees(yields),
            Kind::Unrefusable | Kind::Open => {
                let frees = self.other_that_frees(yields).or_else(|| self.other_that_frees(is_refusable));
                frees.or_else(|| self.others().find(|at| is_refusable(&self.steps[*at].entry)))
            }
        };
        let place = place?;
        let refused = Arc::clone(&self.steps[place].entry);
        refused.refuse(self.cycle(place, names));
        Some(refused)
    }

    /// Returns the waits of a cycle within the knot, beginning with the step `first`.
    pub(super) fn cycle(&self, first: usize, names: &PoolNames<'_>) -> Cycle {
        let describe = |place: usize| {
            let Entry { target, stack, .. } = &*self.steps[place].entry;
            let task = stack.innermost.as_ref().zip(stack.worker).map(|(task, pool)| name_task(task, names(pool)));
            CycleWait::new(task, target.describe().of_pool(names(target.pool())))
        };
        Cycle::new(self.path_of(first).into_iter().map(describe).collect())
    }

    /// Returns the waits of a cycle within the knot, beginning with the one that closes it.
    pub(super) fn path(&self) -> impl Iterator<Item = &Arc<Entry>> {
        self.path_of(0).into_iter().map(|at| &self.steps[at].entry)
    }

    /// Returns the shortest path from a step through steps that block each other, back to it; only
    /// the step if there is none.
    fn path_of(&self, first: usize) -> Vec<usize> {
        let mut from = BTreeMap::new();
        let mut open = VecDeque::from([first]);
        while let Some(at) = open.pop_front() {
            let impossible = self.steps[at].conditions.iter().filter(|condition| is_impossible(condition, &self.stuck));
            let blocking = impossible.flatten().flat_map(|blocked| &blocked.by).map(|by| &by.at);
            for next in blocking.filter(|next| self.stuck[**next]) {
                if *next == first {
                    let back = iter::successors(Some(at), |at| (*at != first).then(|| from[at]));
                    let mut path: Vec<usize> = back.collect();
                    path.reverse();
                    return path;
                }
                if !from.contains_key(next) {
                    from.insert(*next, at);
                    open.push_back(*next);
                }
            }
        }
        vec![first]
    }

    /// Returns the places of the waits of the knot other than the one that closes it.
    fn others(&self) -> impl Iterator<Item = usize> {
        (1..self.steps.len()).filter(|at| self.stuck[*at])
    }

    /// Returns the place of a wait other than the one that closes the knot, without which that may
    /// end.
    fn other_that_frees(&self, may_be: impl Fn(&Entry) -> bool) -> Option<usize> {
        let mut others = self.others().filter(|at| may_be(&self.steps[*at].entry));
        others.find(|at| !stuck(&self.steps, Some(*at))[0])
    }
}

/// The search along the waits that one wait needs.
struct Search {
    steps: Vec<Step>,
    /// The place of each entry among the steps.
    places: BTreeMap<EntryId, usize>,
}

impl Search {
    /// Returns the place of an entry, which is added if it is new.
    fn place_of(&mut self, entry: &Arc<Entry>, from: usize, is_certain: bool) -> usize {
        let Self { steps, places } = self;
        *places.entry(entry.id).or_insert_with(|| {
            steps.push(Step { entry: Arc::clone(entry), conditions: Vec::new(), from, is_certain });
            steps.len() - 1
        })
    }

    /// Returns what blocks an alternative, whose waits are added to the steps.
    fn blocked<'a>(
        &mut self,
        alternative: Alternative,
        others: impl Iterator<Item = &'a Arc<Entry>>,
        (from, is_certain): (usize, bool),
    ) -> Blocked {
        let by = others.map(|other| {
            let tasks = match alternative {
                Alternative::All(_) => 1,
                Alternative::AnyOf(id, _) => other.tasks_of(id),
            };
            let future = other.future;
            Blocker {
                at: self.place_of(other, from, is_certain),
                tasks: if future.is_some() { 1 } else { tasks },
                future,
            }
        });
        let mut by: Vec<Blocker> = by.collect();
        by.sort_by_key(|wait| wait.future);
        let enough = match alternative {
            Alternative::All(_) => 1,
            Alternative::AnyOf(_, tasks) => tasks,
        };
        Blocked { enough, by }
    }
}

/// Returns which of the steps are stuck, if the step `ended` is not.
fn stuck(steps: &[Step], ended: Option<usize>) -> Vec<bool> {
    let mut stuck = vec![true; steps.len()];
    if let Some(ended) = ended {
        stuck[ended] = false;
    }
    let mut has_changed = true;
    while has_changed {
        has_changed = false;
        // Backwards, because a step mostly depends on later ones.
        for (at, step) in steps.iter().enumerate().rev() {
            if stuck[at] && !step.conditions.iter().any(|condition| is_impossible(condition, &stuck)) {
                stuck[at] = false;
                has_changed = true;
            }
        }
    }
    stuck
}

/// Returns `true` if stuck waits block every alternative.
fn is_impossible(condition: &[Blocked], stuck: &[bool]) -> bool {
    // The waits of one future are side by side, and count if each of them is stuck.
    let of_one = |a: &Blocker, b: &Blocker| a.future.is_some() && a.future == b.future;
    let is_blocked = |alternative: &Blocked| {
        let futures = alternative.by.chunk_by(of_one).filter(|waits| waits.iter().all(|wait| stuck[wait.at]));
        futures.map(|waits| waits[0].tasks).sum::<usize>() >= alternative.enough
    };
    condition.iter().all(is_blocked)
}
