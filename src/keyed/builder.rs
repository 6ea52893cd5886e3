//! The builder of keyed executors.

use std::fmt;
use std::hash::Hash;

use super::executor::KeyedExecutor;
use super::state::{KeyedSettings, LabelOf};
use crate::pool::inner::PoolInner;
use crate::pool::worker_pool::WorkerPool;
use crate::priority::Priority;
use crate::sync::Arc;

/// A builder of keyed executors. Returned by [`KeyedExecutor::builder`].
///
/// # Examples
///
/// ```
/// use workcrew::KeyedExecutor;
///
/// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
/// let mails = KeyedExecutor::builder(&pool).capacity(10_000).capacity_per_key(100);
/// let mails = mails.label("mails").build();
/// mails.execute(String::from("alice"), || println!("one mail at a time"))?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "a builder does nothing until `build` is called"]
pub struct KeyedExecutorBuilder<K> {
    pool: Arc<PoolInner>,
    /// How many unstarted tasks there may be.
    capacity: usize,
    /// How many unstarted tasks of one key there may be.
    capacity_per_key: usize,
    /// What observers see of the tasks.
    label: Option<Arc<str>>,
    /// The class of the tasks.
    priority: Priority,
    /// Returns the label of a key.
    label_of: Option<Arc<LabelOf<K>>>,
}

/// # Tasks in order
impl WorkerPool {
    /// Returns an executor that runs the tasks of one key one at a time, in the order of
    /// submission. For bounds and a label, use [`KeyedExecutor::builder`].
    #[must_use]
    pub fn keyed<K: Hash + Eq + Send + Sync + 'static>(&self) -> KeyedExecutor<K> {
        KeyedExecutor::builder(self).build()
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutor<K> {
    /// Creates a builder of an executor on `pool`.
    pub fn builder(pool: &WorkerPool) -> KeyedExecutorBuilder<K> {
        let pool = Arc::clone(pool.inner());
        let (capacity, priority) = (pool.queue_capacity(Priority::Normal), Priority::Normal);
        KeyedExecutorBuilder { pool, capacity, capacity_per_key: usize::MAX, label: None, priority, label_of: None }
    }
}

impl<K: Hash + Eq + Send + Sync + 'static> KeyedExecutorBuilder<K> {
    /// Sets how many unstarted tasks the executor holds at most. Zero counts as one. *Default: the
    /// capacity of the pool's queue.*
    pub fn capacity(mut self, tasks: usize) -> Self {
        self.capacity = tasks;
        self
    }

    /// Sets how many unstarted tasks of one key the executor holds at most. Zero counts as one.
    /// *Default: no bound besides that of the executor.*
    ///
    /// With a bound, one key cannot fill the executor.
    pub fn capacity_per_key(mut self, tasks: usize) -> Self {
        self.capacity_per_key = tasks;
        self
    }

    /// Names the tasks for observers and [`WorkerPool::running`]. *Default: no name.*
    pub fn label(mut self, label: impl Into<Arc<str>>) -> Self {
        self.label = Some(label.into());
        self
    }

    /// Sets the class of the tasks: of every key, so that the tasks of one key stay in order.
    /// *Default: [`Priority::Normal`].* For keys of several classes, use one executor for each
    /// class.
    pub fn priority(mut self, priority: Priority) -> Self {
        self.priority = priority;
        self
    }

    /// Names the tasks of each key for observers and [`WorkerPool::running`], instead of all tasks
    /// by one [label](Self::label). *Default: no labels of keys.*
    ///
    /// `label` is called once for each submission, on the submitting thread, with no lock held. If
    /// it panics, the submission does, and the task is not submitted. All tasks that are in the
    /// executor together have the label of the first. `label` may itself submit; like other hooks it
    /// is nested at most [16 deep](crate::Observer), and a task beyond that has no label.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use workcrew::KeyedExecutor;
    ///
    /// let pool = workcrew::WorkerPool::builder().workers(2).build()?;
    /// let builder = KeyedExecutor::builder(&pool);
    /// let mails = builder.label_by(|user: &u32| format!("user {user}")).build();
    /// let ((started, start), (open, gate)) = (channel(), channel::<()>());
    /// mails.execute(7, move || {
    ///     started.send(()).unwrap();
    ///     let _ = gate.recv();
    /// })?;
    /// start.recv()?;
    /// assert_eq!(pool.running()[0].label(), Some("user 7"));
    /// drop(open);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn label_by<L: Into<Arc<str>>>(mut self, label: impl Fn(&K) -> L + Send + Sync + 'static) -> Self {
        self.label_of = Some(Arc::new(move |key| label(key).into()));
        self
    }

    /// Creates the executor. Starts no thread and allocates no queue.
    #[must_use]
    pub fn build(self) -> KeyedExecutor<K> {
        let Self { pool, capacity, capacity_per_key, label, priority, label_of } = self;
        KeyedExecutor::with_settings(&pool, KeyedSettings { capacity, capacity_per_key, label, priority }, label_of)
    }
}

impl<K> Clone for KeyedExecutorBuilder<K> {
    fn clone(&self) -> Self {
        let Self { pool, capacity, capacity_per_key, label, priority, label_of } = self;
        Self {
            pool: Arc::clone(pool),
            capacity: *capacity,
            capacity_per_key: *capacity_per_key,
            label: label.clone(),
            priority: *priority,
            label_of: label_of.clone(),
        }
    }
}

impl<K> fmt::Debug for KeyedExecutorBuilder<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyedExecutorBuilder")
            .field("capacity", &self.capacity)
            .field("capacity_per_key", &self.capacity_per_key)
            .field("label", &self.label)
            .field("priority", &self.priority)
            .field("has_key_labels", &self.label_of.is_some())
            .finish_non_exhaustive()
    }
}
