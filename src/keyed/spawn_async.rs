//! Submitting to a key, and waiting for an idle executor, from async code.
//!
//! | a submission is | meaning | next |
//! |---|---|---|
//! | *new* | not polled yet | *accepted*; *waiting*; *refused* |
//! | *waiting* | its task is suspended, and its waker is with the executor | *accepted*, *waiting* or *refused*, by a poll; *refused*, by the drop |
//! | *accepted*, *refused* | the future was ready | none |
//!
//! Rules:
//! 1. A future may never be polled again, so nothing waits for one. A waiting submission is a
//!    suspended task, as in `pool::spawn_async`: neither `wait_idle` nor a shutdown waits for it.
//! 2. A turn wakes all futures that wait for room. So one that is never polled again keeps no room
//!    from another.
//! 3. The future has its waker stored before it looks whether the pool is closed. Closing first
//!    sets that, and then wakes it.

use std::future::Future;
use std::hash::Hash;
use std::marker::PhantomData;
use std::mem;
use std::panic::Location;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use super::body::Once;
use super::executor::KeyedExecutor;
use super::idle::Idleness;
use super::lookup::Lookup;
use super::name::KeyName;
use super::pending::Body;
use super::room::KeyRoom;
use super::state::KeyedInner;
use super::submit::Place;
use super::task::KeyedTask;
use crate::cancel::token::CancelGuard;
use crate::error::{Refuser, SubmitError};
use crate::nesting;
use crate::observe::task_info::TaskId;
use crate::pool::submit::WaitMode;
use crate::sync::Arc;
use crate::task::context;
use crate::task::future_wait::FutureWait;
use crate::task::handle::JoinHandle;
use crate::task::waits::Awaited;
use crate::task::wakers::WakerKey;
use crate::time::clock::Timestamp;
use crate::time::deadline::Deadline;
use crate::unwind;

/// # From async code
impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutor<K> {
    /// Like [`spawn`](Self::spawn), for async code: the returned future waits without a thread
    /// while the executor or the key is full. Its output is the handle, which can be awaited too.
    /// Works with any runtime.
    ///
    /// Nothing happens before the first poll. Dropping the future before it is ready withdraws the
    /// submission and drops the closure. Tasks of one key run in the order in which their futures
    /// were ready.
    ///
    /// Each task that starts wakes all futures that wait for room. So a future that is never polled
    /// again does not hold up the others. Nothing waits for such a future:
    /// [`wait_idle`](Self::wait_idle) and a shutdown do not wait for a submission that waits for
    /// room. On a worker of the pool the future never waits, like `spawn`.
    ///
    /// # Errors
    ///
    /// [`SubmitError`] with the closure, if the pool is or gets shut down while this waits for
    /// room.
    ///
    /// # Panics
    ///
    /// A poll panics if hashing, comparing or labelling the key panics. The submission is then
    /// withdrawn.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// use std::sync::{Arc, Mutex};
    /// use workcrew::KeyedExecutor;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let executor = KeyedExecutor::builder(&pool).capacity_per_key(1).build();
    /// let order: Arc<Mutex<Vec<u32>>> = Arc::default();
    /// block_on(async {
    ///     for n in 0..10 {
    ///         let order = Arc::clone(&order);
    ///         // Waits while the key is full.
    ///         let handle = executor.spawn_async("a", move || order.lock().unwrap().push(n)).await;
    ///         assert!(handle.is_ok());
    ///     }
    ///     executor.wait_idle_async().await;
    /// });
    /// assert!(order.lock().unwrap().iter().copied().eq(0..10));
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    #[track_caller]
    pub fn spawn_async<F, T>(
        &self,
        key: K,
        f: F,
    ) -> impl Future<Output = Result<JoinHandle<T>, SubmitError<F>>> + Send + use<K, F, T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        SpawnInKey {
            inner: Arc::clone(&self.inner),
            location: Location::caller(),
            stage: Stage::New(key, f),
            wait: FutureWait::default(),
            output: PhantomData,
        }
    }
}

/// # From async code
impl<K: Send + Sync + 'static> KeyedExecutor<K> {
    /// Like [`wait_idle`](Self::wait_idle), for async code: the returned future does not block.
    /// Works with any runtime. Dropping it has no effect on the executor.
    ///
    /// # Panics
    ///
    /// A poll panics in a task of this executor, because that task would wait for itself.
    ///
    /// # Examples
    ///
    /// ```
    /// # fn block_on<F: Future>(future: F) -> F::Output { pollster::block_on(future) }
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let executor = pool.keyed();
    /// executor.execute("a", || println!("on a worker"))?;
    /// block_on(executor.wait_idle_async());
    /// assert_eq!(executor.keys_active(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn wait_idle_async(&self) -> impl Future<Output = ()> + Send + use<K> {
        WaitForIdle { inner: Arc::clone(&self.inner), waker_key: WakerKey::new(), wait: FutureWait::default() }
    }
}

