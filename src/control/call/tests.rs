//! The call machine against its rules.
