//! Cosigning as it travels: statuses and bodies of C2SP tlog-witness (<https://c2sp.org/tlog-witness>).

use compliance::ledger::{CheckpointError, NoteError, WitnessError};
use http::{HeaderValue, Response, StatusCode, header};
use model::RegionId;

use crate::problem::Problem;
use crate::serve::{Body, full};

/// What a witness answers when it has nothing against the ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CosignAnswer {
    /// The signature line, not yet verified.
    Line(String),
    /// It last cosigned this size; the proof must lead from there.
    From(u64),
}

/// Why a region does not cosign.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CosignRefusal {
    /// The witness's own reasons.
    #[error(transparent)]
    Witness(#[from] WitnessError),
    /// A region may show its own ledger only.
    #[error("{from} shows the ledger {origin}, which is not its own")]
    OtherLedger {
        /// Who asked.
        from: RegionId,
        /// The ledger that it showed.
        origin: String,
    },
    /// What was cosigned could not be kept; nothing was signed then.
    #[error("the checkpoint could not be kept: {0}")]
    NotKept(String),
}

impl CosignRefusal {
    /// The status by the specification.
    fn status(&self) -> StatusCode {
        match self {
            Self::NotKept(_) => StatusCode::SERVICE_UNAVAILABLE,
            Self::OtherLedger { .. } => StatusCode::FORBIDDEN,
            Self::Witness(error) => match error {
                WitnessError::UnknownLedger { .. } => StatusCode::NOT_FOUND,
                WitnessError::Checkpoint(CheckpointError::Note(
                    NoteError::Unsigned { .. } | NoteError::Forged { .. },
                )) => StatusCode::FORBIDDEN,
                WitnessError::Checkpoint(_) => StatusCode::BAD_REQUEST,
                WitnessError::OldSize { .. } | WitnessError::Shrunk { .. } => StatusCode::CONFLICT,
                WitnessError::Forked { seen, offered, .. } if seen == offered => StatusCode::CONFLICT,
                WitnessError::Forked { .. } => StatusCode::UNPROCESSABLE_ENTITY,
            },
        }
    }

    /// The size that goes with a conflict.
    fn size(&self) -> Option<u64> {
        match self {
            Self::Witness(WitnessError::OldSize { ours: size, .. } | WitnessError::Shrunk { seen: size, .. }) => {
                Some(*size)
            }
            Self::Witness(WitnessError::Forked { seen, offered, .. }) if seen == offered => Some(*seen),
            _ => None,
        }
    }

    pub(super) fn response(&self) -> Response<Body> {
        let Some(size) = self.size() else {
            return Problem::new(self.status(), "cosign", self.to_string()).response();
        };
        let mut response = Response::new(full(format!("{size}\n")));
        *response.status_mut() = self.status();
        let kind = HeaderValue::from_static("text/x.tlog.size");
        response.headers_mut().insert(header::CONTENT_TYPE, kind);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fork_is_never_answered_like_a_stale_proof() {
        let origin = || "repomind/eu-west".to_owned();
        let status = |error: WitnessError| CosignRefusal::from(error).status().as_u16();
        assert_eq!(status(WitnessError::OldSize { origin: origin(), ours: 7, offered: 3 }), 409);
        assert_eq!(status(WitnessError::Shrunk { origin: origin(), seen: 7, offered: 3 }), 409);
        assert_eq!(status(WitnessError::Forked { origin: origin(), seen: 7, offered: 7 }), 409);
        assert_eq!(status(WitnessError::Forked { origin: origin(), seen: 7, offered: 9 }), 422);
        assert_eq!(status(WitnessError::UnknownLedger { origin: origin() }), 404);
        let forged = CheckpointError::Note(NoteError::Forged { name: origin() });
        assert_eq!(status(WitnessError::Checkpoint(forged)), 403);
        assert_eq!(status(WitnessError::Checkpoint(CheckpointError::Layout("it is empty"))), 400);
    }
}
