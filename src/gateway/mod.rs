//! Floor 3: composition. Who is started and stopped when, and who talks to whom.
