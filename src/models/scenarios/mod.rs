//! Scenarios for shuttle.
