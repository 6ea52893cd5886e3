//! The waits of a bus besides those for an event: for room in mailboxes, for the end of a subscription, for an idle bus.
//!
//! | a wait | on an empty stack | within a task of another pool | within a task of the bus's pool |
//! |---|---|---|---|
//! | for room | sleeps | is in the registry of waits | none; see rule 6 of `mailbox` |
//! | for the end of a subscription | sleeps | is in the registry of waits | none: it looks once |
//! | for an idle bus | sleeps | is in the registry of waits | a panic |
//!
//! A wait in the registry holds up the tasks on its stack. So a worker of the bus's pool that waits for such a task makes
//! the deliveries that the wait needs, and a wait that closes a circle is refused.
//!
//! Without a limit, the waits for an end or for idleness are over when a report has left something behind; see
//! [`Reported`](crate::task::tracker::Reported). Waits for room need no such rule: the report has closed the mailboxes.

use std::collections::BTreeMap;
use std::time::Instant;

use super::erased::Member;
use super::inner::BusInner;
use super::mailbox::Mailbox;
use super::watcher::Watcher;
use crate::cancel::token::CancelGuard;
use crate::sync::{Arc, Mutex};
use crate::task::context::{self, AwaitedId, GroupId, PoolId};
use crate::task::waits::{self, ANYTHING, Awaited, Kind, Needs, Next, Refused, Wait};
use crate::time::deadline::Deadline;

impl<E: Send + Sync + 'static> Member for Mailbox<E> {
    fn look_for_quiet(&self, needs: &mut Needs) {
        let state = self.state.lock();
        self.look_at_work(&state, needs);
        if state.runners > 0 {
            needs.end_of(self.group);
        }
    }

    fn bring_on(self: Arc<Self>) {
        Mailbox::bring_on(&self);
    }
}

impl<E: Send + Sync + 'static> Mailbox<E> {
    /// Waits until a closed subscription has no runner, but not for what lies on this stack or was left behind. Returns
    /// whether it has none.
    pub(super) fn wait_quiet(self: &Arc<Self>) -> bool {
        let is_quiet = || self.state.lock().runners == 0;
        if is_quiet() || context::is_inside(self.shared.engine.id()) {
            return is_quiet();
        }
        let mailbox = Arc::clone(self);
        let _bell = self.shared.engine.left_behind.on_cancel(move || mailbox.wake_for_quiet());
        if context::depth() == 0 {
            self.sleep_until_quiet(|| false, Deadline::NEVER);
        } else {
            let target: Arc<dyn Awaited> = Arc::new(End(Arc::clone(self)));
            let sleep = |wait: &Wait, until: Option<Instant>| {
                self.sleep_until_quiet(|| wait.is_called(), Deadline::NEVER.earlier(until))
            };
            let _ = waits::wait(&target, Kind::Certain, sleep);
        }
        is_quiet()
    }

    /// Sleeps until the wait for quiet is over, it is called, or the moment has come; says whether it is over.
    fn sleep_until_quiet(&self, is_called: impl Fn() -> bool, deadline: Deadline) -> bool {
        let mut state = self.state.lock();
        loop {
            if state.runners == 0 || self.shared.is_left_behind() {
                return true;
            }
            if is_called() || deadline.is_past() {
                return false;
            }
            state = self.quiet.wait_until(state, deadline.instant());
        }
    }

    fn wake_for_quiet(&self) {
        drop(self.state.lock()); // a waiter has looked before, and sleeps, or looks after
        self.quiet.notify_all();
    }
}

/// The end of a subscription that is closed: the moment in which its last runner stops.
struct End<E>(Arc<Mailbox<E>>);

impl<E: Send + Sync + 'static> Awaited for End<E> {
    fn name(&self) -> AwaitedId {
        AwaitedId::of(&self.0.quiet)
    }

    fn also(&self) -> Vec<AwaitedId> {
        vec![self.0.group.into()]
    }

    fn pool(&self) -> PoolId {
        self.0.shared.engine.id()
    }

    fn look(&self, needs: &mut Needs) {
        self.0.look_for_quiet(needs);
    }

    /// A closed subscription starts nothing.
    fn help(self: Arc<Self>) {}

    fn wake_waiters(&self) {
        self.0.wake_for_quiet();
    }
}

/// Within a task: waits until there may be room in some of the mailboxes that the publisher watches, and returns their
/// places among the recipients.
///
/// While it helps it watches none, since it would not react to a call: what it runs may itself wait for that room.
pub(super) fn wait_for_calls<E: Send + Sync + 'static>(
    watcher: &Arc<Watcher>,
    watched: Vec<(usize, Arc<Mailbox<E>>)>,
) -> Result<Vec<usize>, Refused> {
    let (places, mailboxes): (Vec<usize>, Vec<_>) = watched.into_iter().unzip();
    let shared = Arc::clone(&mailboxes[0].shared); // only held deliveries are waited for
    let room = Arc::new(Room { watcher: Arc::clone(watcher), mailboxes });
    let _publisher = Publisher::new(&shared, room.name());
    loop {
        match waits::enter(Arc::clone(&room) as Arc<dyn Awaited>, Kind::Certain)? {
            Next::Sleep(wait, until) => {
                let called = watcher.wait_unless(|| wait.is_called(), Deadline::NEVER.earlier(until));
                if !called.is_empty() {
                    return Ok(called);
                }
                if wait.is_refused() {
                    return Err(Refused);
                }
            }
            Next::Help(awaited) => {
                room.mailboxes.iter().for_each(|mailbox| mailbox.unwatch(watcher));
                if watcher.take_calls().is_empty() {
                    awaited.help();
                }
                return Ok(places);
            }
        }
    }
}

