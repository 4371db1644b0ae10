//! The child alone, for the tests of this crate: `policy-child policy-host …`.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    policy::child_main(&arguments);
}
