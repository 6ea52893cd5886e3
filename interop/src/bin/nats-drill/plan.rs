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

    /// Returns the deeds that have not happened.
    pub(crate) fn rest(&self) -> Vec<Deed> {
        PLAN[self.done..].iter().map(|(_, deed)| *deed).collect()
    }
}
