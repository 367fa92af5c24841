//! Floor 1. Where buttons come in: the MQTT listener, what a session may do, the router behind it.
