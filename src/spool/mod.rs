//! Floor 1. What must survive: append-only segment files, the journal, the media log, the index over it.
