//! The calls of `inference.GRPCInferenceService` as tonic hands them over, each a line or two. Must not know frames or
//! compression, nor how any answer is found.

mod copy;

use std::sync::Arc;

use gannet_runtime::clock;
use prost::Message as _;
use tonic::{Request, Response, Status, Streaming, async_trait};

use super::{
    codec::named,
    deadline,
    infer::{self, Beside},
    pb::{self, grpc_inference_service_server::GrpcInferenceService},
    repository,
    stream::{self, Answers},
};
use crate::{
    describe,
    respond::{Kind, Refusal},
    state::State,
};

/// The service over the server's state.
#[derive(Debug)]
pub(super) struct InferenceService {
    state: Arc<State>,
}

impl InferenceService {
    pub(super) fn new(state: Arc<State>) -> Self {
        Self { state }
    }
}

fn answer<T>(result: Result<T, Refusal>) -> Result<Response<T>, Status> {
    result.map(Response::new).map_err(|refusal| refusal.to_status())
}

fn no_shared_memory<T>() -> Result<Response<T>, Status> {
    answer(Err(Refusal::new(
        Kind::Unsupported,
        "shared memory is not offered; send tensors in the request, raw ones are not copied",
    )))
}

#[async_trait]
impl GrpcInferenceService for InferenceService {
    async fn server_live(
        &self,
        _: Request<pb::ServerLiveRequest>,
    ) -> Result<Response<pb::ServerLiveResponse>, Status> {
        Ok(Response::new(pb::ServerLiveResponse { live: true }))
    }

    async fn server_ready(
        &self,
        _: Request<pb::ServerReadyRequest>,
    ) -> Result<Response<pb::ServerReadyResponse>, Status> {
        Ok(Response::new(pb::ServerReadyResponse { ready: self.state.is_ready() }))
    }

    async fn model_ready(
        &self,
        request: Request<pb::ModelReadyRequest>,
    ) -> Result<Response<pb::ModelReadyResponse>, Status> {
        let pb::ModelReadyRequest { name, version } = request.into_inner();
        let table = self.state.table().snapshot();
        let ready = describe::model_is_ready(&table, &name, named(version).as_deref());
        Ok(Response::new(pb::ModelReadyResponse { ready }))
    }

    async fn server_metadata(
        &self,
        _: Request<pb::ServerMetadataRequest>,
    ) -> Result<Response<pb::ServerMetadataResponse>, Status> {
        Ok(Response::new(describe::server_metadata().into()))
    }

    async fn model_metadata(
        &self,
        request: Request<pb::ModelMetadataRequest>,
    ) -> Result<Response<pb::ModelMetadataResponse>, Status> {
        let pb::ModelMetadataRequest { name, version } = request.into_inner();
        let table = self.state.table().snapshot();
        let metadata = describe::model_metadata(&table, &name, named(version).as_deref());
        answer(metadata.map(Into::into))
    }

    async fn model_infer(
        &self,
        request: Request<pb::ModelInferRequest>,
    ) -> Result<Response<pb::ModelInferResponse>, Status> {
        let deadline = deadline::read(request.metadata().as_ref(), clock::now());
        let (metadata, _, request) = request.into_parts();
        let mut permit = self.state.admission.permit();
        let admitted = permit.grow(request.encoded_len());
        answer(match (admitted, deadline) {
            (Ok(()), Ok(deadline)) => {
                let beside = Beside { metadata: metadata.as_ref(), deadline };
                infer::answer(&self.state, request, beside).await
            }
            (Err(refusal), _) | (_, Err(refusal)) => Err(refusal),
        })
    }

    type ModelStreamInferStream = Answers;

    async fn model_stream_infer(
        &self,
        request: Request<Streaming<pb::ModelInferRequest>>,
    ) -> Result<Response<Answers>, Status> {
        let deadline = deadline::read(request.metadata().as_ref(), clock::now());
        let answers = |deadline| stream::answers(Arc::clone(&self.state), request, deadline);
        answer(deadline.map(answers))
    }

