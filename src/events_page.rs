#![doc = include_str!("../docs/events.md")]
