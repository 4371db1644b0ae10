//! Policies asked by a command itself, beside any region that runs.

use model::region::Regions;
use model::routing::Facts;
use model::{ByteCount, Millis, UnixMillis};
use policy::{HostLimits, PolicyHost};

/// Processor time for a load: nobody is served meanwhile, so that it may be more than a region allows.
pub const LOAD: Millis = Millis(10_000);
/// Processor time for a question that covers a whole space of cases.
pub const QUESTION: Millis = Millis(5_000);

/// A host with the library that the binary carries.
///
/// # Errors
/// It cannot be started.
pub fn host(load: Millis, question: Millis) -> anyhow::Result<PolicyHost> {
    let limits = HostLimits { load, question, memory: ByteCount(512 << 20) };
    Ok(PolicyHost::start(&std::env::current_exe()?, crate::embedded::library(), limits)?)
}

/// The wall clock of this machine.
pub fn now() -> UnixMillis {
    let since = std::time::UNIX_EPOCH.elapsed().unwrap_or_default();
    UnixMillis(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// What policies are told where nothing was measured yet: the regions as their files have them, all unprobed.
pub fn facts(regions: &Regions) -> Facts {
    let tracker = routing::HealthTracker::new(regions.by_id.keys().cloned().collect());
    routing::facts(regions, &regions.primary, &tracker, &routing::classes())
}
