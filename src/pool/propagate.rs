//! Builder methods that carry the context of submitters to tasks.

use super::builder::WorkerPoolBuilder;

/// # Context
///
/// What a thread has set for itself, such as the id of a request or the current span, is not seen
/// by the tasks that it submits: they run on other threads. These settings carry it there.
impl WorkerPoolBuilder {
    /// Carries the context of the submitter to its tasks. *Default: no context is carried.*
    ///
    /// The pool calls `capture` for each task, on the submitting thread, at the submission. The
    /// *wrapper* that it returns stays with the task. The thread that runs the task calls it with
    /// a function that runs the task. So the wrapper sets the context, calls the function once,
    /// and restores what was set before.
    ///
    /// ```
    /// use std::cell::Cell;
    /// use workcrew::WorkerPool;
    ///
    /// thread_local!(static REQUEST: Cell<u32> = const { Cell::new(0) });
    ///
    /// let pool = WorkerPool::builder()
    ///     .workers(2)
    ///     .propagate(|| {
    ///         let request = REQUEST.get(); // that of the submitter
    ///         move |run| {
    ///             let before = REQUEST.replace(request); // on the worker
    ///             run();
    ///             REQUEST.set(before);
    ///         }
    ///     })
    ///     .build()?;
    /// REQUEST.set(42);
    /// assert_eq!(pool.spawn(|| REQUEST.get())?.join()?, 42);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// A library whose context is a guard fits, too. With OpenTelemetry:
    ///
    /// ```ignore
    /// builder.propagate(|| {
    ///     let context = opentelemetry::Context::current();
    ///     move |run| {
    ///         let _guard = context.clone().attach();
    ///         run();
    ///     }
    /// })
    /// ```
    ///
    /// # Where it applies
    ///
    /// | submitted by | captured | the wrapper is called for |
    /// |---|---|---|
    /// | `execute`, `spawn` and the like, [`task`](crate::WorkerPool::task), groups, scopes, keyed executors | by the call | the task |
    /// | [`spawn_async`](crate::WorkerPool::spawn_async) | by the first poll | the task |
    /// | [`map`](crate::WorkerPool::map), [`broadcast`](crate::WorkerPool::broadcast) | when the item, or the share, is submitted | each task |
    /// | [`execute_after`](crate::WorkerPool::execute_after), [`spawn_after`](crate::WorkerPool::spawn_after) | by the call | the task |
    /// | [`execute_every`](crate::WorkerPool::execute_every) | by the call, and in that context again for each run | each run |
    /// | `spawn_with_retry` | by the call | each attempt |
    /// | an `EventBus` | by the publisher, for each handler | each attempt of the delivery |
    /// | a `Driver` or a gRPC `Caller` | by the call | each poll, the drop of the future, and what runs on a worker afterwards |
    /// | a NATS `Worker` or subscription | when the message arrives, on the I/O thread | the handler |
    /// | `Worker::run_batch` | never: the jobs have contexts of their own | what `Job::in_context` calls |
    ///
    /// A worker that waits may run other tasks meanwhile. Each runs in its own context, nested in
    /// that of the waiting task, which is current again when the wait ends. The observer and the
    /// panic hook are called in the context of the task while it runs. Callbacks of a
    /// [`CancellationToken`](crate::CancellationToken::on_cancel) are called in that of the thread
    /// which cancels. A wrapper may be called several times, but never by two threads at once.
    ///
    /// The wrapper is dropped before a waiter learns that the task has ended. That of a task that
    /// is cancelled or refused is dropped without being called, with no context set.
    ///
    /// # Panics of hooks
    ///
    /// A panic of `capture` or of the wrapper is contained, and counted in
    /// [`Metrics::hooks_panicked`](crate::Metrics::hooks_panicked). The task runs in any case,
    /// once: without a context if `capture` panicked, or if the wrapper panicked or returned before
    /// it called its function. A second call of the function does nothing. A panic of the task does
    /// not reach the wrapper. Captures nest as hooks do, at most 16 deep; see
    /// [`Observer`](crate::Observer).
    ///
    /// # Cost
    ///
    /// A pool without this setting pays nothing. With it, a task costs an allocation for the
    /// wrapper, unless that captures nothing, and two short locks.
    pub fn propagate<C, W>(mut self, capture: C) -> Self
    where
        C: Fn() -> W + Send + Sync + 'static,
        W: FnMut(&mut dyn FnMut()) + Send + 'static,
    {
        let propagation = &mut self.hooks.of_tasks.get_or_insert_default().propagation;
        propagation.capture = Some(Box::new(move || Box::new(capture())));
        self
    }

