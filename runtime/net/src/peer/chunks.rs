//! The way by which a region asks the others for chunks of large values.

use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use data::ChunkSource;
use model::RegionId;
use model::object::{ChunkAnswer, ChunkQuestion};

use super::PeerClient;

/// Asks each region over a connection that carries nothing else.
pub struct PeerChunks(BTreeMap<RegionId, Arc<PeerClient>>);

impl PeerChunks {
    /// Over these clients.
    pub fn new(clients: impl IntoIterator<Item = PeerClient>) -> Self {
        Self(clients.into_iter().map(|client| (client.peer().clone(), Arc::new(client))).collect())
    }
}

impl ChunkSource for PeerChunks {
    fn ask(
        &self,
        region: &RegionId,
        question: ChunkQuestion,
    ) -> Pin<Box<dyn Future<Output = Result<ChunkAnswer, String>> + Send>> {
        let client = self.0.get(region).cloned();
        let unknown = format!("{region} is not a region of this deployment");
        Box::pin(async move {
            let client = client.ok_or(unknown)?;
            client.chunk(&question).await.map_err(|error| error.to_string())
        })
    }
}
