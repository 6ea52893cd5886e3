//! The verdicts of a snapshot: what stands out in it.

use std::fmt;
use std::time::Duration;

/// Something that stands out in a snapshot. `Display` writes the message.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Verdict {
    /// Its kind.
    pub kind: VerdictKind,
    /// Whether the cause is suspected only, because it is outside of this crate. An example is a
    /// lock of the user.
    pub is_suspected: bool,
    /// For how long nothing has moved there.
    pub age: Duration,
    /// What stands out, with the tasks and the places where they were submitted. The wording may
    /// change in any version.
    pub message: String,
}

/// The kind of a [`Verdict`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum VerdictKind {
    /// Waits need each other, so none of them can end.
    Deadlock,
    /// Waits need each other for long, and one of them is that of a future. It may wait for something
    /// else too, so this is a suspicion.
    SuspectedCircle,
    /// The places of a driver are held for long by futures that need one more place.
    DriverLimit,
    /// Waits need a task that runs for long and does not wait in this crate. It may wait for a lock
    /// that one of the waiters holds.
    HeldUp,
    /// A group is at its limit, and the tasks that fill it run for long.
    GroupLimit,
    /// A key of a keyed executor is busy with one task for long.
    KeyBusy,
    /// The mailbox of a subscription is full, and its handler runs for long.
    MailboxFull,
    /// Submitters have waited for long for room in the queue.
    QueueFull,
    /// Every worker has slept in a wait for long.
    WorkersWait,
    /// Every worker has run the same task for long, and more tasks wait.
    WorkersBusy,
    /// A task runs for longer than the limit of its label; see
    /// [`on_stuck`](crate::WorkerPoolBuilder::on_stuck).
    LongTask,
}

impl Verdict {
    pub(super) fn new(kind: VerdictKind, age: Duration, message: String) -> Self {
        Self { kind, is_suspected: false, age, message }
    }

    pub(super) fn suspected(kind: VerdictKind, age: Duration, message: String) -> Self {
        Self { is_suspected: true, ..Self::new(kind, age, message) }
    }
}

impl VerdictKind {
    /// Returns its name for programs.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Deadlock => "deadlock",
            Self::SuspectedCircle => "suspected_circle",
            Self::DriverLimit => "driver_limit",
            Self::HeldUp => "held_up",
            Self::GroupLimit => "group_limit",
            Self::KeyBusy => "key_busy",
            Self::MailboxFull => "mailbox_full",
            Self::QueueFull => "queue_full",
            Self::WorkersWait => "workers_wait",
            Self::WorkersBusy => "workers_busy",
            Self::LongTask => "long_task",
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}
