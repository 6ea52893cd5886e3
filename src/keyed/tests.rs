//! Tests of what users cannot see.
