//! The model repository calls: index, load, unload. Must not know how models are found or loaded.

use super::pb::{self, model_repository_parameter::ParameterChoice, repository_index_response::ModelIndex};
use crate::{
    repository::LoadOverride,
    respond::{Kind, Refusal},
    state::State,
};

/// Lists what is known.
///
/// # Errors
/// When one of several repositories is named: there is only one.
pub(super) fn index(
    state: &State,
    request: &pb::RepositoryIndexRequest,
) -> Result<pb::RepositoryIndexResponse, Refusal> {
    refuse_name(&request.repository_name)?;
    let entries = state.repository.index(request.ready).into_iter();
    let models = entries.map(|entry| ModelIndex {
        name: entry.name,
        version: entry.version,
        state: entry.state.to_owned(),
        reason: entry.reason,
    });
    Ok(pb::RepositoryIndexResponse { models: models.collect() })
}

/// Loads a model and waits until it serves.
///
/// # Errors
/// When that is not allowed here, or fails.
pub(super) async fn load(state: &State, request: pb::RepositoryModelLoadRequest) -> Result<(), Refusal> {
    refuse_name(&request.repository_name)?;
    state.allow_repository_change()?;
    let change = read_override(request.parameters)?;
    state.repository.load(&request.model_name, change).await
}

/// Unloads a model and waits until it is gone.
///
/// # Errors
/// When that is not allowed here, or the model is unknown.
pub(super) async fn unload(state: &State, request: pb::RepositoryModelUnloadRequest) -> Result<(), Refusal> {
    refuse_name(&request.repository_name)?;
    state.allow_repository_change()?;
    // `unload_dependents` is taken and changes nothing: no model here depends on another.
    state.repository.unload(&request.model_name).await
}

fn refuse_name(repository_name: &str) -> Result<(), Refusal> {
    match repository_name {
        "" => Ok(()),
        _ => Err(Refusal::new(Kind::Unsupported, "'repository_name' specification is not supported")),
    }
}

/// The configuration and files that came along.
fn read_override(
    parameters: impl IntoIterator<Item = (String, pb::ModelRepositoryParameter)>,
) -> Result<LoadOverride, Refusal> {
    let mut change = LoadOverride::default();
    for (name, value) in parameters {
        let got = match value.parameter_choice {
            Some(ParameterChoice::StringParam(config)) if name == "config" => {
                change.config = Some(config);
                continue;
            }
            Some(ParameterChoice::BytesParam(content)) if name.starts_with("file:") => {
                change.files.push((name["file:".len()..].to_owned(), content));
                continue;
            }
            Some(ParameterChoice::BoolParam(_)) => "bool_param",
            Some(ParameterChoice::Int64Param(_)) => "int64_param",
            Some(ParameterChoice::StringParam(_)) => "string_param",
            Some(ParameterChoice::BytesParam(_)) => "bytes_param",
            None => "nothing",
        };
        return Err(Refusal::invalid(format!(
            "load parameter '{name}': expected 'config' with string_param or 'file:<version>/<name>' with \
             bytes_param, got {got}"
        )));
    }
    change.files.sort_by(|(a, _), (b, _)| a.cmp(b));
    Ok(change)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::state::RepositoryAccess;

    #[test]
    fn load_parameters_are_read() {
        let check = |name: &str, choice: ParameterChoice, expected: Result<&str, &str>| {
            let value = pb::ModelRepositoryParameter { parameter_choice: Some(choice) };
            match (read_override([(name.to_owned(), value)]), expected) {
                (Ok(change), Ok(expected)) => {
                    let files: Vec<&str> = change.files.iter().map(|(name, _)| name.as_str()).collect();
                    assert_eq!(change.config.as_deref().unwrap_or(&files.join(",")), expected);
                }
                (Err(refusal), Err(words)) => assert!(refusal.message.contains(words), "{refusal:?}"),
                (got, expected) => panic!("{name}: expected {expected:?}, got {got:?}"),
            }
        };
        check("config", ParameterChoice::StringParam("{}".into()), Ok("{}"));
        check("file:1/model.onnx", ParameterChoice::BytesParam(Bytes::from_static(b"x")), Ok("1/model.onnx"));
        check("file:1/model.onnx", ParameterChoice::StringParam("eA==".into()), Err("got string_param"));
        check("config", ParameterChoice::BoolParam(true), Err("got bool_param"));
        check("other", ParameterChoice::StringParam("x".into()), Err("'other'"));
    }

    #[test]
    fn refusals_say_how_to_allow_it() {
        assert!(RepositoryAccess::Full.check().is_ok());
        let refusal = RepositoryAccess::Index.check().unwrap_err();
        assert_eq!(refusal.kind.code(), tonic::Code::PermissionDenied);
        assert!(refusal.message.contains("--model-control explicit"));
        assert_eq!(refuse_name("a").unwrap_err().kind.code(), tonic::Code::Unimplemented);
        assert!(refuse_name("").is_ok());
    }
}
