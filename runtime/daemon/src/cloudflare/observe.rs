//! Reads what is there. Nothing here writes.

use cloud::cloudflare::request::Calls;
use cloud::cloudflare::{Desired, Kind, Listing, Observed};
use cloud::journal::State;
use serde_json::Value;

use super::api::{Api, ApiError};

/// Reads and sorts all that a plan needs.
///
/// # Errors
/// A call fails.
pub async fn observe(api: &Api, calls: &Calls, desired: &Desired, left: &State) -> Result<Observed, ApiError> {
    let mut listing = Listing {
        zone: api.call(&calls.zone()).await?,
        scripts: api.list(&calls.scripts(), None).await?,
        ..Listing::default()
    };
    if listing.scripts.iter().any(|script| script["id"] == desired.settings.worker.as_str()) {
        listing.versions = api.list(&calls.versions(), Some("items")).await?;
        listing.deployments = api.list(&calls.deployments(), Some("deployments")).await?;
    }
    for kind in Kind::ALL.into_iter().filter(|kind| concerns(*kind, desired, left)) {
        add(&mut listing, api, calls, kind).await?;
    }
    let made = left.kept.keys().cloned().collect();
    Ok(Observed::of(&listing, desired, &made))
}

/// Whether there may be something of ours of that kind: others need a permission that the token may lack.
fn concerns(kind: Kind, desired: &Desired, left: &State) -> bool {
    let balanced = desired.settings.load_balancer.is_some();
    let always = matches!(kind, Kind::Route | Kind::CacheRule);
    always
        || (balanced && matches!(kind, Kind::Monitor | Kind::Pool | Kind::LoadBalancer))
        || (kind == Kind::Kv && !desired.settings.kv.is_empty())
        || left.kept.keys().any(|address| Kind::of(address).is_some_and(|(of, _)| of == kind))
}

async fn add(listing: &mut Listing, api: &Api, calls: &Calls, kind: Kind) -> Result<(), ApiError> {
    let call = calls.list(kind);
    match kind {
        Kind::CacheRule => {
            listing.ruleset = match api.call(&call).await {
                Err(error) if error.is_absent() => Value::Null,
                other => other?,
            }
        }
        Kind::Kv => listing.namespaces = api.list(&call, None).await?,
        Kind::Monitor => listing.monitors = api.list(&call, None).await?,
        Kind::Pool => listing.pools = api.list(&call, None).await?,
        Kind::LoadBalancer => listing.balancers = api.list(&call, None).await?,
        Kind::Route => listing.routes = api.list(&call, None).await?,
    }
    Ok(())
}

/// The things of one kind, sorted.
///
/// # Errors
/// A call fails.
pub async fn of_kind(api: &Api, calls: &Calls, desired: &Desired, kind: Kind) -> Result<Observed, ApiError> {
    let mut listing = Listing::default();
    add(&mut listing, api, calls, kind).await?;
    let made = desired.resources.iter().map(cloud::cloudflare::Resource::address).collect();
    Ok(Observed::of(&listing, desired, &made))
}

/// The worker alone, as it is now.
///
/// # Errors
/// A call fails.
pub async fn worker(api: &Api, calls: &Calls, desired: &Desired) -> Result<Observed, ApiError> {
    let mut listing = Listing { scripts: api.list(&calls.scripts(), None).await?, ..Listing::default() };
    if listing.scripts.iter().any(|script| script["id"] == desired.settings.worker.as_str()) {
        listing.versions = api.list(&calls.versions(), Some("items")).await?;
        listing.deployments = api.list(&calls.deployments(), Some("deployments")).await?;
    }
    Ok(Observed::of(&listing, desired, &std::collections::BTreeSet::new()))
}
