//! Worker locals: a separate value for each worker.
//!
//! `worker_values` stores the values. This module knows their types.
//!
//! Rules:
//! 1. A value is made, used and dropped by the thread of its worker, and by no other.
//! 2. A worker local knows the inboxes of the workers that have made a value. Its drop posts its id
//!    there. A worker without a value for that id does nothing.
//! 3. A worker that leaves drops its values after its stop hook, and makes none from then on.

use std::fmt;

use super::inbox::{Inbox, LocalId, Mail};
use super::inner::PoolInner;
use super::worker_context;
use super::worker_pool::WorkerPool;
use super::worker_values::{discard, drop_one, put, take};
use crate::error::WorkerLocalError;
use crate::sync::{Arc, IdGenerator, Mutex, Weak};
use crate::task::context::{self, PoolId};
use crate::unwind;

/// A separate value for each worker of a pool, made when the worker first uses it.
///
/// Use it for values that are expensive to make and cannot be shared, such as connections, parsers,
/// buffers and random number generators. Access takes no lock that another worker holds. The values
/// need not be `Send`, because none of them ever leaves its thread.
///
/// A `WorkerLocal` is a handle. Its clones are handles to the same values. It does not keep the
/// pool open.
///
/// # When values are dropped
///
/// A value is dropped on its worker:
///
/// - when the worker leaves, because the pool ends or is [resized](WorkerPool::resize) to fewer
///   workers, after the hook of [`on_thread_stop`](crate::WorkerPoolBuilder::on_thread_stop);
/// - after the drop of the last handle, when the worker is next between two jobs. The drop of the
///   handle wakes workers that sleep, and does not wait for them. On a worker of the pool, it drops
///   that worker's value at once;
/// - when the closure of [`with`](Self::with) panics, because the value may be left half changed.
///   The next use makes a new one.
///
/// A panic of a value's destructor is contained, and counted in
/// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked).
///
/// # Examples
///
/// ```
/// use workcrew::{WorkerLocal, WorkerPool};
///
/// let pool = WorkerPool::builder().workers(2).build()?;
/// let buffer = WorkerLocal::new(&pool, || Vec::with_capacity(64 * 1024));
/// let lengths = pool.map(["a", "bc", "def"], {
///     let buffer = buffer.clone();
///     move |text| {
///         buffer.with(|buffer| {
///             buffer.clear();
///             buffer.extend_from_slice(text.as_bytes());
///             buffer.len()
///         })
///     }
/// });
/// for length in lengths {
///     println!("{}", length??);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct WorkerLocal<T: 'static> {
    inner: Arc<LocalInner<T>>,
}

/// What the handles share.
struct LocalInner<T> {
    id: LocalId,
    pool_id: PoolId,
    /// Used to notify the workers. A value ends with its worker, and so before the pool.
    pool: Weak<PoolInner>,
    /// Makes the value of a worker.
    init: Box<dyn Fn() -> T + Send + Sync>,
    /// The inboxes of workers that have made a value.
    used_by: Mutex<Vec<Arc<Inbox>>>,
}

impl<T: 'static> WorkerLocal<T> {
    /// Creates a worker local of `pool`. Each worker calls `init` to make its value when it first
    /// calls [`with`](Self::with).
    ///
    /// Costs two allocations. A worker that never uses the worker local makes no value.
    pub fn new(pool: &WorkerPool, init: impl Fn() -> T + Send + Sync + 'static) -> Self {
        static NEXT: IdGenerator = IdGenerator::new();
        let inner = pool.inner();
        Self {
            inner: Arc::new(LocalInner {
                id: LocalId(NEXT.next()),
                pool_id: inner.id(),
                pool: Arc::downgrade(inner),
                init: Box::new(init),
                used_by: Mutex::default(),
            }),
        }
    }

    /// Calls `f` with the value of the calling worker, which is made first if there is none.
    ///
    /// Does not block. Allocates nothing if the worker already has a value.
    ///
    /// # Errors
    ///
    /// In both cases neither `f` nor `init` is called:
    ///
    /// - [`WorkerLocalError::NotOnWorker`], if the caller does not run on a worker of the pool.
    ///   This includes a task that an external thread runs inline, under
    ///   [`Overflow::CallerRuns`](crate::Overflow::CallerRuns).
    /// - [`WorkerLocalError::InUse`], if `f` or `init` calls `with` again, on the same stack. `f`
    ///   need not call it itself: if it waits for a task, the worker may run that task meanwhile.
    ///
    /// # Panics
    ///
    /// If `f` or `init` panics. A panic of `f` drops the value, and the next use makes a new one.
    ///
    /// # Examples
    ///
    /// ```
    /// use workcrew::{WorkerLocal, WorkerLocalError, WorkerPool};
    ///
    /// let pool = WorkerPool::builder().workers(1).build()?;
    /// let calls = WorkerLocal::new(&pool, || 0);
    /// for expected in 1..=3 {
    ///     let calls = calls.clone();
    ///     let count = pool.spawn(move || calls.with(|calls| { *calls += 1; *calls }))?;
    ///     assert_eq!(count.join()?, Ok(expected));
    /// }
    /// assert_eq!(calls.with(|calls| *calls), Err(WorkerLocalError::NotOnWorker));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn with<R>(&self, f: impl FnOnce(&mut T) -> R) -> Result<R, WorkerLocalError> {
        let inner = &*self.inner;
        if !context::is_worker_of(inner.pool_id) {
            return Err(WorkerLocalError::NotOnWorker);
        }
        let found = take(inner.id)?;
        let called = unwind::catch(|| {
            let mut value = match found.map(|value| value.downcast::<T>().expect("each id has one type")) {
                Some(value) => value,
                None => self.make(),
            };
            let result = unwind::catch(|| f(&mut value));
            (value, result)
        });
        match called {
            Ok((value, Ok(result))) => {
                put(inner.id, Some(value));
                Ok(result)
            }
            Ok((value, Err(payload))) => {
                put(inner.id, None);
                if let Some(pool) = inner.pool.upgrade() {
                    discard(&pool.executor, value);
                }
                unwind::resume(payload)
            }
            Err(payload) => {
                put(inner.id, None);
                unwind::resume(payload)
            }
        }
    }

    /// Makes the value of this worker.
    fn make(&self) -> Box<T> {
        let value = Box::new((self.inner.init)());
        if let Some(worker) = worker_context::worker() {
            let mut used_by = self.inner.used_by.lock();
            // Workers come and go; those that have left are forgotten here.
            used_by.retain(|inbox| !inbox.is_closed() && inbox.thread != worker.inbox.thread);
            used_by.push(worker.inbox);
        }
        value
    }
}

impl<T: 'static> Clone for WorkerLocal<T> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

impl<T> Drop for LocalInner<T> {
    fn drop(&mut self) {
        let used_by = std::mem::take(&mut *self.used_by.lock());
        if used_by.is_empty() {
            return;
        }
        let Some(pool) = self.pool.upgrade() else { return };
        if context::is_worker_of(self.pool_id) {
            drop_one(&pool, self.id);
        }
        let own = context::thread_id();
        let others = used_by.iter().filter(|inbox| inbox.thread != own);
        let posted = others.filter(|inbox| pool.workers.post(inbox, Mail::Drop(self.id)).is_ok()).count();
        if posted > 0 {
            pool.wake_for_mail();
        }
    }
}

// A value that a panic leaves half changed is dropped, so a reference never shows a broken state.
unwind::safe!(WorkerLocal<T>, T);

impl<T> fmt::Debug for WorkerLocal<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerLocal").field("workers", &self.inner.used_by.lock().len()).finish_non_exhaustive()
    }
}