    async fn model_config(
        &self,
        request: Request<pb::ModelConfigRequest>,
    ) -> Result<Response<pb::ModelConfigResponse>, Status> {
        let pb::ModelConfigRequest { name, version } = request.into_inner();
        let table = self.state.table().snapshot();
        let config = describe::model_config(&table, &name, named(version).as_deref());
        answer(config.and_then(|config| copy::model_config(&config)))
    }

    async fn model_statistics(
        &self,
        request: Request<pb::ModelStatisticsRequest>,
    ) -> Result<Response<pb::ModelStatisticsResponse>, Status> {
        let pb::ModelStatisticsRequest { name, version } = request.into_inner();
        let table = self.state.table().snapshot();
        let statistics = describe::statistics(&table, named(name).as_deref(), named(version).as_deref());
        answer(statistics.map(Into::into))
    }

    async fn repository_index(
        &self,
        request: Request<pb::RepositoryIndexRequest>,
    ) -> Result<Response<pb::RepositoryIndexResponse>, Status> {
        answer(repository::index(&self.state, request.get_ref()))
    }

    async fn repository_model_load(
        &self,
        request: Request<pb::RepositoryModelLoadRequest>,
    ) -> Result<Response<pb::RepositoryModelLoadResponse>, Status> {
        let request = request.into_inner();
        let mut permit = self.state.admission.permit();
        let loaded = match permit.grow(request.encoded_len()) {
            Ok(()) => repository::load(&self.state, request).await,
            Err(refusal) => Err(refusal),
        };
        answer(loaded.map(|()| pb::RepositoryModelLoadResponse {}))
    }

    async fn repository_model_unload(
        &self,
        request: Request<pb::RepositoryModelUnloadRequest>,
    ) -> Result<Response<pb::RepositoryModelUnloadResponse>, Status> {
        let unloaded = repository::unload(&self.state, request.into_inner()).await;
        answer(unloaded.map(|()| pb::RepositoryModelUnloadResponse {}))
    }

    async fn system_shared_memory_status(
        &self,
        _: Request<pb::SystemSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryStatusResponse>, Status> {
        no_shared_memory()
    }

    async fn system_shared_memory_register(
        &self,
        _: Request<pb::SystemSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryRegisterResponse>, Status> {
        no_shared_memory()
    }

    async fn system_shared_memory_unregister(
        &self,
        _: Request<pb::SystemSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::SystemSharedMemoryUnregisterResponse>, Status> {
        no_shared_memory()
    }

    async fn cuda_shared_memory_status(
        &self,
        _: Request<pb::CudaSharedMemoryStatusRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryStatusResponse>, Status> {
        no_shared_memory()
    }

    async fn cuda_shared_memory_register(
        &self,
        _: Request<pb::CudaSharedMemoryRegisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryRegisterResponse>, Status> {
        no_shared_memory()
    }

    async fn cuda_shared_memory_unregister(
        &self,
        _: Request<pb::CudaSharedMemoryUnregisterRequest>,
    ) -> Result<Response<pb::CudaSharedMemoryUnregisterResponse>, Status> {
        no_shared_memory()
    }

    async fn trace_setting(
        &self,
        _: Request<pb::TraceSettingRequest>,
    ) -> Result<Response<pb::TraceSettingResponse>, Status> {
        answer(Err(Refusal::new(
            Kind::Unsupported,
            "the trace extension is not offered; name a collector with trace.url, and send traceparent",
        )))
    }

    async fn log_settings(
        &self,
        _: Request<pb::LogSettingsRequest>,
    ) -> Result<Response<pb::LogSettingsResponse>, Status> {
        answer(Err(Refusal::new(
            Kind::Unsupported,
            "the logging extension is not offered; what is logged is set when the server starts",
        )))
    }
}
