//! A task of a key that has a handle.
//!
//! The cell is that of a plain task. A worker that joins the task does not claim it from the cell:
//! it takes turns of the key until the task has ended. So the tasks before it run first.
//!
//! A task that is retried is *put back* into its cell after an attempt that will be followed by
//! another. A handle that cancels it cancels its token, and then looks at the cell again. The
//! thread that puts it back looks at the token after that. So one of them ends the task.

use std::panic::Location;

use super::body::{KeyedBody, Step};
use super::name::KeyName;
use super::pending::{KeyedRun, Ran};
use super::state::KeyedInner;
use crate::cancel::token::CancellationToken;
use crate::error::CancelReason;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::observe::worker_counters::WorkerCounters;
use crate::sync::Arc;
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context::{self, AwaitedId, GroupId};
use crate::task::executor::{Executor, TaskMeta};
use crate::task::job::Task;
use crate::task::join::{JoinStatus, JoinTarget};
use crate::task::waits::Needs;
use crate::time::clock::Timestamp;

/// A task of a key that has a handle.
pub(super) struct KeyedTask<K, B, T> {
    cell: TaskCell<B, T>,
    /// The token of a task that is retried.
    token: Option<CancellationToken>,
    /// Where the task was submitted.
    location: &'static Location<'static>,
    /// The key.
    name: Arc<KeyName<K>>,
    inner: Arc<KeyedInner<K>>,
}

impl<K, B, T> KeyedTask<K, B, T> {
    /// Creates a task that is about to be added.
    pub(super) fn new(
        body: B,
        token: Option<CancellationToken>,
        (id, location, queued_at): (TaskId, &'static Location<'static>, Option<Timestamp>),
        (name, inner): (&Arc<KeyName<K>>, &Arc<KeyedInner<K>>),
    ) -> Self {
        let cell = TaskCell::new(body, id, location, queued_at);
        Self { cell, token, location, name: Arc::clone(name), inner: Arc::clone(inner) }
    }
}

impl<K, B, T> KeyedRun for KeyedTask<K, B, T>
where
    K: Send + Sync + 'static,
    B: KeyedBody<T>,
    T: Send + 'static,
{
    fn run_turn(&self, meta: &TaskMeta<'_>, counters: &WorkerCounters, executor: &Executor) -> Ran<()> {
        let Some(body) = self.cell.claim() else { return Ran::Cancelled };
        match body.call(executor, counters, meta, self.token.as_ref()) {
            Step::Ended(outcome) => {
                self.cell.complete(outcome);
                Ran::Ended
            }
            #[cfg(feature = "retry")]
            Step::Again(body, later) => {
                self.cell.put_back(body);
                match self.token.as_ref().and_then(CancellationToken::reason) {
                    Some(reason) if self.cancel_turn(&meta.origin, reason, counters, executor) => Ran::Ended,
                    Some(_) => Ran::Cancelled,
                    None => Ran::Again((), later),
                }
            }
            #[cfg(not(feature = "retry"))]
            Step::Again(_, later) => match later {},
        }
    }

    #[cfg(feature = "retry")]
    fn has_ended(&self) -> bool {
        self.cell.is_done()
    }

    fn cancel_turn(
        &self,
        origin: &TaskOrigin<'_>,
        reason: CancelReason,
        counters: &WorkerCounters,
        executor: &Executor,
    ) -> bool {
        let Some(body) = self.cell.claim() else { return false };
        // The innermost frame may be that of the key.
        executor.enter(self.cell.group_id(), |_| {
            context::set_cancelling(self.cell.group_id());
            let outcome = body.cancel(reason);
            executor.cancelled(counters, origin, reason);
            self.cell.complete(outcome);
        });
        true
    }
}

impl<K, B, T> Task for KeyedTask<K, B, T>
where
    K: Send + Sync + 'static,
    B: KeyedBody<T>,
    T: Send + 'static,
{
    /// Takes turns of the key until the task has ended or the key is not ready.
    fn run(&self, _: &Executor) {
        while !self.cell.is_done() && self.inner.help(Some(self.name.id())) {}
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        executor.enter(GroupId::NONE, |counters| {
            let origin = self.inner.origin(&self.name, self.id(), self.location);
            let mut cancelled = self.cancel_turn(&origin, reason, counters, executor);
            if let Some(token) = &self.token {
                token.cancel_with(reason);
                // An attempt that did not see the token may have put the closure back.
                cancelled = cancelled || self.cancel_turn(&origin, reason, counters, executor);
            }
            if cancelled {
                self.inner.count_cancelled();
                #[cfg(feature = "retry")]
                self.inner.release_delayed(self.name.id(), self.id());
                executor.task_done(counters, 1);
            }
            cancelled
        })
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }
}

