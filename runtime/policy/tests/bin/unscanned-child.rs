//! A child that does not scan sources for forbidden names, for the tests of the
//! cage: `unscanned-child policy-host …`.

fn main() {
    let arguments: Vec<String> = std::env::args().skip(2).collect();
    policy::testing::child_main_unscanned(&arguments);
}
