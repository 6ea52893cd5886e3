//! Names of threads, short enough that the system keeps their suffix.
//!
//! A name consists of a base, which the user chooses for the pool, and a suffix, which is unique
//! within the pool. Systems keep only the first bytes of a name, so the base is truncated and the
//! suffix is kept.

/// The number of bytes of a name that the system keeps.
const MAX_BYTES: usize = if cfg!(any(target_os = "linux", target_os = "android")) {
    15
} else if cfg!(any(target_os = "freebsd", target_os = "dragonfly")) {
    19
} else if cfg!(target_os = "openbsd") {
    23
} else if cfg!(target_os = "netbsd") {
    31
} else if cfg!(target_vendor = "apple") {
    63
} else {
    usize::MAX
};

/// Returns the name of a thread: `base`, truncated if necessary, a hyphen and `suffix`.
pub(crate) fn thread_name(base: &str, suffix: &str) -> String {
    let fits = MAX_BYTES.saturating_sub(suffix.len() + 1);
    let mut end = base.len().min(fits);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let kept = &base[..end];
    // Avoid two hyphens if the base is truncated after one.
    let kept = if end < base.len() { kept.trim_end_matches('-') } else { kept };
    format!("{kept}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, thread_name};

    #[test]
    fn a_short_name_is_kept() {
        assert_eq!(thread_name("workcrew", "0"), "workcrew-0");
        assert_eq!(thread_name("workcrew", "timer"), "workcrew-timer");
        assert_eq!(thread_name("", "11"), "-11");
        assert_eq!(thread_name("a-", "1"), "a--1");
    }

    /// Fault 146.
    #[test]
    fn a_long_name_is_truncated_before_its_suffix_and_between_characters() {
        for base in
            ["workcrew-global", "image-processing", "ü".repeat(40).as_str(), "🦀".repeat(9).as_str(), "日本語日本語"]
        {
            for suffix in ["0", "11", "999", "65535", "timer", "io", "blocking"] {
                let name = thread_name(base, suffix);
                let (kept, end) = name.rsplit_once('-').expect("the name contains a hyphen");
                assert_eq!(end, suffix);
                assert!(name.len() <= MAX_BYTES && base.starts_with(kept) && !kept.is_empty(), "{name}");
                let left_out = MAX_BYTES.min(base.len() + 1 + suffix.len()) - name.len();
                assert!(left_out <= 4, "{name}: more than a character was cut off");
            }
        }
    }
}
