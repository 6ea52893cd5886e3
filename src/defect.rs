//! Defects that are sown on purpose, to see that the models find them.
//!
//! In every build but those of the models `defect!` is the constant `false`. There the variable `WORKCREW_DEFECT` names the one
//! that is sown, if any, so that one build serves for all. `.ci/score` has each looked for.

/// Whether the named defect is sown.
#[cfg(not(all(test, any(workcrew_loom, workcrew_shuttle))))]
macro_rules! defect {
    ($name:literal) => {
        false
    };
}

/// Whether the named defect is sown.
#[cfg(all(test, any(workcrew_loom, workcrew_shuttle)))]
macro_rules! defect {
    ($name:literal) => {
        $crate::defect::sown() == Some($name)
    };
}

pub(crate) use defect;

/// The name of the defect that is sown.
#[cfg(all(test, any(workcrew_loom, workcrew_shuttle)))]
pub(crate) fn sown() -> Option<&'static str> {
    use crate::sync::StaticOnceLock;

    static SOWN: StaticOnceLock<Option<String>> = StaticOnceLock::new();
    SOWN.get_or_init(|| std::env::var("WORKCREW_DEFECT").ok()).as_deref()
}
