//! Process-wide counters, kept by the metrics crate's recorder. Their series never vanish. Must not know models.

#![expect(clippy::disallowed_macros, reason = "this is the metrics module")]

/// One servable destroyed.
pub fn unload() {
    metrics::counter!("gannet_unloads_total").increment(1);
}

/// Requests refused before a model was known, by reason.
pub fn refused(reason: &'static str) {
    metrics::counter!("gannet_refused_total", "reason" => reason).increment(1);
}

/// Spans of traced requests, by what became of them; of those that found no room, requests.
pub fn traced(outcome: &'static str, count: u64) {
    metrics::counter!("gannet_trace_spans_total", "outcome" => outcome).increment(count);
}

/// Open connections of one listener.
pub fn connections(listener: &'static str, open: usize) {
    #[expect(clippy::cast_precision_loss, reason = "a count of connections")]
    metrics::gauge!("gannet_connections", "listener" => listener).set(open as f64);
}

/// Describes the families above and sets the ones that are always shown. Call once, after the recorder is set.
pub fn describe(version: &'static str, runtime: &str) {
    metrics::describe_counter!("gannet_unloads_total", "Versions destroyed after their last request.");
    metrics::describe_counter!("gannet_refused_total", "Requests refused before a model was known.");
    metrics::describe_counter!(
        "gannet_trace_spans_total",
        "Spans of traced requests, by what became of them."
    );
    metrics::describe_gauge!("gannet_connections", "Open connections.");
    metrics::describe_gauge!("gannet_build_info", "Always 1; the labels say what runs.");
    metrics::gauge!("gannet_build_info", "version" => version, "onnxruntime" => runtime.to_owned()).set(1.0);
    metrics::counter!("gannet_unloads_total").absolute(0);
}
