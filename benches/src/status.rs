//! The texts in which Linux tells the status of a thread; see proc(5).

/// What a thread's status says under this name.
pub(crate) fn counted(status: &str, name: &str) -> u64 {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
    line.and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}
