//! The plans of one generation: what requests, writes and shipments are answered from.

use model::bundle::TreeHash;
use model::edge::EdgePlan;
use model::eviction::PlanStamp;
use model::record::DataClass;
use model::replication::{AckLevel, ConflictResolution, LagAction, LagBands, ReplicationPlan, Strategy};
use model::residency::ResidencyPlan;
use model::routing::{Ranking, RoutingPlan};
use model::{Millis, routing::ClientClass};

/// Everything that one policy generation decided, immutable once in force.
#[derive(Clone, Debug, PartialEq)]
pub struct Plans {
    /// The generation; 0 before the first.
    pub generation: u64,
    /// The hash of its files; none before the first.
    pub policy: Option<TreeHash>,
    /// Strategies by namespace.
    pub replication: ReplicationPlan,
    /// What happens at which lag.
    pub lag: LagBands,
    /// Where records may be.
    pub residency: ResidencyPlan,
    /// Where requests go.
    pub routing: RoutingPlan,
    /// What may be cached.
    pub edge: EdgePlan,
}

impl Plans {
    /// Names the rulings of this generation.
    pub fn stamp(&self) -> PlanStamp {
        PlanStamp { generation: self.generation, rulings: self.residency.digest() }
    }

    /// The plans before any policy was loaded: no region may hold anything, no request is routed.
    pub fn deny_all() -> Self {
        let default = Strategy {
            lag_target: Millis::from_secs(5),
            conflict_resolution: ConflictResolution::LastWriteWins,
            priority_regions: Vec::new(),
            ack: AckLevel::LOCAL,
            default_class: DataClass::Operational,
            labels: model::replication::LabelRules::default(),
            quota: Default::default(),
        };
        let nowhere = Ranking { regions: Vec::new() };
        Self {
            generation: 0,
            policy: None,
            replication: ReplicationPlan { default, namespaces: Default::default() },
            lag: LagBands(vec![(Millis::ZERO, LagAction::Ok)]),
            residency: ResidencyPlan::default(),
            routing: RoutingPlan {
                default: nowhere,
                by_class: std::collections::BTreeMap::<ClientClass, Ranking>::new(),
                dns: Default::default(),
            },
            edge: EdgePlan::default(),
        }
    }
}
