//! What the edge does, compiled once for every kind of edge.
//!
//! `define-cache-rule` and its siblings are declarations of one generation. [`compile()`] joins them with the routing
//! plan (which region for which country) and the residency plan (what may lie where) to a [`Form`]: versioned, with a
//! JSON Schema, and named by its own hash. From the form come the policy module of the Cloudflare Worker, the VCL of
//! Varnish and the reduced configuration of nginx. [`evaluate`] says what each of them must answer; the corpus of
//! `tests/corpus` holds them to it.
//!
//! This crate opens no socket, reads no clock and touches no file: callers pass `now` and write what is generated.
//! What a backend cannot do is a [`Complaint`] that names the form and the backend; nothing is left out in silence.
//! Start with [`compile()`].

pub mod backend;
pub mod compile;
pub mod evaluate;
pub mod form;

pub use backend::{Backend, complaints};
pub use compile::{Complaint, Inputs, compile, compile_for_use};
pub use form::Form;
