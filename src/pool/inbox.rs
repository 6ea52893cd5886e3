//! The inbox of a worker: the work that only this worker can do. It runs its shares of broadcasts,
//! and drops its values of worker locals.
//!
//! | an inbox is | meaning | next |
//! |---|---|---|
//! | *unopened* | its worker's thread has not been started, or the start hook may still fail; takes no shares | *open*; *closed* |
//! | *open* | takes mail, which the worker handles between two jobs | *closed*, when the worker leaves |
//! | *closed* | takes nothing; the worker handles what is left before its stop hook | – |
//!
//! All changes are made under the inbox's lock. The inbox of a worker that fails to start is never
//! open.
//!
//! Races:
//! - *Post and close*: the first under the lock decides. Either the worker handles the mail before
//!   it leaves, or the post is refused.
//! - *Post and sleep*: the flag `has_mail` is set before the sleeping workers are called. A worker
//!   checks the flag under the lock of the eventcount before it sleeps. A notification is not
//!   enough, because another worker can take it.
//! - *Post and cancel of what is queued*: the canceller raises the flag of the pool, and then takes
//!   the shares under the lock. The poster looks at that flag after its post, so one of the two
//!   cancels the share.

use std::collections::VecDeque;

use crate::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use crate::task::context::ThreadId;
use crate::task::job::Job;

/// The number of entries from which an inbox is searched for stale ones.
const MIN_SWEEP: usize = 64;

/// An entry of an inbox: work that only its worker can do.
pub(crate) enum Mail {
    /// Run this share of a broadcast.
    Share(Job),
    /// Drop the value of the worker local with this id.
    Drop(LocalId),
}

/// Identifies a worker local. Never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LocalId(pub(super) u64);

/// The inbox of one worker.
pub(crate) struct Inbox {
    /// The thread of the worker.
    pub(crate) thread: ThreadId,
    /// Whether there is mail. Written under the lock, read without it.
    has_mail: AtomicBool,
    state: Mutex<State>,
}

/// What the lock guards.
struct State {
    phase: Phase,
    mail: VecDeque<Mail>,
    /// The number of entries at which stale ones are dropped.
    sweep_at: usize,
}

/// The states of the table above.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Unopened,
    Open,
    Closed,
}

impl Inbox {
    /// Creates the inbox of a worker that is about to start.
    pub(crate) fn new() -> Self {
        let state = State { phase: Phase::Unopened, mail: VecDeque::new(), sweep_at: MIN_SWEEP };
        Self { thread: ThreadId::new(), has_mail: AtomicBool::new(false), state: Mutex::new(state) }
    }

    /// Opens the inbox for mail, unless it is closed.
    pub(crate) fn open(&self) {
        let mut state = self.state.lock();
        if state.phase == Phase::Unopened {
            state.phase = Phase::Open;
        }
    }

    /// Closes the inbox. Mail that is left can still be popped.
    pub(crate) fn close(&self) {
        self.state.lock().phase = Phase::Closed;
    }

    /// Returns `true` if the inbox takes shares. May be stale when it returns.
    pub(crate) fn is_open(&self) -> bool {
        self.state.lock().phase == Phase::Open
    }

    /// Returns `true` if the inbox takes no mail any more. `true` is final.
    pub(crate) fn is_closed(&self) -> bool {
        self.state.lock().phase == Phase::Closed
    }

    /// Returns `true` if there is mail. May be stale when it returns.
    pub(crate) fn has_mail(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `update_flag`: a worker that sees the flag sees
        // the notice too.
        self.has_mail.load(Ordering::Acquire)
    }

    /// Returns the number of entries. May be stale when it returns.
    pub(crate) fn len(&self) -> usize {
        self.state.lock().mail.len()
    }

    /// Adds mail, or returns it if the inbox does not take it. The caller then wakes the workers.
    pub(super) fn post(&self, mail: Mail, notices: &Notices) -> Result<(), Mail> {
        let mut state = self.state.lock();
        let is_taken = match mail {
            Mail::Share(_) => state.phase == Phase::Open,
            // A start hook may have made the value.
            Mail::Drop(_) => state.phase != Phase::Closed,
        };
        if !is_taken {
            return Err(mail);
        }
        state.mail.push_back(mail);
        if state.mail.len() >= state.sweep_at {
            // A finished task holds no values of the user, so no user code runs here.
            state.mail.retain(|mail| !matches!(mail, Mail::Share(job) if job.is_stale()));
            state.sweep_at = (2 * state.mail.len()).max(MIN_SWEEP);
        }
        self.update_flag(&state, notices);
        Ok(())
    }

