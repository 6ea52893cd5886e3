//! Names of threads, short enough for the system to keep what tells them apart.
//!
//! A name is a base, which the user chooses for the pool, and a suffix, which tells the pool's threads apart. Systems keep
//! the first bytes of a name only, so the base is cut and the suffix stays whole.

/// How many bytes of a name the system keeps.
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

/// The name of a thread of the pool that is named after `base`.
pub(crate) fn thread_name(base: &str, suffix: &str) -> String {
    let fits = MAX_BYTES.saturating_sub(suffix.len() + 1);
    let mut end = base.len().min(fits);
    while !base.is_char_boundary(end) {
        end -= 1;
    }
    let kept = &base[..end];
    // A cut behind a hyphen would show two of them.
    let kept = if end < base.len() { kept.trim_end_matches('-') } else { kept };
    format!("{kept}-{suffix}")
}

#[cfg(test)]
mod tests {
    use super::{MAX_BYTES, thread_name};

    #[test]
    fn a_short_name_stays_as_it_is() {
        assert_eq!(thread_name("workcrew", "0"), "workcrew-0");
        assert_eq!(thread_name("workcrew", "timer"), "workcrew-timer");
        assert_eq!(thread_name("", "11"), "-11");
        assert_eq!(thread_name("a-", "1"), "a--1");
    }

    /// Fault 146.
    #[test]
    fn a_long_name_is_cut_before_its_suffix_and_between_characters() {
        for base in
            ["workcrew-global", "image-processing", "ü".repeat(40).as_str(), "🦀".repeat(9).as_str(), "日本語日本語"]
        {
            for suffix in ["0", "11", "999", "65535", "timer", "io", "blocking"] {
                let name = thread_name(base, suffix);
                let (kept, end) = name.rsplit_once('-').expect("there is a hyphen");
                assert_eq!(end, suffix);
                assert!(name.len() <= MAX_BYTES && base.starts_with(kept) && !kept.is_empty(), "{name}");
                let left_out = MAX_BYTES.min(base.len() + 1 + suffix.len()) - name.len();
                assert!(left_out <= 4, "{name}: more was cut off than a character");
            }
        }
    }
}
