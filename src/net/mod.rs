//! Sockets below any protocol of ours: connections that can move between threads, the listener, TLS, media WebSockets, WebSockets that we dial, the HTTP client.

pub mod client;
pub mod conn;
pub mod dial;
pub mod listen;
pub mod public;
pub mod tls;
pub mod websocket;