    /// Removes the oldest mail.
    pub(super) fn pop(&self, notices: &Notices) -> Option<Mail> {
        let mut state = self.state.lock();
        let mail = state.mail.pop_front();
        self.update_flag(&state, notices);
        mail
    }

    /// Removes all shares of broadcasts.
    pub(super) fn take_shares(&self, notices: &Notices) -> Vec<Job> {
        let mut state = self.state.lock();
        let mut shares = Vec::new();
        let mut left = VecDeque::new();
        for mail in std::mem::take(&mut state.mail) {
            match mail {
                Mail::Share(job) => shares.push(job),
                Mail::Drop(_) => left.push_back(mail),
            }
        }
        state.mail = left;
        self.update_flag(&state, notices);
        shares
    }

    /// Sets the flag, and the notice with it. Called with the lock held.
    fn update_flag(&self, state: &State, notices: &Notices) {
        let has_mail = !state.mail.is_empty();
        if has_mail == self.has_mail.load(Ordering::Relaxed) {
            return;
        }
        if has_mail {
            notices.0.fetch_add(MAIL, Ordering::Relaxed);
        } else {
            notices.0.fetch_sub(MAIL, Ordering::Relaxed);
        }
        // ORDERING: Release, after the notice; see `has_mail`.
        self.has_mail.store(has_mail, Ordering::Release);
    }
}

/// The notices of a pool: one word that each worker reads between two jobs. It is zero while no
/// worker must retire, no inbox has mail, and all tasks so far are of the class `Normal`.
pub(super) struct Notices(AtomicUsize);

/// The bit that says that a worker must retire.
const SURPLUS: usize = 1;
/// The bit that says that the pool has seen a class other than `Normal`. Never cleared.
const CLASSES: usize = 2;
/// One inbox that has mail.
const MAIL: usize = 4;

impl Notices {
    pub(super) fn new() -> Self {
        Self(AtomicUsize::new(0))
    }

    /// Returns `true` if there is a notice.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.0.load(Ordering::Acquire) != 0
    }

    /// Notes that the pool has seen a class other than `Normal`.
    #[inline]
    pub(super) fn use_classes(&self) {
        // ORDERING: Release pairs with the Acquire of `any`. A busy worker that misses the bit sees
        // it before its next job: it is set before the first push to the class.
        if self.0.load(Ordering::Relaxed) & CLASSES == 0 {
            self.0.fetch_or(CLASSES, Ordering::Release);
        }
    }

    /// Returns `true` if the pool has seen a class other than `Normal`.
    pub(super) fn has_classes(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `use_classes`.
        self.0.load(Ordering::Acquire) & CLASSES != 0
    }

    /// Returns `true` if a worker must retire.
    pub(super) fn has_surplus(&self) -> bool {
        // ORDERING: Acquire pairs with the Release of `set_surplus`.
        self.0.load(Ordering::Acquire) & SURPLUS != 0
    }

    /// Sets whether a worker must retire.
    pub(super) fn set_surplus(&self, surplus: bool) {
        // ORDERING: Release pairs with the Acquire of `has_surplus`; the lock of the worker set
        // decides.
        if surplus {
            self.0.fetch_or(SURPLUS, Ordering::Release);
        } else {
            self.0.fetch_and(!SURPLUS, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_notice_is_there_while_an_inbox_has_mail_or_a_worker_must_retire() {
        let (notices, one, two) = (Notices::new(), Inbox::new(), Inbox::new());
        let post = |inbox: &Inbox, id| inbox.post(Mail::Drop(LocalId(id)), &notices).is_ok();
        one.open();
        two.open();
        assert!(!notices.any() && post(&one, 1) && post(&one, 2) && post(&two, 3));
        assert!(one.has_mail() && notices.any() && !notices.has_surplus());
        notices.set_surplus(true);
        assert!(one.pop(&notices).is_some() && one.has_mail());
        one.close();
        assert!(!post(&one, 4) && one.pop(&notices).is_some() && !one.has_mail() && one.pop(&notices).is_none());
        assert!(two.take_shares(&notices).is_empty() && two.has_mail());
        assert!(matches!(two.pop(&notices), Some(Mail::Drop(LocalId(3)))) && notices.has_surplus());
        notices.set_surplus(false);
        assert!(!notices.any());
        notices.use_classes();
        notices.use_classes();
        assert!(notices.any() && notices.has_classes() && !notices.has_surplus());
    }
}