/// A future that submits a task as soon as there is room.
struct SpawnInKey<K: Send + Sync + 'static, F, T> {
    inner: Arc<KeyedInner<K>>,
    location: &'static Location<'static>,
    stage: Stage<K, F>,
    /// What the last poll has registered.
    wait: FutureWait,
    output: PhantomData<fn() -> T>,
}

/// The states of the table above.
enum Stage<K: Send + Sync + 'static, F> {
    New(K, F),
    Waiting(Waiting<K>, F),
    /// Accepted or refused; the future has returned `Ready`.
    Done,
}

impl<K, F, T> Future for SpawnInKey<K, F, T>
where
    K: Hash + Eq + Send + Sync + 'static,
    F: FnOnce() -> T + Send + 'static,
    T: Send + 'static,
{
    type Output = Result<JoinHandle<T>, SubmitError<F>>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        this.wait.begin_poll();
        let (mut waiting, f) = match mem::replace(&mut this.stage, Stage::Done) {
            Stage::New(key, f) => match Waiting::admit(&this.inner, key, this.location) {
                Some(waiting) => (waiting, f),
                None => return Poll::Ready(Err(SubmitError::new(Refuser::Keyed, f))),
            },
            Stage::Waiting(waiting, f) => (waiting, f),
            Stage::Done => return Poll::Pending,
        };
        loop {
            let name = match waiting.find_place(&this.inner, context) {
                Attempt::Place(place) => {
                    let task = waiting.add(&this.inner, place, f);
                    return Poll::Ready(Ok(JoinHandle::new(task, Arc::clone(&this.inner.pool.executor))));
                }
                Attempt::Refused => return Poll::Ready(Err(SubmitError::new(Refuser::Keyed, f))),
                Attempt::Full(name) => name,
            };
            let room = || Arc::new(KeyRoom { inner: Arc::clone(&this.inner), name }) as Arc<dyn Awaited>;
            match this.wait.register(room, Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => {
                    this.stage = Stage::Waiting(waiting, f);
                    return Poll::Pending;
                }
            }
        }
    }
}

// No field is ever pinned.
impl<K: Send + Sync + 'static, F, T> Unpin for SpawnInKey<K, F, T> {}

/// A submission whose task was admitted. Withdraws the task when dropped, unless it was added.
struct Waiting<K: Send + Sync + 'static> {
    inner: Arc<KeyedInner<K>>,
    /// `None` once it is about to be dropped.
    lookup: Option<Lookup<K>>,
    id: TaskId,
    location: &'static Location<'static>,
    queued_at: Option<Timestamp>,
    /// Where the task is counted.
    counted: Counted,
    /// Identifies the waker of the future.
    waker_key: WakerKey,
    /// A waker that was not needed, to be dropped without the lock.
    unused: Option<Waker>,
    /// Wakes the future when the pool is closed. `None` before it has waited.
    guard: Option<CancelGuard>,
}

/// Where the task of a submission is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Counted {
    /// It is admitted: the pool waits for it.
    Admitted,
    /// It is suspended: nothing waits for it.
    Suspended,
    /// It was added to its key.
    Added,
}

/// The result of an attempt to find a place.
enum Attempt<'a, K> {
    /// The lock under which the task may be added.
    Place(Place<'a, K>),
    /// The executor or the key is full. The waker is stored. With the entry of the key.
    Full(Option<Arc<KeyName<K>>>),
    /// The pool is closed.
    Refused,
}

