//! The wits of agents: what to answer to what was heard. Pure; the conversation around an answer is `agent`'s.

pub mod scripted;
