//! Sockets below any protocol of ours: connections that can move between threads, the listener, TLS.

pub mod conn;
pub mod listen;
pub mod tls;
