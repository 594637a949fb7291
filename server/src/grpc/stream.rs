//! `ModelStreamInfer`: many requests over one stream, answered side by side, each in its own time. A request that
//! fails is answered in words, and the stream goes on. Must not know how one request is answered.

use std::sync::Arc;

use gannet_runtime::Time;
use http::HeaderMap;
use prost::Message as _;
use tokio::{sync::mpsc, task::JoinSet};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Status, Streaming};

use super::{
    infer::{self, Beside},
    pb::{self, infer_parameter::ParameterChoice},
};
use crate::{respond::Refusal, state::State};

/// Requests of one stream that run side by side; the caller's next ones wait in its own flow control.
const REQUESTS_MAX: usize = 64;
/// Answers that wait to be sent.
const ANSWERS_MAX: usize = 64;

/// The answers of one stream.
pub(super) type Answers = ReceiverStream<Result<pb::ModelStreamInferResponse, Status>>;

type Sender = mpsc::Sender<Result<pb::ModelStreamInferResponse, Status>>;

/// Answers the stream's requests until the caller ends it or leaves.
pub(super) fn answers(
    state: Arc<State>,
    requests: Request<Streaming<pb::ModelInferRequest>>,
    deadline: Option<Time>,
) -> Answers {
    let (answers, receiver) = mpsc::channel(ANSWERS_MAX);
    let (metadata, _, requests) = requests.into_parts();
    let shared = Arc::new(Shared { state, metadata: metadata.into_headers(), deadline });
    tokio::spawn(drive(shared, requests, answers));
    ReceiverStream::new(receiver)
}

/// What all requests of one stream share.
struct Shared {
    state: Arc<State>,
    metadata: HeaderMap,
    deadline: Option<Time>,
}

/// Takes requests as long as there is room. Ending it drops what still runs.
async fn drive(shared: Arc<Shared>, mut requests: Streaming<pb::ModelInferRequest>, answers: Sender) {
    let mut running = JoinSet::new();
    loop {
        let room = running.len() < REQUESTS_MAX;
        tokio::select! {
            () = answers.closed() => return,
            Some(_) = running.join_next() => {}
            request = requests.message(), if room => match request {
                Ok(Some(request)) => {
                    running.spawn(answer(Arc::clone(&shared), request, answers.clone()));
                }
                Ok(None) => break,
                Err(status) => {
                    let _ = answers.send(Err(status)).await;
                    return;
                }
            },
        }
    }
    loop {
        tokio::select! {
            () = answers.closed() => return,
            ended = running.join_next() => if ended.is_none() { return },
        }
    }
}

async fn answer(shared: Arc<Shared>, request: pb::ModelInferRequest, answers: Sender) {
    let Shared { state, metadata, deadline } = &*shared;
    let id = request.id.clone();
    let mut permit = state.admission.permit();
    let result = match permit.grow(request.encoded_len()) {
        Ok(()) => infer::answer(state, request, Beside { metadata, deadline: *deadline }).await,
        Err(refusal) => Err(refusal),
    };
    // Whether the caller still listens is checked where the stream is driven.
    let _ = answers.send(Ok(last_answer(id, result))).await;
}

/// The only answer to a request is its last, which the protocol's clients want marked.
fn last_answer(id: String, result: Result<pb::ModelInferResponse, Refusal>) -> pb::ModelStreamInferResponse {
    let (error_message, mut response) = match result {
        Ok(response) => (String::new(), response),
        Err(refusal) => {
            (refusal.message.into_owned(), pb::ModelInferResponse { id, ..pb::ModelInferResponse::default() })
        }
    };
    let last = pb::InferParameter { parameter_choice: Some(ParameterChoice::BoolParam(true)) };
    response.parameters.insert("triton_final_response".to_owned(), last);
    pb::ModelStreamInferResponse { error_message, infer_response: Some(response) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_answer_is_marked_as_the_last() {
        let check = |result: Result<pb::ModelInferResponse, Refusal>, expected_message: &str| {
            let answer = last_answer("7".into(), result);
            assert_eq!(answer.error_message, expected_message);
            let response = answer.infer_response.unwrap();
            assert_eq!(response.id, "7");
            let last = &response.parameters["triton_final_response"];
            assert_eq!(last.parameter_choice, Some(ParameterChoice::BoolParam(true)));
        };
        check(Ok(pb::ModelInferResponse { id: "7".into(), ..Default::default() }), "");
        check(Err(Refusal::invalid("no")), "no");
    }
}
