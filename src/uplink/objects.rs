//! Objects to headquarters' store.
