//! The `chowki` program.

fn main() {}
