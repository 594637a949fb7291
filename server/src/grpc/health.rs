//! `grpc.health.v1`: the server under the empty name, its services and its models under theirs. Must not know what
//! makes a server or a model ready.

use std::{sync::Arc, time::Duration};

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tonic_health::pb::{
    HealthCheckRequest, HealthCheckResponse,
    health_check_response::ServingStatus,
    health_server::{Health, HealthServer},
};

use super::SERVICE_NAME;
use crate::{
    describe,
    respond::{Kind, Refusal},
    state::State,
};

/// Time between two looks on behalf of a caller who watches.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Services that work whether or not any model does.
const ALWAYS_SERVING: [&str; 3] = [
    "grpc.health.v1.Health",
    "grpc.reflection.v1.ServerReflection",
    "grpc.reflection.v1alpha.ServerReflection",
];

#[derive(Debug)]
pub(super) struct HealthService {
    state: Arc<State>,
}

impl HealthService {
    pub(super) fn server(state: Arc<State>) -> HealthServer<Self> {
        HealthServer::new(Self { state })
    }
}

/// The status of a service or model, if there is one of that name.
fn status(state: &State, name: &str) -> Option<ServingStatus> {
    let serving = if name.is_empty() || name == SERVICE_NAME {
        state.is_ready()
    } else if ALWAYS_SERVING.contains(&name) {
        true
    } else {
        let table = state.table().snapshot();
        if table.model(name).is_none() && !state.repository.inventory().models.contains_key(name) {
            return None;
        }
        describe::model_is_ready(&table, name, None)
    };
    Some(if serving { ServingStatus::Serving } else { ServingStatus::NotServing })
}

#[tonic::async_trait]
impl Health for HealthService {
    async fn check(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<HealthCheckResponse>, Status> {
        let name = request.into_inner().service;
        match status(&self.state, &name) {
            Some(status) => Ok(Response::new(HealthCheckResponse { status: status.into() })),
            None => {
                let message = format!(
                    "no service or model '{name}'; known are '' (the server), '{SERVICE_NAME}' and the models of the \
                     index"
                );
                Err(Refusal::new(Kind::NotFound, message).to_status())
            }
        }
    }

    type WatchStream = ReceiverStream<Result<HealthCheckResponse, Status>>;

    async fn watch(
        &self,
        request: Request<HealthCheckRequest>,
    ) -> Result<Response<Self::WatchStream>, Status> {
        let name = request.into_inner().service;
        let state = Arc::clone(&self.state);
        let (changes, receiver) = mpsc::channel(1);
        tokio::spawn(async move {
            let look = || status(&state, &name).unwrap_or(ServingStatus::ServiceUnknown);
            let mut told = None;
            loop {
                let now = look();
                if told != Some(now) {
                    if changes.send(Ok(HealthCheckResponse { status: now.into() })).await.is_err() {
                        return;
                    }
                    told = Some(now);
                }
                if tokio::time::timeout(WATCH_INTERVAL, changes.closed()).await.is_ok() {
                    return;
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }
}
