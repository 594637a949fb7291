//! What the server says of itself, copied into messages, field by field. Must not know where any figure comes from.

use prost::Message as _;
use prost_reflect::DynamicMessage;

use crate::{
    describe,
    grpc::pb,
    respond::{Kind, Refusal},
};

/// Both are the same schema; the generated type is another view of the same bytes.
///
/// # Errors
/// Never, unless the two copies of the schema differ.
pub(super) fn model_config(config: &DynamicMessage) -> Result<pb::ModelConfigResponse, Refusal> {
    match pb::ModelConfig::decode(&config.encode_to_vec()[..]) {
        Ok(config) => Ok(pb::ModelConfigResponse { config: Some(config) }),
        Err(error) => Err(Refusal::new(Kind::Internal, format!("the configuration cannot be sent: {error}"))),
    }
}

impl From<describe::ServerMetadata> for pb::ServerMetadataResponse {
    fn from(metadata: describe::ServerMetadata) -> Self {
        let describe::ServerMetadata { name, version, extensions } = metadata;
        Self {
            name: name.to_owned(),
            version: version.to_owned(),
            extensions: extensions.iter().map(|&extension| extension.to_owned()).collect(),
        }
    }
}

impl From<describe::ModelMetadata> for pb::ModelMetadataResponse {
    fn from(metadata: describe::ModelMetadata) -> Self {
        let describe::ModelMetadata { name, versions, platform, inputs, outputs } = metadata;
        Self {
            name,
            versions,
            platform: platform.to_owned(),
            inputs: inputs.into_iter().map(Into::into).collect(),
            outputs: outputs.into_iter().map(Into::into).collect(),
            ..Self::default()
        }
    }
}

impl From<describe::TensorMetadata> for pb::model_metadata_response::TensorMetadata {
    fn from(tensor: describe::TensorMetadata) -> Self {
        let describe::TensorMetadata { name, datatype, shape } = tensor;
        Self { name, datatype: datatype.to_owned(), shape }
    }
}

impl From<describe::StatisticsList> for pb::ModelStatisticsResponse {
    fn from(list: describe::StatisticsList) -> Self {
        Self { model_stats: list.model_stats.into_iter().map(Into::into).collect() }
    }
}

impl From<describe::ModelStatistics> for pb::ModelStatistics {
    fn from(statistics: describe::ModelStatistics) -> Self {
        let describe::ModelStatistics {
            name,
            version,
            last_inference,
            inference_count,
            execution_count,
            inference_stats,
            response_stats,
            batch_stats,
            memory_usage,
        } = statistics;
        Self {
            name,
            version,
            last_inference,
            inference_count,
            execution_count,
            inference_stats: Some(inference_stats.into()),
            batch_stats: batch_stats.into_iter().map(Into::into).collect(),
            memory_usage: memory_usage.into_iter().map(Into::into).collect(),
            response_stats: response_stats.into_iter().map(|(key, stats)| (key, stats.into())).collect(),
        }
    }
}

impl From<describe::Duration> for pb::StatisticDuration {
    fn from(duration: describe::Duration) -> Self {
        Self { count: duration.count, ns: duration.ns }
    }
}

impl From<describe::InferenceStatistics> for pb::InferStatistics {
    fn from(statistics: describe::InferenceStatistics) -> Self {
        Self {
            success: Some(statistics.success.into()),
            fail: Some(statistics.fail.into()),
            queue: Some(statistics.queue.into()),
            compute_input: Some(statistics.compute_input.into()),
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
            cache_hit: Some(statistics.cache_hit.into()),
            cache_miss: Some(statistics.cache_miss.into()),
        }
    }
}

impl From<describe::ResponseStatistics> for pb::InferResponseStatistics {
    fn from(statistics: describe::ResponseStatistics) -> Self {
        Self {
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
            success: Some(statistics.success.into()),
            fail: Some(statistics.fail.into()),
            empty_response: Some(statistics.empty_response.into()),
            cancel: Some(statistics.cancel.into()),
        }
    }
}

impl From<describe::BatchStatistics> for pb::InferBatchStatistics {
    fn from(statistics: describe::BatchStatistics) -> Self {
        Self {
            batch_size: statistics.batch_size as u64,
            compute_input: Some(statistics.compute_input.into()),
            compute_infer: Some(statistics.compute_infer.into()),
            compute_output: Some(statistics.compute_output.into()),
        }
    }
}

impl From<describe::MemoryUsage> for pb::MemoryUsage {
    fn from(usage: describe::MemoryUsage) -> Self {
        Self { r#type: usage.r#type, id: usage.id, byte_size: usage.byte_size }
    }
}
