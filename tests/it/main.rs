//! Tests that need more than one module, or a process. One binary; each module says in its first line what it holds.

mod asyncapi;
mod backends;
mod bad_input;
mod browser;
mod calls;
mod conformance;
mod corpus;
mod daemon;
mod frontends;
mod house;
mod listening;
mod minds;
mod openapi;
mod options;
mod outbound;
mod process;
mod rest;
mod roster;
mod seeds;
mod shard;
mod sixth;
mod speech;
mod stores;
mod telnyx;
mod tidy;
