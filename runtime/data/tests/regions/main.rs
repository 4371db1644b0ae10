//! Regions that exchange shipments in memory: no socket, real disks.

mod convergence;
mod copies;
mod evicting;
mod expiring;
mod forgetting;
mod graves;
mod harness;
mod ledger;
mod lives;
mod losses;
mod lost_disks;
mod mending;
mod moves;
mod objects;
mod petitions;
mod quota;
mod sealing;
mod together;
mod two_regions;
mod watching;