    /// Sends the context of the caller with what leaves the process. Needs the feature `grpc` or
    /// `nats`. *Default: nothing is sent.*
    ///
    /// The pool calls `f` on the thread that enqueues a job, publishes a message, or sends a
    /// request to a gRPC server. That thread is in the context of the current task. `f` calls the
    /// function it gets with the name and the value of each header, such as `traceparent` of the
    /// [W3C trace context](https://www.w3.org/TR/trace-context/). A propagator of OpenTelemetry
    /// does so.
    ///
    /// A header that the message, job or request has itself takes precedence. A header that the
    /// protocol does not allow is left out, and so is one whose name is reserved. Dead letters that
    /// are requeued keep the headers of their jobs. A panic of `f` is contained and counted, as
    /// that of a hook.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// thread_local!(static TRACE: RefCell<Option<String>> = const { RefCell::new(None) });
    ///
    /// let builder = workcrew::WorkerPool::builder().inject(|set| {
    ///     if let Some(trace) = TRACE.with_borrow(Clone::clone) {
    ///         set("traceparent", &trace);
    ///     }
    /// });
    /// # let _ = builder;
    /// ```
    #[cfg(any(feature = "grpc", feature = "nats"))]
    pub fn inject<F>(mut self, f: F) -> Self
    where
        F: Fn(&mut dyn FnMut(&str, &str)) + Send + Sync + 'static,
    {
        self.hooks.of_tasks.get_or_insert_default().propagation.inject = Some(Box::new(f));
        self
    }

    /// Reads the context that came with a message. Needs the feature `nats`. *Default: it is not
    /// read.*
    ///
    /// The pool calls `f` for each job and message that arrives, on the I/O thread. `f` gets the
    /// names and values of all headers, which may be none. They come from outside and are not
    /// checked. `f` returns a wrapper, as the hook of [`propagate`](Self::propagate) does. In that
    /// context the handler is submitted. So the handler runs in it if
    /// [`propagate`](Self::propagate) is set, or its span is a child of what is current in it.
    /// Without those, this has no effect.
    ///
    /// `f` must not block, since the I/O thread serves all connections of the pool.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::RefCell;
    ///
    /// thread_local!(static TRACE: RefCell<Option<String>> = const { RefCell::new(None) });
    ///
    /// let builder = workcrew::WorkerPool::builder()
    ///     .propagate(|| {
    ///         let trace = TRACE.with_borrow(Clone::clone);
    ///         move |run| {
    ///             let before = TRACE.replace(trace.clone());
    ///             run();
    ///             TRACE.set(before);
    ///         }
    ///     })
    ///     .extract(|headers| {
    ///         let sent = headers.iter().find(|(name, _)| *name == "traceparent");
    ///         let trace = sent.map(|(_, value)| (*value).to_owned());
    ///         let trace = trace.filter(|value| value.len() == 55); // as version 00 has
    ///         move |run| {
    ///             let before = TRACE.replace(trace.clone());
    ///             run();
    ///             TRACE.set(before);
    ///         }
    ///     });
    /// # let _ = builder;
    /// ```
    #[cfg(feature = "nats")]
    pub fn extract<F, W>(mut self, f: F) -> Self
    where
        F: Fn(&[(&str, &str)]) -> W + Send + Sync + 'static,
        W: FnMut(&mut dyn FnMut()) + Send + 'static,
    {
        let propagation = &mut self.hooks.of_tasks.get_or_insert_default().propagation;
        propagation.extract = Some(Box::new(move |headers| Box::new(f(headers))));
        self
    }

    /// Sets whether each task has a span of the crate [`tracing`](https://docs.rs/tracing). Needs
    /// the feature `tracing`. *Default: `false`.*
    ///
    /// The span is made at the submission. Its parent is the span that is current there. The task
    /// runs in it, as do its attempts, its polls, and what it submits in turn. So a trace that
    /// begins before a submission goes on in the task, and is one tree over groups, timers,
    /// retries, handlers and calls.
    ///
    /// The name of the span is `task`, its target is `workcrew`, and its level is `INFO`. If a
    /// filter disables it, the task runs in the span of its submitter.
    ///
    /// | field | holds | recorded |
    /// |---|---|---|
    /// | `id` | the [`TaskId`](crate::TaskId) | at the submission |
    /// | `label` | the label, if the task has one | at the submission |
    /// | `location` | where the task was submitted | at the submission |
    /// | `queue_wait_us` | the microseconds from the submission to the first start, delays included | at that start |
    /// | `attempt` | the number of the attempt, for a task that is retried and for a delivery | at its start |
    /// | `run_time_us` | the microseconds for which a thread was in the span, all attempts and polls together | at the end |
    /// | `outcome` | the [`TaskOutcome`](crate::TaskOutcome), or `refused` | at the end |
    ///
    /// The span is open from the submission to the end of the task, so a subscriber that keeps
    /// open spans keeps one for each queued task. It keeps its parent open, too. A periodic timer
    /// keeps open the span in which it was set. Each task reads the clock four times.
    ///
    /// The wrapper of [`propagate`](Self::propagate), if both are set, is outside of the span.
    ///
    /// # Examples
    ///
    /// ```
    /// let pool = workcrew::WorkerPool::builder().workers(1).tracing(true).build()?;
    /// let request = tracing::info_span!("request", id = 7);
    /// let length = request.in_scope(|| {
    ///     pool.spawn(|| {
    ///         tracing::info!("in a span `task`, which is below `request`");
    ///         "a page".len()
    ///     })
    /// })?;
    /// assert_eq!(length.join()?, 6);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[cfg(feature = "tracing")]
    pub fn tracing(mut self, tracing: bool) -> Self {
        self.hooks.of_tasks.get_or_insert_default().propagation.has_spans = tracing;
        self
    }
}
