//! Floor 1. Where pictures come in: one RTSP session a camera, its states, its clock.
