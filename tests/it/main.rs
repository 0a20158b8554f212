//! Tests that need more than one module, or a process. One binary; each module says in its first line what it holds.

mod calls;
mod frontends;
mod house;
mod rest;
mod shard;
mod tidy;
