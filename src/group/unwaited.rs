//! The warning of debug builds about a group that is dropped without a wait while it has tasks that
//! have not started.
//!
//! Such a drop is a mistake more often than not: the tasks are cancelled, and no result reports it.
//! Release builds do not contain this code.

#[cfg(debug_assertions)]
use std::io::{self, Write};
#[cfg(debug_assertions)]
use std::panic::Location;

#[cfg(debug_assertions)]
use crate::error::Escaped;
#[cfg(debug_assertions)]
use crate::sync::{StaticOnceLock, panicking};

/// How many places of a process are reported.
#[cfg(debug_assertions)]
const MAX_PLACES: usize = 16;

/// The places that were reported. Each is set once, in order.
#[cfg(debug_assertions)]
static REPORTED: [StaticOnceLock<&'static Location<'static>>; MAX_PLACES] =
    [const { StaticOnceLock::new() }; MAX_PLACES];

/// Whether a group was waited for, and where it was made.
pub(super) struct Unwaited {
    /// Where the group was made.
    #[cfg(debug_assertions)]
    location: &'static Location<'static>,
    /// Whether a wait has begun, or an iterator over the outcomes was made.
    #[cfg(debug_assertions)]
    is_waited: bool,
}

#[cfg(debug_assertions)]
impl Unwaited {
    /// Notes the place of the caller.
    #[track_caller]
    pub(super) fn new() -> Self {
        Self { location: Location::caller(), is_waited: false }
    }

    /// Notes that the group is waited for.
    pub(super) fn note_wait(&mut self) {
        self.is_waited = true;
    }

    /// Reports that the drop of the group cancels `tasks` tasks, at most once for each place where
    /// groups are made. Says nothing after a wait, without tasks, and while a panic unwinds.
    pub(super) fn report(&self, label: Option<&str>, tasks: usize) {
        if self.is_waited || tasks == 0 || panicking() || !is_first(self.location) {
            return;
        }
        let name = label.map(|label| format!(" `{}`", Escaped(label))).unwrap_or_default();
        // A failure to write must not panic in a destructor.
        let _ = writeln!(
            io::stderr(),
            "workcrew: the group{name} made at {} is dropped without a wait, which cancels its unstarted tasks \
             ({tasks}); call `wait` for their results, or `cancel` before the drop if that is meant",
            self.location
        );
    }
}

#[cfg(not(debug_assertions))]
impl Unwaited {
    pub(super) fn new() -> Self {
        Self {}
    }

    pub(super) fn note_wait(&mut self) {}

    pub(super) fn report(&self, _: Option<&str>, _: usize) {}
}

/// Returns `true` once for each place, for as many places as are reported.
#[cfg(debug_assertions)]
fn is_first(location: &'static Location<'static>) -> bool {
    for place in &REPORTED {
        if place.set(location).is_ok() {
            return true;
        }
        if place.get() == Some(&location) {
            return false;
        }
    }
    false
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use super::*;

    #[test]
    fn a_place_is_first_once_and_the_number_of_places_is_bounded() {
        let here = Location::caller();
        let is_first_here = is_first(here);
        assert!(is_first_here && !is_first(here) && !is_first(here));
        let other = std::iter::repeat_with(|| -> &'static Location<'static> { Location::caller() }).next();
        assert!(other.is_some_and(|other| is_first(other) != is_first(other)));
    }
}
