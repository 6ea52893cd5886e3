//! Waiting for room in the queue of a pool, from a task of another pool, known to the registry of
//! waits.
//!
//! Each class has room of its own. A worker makes room when it takes the oldest job. If no worker
//! of the pool is awake, a worker that waits for the submitting task does so. Its wait may
//! therefore run a job that it did not ask for, because the submission needs the place of that job.

use std::time::Instant;

use crate::error::{CycleKind, CycleTarget};
use crate::priority::Priority;
use crate::queue::{PushError, Queue};
use crate::sync::Arc;
use crate::task::context::{AwaitedId, PoolId};
use crate::task::executor::Executor;
use crate::task::job::Job;
use crate::task::waits::{self, Awaited, Kind, Needs, Refused, Wait};
use crate::time::deadline::Deadline;

/// Room in the queue of a pool, as something that is waited for.
pub(crate) struct QueueRoom {
    pub(crate) queue: Arc<Queue<Job>>,
    /// The class in whose lane there must be room.
    pub(crate) class: Priority,
    pub(crate) executor: Arc<Executor>,
}

impl QueueRoom {
    /// Pushes a job as soon as there is room, and helps meanwhile. Called on a thread with tasks on
    /// its stack. Returns a timeout where waits are nested too deep.
    pub(crate) fn push(self, job: Job) -> Result<(), PushError<Job>> {
        let (queue, class) = (Arc::clone(&self.queue), self.class);
        let mut left = Some(job);
        let target: Arc<dyn Awaited> = Arc::new(self);
        let sleep = |wait: &Wait, until: Option<Instant>| {
            let job = left.take().expect("the job is here until it is pushed or refused");
            let pushed = push_registered(&queue, (job, class), wait, until);
            let is_over = !matches!(pushed, Err(PushError::Timeout(_)));
            left = pushed.err().map(|(PushError::Timeout(job) | PushError::Closed(job))| job);
            is_over
        };
        match waits::wait(&target, Kind::Open, sleep) {
            Ok(()) => left.map_or(Ok(()), |job| Err(PushError::Closed(job))),
            Err(Refused(_)) => Err(PushError::Timeout(left.expect("a refused wait has pushed nothing"))),
        }
    }
}

/// Pushes a job unless the wait is notified or the time has passed. Then the job is in a timeout.
fn push_registered(
    queue: &Queue<Job>,
    (job, class): (Job, Priority),
    wait: &Wait,
    until: Option<Instant>,
) -> Result<(), PushError<Job>> {
    // Called after each failed attempt to push: the queue may have had room when the wait was
    // registered, and another thread may have taken it.
    let should_stop = || {
        wait.notify_helpers();
        wait.is_notified()
    };
    queue.push_unless(job, class, Deadline::NEVER.earlier(until), should_stop)
}

impl Awaited for QueueRoom {
    fn awaited_id(&self) -> AwaitedId {
        AwaitedId::of(self.queue.lanes(self.class))
    }

    fn pool(&self) -> PoolId {
        self.executor.pool_id
    }

    fn report_needs(&self, needs: &mut Needs) {
        needs.worker = self.queue.bounded_len(self.class) >= self.queue.capacity(self.class);
    }

    fn describe(&self) -> CycleTarget {
        CycleTarget::new(CycleKind::QueueRoom)
    }

    fn help(self: Arc<Self>) {
        if let Some(job) = self.queue.try_pop_bounded(self.class) {
            job.run_or_cancel(&self.executor);
        }
    }

    fn wake_waiters(&self) {
        self.queue.wake_pushers();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::worker_pool::WorkerPool;
    use crate::sync::thread;
    use crate::task::waits::Next;
    use std::panic::Location;
    use std::time::Duration;

    /// Fault 286.
    #[test]
    fn a_waiter_whose_room_is_taken_after_it_was_registered_is_helped() {
        let pool = || Arc::new(WorkerPool::builder().workers(1).queue_capacity(1).build().expect("a thread"));
        let (home, abroad) = (pool(), pool());
        let (inner, far) = (Arc::clone(&home), Arc::clone(&abroad));
        let submits = move || {
            let pool = inner.inner();
            // The only worker of the pool waits for this task.
            while waits::sleeping_workers(pool.id()) == 0 {
                thread::yield_now();
            }
            let target: Arc<dyn Awaited> = Arc::new(pool.queue_room(Priority::Normal));
            let Ok(Next::Sleep(wait, _)) = waits::register(target, Kind::Open) else { panic!("it cannot help") };
            inner.try_execute(|| ()).expect("there was room until now");
            let location = Location::caller();
            let id = pool.executor.admit(location, None).expect("the pool is open");
            let until = Instant::now() + Duration::from_secs(60);
            push_registered(
                &pool.queue,
                (Job::closure(|| (), id, location, None), Priority::Normal),
                &wait,
                Some(until),
            )
            .is_ok()
        };
        let waits = home.spawn(move || far.spawn(submits).expect("there is room").join()).expect("there is room");
        assert!(waits.join().expect("no panic").expect("no panic"), "the worker has not made room");
        home.wait_idle();
    }
}