impl<K: Hash + Eq + Send + Sync + 'static> Waiting<K> {
    /// Admits the task; `None` if the pool is closed. Calls user code.
    fn admit(inner: &Arc<KeyedInner<K>>, key: K, location: &'static Location<'static>) -> Option<Self> {
        let queued_at = inner.pool.executor.now_if_timing();
        let lookup = inner.lookup(key);
        let Some(id) = inner.pool.executor.admit(location, inner.label(&lookup.name)) else {
            nesting::discard(lookup);
            return None;
        };
        Some(Self {
            inner: Arc::clone(inner),
            lookup: Some(lookup),
            id,
            location,
            queued_at,
            counted: Counted::Admitted,
            waker_key: WakerKey::new(),
            unused: None,
            guard: None,
        })
    }

    /// Finds a place for the task, or stores the waker; keeps the rules 1 and 3.
    fn find_place<'a>(&mut self, inner: &'a Arc<KeyedInner<K>>, context: &Context<'_>) -> Attempt<'a, K> {
        let executor = &inner.pool.executor;
        if self.counted == Counted::Suspended {
            if !executor.readmit() {
                return Attempt::Refused;
            }
            self.counted = Counted::Admitted;
        }
        let lookup = self.lookup.as_mut().expect("the lookup is taken by the drop");
        if context::is_worker_of(inner.pool.id()) {
            let place = inner.wait_for_place(lookup, WaitMode::Policy);
            return place.map_or(Attempt::Refused, Attempt::Place);
        }
        self.unused = Some(context.waker().clone()); // user code
        let (mut state, found) = inner.find(lookup);
        if state.closed {
            return Attempt::Refused;
        }
        if inner.has_room(&state, found) {
            return Attempt::Place((state, found));
        }
        let waker = self.unused.take();
        self.unused = waker.and_then(|waker| state.room_futures.set(self.waker_key, waker));
        let name = found.and_then(|key| state.turns.get(key)).map(|queue| Arc::clone(&queue.name));
        drop(state);
        executor.suspend();
        self.counted = Counted::Suspended;
        let token = &inner.pool.shutdown_token;
        self.guard.get_or_insert_with(|| {
            let inner = Arc::clone(inner);
            token.on_cancel(move || inner.wake_waiters())
        });
        if token.is_cancelled() { Attempt::Refused } else { Attempt::Full(name) }
    }

    /// Adds the task, and returns it.
    fn add<F, T>(mut self, inner: &Arc<KeyedInner<K>>, place: Place<'_, K>, f: F) -> Arc<KeyedTask<K, Once<F>, T>>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        let (mut f, mut task) = (Some(f), None);
        let origin = (self.id, self.location, self.queued_at);
        let lookup = self.lookup.take().expect("a task is added once");
        let unneeded = inner.add(place, lookup, origin, |inner, name, origin| {
            let body = Once(f.take().expect("a task is made once"));
            Body::Task(Arc::clone(task.insert(Arc::new(KeyedTask::new(body, None, origin, (name, inner))))) as _)
        });
        self.counted = Counted::Added;
        nesting::discard(unneeded); // a key is dropped by user code
        task.expect("a task that was added was made")
    }
}

impl<K: Send + Sync + 'static> Drop for Waiting<K> {
    fn drop(&mut self) {
        if self.guard.take().is_some() {
            let waker = self.inner.state.lock().room_futures.remove(self.waker_key);
            unwind::discard(waker);
        }
        unwind::discard(self.unused.take());
        if let Some(lookup) = self.lookup.take() {
            let origin = self.inner.origin(&lookup.name, self.id, self.location);
            match self.counted {
                Counted::Added => {}
                Counted::Admitted => self.inner.pool.executor.refuse(&origin),
                Counted::Suspended => self.inner.pool.executor.refuse_suspended(&origin),
            }
            nesting::discard(lookup); // a key is dropped by user code
        }
    }
}

/// A future that waits for an idle executor.
struct WaitForIdle<K: Send + Sync + 'static> {
    inner: Arc<KeyedInner<K>>,
    waker_key: WakerKey,
    /// What the last poll has registered.
    wait: FutureWait,
}

impl<K: Send + Sync + 'static> Future for WaitForIdle<K> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let Self { inner, waker_key, wait } = &mut *self;
        loop {
            wait.begin_poll();
            let waker = context.waker().clone(); // user code
            let mut state = inner.state.lock();
            let (is_idle, is_member) = (state.unfinished == 0, state.is_member());
            let waits = !is_idle && !is_member;
            let unused = if waits { state.idle_futures.set(*waker_key, waker) } else { Some(waker) };
            drop(state);
            unwind::discard(unused);
            if is_idle {
                return Poll::Ready(());
            }
            assert!(!is_member, "a task cannot wait for its own executor to be idle");
            match wait.register(|| Arc::new(Idleness(Arc::clone(inner))) as _, Deadline::NEVER, context) {
                Some(awaited) => awaited.help(),
                None => return Poll::Pending,
            }
        }
    }
}

impl<K: Send + Sync + 'static> Drop for WaitForIdle<K> {
    fn drop(&mut self) {
        let waker = self.inner.state.lock().idle_futures.remove(self.waker_key);
        unwind::discard(waker);
    }
}