/// Notes that this thread publishes and waits, until it is dropped.
struct Publisher<'a> {
    shared: &'a BusInner,
    watcher: AwaitedId,
}

impl<'a> Publisher<'a> {
    fn new(shared: &'a BusInner, watcher: AwaitedId) -> Self {
        shared.publishers.lock().insert(watcher, context::thread_id());
        Self { shared, watcher }
    }
}

impl Drop for Publisher<'_> {
    fn drop(&mut self) {
        self.shared.publishers.lock().remove(&self.watcher);
    }
}

/// Room in each of some mailboxes.
struct Room<E> {
    watcher: Arc<Watcher>,
    mailboxes: Vec<Arc<Mailbox<E>>>,
}

impl<E: Send + Sync + 'static> Awaited for Room<E> {
    fn name(&self) -> AwaitedId {
        AwaitedId::of(&*self.watcher)
    }

    fn also(&self) -> Vec<AwaitedId> {
        self.mailboxes.iter().map(|mailbox| mailbox.group.into()).collect()
    }

    fn pool(&self) -> PoolId {
        self.mailboxes[0].shared.engine.id() // only held deliveries are waited for
    }

    fn look(&self, needs: &mut Needs) {
        for mailbox in &self.mailboxes {
            let state = mailbox.state.lock();
            if state.takes_events_in() && state.occupied() >= mailbox.settings.capacity {
                mailbox.look_for_runner(&state, needs);
            }
        }
    }

    fn help(self: Arc<Self>) {
        self.mailboxes.iter().for_each(Mailbox::bring_on);
    }

    fn wake_waiters(&self) {
        self.watcher.wake();
    }
}

impl BusInner {
    /// Whether a report has left something behind, so that no wait without a limit goes on.
    pub(super) fn is_left_behind(&self) -> bool {
        self.engine.left_behind.reason().is_some()
    }

    /// Waits until no event has deliveries to come; returns whether that came before the deadline. Without one it does
    /// not wait for what was left behind.
    pub(super) fn wait_idle(self: &Arc<Self>, deadline: Deadline) -> Result<bool, Refused> {
        if deadline != Deadline::NEVER {
            let look = || if self.is_idle() || deadline.is_past() { Ok(self.is_idle()) } else { Err(deadline) };
            return Ok(self.idle.watch(look));
        }
        let is_within_task = context::depth() > 0;
        let target: Arc<dyn Awaited> = Arc::new(Idleness { shared: Arc::clone(self), kept: Mutex::default() });
        let (mut bell, mut entered): (Option<CancelGuard>, Option<Wait>) = (None, None);
        self.idle.watch(|| {
            if self.is_idle() {
                return Ok(Ok(true));
            }
            // Only now that this wait is announced: so the beat of the bell finds it, or this look finds the report.
            bell.get_or_insert_with(|| {
                let shared = Arc::clone(self);
                self.engine.left_behind.on_cancel(move || shared.idle.beat())
            });
            loop {
                let is_refused = entered.take().is_some_and(|wait| wait.is_refused());
                if self.is_idle() || self.is_left_behind() {
                    return Ok(Ok(self.is_idle()));
                }
                if is_refused {
                    return Ok(Err(Refused));
                }
                if !is_within_task {
                    return Err(Deadline::NEVER);
                }
                match waits::enter(Arc::clone(&target), Kind::Certain) {
                    Ok(Next::Help(awaited)) => awaited.help(),
                    Ok(Next::Sleep(wait, until)) => {
                        entered = Some(wait);
                        return Err(Deadline::NEVER.earlier(until));
                    }
                    Err(Refused) => return Ok(Err(Refused)),
                }
            }
        })
    }
}

/// The moment in which a bus is idle.
struct Idleness {
    shared: Arc<BusInner>,
    /// Every mailbox that was looked at, so that none is dropped there.
    kept: Mutex<BTreeMap<GroupId, Arc<dyn Member>>>,
}

impl Awaited for Idleness {
    fn name(&self) -> AwaitedId {
        AwaitedId::of(&*self.shared)
    }

    /// Any subscription may have deliveries by then, also one that is made meanwhile.
    fn also(&self) -> Vec<AwaitedId> {
        vec![ANYTHING]
    }

    fn pool(&self) -> PoolId {
        self.shared.engine.id()
    }

    fn look(&self, needs: &mut Needs) {
        if self.shared.is_idle() {
            return;
        }
        let mut kept = self.kept.lock();
        let members = self.shared.members.lock();
        kept.extend(members.iter().filter_map(|(name, member)| Some((*name, member.upgrade()?))));
        drop(members);
        kept.values().for_each(|member| member.look_for_quiet(needs));
        // An event ends no sooner than its publishing, which ends no sooner than what lies above it on that stack.
        self.shared.publishers.lock().values().for_each(|thread| needs.end_of(*thread));
    }

    fn help(self: Arc<Self>) {
        let members: Vec<_> = self.kept.lock().values().cloned().collect();
        members.into_iter().for_each(Member::bring_on);
    }

    fn wake_waiters(&self) {
        self.shared.idle.beat();
    }
}
