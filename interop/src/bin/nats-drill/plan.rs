//! The deeds that happen to the servers and the queue, and when they do.

/// Something that happens once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Deed {
    /// SIGKILL for the server that leads the stream, or for the only one.
    KillServer,
    /// SIGKILL for the server that leads the consumer, or for the only one.
    KillConsumerLeader,
    /// SIGTERM for the server that leads the stream, or for the only one.
    StopServer,
    DeleteConsumer,
    RemakeStream,
    EnqueueBadJobs,
}

/// Each deed, and the share of the good jobs after which it happens.
pub(crate) const PLAN: [(f64, Deed); 6] = [
    (0.15, Deed::KillServer),
    (0.25, Deed::DeleteConsumer),
    (0.35, Deed::RemakeStream),
    (0.45, Deed::EnqueueBadJobs),
    (0.60, Deed::StopServer),
    (0.75, Deed::KillConsumerLeader),
];

/// The share of the good jobs that a deed has before it, beyond its own, so that it meets work.
const BACKLOG: f64 = 0.2;

/// The deeds, one after the other.
#[derive(Debug, Default)]
pub(crate) struct Plan {
    done: usize,
}

impl Plan {
    /// Returns the next deed if this share of the jobs suffices for it.
    pub(crate) fn next(&mut self, share: f64) -> Option<Deed> {
        let (after, deed) = *PLAN.get(self.done)?;
        if share < after {
            return None;
        }
        self.done += 1;
        Some(deed)
    }

    /// Returns the share of the jobs that may be enqueued now. Some are held back until the last
    /// deed has happened, so the jobs never end before the plan.
    pub(crate) fn share_to_enqueue(&self) -> f64 {
        PLAN.get(self.done).map_or(1.0, |(after, _)| after + BACKLOG)
    }

    /// Returns the deeds that have not happened.
    pub(crate) fn rest(&self) -> Vec<Deed> {
        PLAN[self.done..].iter().map(|(_, deed)| *deed).collect()
    }
}
