//! Floor 1. The way to headquarters: what goes first, whether the link is up, events by MQTT, objects to the store.
