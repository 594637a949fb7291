//! A model's signature as the server tells it, and the shapes of a request with N rows.
//!
//! Must not know how it was fetched or how values are made.

use serde_json::Value;

use crate::grpc::{ModelConfigResponse, ModelMetadataResponse};
use crate::tensor::DataType;

/// Elements of one input at most: guards against a mistyped --shape or --rows.
const ELEMENTS_MAX: usize = 1 << 28;

/// One input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct InputSpec {
    /// Its name.
    pub name: String,
    /// Its type.
    pub datatype: DataType,
    /// Its shape; -1 is variable.
    pub shape: Vec<i64>,
}

/// The inputs of a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signature {
    /// In the model's order.
    pub inputs: Vec<InputSpec>,
    /// Triton's `max_batch_size`; 0 when unknown or not batched.
    pub batch_size_max: u64,
}

impl Signature {
    /// From the JSON of `/v2/models/{m}` and, if the server has it, of `/config`.
    pub(crate) fn from_json(metadata: &Value, config: Option<&Value>) -> Result<Self, String> {
        let inputs = metadata
            .get("inputs")
            .and_then(Value::as_array)
            .ok_or("the model's metadata has no \"inputs\"; give the requests with --body")?;
        let inputs = inputs.iter().map(|input| {
            let text = |key: &str| input.get(key).and_then(Value::as_str).unwrap_or("");
            let shape = input.get("shape").and_then(Value::as_array);
            let shape = shape.into_iter().flatten().map(dimension).collect();
            input_spec(text("name"), text("datatype"), shape)
        });
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            batch_size_max: config
                .and_then(|config| config.get("max_batch_size"))
                .and_then(Value::as_u64)
                .unwrap_or(0),
        })
    }

    /// From the gRPC answers.
    pub(crate) fn from_grpc(
        metadata: ModelMetadataResponse,
        config: Option<ModelConfigResponse>,
    ) -> Result<Self, String> {
        let inputs =
            metadata.inputs.into_iter().map(|input| input_spec(&input.name, &input.datatype, input.shape));
        let config = config.and_then(|answer| answer.config);
        Ok(Self {
            inputs: inputs.collect::<Result<_, _>>()?,
            batch_size_max: config.map_or(0, |c| c.max_batch_size.max(0) as u64),
        })
    }

    /// The shape of each input in a request with `rows` rows. `overrides` are whole shapes by
    /// input name, the rows not included when the input has a batch dimension.
    pub(crate) fn shapes(
        &self,
        rows: usize,
        overrides: &[(String, Vec<usize>)],
    ) -> Result<Vec<Vec<usize>>, String> {
        if let Some((name, _)) =
            overrides.iter().find(|(name, _)| !self.inputs.iter().any(|input| input.name == *name))
        {
            let names: Vec<&str> = self.inputs.iter().map(|i| i.name.as_str()).collect();
            return Err(format!(
                "--shape {name}: expected one of the model's inputs {names:?}; correct the name"
            ));
        }
        if self.batch_size_max > 0 && rows as u64 > self.batch_size_max {
            return Err(format!(
                "--rows: the model's max_batch_size is {}, got {rows}; ask for fewer rows",
                self.batch_size_max
            ));
        }
        self.inputs.iter().map(|input| self.shape(input, rows, overrides)).collect()
    }

    /// The first dimension is the batch's: it is variable.
    pub(crate) fn batched(&self, input: &InputSpec) -> bool {
        input.shape.first() == Some(&-1)
    }

    fn shape(
        &self,
        input: &InputSpec,
        rows: usize,
        overrides: &[(String, Vec<usize>)],
    ) -> Result<Vec<usize>, String> {
        let name = &input.name;
        let given = overrides.iter().find(|(known, _)| known == name).map(|(_, shape)| shape);
        let batched = self.batched(input);
        let mut shape = if batched { vec![rows] } else { Vec::new() };
        let rest = &input.shape[usize::from(batched)..];
        if let Some(given) = given {
            let matches =
                given.len() == rest.len() && given.iter().zip(rest).all(|(g, r)| *r < 0 || *g as i64 == *r);
            if !matches {
                return Err(format!(
                    "--shape {name}: expected dimensions that fit {rest:?} (-1 is any{}), got \
                     {given:?}",
                    if batched { "; the batch dimension comes from --rows" } else { "" }
                ));
            }
            shape.extend(given);
        } else {
            for dimension in rest {
                shape.push(usize::try_from(*dimension).map_err(|_| {
                    format!(
                        "input {name}: the model's shape {:?} is variable; say it with --shape \
                         {name}:{}",
                        input.shape,
                        rest.iter().map(|d| d.max(&1).to_string()).collect::<Vec<_>>().join(",")
                    )
                })?);
            }
        }
        if !batched && rows > 1 && shape.first() != Some(&rows) {
            return Err(format!(
                "--rows {rows}: input {name} has the fixed shape {:?} without a batch dimension; \
                 leave --rows out",
                input.shape
            ));
        }
        let elements = shape.iter().try_fold(1usize, |product, d| product.checked_mul(*d));
        match elements {
            Some(elements) if elements <= ELEMENTS_MAX => Ok(shape),
            _ => Err(format!(
                "input {name}: shape {shape:?} has more than {ELEMENTS_MAX} elements; make it smaller"
            )),
        }
    }
}

