//! Broadcasts: a closure that each worker runs once.
//!
//! Each worker's *share* is a task with a handle. It is put into the inbox of its worker, and only
//! that worker runs it. So a wait for a share is a wait for its worker to become free. It needs the
//! end of the tasks on that worker's stack. The registry of waits finds cycles of such waits. If
//! that worker waits for the share through a future, which is never refused, it runs the share.

use std::panic::Location;

use super::inbox::{Inbox, Mail};
use super::worker_pool::WorkerPool;
use crate::error::{CancelReason, Refuser, SubmitError};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::observe::task_origin::TaskOrigin;
use crate::sync::Arc;
use crate::task::cell::TaskCell;
use crate::task::cell_task::CellTask;
use crate::task::context::{self, AwaitedId, ThreadId};
use crate::task::executor::Executor;
use crate::task::handle::JoinHandle;
use crate::task::job::{Job, Task};
use crate::task::waits::Needs;

/// # Broadcasting
impl WorkerPool {
    /// Runs `f` once on each worker, with the index of the worker. Returns the handles of these
    /// tasks, in the order of the indices.
    ///
    /// This never blocks, and takes no place in the queue. The task of one worker is its *share*. A
    /// worker runs its share as soon as it has finished its current task, before the next queued
    /// job. So a worker that runs a task for an hour runs its share after that hour. The other
    /// workers do not wait for it. Use a broadcast for what every worker has to do: reload a file,
    /// flush a buffer, collect the values of a [`WorkerLocal`](crate::WorkerLocal).
    ///
    /// A share is a task like any other: it counts in the metrics, observers see it, and its handle
    /// returns its panic.
    ///
    /// | meanwhile | the share |
    /// |---|---|
    /// | the pool is resized to fewer workers | runs before its worker leaves |
    /// | the pool is resized to more workers | new workers get none |
    /// | [`shutdown`](Self::shutdown), or the drop of the pool | runs, as queued tasks do |
    /// | [`shutdown_now`](Self::shutdown_now), or a timed shutdown whose limit has passed | is cancelled, unless it has started |
    ///
    /// A worker that leaves during this call may get no share. Then there is no handle for it.
    ///
    /// # In a task of the pool
    ///
    /// A task may join all shares. When it joins the share of its own worker, the share runs at
    /// once, on the same stack. Two tasks that broadcast and join may wait for each other's
    /// workers. Then one of the joins returns
    /// [`JoinError::WouldDeadlock`](crate::JoinError::WouldDeadlock). A share never runs on another
    /// thread than that of its worker.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is shut down. Then no worker runs it.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{WorkerLocal, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(4).build()?;
    /// let done = WorkerLocal::new(&pool, || 0);
    /// let counted = done.clone();
    /// pool.map(0..100, move |_| counted.with(|done| *done += 1)).for_each(drop);
    ///
    /// let mut sum = 0;
    /// for share in pool.broadcast(move |_worker| done.with(|done| *done))? {
    ///     sum += share.join()??;
    /// }
    /// assert_eq!(sum, 100);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[track_caller]
    pub fn broadcast<F, T>(&self, f: F) -> Result<Vec<JoinHandle<T>>, SubmitError<F>>
    where
        F: Fn(usize) -> T + Send + Sync + 'static,
        T: Send + 'static,
    {
        let (inner, location) = (self.inner(), Location::caller());
        let workers = inner.workers.open_inboxes();
        let Some(ids) = admit_all(&inner.executor, workers.len(), location) else {
            return Err(SubmitError::new(Refuser::Pool, f));
        };
        let (f, queued_at) = (Arc::new(f), inner.executor.now_if_timing());
        let make = |((worker, inbox), id): ((usize, Arc<Inbox>), TaskId)| {
            let f = Arc::clone(&f);
            let cell = TaskCell::new(move || f(worker), id, location, queued_at);
            (Arc::new(Share { cell, thread: inbox.thread }), inbox)
        };
        let shares: Vec<_> = workers.into_iter().zip(ids).map(make).collect();
        drop(f); // not the last reference
        let mut handles = Vec::with_capacity(shares.len());
        for (share, inbox) in shares {
            match inner.workers.post(&inbox, Mail::Share(Job::Task(Arc::clone(&share) as _))) {
                Ok(()) => handles.push(JoinHandle::new(share, Arc::clone(&inner.executor))),
                Err(_) => refuse(&inner.executor, &share.cell),
            }
        }
        inner.wake_for_mail();
        // A shutdown that cancels may have emptied the inboxes before.
        if inner.executor.tracker.is_cancelling() {
            inner.cancel_shares();
        }
        Ok(handles)
    }
}

/// Admits `tasks` tasks, or none if the pool is closed.
fn admit_all(executor: &Executor, tasks: usize, location: &'static Location<'static>) -> Option<Vec<TaskId>> {
    let mut ids = Vec::with_capacity(tasks);
    if tasks == 0 && executor.tracker.is_closed() {
        executor.tracker.count_refused();
        return None;
    }
    for _ in 0..tasks {
        match executor.admit(location, None) {
            Some(id) => ids.push(id),
            None => {
                ids.into_iter().for_each(|id| executor.refuse(&TaskOrigin { id, location, label: None }));
                return None;
            }
        }
    }
    Some(ids)
}

/// Withdraws the share of a worker that has left.
fn refuse<F: 'static, T>(executor: &Executor, cell: &TaskCell<F, T>) {
    nesting::discard(cell.withdraw());
    executor.refuse(&cell.meta().origin);
}

/// The task of one worker in a broadcast.
struct Share<F, T> {
    cell: TaskCell<F, T>,
    /// The thread of the worker.
    thread: ThreadId,
}

impl<F, T> Task for Share<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    fn run(&self, executor: &Executor) {
        self.cell.run(executor);
    }

    fn cancel(&self, reason: CancelReason, executor: &Executor) -> bool {
        self.cell.cancel(reason, executor)
    }

    fn is_finished(&self) -> bool {
        self.cell.is_done()
    }
}

impl<F, T> CellTask for Share<F, T>
where
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Closure = F;
    type Output = T;

    fn cell(&self) -> &TaskCell<F, T> {
        &self.cell
    }

    /// Another thread cannot run it.
    fn may_start(&self) -> bool {
        context::thread_id() == self.thread
    }

    fn report_needs(&self, needs: &mut Needs) {
        self.cell.report_needs(needs, |needs| {
            needs.end_of(self.thread);
            needs.worker_thread = Some(self.thread);
        });
    }

    fn related_ids(&self) -> Vec<AwaitedId> {
        vec![self.thread.into()]
    }
}
