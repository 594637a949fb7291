//! The server's own statistics of a model, before and after a run.
//!
//! Must not know how they were fetched.

use serde::Serialize;
use serde_json::Value;

use crate::grpc::{ModelStatisticsResponse, StatisticDuration};

/// Sums of one model's statistics over its versions, in Triton's counting.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct ServerStats {
    /// Rows inferred.
    pub inference_count: u64,
    /// Batches run.
    pub execution_count: u64,
    /// Successful requests.
    pub success_count: u64,
    /// Failed requests.
    pub fail_count: u64,
    /// Time of successful requests, all in.
    pub success_ns: u64,
    /// Time in the queue.
    pub queue_ns: u64,
    /// Time spent on inputs.
    pub compute_input_ns: u64,
    /// Time in the model.
    pub compute_infer_ns: u64,
    /// Time spent on outputs.
    pub compute_output_ns: u64,
}

/// What happened between two readings, a successful request.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct ServerShare {
    /// Successful requests between the readings.
    pub requests: u64,
    /// Failed requests between the readings.
    pub failed: u64,
    /// Mean rows of a batch that ran.
    pub batch_rows: f64,
    /// Whole time in the server.
    pub total_us: f64,
    /// Time in the queue.
    pub queue_us: f64,
    /// Time spent on inputs.
    pub compute_input_us: f64,
    /// Time in the model.
    pub compute_infer_us: f64,
    /// Time spent on outputs.
    pub compute_output_us: f64,
}

impl ServerStats {
    /// Reads `{"model_stats":[...]}`; `None` when that is not its shape.
    pub(crate) fn from_json(value: &Value) -> Option<Self> {
        let mut sum = Self::default();
        for model in value.get("model_stats")?.as_array()? {
            let stats = model.get("inference_stats");
            let of = |name: &str, part: &str| {
                let duration = stats.and_then(|s| s.get(name));
                number(duration.and_then(|d| d.get(part)))
            };
            sum.inference_count += number(model.get("inference_count"));
            sum.execution_count += number(model.get("execution_count"));
            sum.success_count += of("success", "count");
            sum.fail_count += of("fail", "count");
            sum.success_ns += of("success", "ns");
            sum.queue_ns += of("queue", "ns");
            sum.compute_input_ns += of("compute_input", "ns");
            sum.compute_infer_ns += of("compute_infer", "ns");
            sum.compute_output_ns += of("compute_output", "ns");
        }
        Some(sum)
    }

    /// Sums the gRPC answer.
    pub(crate) fn from_grpc(answer: ModelStatisticsResponse) -> Self {
        let mut sum = Self::default();
        for model in answer.model_stats {
            let stats = model.inference_stats.unwrap_or_default();
            let success = stats.success.unwrap_or_default();
            let ns = |duration: Option<StatisticDuration>| duration.map_or(0, |d| d.ns);
            sum.inference_count += model.inference_count;
            sum.execution_count += model.execution_count;
            sum.success_count += success.count;
            sum.success_ns += success.ns;
            sum.fail_count += stats.fail.map_or(0, |d| d.count);
            sum.queue_ns += ns(stats.queue);
            sum.compute_input_ns += ns(stats.compute_input);
            sum.compute_infer_ns += ns(stats.compute_infer);
            sum.compute_output_ns += ns(stats.compute_output);
        }
        sum
    }

    /// What happened since `before`; `None` when no request succeeded or the counts went back.
    pub(crate) fn since(&self, before: &Self) -> Option<ServerShare> {
        let requests = self.success_count.checked_sub(before.success_count)?;
        if requests == 0 {
            return None;
        }
        let each_us =
            |after: u64, before: u64| after.saturating_sub(before) as f64 / 1000.0 / requests as f64;
        let rows = self.inference_count.saturating_sub(before.inference_count);
        let batches = self.execution_count.saturating_sub(before.execution_count);
        Some(ServerShare {
            requests,
            failed: self.fail_count.saturating_sub(before.fail_count),
            batch_rows: rows as f64 / batches.max(1) as f64,
            total_us: each_us(self.success_ns, before.success_ns),
            queue_us: each_us(self.queue_ns, before.queue_ns),
            compute_input_us: each_us(self.compute_input_ns, before.compute_input_ns),
            compute_infer_us: each_us(self.compute_infer_ns, before.compute_infer_ns),
            compute_output_us: each_us(self.compute_output_ns, before.compute_output_ns),
        })
    }
}

/// Triton's gRPC-JSON prints 64-bit numbers as strings, its HTTP as numbers; both are read.
fn number(value: Option<&Value>) -> u64 {
    match value {
        Some(Value::String(text)) => text.parse().unwrap_or(0),
        Some(value) => value.as_u64().unwrap_or(0),
        None => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn difference_of_two_readings() {
        let reading = |n: u64| {
            let text = format!(
                r#"{{"model_stats":[{{"inference_count":{},"execution_count":"{n}","inference_stats":
                {{"success":{{"count":{n},"ns":{}}},"queue":{{"count":{n},"ns":{}}}}}}}]}}"#,
                4 * n,
                n * 9000,
                n * 2000
            );
            ServerStats::from_json(&serde_json::from_str(&text).unwrap()).unwrap()
        };
        let share = reading(30).since(&reading(10)).unwrap();
        assert_eq!((share.requests, share.batch_rows), (20, 4.0));
        assert_eq!((share.total_us, share.queue_us), (9.0, 2.0));
        assert_eq!(reading(1).since(&reading(1)), None);
        assert_eq!(reading(1).since(&reading(2)), None);
        assert_eq!(ServerStats::from_json(&serde_json::json!({"error": "x"})), None);
    }
}