fn input_spec(name: &str, datatype: &str, shape: Vec<i64>) -> Result<InputSpec, String> {
    // Some servers print the configuration's names.
    let wire_name = datatype.strip_prefix("TYPE_").unwrap_or(datatype);
    let wire_name = if wire_name == "STRING" { "BYTES" } else { wire_name };
    let datatype = DataType::parse(wire_name).ok_or_else(|| {
        format!("input {name}: unknown datatype {datatype:?}; give the requests with --body")
    })?;
    Ok(InputSpec { name: name.to_string(), datatype, shape })
}

/// Dimensions are numbers; some servers print 64-bit numbers as strings.
fn dimension(value: &Value) -> i64 {
    value.as_i64().or_else(|| value.as_str().and_then(|text| text.parse().ok())).unwrap_or(-1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(shape: &[i64], rows: usize, given: Option<&[usize]>, expected: Result<&[usize], &str>) {
        let metadata = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": shape}]});
        let config = json!({"max_batch_size": 8});
        let signature = Signature::from_json(&metadata, Some(&config)).unwrap();
        let overrides: Vec<_> = given.map(|g| ("x".to_string(), g.to_vec())).into_iter().collect();
        match (signature.shapes(rows, &overrides), expected) {
            (Ok(shapes), Ok(expected)) => assert_eq!(shapes, [expected]),
            (Err(error), Err(part)) => assert!(error.contains(part), "{error}"),
            (got, _) => panic!("{shape:?} {rows} {given:?}: {got:?}"),
        }
    }

    #[test]
    fn shapes_of_requests() {
        check(&[-1, 4], 3, None, Ok(&[3, 4]));
        check(&[4], 1, None, Ok(&[4]));
        check(&[-1, -1, 4], 2, Some(&[7, 4]), Ok(&[2, 7, 4]));
        check(&[-1, -1, 4], 2, None, Err("--shape x:1,4"));
        check(&[-1, -1, 4], 2, Some(&[7, 5]), Err("expected dimensions"));
        check(&[4], 2, None, Err("without a batch dimension"));
        check(&[2, 4], 2, None, Ok(&[2, 4]));
        check(&[-1, 4], 9, None, Err("max_batch_size is 8"));
    }

    #[test]
    fn an_unknown_input_or_type_is_named() {
        let metadata = json!({"inputs": [{"name": "x", "datatype": "STRING", "shape": ["1"]}]});
        let signature = Signature::from_json(&metadata, None).unwrap();
        assert_eq!(signature.inputs[0].datatype, DataType::Bytes);
        assert_eq!(signature.inputs[0].shape, [1]);
        let error = signature.shapes(1, &[("y".into(), vec![1])]).unwrap_err();
        assert!(error.contains("[\"x\"]"), "{error}");
        let metadata = json!({"inputs": [{"name": "x", "datatype": "F9", "shape": [1]}]});
        assert!(Signature::from_json(&metadata, None).is_err());
    }
}
