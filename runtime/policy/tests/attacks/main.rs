//! What a policy can do to its host: nothing that lasts.
//!
//! Every test loads or asks something hostile while a good generation on the same
//! host is asked all the time, and looks afterwards for processes and descriptors
//! that were left behind. Run one with `cargo test -p policy --test attacks NAME`.

#[path = "../support/mod.rs"]
mod support;

mod arena;
mod calls;
mod escapes;
mod fuzz;
mod resources;
mod standby;
