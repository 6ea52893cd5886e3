//! Builder methods for a hook that is called when a pool seems stuck.

use std::time::Duration;

use super::builder::WorkerPoolBuilder;
use crate::snapshot::Snapshot;
use crate::sync::Arc;

/// # Stuck pools
impl WorkerPoolBuilder {
    /// Sets a hook that is called with a [`Snapshot`] when something in the pool has not moved for
    /// `time`. *Default: no hook.*
    ///
    /// The [verdicts](Snapshot::verdicts) of the snapshot say what: a wait that cannot end, workers
    /// that all run the same tasks for that time while others wait, a full mailbox whose handler
    /// does not return, and so on. They are those of [`Snapshot::verdicts_after`].
    ///
    /// The hook is called at most once a minute. It runs on a thread of its own, which exists only
    /// if this is set, and which looks four times within `time`, at least once a second. Each look
    /// takes a snapshot. The thread does not keep the pool open, and it ends with the drop of the
    /// last handle. A hook that is running then is not waited for.
    ///
    /// A panic of the hook is contained, and counted in
    /// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked). Like every hook it counts as
    /// inside the pool, so it cannot wait for the pool's end. It can still submit, print, and abort
    /// the process.
    ///
    /// [`build`](Self::build) returns an error if `time` is zero, or if the thread cannot be
    /// started. With `Duration::MAX`, only waits that need each other are found.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    ///
    /// let (stuck, snapshots) = channel();
    /// let pool = WorkerPool::builder()
    ///     .workers(1)
    ///     .on_stuck(Duration::from_millis(50), move |snapshot| stuck.send(snapshot.clone()).unwrap())
    ///     .build()?;
    /// let (open, gate) = channel::<()>();
    /// pool.execute(move || gate.recv().unwrap())?; // occupies the only worker
    /// let waits = pool.spawn(|| ())?;
    /// let snapshot = snapshots.recv()?;
    /// assert!(snapshot.verdicts[0].message.contains("every worker has run the same task"));
    /// open.send(())?;
    /// waits.join()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn on_stuck(mut self, time: Duration, f: impl Fn(&Snapshot) + Send + Sync + 'static) -> Self {
        self.stuck.hook = Some((time, Box::new(f)));
        self
    }

    /// Sets another time of [`on_stuck`](Self::on_stuck) for tasks with this label, shorter or
    /// longer. A running task that exceeds it is reported even if nothing waits for it.
    ///
    /// Use a long time for tasks that are known to be slow, and a short one for tasks that never
    /// should be. [`build`](Self::build) returns an error if it is zero. Has no effect without
    /// `on_stuck`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use workcrew::WorkerPool;
    ///
    /// let pool = WorkerPool::builder()
    ///     .workers(2)
    ///     .on_stuck(Duration::from_secs(30), |snapshot| eprintln!("{snapshot}"))
    ///     .stuck_after("nightly", Duration::from_secs(4 * 3_600))
    ///     .stuck_after("request", Duration::from_secs(2))
    ///     .build()?;
    /// assert_eq!(pool.workers(), 2);
    /// # Ok::<(), workcrew::BuildError>(())
    /// ```
    pub fn stuck_after(mut self, label: impl Into<Arc<str>>, time: Duration) -> Self {
        self.stuck.labels.push((label.into(), time));
        self
    }
}
