//! Which of a model's flavours can be served, and how its files are then called; for the others, what to do instead.
//! Pickles are never opened. Must not know where files are.

use super::mlmodel::MlModel;
use crate::RemoteError;

/// How ONNX Runtime's file is called in the store, and LibTorch's.
const ONNX_FILE: &str = "model.onnx";
const TORCH_FILE: &str = "model.pt";

/// The route that is always open.
const ROUTE: &str = "log it as ONNX instead: mlflow.onnx.log_model(onnx_model, name=..., signature=...)";

/// What becomes of the files.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Shape {
    /// (as fetched, as stored).
    pub(super) renames: Vec<(String, String)>,
    pub(super) torch_script: Option<String>,
}

/// Chooses among the flavours of a model with these files.
pub(super) fn choose(model: &MlModel, paths: &[&str]) -> Result<Shape, RemoteError> {
    if let Some(onnx) = model.flavors.get("onnx") {
        let data = onnx["data"].as_str().unwrap_or(ONNX_FILE);
        if !paths.contains(&data) {
            return Err(RemoteError::Unusable(format!(
                "MLmodel names the file '{data}', which is not there"
            )));
        }
        return Ok(Shape { renames: moved(data, ONNX_FILE, paths)?, torch_script: None });
    }
    if let Some(torch) = model.flavors.get("pytorch") {
        let folder = torch["model_data"].as_str().unwrap_or("data");
        let exported = format!("{folder}/model.pt2");
        if paths.contains(&exported.as_str()) {
            return Err(RemoteError::Unusable(format!(
                "expected a model in ONNX or TorchScript, got a program of torch.export ('{exported}', MLflow's format \
                 \"pt2\"), which only Python runs; {ROUTE} with onnx_model = torch.onnx.export(model, example, \
                 dynamo=True).model_proto, or as TorchScript: mlflow.pytorch.log_model(torch.jit.script(model), \
                 serialization_format=\"pickle\")"
            )));
        }
        let pickled = format!("{folder}/model.pth");
        if !paths.contains(&pickled.as_str()) {
            return Err(RemoteError::Unusable(format!(
                "expected '{pickled}' of the pytorch flavour, which is not there"
            )));
        }
        let renames = vec![(pickled.clone(), TORCH_FILE.to_owned())];
        return Ok(Shape { renames, torch_script: Some(pickled) });
    }
    let mut names: Vec<&str> = model.flavors.keys().map(String::as_str).collect();
    names.retain(|name| *name != "python_function");
    let got = if names.is_empty() { "a Python function only".to_owned() } else { names.join(", ") };
    let how = match names.first() {
        Some(&("sklearn" | "xgboost" | "lightgbm" | "catboost")) => {
            ", with skl2onnx or onnxmltools to convert the model"
        }
        Some(&("keras" | "tensorflow")) => ", with tf2onnx to convert the model",
        _ => "",
    };
    Err(RemoteError::Unusable(format!(
        "expected a model of the flavour onnx, got {got}; that is stored as a pickle or needs Python, and whoever opens \
         a pickle runs what is in it. {ROUTE}{how}"
    )))
}

/// Moves the model's file to the top under the name that its engine looks for, and with it everything beside it, since
/// external data is named relative to the model.
fn moved(data: &str, name: &str, paths: &[&str]) -> Result<Vec<(String, String)>, RemoteError> {
    if data == name {
        return Ok(Vec::new());
    }
    let folder = data.rsplit_once('/').map_or("", |(folder, _)| folder);
    let mut renames = Vec::new();
    for path in paths {
        let inside = match folder {
            "" => (!path.contains('/')).then_some(*path),
            folder => path.strip_prefix(folder).and_then(|rest| rest.strip_prefix('/')),
        };
        let Some(inside) = inside else { continue };
        let to = if *path == data { name } else { inside };
        if to != *path && paths.contains(&to) {
            return Err(RemoteError::Unusable(format!(
                "'{path}' would take the place of '{to}'; log the model anew"
            )));
        }
        if to != *path {
            renames.push(((*path).to_owned(), to.to_owned()));
        }
    }
    Ok(renames)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(flavors: &str, paths: &[&str]) -> Result<Shape, String> {
        let model = MlModel::parse(format!("flavors:\n{flavors}").as_bytes()).unwrap();
        choose(&model, paths).map_err(|error| error.to_string())
    }

    #[test]
    fn onnx_is_served_with_what_lies_beside_it() {
        let flat = chosen("  onnx: {data: model.onnx}", &["MLmodel", "model.onnx", "model.onnx.data"]);
        assert_eq!(flat, Ok(Shape::default()));
        let deep =
            chosen("  onnx: {data: data/net.onnx}", &["MLmodel", "data/net.onnx", "data/w.bin"]).unwrap();
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(deep.renames, [pair("data/net.onnx", "model.onnx"), pair("data/w.bin", "w.bin")]);
        assert!(chosen("  onnx: {data: gone.onnx}", &["MLmodel"]).unwrap_err().contains("not there"));
        assert!(chosen("  onnx: {data: d/a.onnx}", &["d/a.onnx", "d/MLmodel", "MLmodel"]).is_err());
    }

    #[test]
    fn torch_is_served_as_torch_script_only() {
        let script = chosen("  pytorch: {model_data: data}", &["MLmodel", "data/model.pth"]).unwrap();
        assert_eq!(script.torch_script.as_deref(), Some("data/model.pth"));
        assert_eq!(script.renames, [("data/model.pth".to_owned(), "model.pt".to_owned())]);
        let message = chosen("  pytorch: {model_data: data}", &["MLmodel", "data/model.pt2"]).unwrap_err();
        assert!(message.contains("pt2") && message.contains("mlflow.onnx.log_model"), "{message}");
    }

    #[test]
    fn pickles_are_refused_with_the_way_out() {
        let flavors =
            "  python_function: {loader_module: mlflow.sklearn}\n  sklearn: {pickled_model: model.pkl}";
        let message = chosen(flavors, &["MLmodel", "model.pkl"]).unwrap_err();
        for part in ["got sklearn", "pickle", "mlflow.onnx.log_model", "skl2onnx"] {
            assert!(message.contains(part), "{part}: {message}");
        }
        let message = chosen("  python_function: {}", &["MLmodel"]).unwrap_err();
        assert!(message.contains("a Python function only"), "{message}");
    }
}
