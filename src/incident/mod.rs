//! Floor 2, pure: the incident engine, the ranking of nearby cameras, evidence windows.
