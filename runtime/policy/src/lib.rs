//! Runs the operators' Scheme policies, in a cage.
//!
//! The only room that knows Steel. A [`PolicyHost`] runs an executable that calls
//! [`child_main`] and has children forked from it; each child holds one engine and
//! at most one tree of policies. [`PolicyHost::load`] puts a tree into a fresh
//! child, has it checked (source scan, compile, the files' own tests, the
//! exports and the shapes of their answers) and gives a [`Generation`] to put
//! questions to, or all findings at once.
//!
//! A policy that loops, allocates without end or brings the interpreter down
//! costs its child: the question fails, and the tree is loaded into another
//! child before the next one. What a child may do is in `child/cage.rs`: compute,
//! and talk over one socket. Policies are trusted code in a cage, not hostile
//! code; the scan of forbidden names is there to say early and with a line what
//! would otherwise fail without one.
//!
//! Nothing here decides what a policy should say. Start with [`PolicyHost`] for
//! the parent's side; for the child's with `child/zygote.rs`, where it is born, and
//! `child/interpreter.rs`.

mod child;
mod generation;
mod host;
mod outline;
mod process;
pub mod reference;
mod scan;
mod versions;
mod wire;
mod zygote;

/// For the tests of the cage, which must hold also against what the scan lets pass.
#[doc(hidden)]
pub mod testing {
    pub use crate::child::{Chance, cage, child_main_unscanned};
    pub use crate::wire::{Order, Report, frame, value};

    /// The findings of the scan of a file, which stands alone, and the file with its tests taken out and with marks put in,
    /// as they are for engines.
    pub fn scan(file: &str, text: &str) -> (Vec<model::Finding>, [String; 2]) {
        let scan = crate::scan::scan(file, text, |_| true, &[]);
        let texts =
            [crate::scan::without(text, &scan.forms, "test-module"), crate::scan::marked(text, &scan.forms, "mark")];
        (scan.findings, texts)
    }
}

/// The path of the module that the runtime writes for the REPL, beside the policies: an operator cannot edit it, so that
/// what goes wrong in it is shown where it was called.
pub const FACTS_MODULE: &str = "snapshot/facts.scm";

pub use child::cage::cage_report;
pub use child::child_main;
pub use generation::Generation;
pub use host::{HostError, HostLimits, PolicyHost};
