//! Mistakes that this crate could make, to be made on purpose by a simulator: its checkers must catch each one.
//!
//! Without the feature `faults` none of them can be made, and none of the code for them is there.

/// A mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A write is acknowledged, and shipped, before it is on disk.
    AckBeforeSync,
    /// A restart goes on in the incarnation before, from its first counter.
    ReuseCounter,
    /// Tombstones go as soon as one sees them, and leave no grave.
    DropTombstone,
    /// Every region is given every entry, and takes it.
    IgnoreScope,
    /// Among concurrent writes, the one that arrived last stays.
    LastArrivalWins,
    /// This region shows another of several concurrent writes than the others do.
    FoldDifferently,
    /// A region that was given rows says that it is as far as the giver in every log.
    AdoptEverything,
    /// Logs are cut whether or not peers have what is cut, and no rows are given instead.
    TrimUnacked,
    /// Rows that are given take nothing away from the receiver.
    KeepWhatIsGone,
    /// What a rerouted client has seen elsewhere is not waited for.
    IgnoreContext,
    /// What loses against a concurrent write is not noted.
    ForgetLosers,
    /// Concurrent writes lie in the order in which they arrived, so that what is made of them depends on it.
    FoldAsArrived,
    /// A damaged row is mended by whatever the first region gives, however far behind that is, and without a look at the
    /// logs that are here.
    MendFromAny,
    /// This region settles conflicts by another resolver than the others do.
    OtherResolver,
    /// Readers are shown what is over.
    ShowExpired,
    /// A delete because a time is over is stamped like one that somebody asked for.
    ExpireLikeAWrite,
    /// The condition of a write is not looked at.
    IgnoreCondition,
    /// Quotas bound nothing.
    IgnoreQuota,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 18] = [
        Self::AckBeforeSync,
        Self::ReuseCounter,
        Self::DropTombstone,
        Self::IgnoreScope,
        Self::LastArrivalWins,
        Self::FoldDifferently,
        Self::AdoptEverything,
        Self::TrimUnacked,
        Self::KeepWhatIsGone,
        Self::IgnoreContext,
        Self::ForgetLosers,
        Self::FoldAsArrived,
        Self::MendFromAny,
        Self::OtherResolver,
        Self::ShowExpired,
        Self::ExpireLikeAWrite,
        Self::IgnoreCondition,
        Self::IgnoreQuota,
    ];
}

/// The mistake that a region makes, if any.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Faults {
    #[cfg(feature = "faults")]
    pub(crate) made: Option<Fault>,
}

impl Faults {
    /// Whether this mistake is to be made here.
    #[cfg(feature = "faults")]
    pub(crate) fn makes(self, fault: Fault) -> bool {
        self.made == Some(fault)
    }

    /// Whether this mistake is to be made here.
    #[cfg(not(feature = "faults"))]
    pub(crate) const fn makes(self, _: Fault) -> bool {
        false
    }
}
