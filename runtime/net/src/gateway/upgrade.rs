//! WebSockets: once both sides have agreed, bytes are passed both ways.

use http::{Response, header};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::copy_bidirectional;
use tokio::time::timeout;

use super::Gateway;
use crate::limits;
use crate::problem::Problem;
use crate::serve::{Body, empty};

impl Gateway {
    /// Answers 101 to the client and joins the two connections until either ends.
    pub(super) fn join_upgrade(
        &self,
        client: OnUpgrade,
        mut response: Response<Incoming>,
    ) -> Result<Response<Body>, Problem> {
        let Ok(permit) = self.upgraded.clone().try_acquire_owned() else {
            return Err(Problem::unavailable("too-many-upgrades", "too many upgraded connections are open"));
        };
        let service = hyper::upgrade::on(&mut response);
        let shutdown = self.shutdown.clone();
        tokio::spawn(async move {
            let _permit = permit;
            let work = async {
                let (client, service) = tokio::try_join!(client, service)?;
                let (mut client, mut service) = (TokioIo::new(client), TokioIo::new(service));
                // How a connection that is no longer HTTP ends is for its two ends to know.
                let _ = copy_bidirectional(&mut client, &mut service).await;
                Ok::<_, hyper::Error>(())
            };
            tokio::select! {
                () = shutdown.cancelled() => {}
                ended = timeout(limits::UPGRADED_TIME, work) => {
                    if let Ok(Err(error)) = ended {
                        tracing::debug!(%error, "an upgrade did not come about");
                    }
                }
            }
        });
        let (mut head, _) = response.into_parts();
        // The only headers of one connection that must stay: they are the agreement itself.
        head.headers.insert(header::CONNECTION, http::HeaderValue::from_static("upgrade"));
        Ok(Response::from_parts(head, empty()))
    }
}
