//! Rebuilds the binary when a file that travels inside it is added or removed.

fn main() {
    // Of edge-deployment the policy alone: the worker's dependencies lie beside it.
    let edge = "edge-deployment/edge-cache.scm";
    for part in ["scm", "region-config", "data-replication", "traffic-routing", edge, "compliance"] {
        println!("cargo::rerun-if-changed=../../{part}");
    }
}