impl<K, B, T> CellTask for KeyedTask<K, B, T>
where
    K: Send + Sync + 'static,
    B: KeyedBody<T>,
    T: Send + 'static,
{
    type Closure = B;
    type Output = T;

    fn cell(&self) -> &TaskCell<B, T> {
        &self.cell
    }

    fn label(&self) -> Option<&Arc<str>> {
        self.inner.settings.label.as_ref()
    }

    /// A task of a key that is on this stack cannot start before that stack is gone.
    fn join_status(&self) -> JoinStatus {
        match self.cell.join_status() {
            JoinStatus::Queued if context::is_member_of(self.name.group()) => JoinStatus::OnThisStack,
            status => status,
        }
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![self.name.group().into()]
    }

    fn report_needs(&self, needs: &mut Needs) {
        let mut state = self.inner.state.lock();
        if !self.cell.is_done() {
            let is_queued = self.cell.join_status() == JoinStatus::Queued;
            let task = if is_queued { Ok(()) } else { Err((self.id(), self.cell.group_id())) };
            self.inner.report_turn(&mut state, self.name.id(), task, needs);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use crate::keyed::executor::KeyedExecutor;
    use crate::pool::worker_pool::WorkerPool;
    use crate::sync::thread;
    use crate::task::waits;

    /// Fault 412.
    #[test]
    fn a_sleeping_join_helps_when_the_key_becomes_ready_and_no_worker_is_free() {
        let pool = WorkerPool::builder().workers(2).build().expect("two threads");
        let executor = pool.keyed();
        let ((enter, entered), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let (done, is_done) = mpsc::channel();
        // One worker runs the first task of the key as a helper, and then blocks for the other
        // worker.
        let own = executor.clone();
        let blocks = pool.spawn(move || {
            let first = own.spawn('k', move || {
                enter.send(()).expect("the test waits");
                ended.recv().expect("the test ends the task");
            });
            first.expect("there is room").join().expect("no panic");
            is_done.recv().expect("the other worker runs the second task");
        });
        let blocks = blocks.expect("there is room");
        entered.recv().expect("the task starts");
        let second = executor.spawn('k', || ()).expect("there is room");
        let joins = pool.spawn(move || {
            second.join().expect("no panic");
            done.send(()).expect("the first worker waits");
        });
        let joins = joins.expect("there is room");
        while waits::sleeping_workers(pool.inner().id()) == 0 {
            thread::yield_now();
        }
        end.send(()).expect("the task waits");
        for handle in [blocks, joins] {
            handle.join().expect("no panic");
        }
    }

    /// Fault 493.
    #[test]
    fn a_sleeping_worker_makes_room_in_a_key_that_becomes_ready_when_no_worker_is_free() {
        let pools = [2, 1].map(|workers| WorkerPool::builder().workers(workers).build().expect("threads"));
        let [home, abroad] = &pools;
        let executor = KeyedExecutor::builder(home).capacity_per_key(1).build();
        let ((enter, entered), (end, ended)) = (mpsc::channel(), mpsc::channel());
        let ((hold, held), (done, is_done)) = (mpsc::channel::<()>(), mpsc::channel::<()>());
        home.execute(move || _ = held.recv()).expect("there is room");
        // The other worker runs the first task of the key as a helper, and then blocks.
        let own = executor.clone();
        let blocks = move || {
            let first = own.spawn('k', move || {
                enter.send(()).expect("the test waits");
                ended.recv().expect("the test ends the task");
            });
            first.expect("there is room").join().expect("no panic");
            let _ = is_done.recv();
        };
        home.execute(blocks).expect("there is room");
        entered.recv().expect("the task starts");
        drop(hold);
        executor.execute('k', || ()).expect("there is room"); // the key is full
        let full = executor.clone();
        let submits = abroad.spawn(move || full.execute('k', || ()).is_ok()).expect("there is room");
        let joins = home.spawn(move || submits.join().expect("no panic")).expect("there is room");
        for pool in &pools {
            while waits::sleeping_workers(pool.inner().id()) == 0 {
                thread::yield_now();
            }
        }
        // Beyond the wait for the low-water mark. On a slow machine the test sees less.
        std::thread::sleep(std::time::Duration::from_millis(20));
        end.send(()).expect("the task waits");
        assert!(joins.join().expect("no panic"));
        drop(done);
    }
}
