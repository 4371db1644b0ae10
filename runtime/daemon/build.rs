//! Rebuilds the binary when a file that travels inside it is added or removed.

fn main() {
    for folder in ["scm", "region-config", "data-replication", "traffic-routing", "edge-deployment", "compliance"] {
        println!("cargo::rerun-if-changed=../../{folder}");
    }
}
