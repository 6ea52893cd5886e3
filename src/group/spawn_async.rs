//! Adding a task from async code: a future that waits for room in the group without a thread.

use std::future::Future;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::adder::Adder;
use super::body::Body;
use super::result::TaskResult;
use super::run::Budget;
use super::spawner::Spawner;
use super::state::{GroupInner, State};
use super::task_group::TaskGroup;
use crate::error::Refusal;
use crate::sync::Arc;
use crate::task::context;
use crate::task::future_wait::FutureWait;
use crate::task::wakers::{WakerKey, Wakers};
use crate::time::deadline::Deadline;
use crate::unwind;

/// # Adding tasks from async code
impl<R: TaskResult> TaskGroup<R> {
    /// Like [`spawn`](Self::spawn), for async code: the returned future waits without a thread
    /// while the group is at [capacity](Self::capacity). Works with any runtime.
    ///
    /// Nothing happens before the first poll. Dropping the future before it is ready drops the
    /// closure, and the group has no task for it. If the group is cancelled meanwhile, or the pool
    /// is shut down, the task is added and cancelled, as by `spawn`.
    ///
    /// Each task that starts wakes all futures that wait for room in its group. So a future that is
    /// never polled again does not hold up the others.
    ///
    /// On a worker of the pool the future runs tasks of the group to make room, like `spawn`.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let squares = block_on(async {
    ///     let group = pool.group().limit(2).capacity(4);
    ///     for n in 0..100_u64 {
    ///         group.spawn_async(move || Ok::<_, String>(n * n)).await; // at most 4 wait in the group
    ///     }
    ///     group.await
    /// });
    /// assert_eq!(squares.unwrap().len(), 100);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn spawn_async<F>(&self, f: F) -> impl Future<Output = ()> + Send + use<R, F>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        SpawnInGroup::new(self.inner(), f, Location::caller())
    }
}

impl<R: TaskResult> Spawner<R> {
    /// Like [`spawn`](Self::spawn), for async code; see
    /// [`TaskGroup::spawn_async`](crate::TaskGroup::spawn_async).
    #[track_caller]
    pub fn spawn_async<F>(&self, f: F) -> impl Future<Output = ()> + Send + use<R, F>
    where
        F: FnOnce() -> R + Send + 'static,
    {
        SpawnInGroup::new(self.inner(), f, Location::caller())
    }
}

/// A future that adds a task as soon as there is room. Removes its waker when dropped.
struct SpawnInGroup<R: TaskResult, F> {
    group: Adder<R>,
    /// `None` once the task was added.
    f: Option<F>,
    location: &'static Location<'static>,
    key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
}

impl<R: TaskResult, F> SpawnInGroup<R, F> {
    fn new(group: &Arc<GroupInner<R>>, f: F, location: &'static Location<'static>) -> Self {
        let (group, key) = (Adder::new(Arc::clone(group)), WakerKey::new());
        Self { group, f: Some(f), location, key, wait: FutureWait::default() }
    }
}

impl<R: TaskResult, F: FnOnce() -> R + Send + 'static> Future for SpawnInGroup<R, F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { group, f, location, key, wait } = &mut *self;
        loop {
            wait.begin_poll();
            let Some(closure) = f.take() else { return Poll::Pending };
            let closure = match group.poll_room(*key, context) {
                Room::Free => match group.try_spawn(closure, |f, _| Body::once(f), location) {
                    Ok(()) => return Poll::Ready(()),
                    Err((Refusal::ShutDown, closure)) => {
                        let _ = group.spawn(|_| Body::once(closure), location);
                        return Poll::Ready(());
                    }
                    // Another thread was faster.
                    Err((_, closure)) => {
                        *f = Some(closure);
                        continue;
                    }
                },
                Room::NotNeeded => {
                    let _ = group.spawn(|_| Body::once(closure), location);
                    return Poll::Ready(());
                }
                Room::Full => closure,
            };
            *f = Some(closure);
            let until = Deadline::NEVER.earlier(group.deadline());
            match wait.register(|| Arc::<GroupInner<R>>::clone(group) as _, until, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

// No field is ever pinned.
impl<R: TaskResult, F> Unpin for SpawnInGroup<R, F> {}

impl<R: TaskResult, F> Drop for SpawnInGroup<R, F> {
    fn drop(&mut self) {
        let waker = self.group.state.lock().remove_room_waker(self.key);
        unwind::discard(waker);
    }
}

/// Whether a future may add its task.
#[derive(Clone, Copy)]
enum Room {
    /// There was room a moment ago.
    Free,
    /// The task does not wait for room: it is run inline, added beyond the capacity, or dropped.
    NotNeeded,
    /// There is none. The waker is stored.
    Full,
}

impl<R: TaskResult> GroupInner<R> {
    /// Checks whether there is room for a task, or stores the waker. Makes room if this thread is a
    /// worker with tasks on its stack.
    fn poll_room(self: &Arc<Self>, key: WakerKey, context: &Context<'_>) -> Room {
        let position = context::position(self.pool.id(), self.id());
        let is_deep = position.is_worker && position.depth >= context::MAX_HELP_DEPTH;
        let helps = position.is_worker && position.depth > 0;
        let has_room = |state: &State<R>| state.unstarted.len() < self.settings.capacity;
        loop {
            self.close_if_cancelled();
            // Cloning a waker is user code.
            let waker = context.waker().clone();
            let mut state = self.state.lock();
            if helps && !position.is_member && !is_deep && !has_room(&state) && self.can_run(&state) {
                drop(self.run_unstarted(state, Budget::Unlimited, has_room));
                unwind::discard(waker);
                continue;
            }
            let room = if state.closed.is_some() {
                Room::NotNeeded
            } else if has_room(&state) {
                Room::Free
            } else if position.is_member || is_deep {
                Room::NotNeeded
            } else {
                Room::Full
            };
            let unused = if let Room::Full = room { state.set_room_waker(key, waker) } else { Some(waker) };
            drop(state);
            unwind::discard(unused);
            return room;
        }
    }
}

impl<R: TaskResult> State<R> {
    /// Sets the waker of a future that waits for room. Returns the one that it had.
    fn set_room_waker(&mut self, key: WakerKey, waker: Waker) -> Option<Waker> {
        if self.room_pollers.is_none() {
            self.room_waiters.add_futures();
        }
        self.room_pollers.get_or_insert_default().wakers.set(key, waker)
    }

    /// Removes the waker of a future that no longer waits. The caller drops it without the lock.
    fn remove_room_waker(&mut self, key: WakerKey) -> Option<Waker> {
        let waker = self.room_pollers.as_mut()?.wakers.remove(key);
        if self.room_pollers.as_ref().is_some_and(|room| room.wakers.len() == 0) {
            self.take_room_wakers();
        }
        waker
    }

    /// Takes the wakers of all futures that wait for room. The caller wakes them without the lock.
    pub(super) fn take_room_wakers(&mut self) -> Option<Wakers> {
        let room = self.room_pollers.take()?;
        self.room_waiters.remove_futures();
        Some(room.wakers)
    }

    /// Marks the futures that wait for room as due.
    pub(super) fn mark_room_pollers(&mut self) {
        if let Some(room) = &mut self.room_pollers {
            room.is_due = true;
            self.has_due = true;
        }
    }
}
