//! The text in which Linux describes the status of a thread; see proc(5).

/// Returns the number of this name in the status of a thread, or zero.
pub(crate) fn counted(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
