//! Floor 1. TOML as an installer writes it -> validated settings and inventory; every fault with file, line, column and what to write instead.
