//! Calls through the control plane's door.
