//! From what policies and regions want of a provider to the steps that make it so.
//!
//! What is wanted is worked out from a tree; what is there is read out of a provider's answers; the difference is a
//! plan: changes for a person to read and steps for an executor to take, each with the request that it sends. What was
//! done is kept in a [`journal`], so that a run that was interrupted goes on where it was, and what others changed
//! since can be told from what we changed ourselves.
//!
//! This crate opens no socket, reads no clock and touches no file, and no secret passes through what it prints or
//! keeps: an upload takes the values of its secrets at the moment when its bytes are made. Start with
//! [`cloudflare::plan()`].

pub mod change;
pub mod cloudflare;
pub mod journal;
