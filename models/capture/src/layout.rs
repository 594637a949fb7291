//! The columns of a table: fixed ones, and those of a model's inputs and outputs, as Arrow and as Delta know them.
//! Must not know values.

use std::{collections::HashMap, sync::Arc};

use arrow_schema::{DataType, Field, Schema, TimeUnit};
use gannet_models::{
    DType, Digest, Redactor, Signature, TensorSpec,
    redaction::{Method, Side},
};
use serde_json::{Value, json};

use crate::CaptureError;

/// Class names that are kept with an output.
const LABELS_MAX: usize = 10_000;
/// Characters that a column's name may not have in Delta.
const FORBIDDEN: &str = " ,;{}()\n\t=";
/// The column that is a folder and not in the files.
pub const PARTITION: &str = "date";
/// How an element of a list is called, as Spark does.
const ELEMENT: &str = "element";

/// What a column of a tensor holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// The values.
    Values,
    /// Nothing; the shape alone is kept.
    Masked,
    /// A hash of each value's text.
    Hashed,
}

/// The two columns of one input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Column {
    /// The column of the values.
    pub values: String,
    /// The column of the shape.
    pub shape: String,
    /// The input's or output's name.
    pub tensor: String,
    /// Which of both it is.
    pub side: Side,
    /// Its element type.
    pub dtype: DType,
    /// What is kept of it.
    pub form: Form,
    /// Class names of an output, index by index.
    pub labels: Option<Arc<[String]>>,
}

/// A table's columns.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// Of inputs and outputs, in the signature's order; those that are dropped have none.
    pub columns: Vec<Column>,
    /// Inputs and outputs of which nothing is kept.
    pub dropped: Vec<(Side, String)>,
}

/// The fixed columns: their names and types, in order.
pub(crate) fn fixed() -> Vec<(&'static str, DataType)> {
    let time = DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()));
    vec![
        ("request_id", DataType::Utf8),
        ("time", time),
        ("model", DataType::Utf8),
        ("version", DataType::Utf8),
        ("arm", DataType::Utf8),
        ("instance", DataType::Utf8),
        ("sequence", DataType::Int64),
        ("probability", DataType::Float64),
        ("rows", DataType::Int64),
        ("batch_rows", DataType::Int64),
        ("queue_ns", DataType::Int64),
        ("assemble_ns", DataType::Int64),
        ("compute_ns", DataType::Int64),
        ("scatter_ns", DataType::Int64),
        ("total_ns", DataType::Int64),
    ]
}

/// How values of a type are stored: Delta has no unsigned and no half-wide types.
pub(crate) fn stored(dtype: DType) -> DataType {
    match dtype {
        DType::Bool => DataType::Boolean,
        DType::Int8 => DataType::Int8,
        DType::Int16 | DType::Uint8 => DataType::Int16,
        DType::Int32 | DType::Uint16 => DataType::Int32,
        DType::Int64 | DType::Uint32 => DataType::Int64,
        DType::Uint64 => DataType::Decimal128(20, 0),
        DType::Fp16 | DType::Bf16 | DType::Fp32 => DataType::Float32,
        DType::Fp64 => DataType::Float64,
        DType::Bytes => DataType::Utf8,
    }
}

fn delta_type(data_type: &DataType) -> Value {
    let name = match data_type {
        DataType::Boolean => "boolean",
        DataType::Int8 => "byte",
        DataType::Int16 => "short",
        DataType::Int32 => "integer",
        DataType::Int64 => "long",
        DataType::Decimal128(..) => "decimal(20,0)",
        DataType::Float32 => "float",
        DataType::Float64 => "double",
        DataType::Timestamp(..) => "timestamp",
        DataType::List(element) => {
            return json!({ "type": "array", "elementType": delta_type(element.data_type()), "containsNull": true });
        }
        _ => "string",
    };
    name.into()
}

pub(crate) fn list_of(element: DataType) -> DataType {
    DataType::List(Arc::new(Field::new(ELEMENT, element, true)))
}

impl Column {
    /// How its values are stored.
    pub(crate) fn element(&self) -> DataType {
        if self.form == Form::Hashed { DataType::Utf8 } else { stored(self.dtype) }
    }

    fn metadata(&self, part: &str) -> HashMap<String, String> {
        let side = if self.side == Side::Input { "input" } else { "output" };
        let form = match self.form {
            Form::Values => "values",
            Form::Masked => "masked",
            Form::Hashed => "hashed",
        };
        let mut metadata: HashMap<String, String> = [
            ("gannet.tensor", self.tensor.as_str()),
            ("gannet.side", side),
            ("gannet.dtype", self.dtype.name()),
            ("gannet.form", form),
            ("gannet.part", part),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        if let Some(labels) = self.labels.as_ref().filter(|_| part == "values") {
            metadata.insert("gannet.labels".into(), json!(&**labels).to_string());
        }
        metadata
    }
}

impl Layout {
    /// The columns of a model's table, as far as the redaction leaves any.
    #[must_use]
    pub fn new(signature: &Signature, redactor: &Redactor) -> Self {
        let mut layout = Self { columns: Vec::new(), dropped: Vec::new() };
        let mut taken: Vec<String> = fixed().iter().map(|(name, _)| (*name).to_owned()).collect();
        taken.push(PARTITION.into());
        let sides = [(Side::Input, "in_", &signature.inputs), (Side::Output, "out_", &signature.outputs)];
        for (side, start, specs) in sides {
            for spec in specs {
                layout.add(side, start, spec, redactor);
            }
        }
        // values first: a name that looks like another's shape keeps its own
        for column in &mut layout.columns {
            column.values = free(&column.values, &mut taken);
        }
        for column in &mut layout.columns {
            column.shape = free(&column.shape, &mut taken);
        }
        layout
    }

    fn add(&mut self, side: Side, start: &str, spec: &TensorSpec, redactor: &Redactor) {
        let form = match redactor.method(side, &spec.name) {
            None => Form::Values,
            Some(Method::Mask) => Form::Masked,
            Some(Method::Hash) => Form::Hashed,
            Some(Method::Drop) => return self.dropped.push((side, spec.name.clone())),
        };
        let name: String = spec
            .name
            .chars()
            .map(|c| if FORBIDDEN.contains(c) || c.is_control() { '_' } else { c })
            .collect();
        let labels = spec.labels.clone().filter(|labels| labels.len() <= LABELS_MAX);
        self.columns.push(Column {
            values: format!("{start}{name}"),
            shape: format!("{start}{name}_shape"),
            tensor: spec.name.clone(),
            side,
            dtype: spec.dtype,
            form,
            labels,
        });
    }

    /// The columns of the inputs, or of the outputs.
    pub fn side(&self, side: Side) -> impl Iterator<Item = (usize, &Column)> {
        self.columns.iter().enumerate().filter(move |(_, column)| column.side == side)
    }

    /// As Arrow knows it, without the partition.
    #[must_use]
    pub fn schema(&self) -> Arc<Schema> {
        let fixed = fixed().into_iter().map(|(name, data_type)| Field::new(name, data_type, true));
        let tensors = self.columns.iter().flat_map(|column| {
            let values = Field::new(&column.values, list_of(column.element()), true);
            let shape = Field::new(&column.shape, list_of(DataType::Int64), true);
            [values.with_metadata(column.metadata("values")), shape.with_metadata(column.metadata("shape"))]
        });
        Arc::new(Schema::new(fixed.chain(tensors).collect::<Vec<_>>()))
    }

    /// As a Delta log states it.
    #[must_use]
    pub fn schema_string(&self) -> String {
        let schema = self.schema();
        let field = |field: &Field| {
            let mut metadata: Vec<(&String, &String)> = field.metadata().iter().collect();
            metadata.sort();
            let metadata: serde_json::Map<String, Value> =
                metadata.into_iter().map(|(key, value)| (key.clone(), value.clone().into())).collect();
            json!({ "name": field.name(), "type": delta_type(field.data_type()), "nullable": true, "metadata": metadata })
        };
        let mut fields: Vec<Value> = schema.fields().iter().map(|f| field(f)).collect();
        let dropped: serde_json::Map<String, Value> = self
            .dropped
            .iter()
            .enumerate()
            .map(|(index, (side, name))| {
                (format!("gannet.dropped.{index}"), json!(dropped_text(*side, name)))
            })
            .collect();
        fields.push(json!({ "name": PARTITION, "type": "date", "nullable": true, "metadata": dropped }));
        json!({ "type": "struct", "fields": fields }).to_string()
    }

    /// What a Delta log states, read back.
    ///
    /// # Errors
    /// [`CaptureError::Damaged`] for a table that is not one of captured requests.
    pub fn read(schema_string: &str) -> Result<Self, CaptureError> {
        let wrong = |why: &str| CaptureError::Damaged(format!("the table's columns: {why}"));
        let schema: Value = serde_json::from_str(schema_string).map_err(|error| wrong(&error.to_string()))?;
        let fields = schema["fields"].as_array().ok_or_else(|| wrong("there are none"))?;
        let text = |field: &Value, key: &str| field["metadata"][key].as_str().map(str::to_owned);
        let mut layout = Self { columns: Vec::new(), dropped: Vec::new() };
        for field in fields {
            let name = field["name"].as_str().unwrap_or_default();
            if name == PARTITION {
                let dropped = field["metadata"].as_object().into_iter().flatten();
                layout.dropped = dropped.filter_map(|(_, text)| read_dropped(text.as_str()?)).collect();
            }
            if text(field, "gannet.part").as_deref() != Some("values") {
                continue;
            }
            let tensor = text(field, "gannet.tensor").unwrap_or_default();
            let side = match text(field, "gannet.side").as_deref() {
                Some("input") => Side::Input,
                Some("output") => Side::Output,
                _ => return Err(wrong(&format!("'{name}' is neither an input nor an output"))),
            };
            let dtype = text(field, "gannet.dtype").and_then(|dtype| DType::parse(&dtype));
            let form = match text(field, "gannet.form").as_deref() {
                Some("values") => Form::Values,
                Some("masked") => Form::Masked,
                Some("hashed") => Form::Hashed,
                _ => return Err(wrong(&format!("'{name}' has no form"))),
            };
            let is_its_shape = |other: &&Value| {
                text(other, "gannet.part").as_deref() == Some("shape")
                    && text(other, "gannet.tensor").as_ref() == Some(&tensor)
                    && other["metadata"]["gannet.side"] == field["metadata"]["gannet.side"]
            };
            let shape = fields.iter().find(is_its_shape).and_then(|shape| shape["name"].as_str());
            let labels =
                text(field, "gannet.labels").and_then(|text| serde_json::from_str::<Vec<String>>(&text).ok());
            layout.columns.push(Column {
                values: name.to_owned(),
                shape: shape.ok_or_else(|| wrong(&format!("'{name}' has no shape")))?.to_owned(),
                tensor,
                side,
                dtype: dtype.ok_or_else(|| wrong(&format!("'{name}' has no type")))?,
                form,
                labels: labels.map(Arc::from),
            });
        }
        let known = |(name, _): &(&str, DataType)| fields.iter().any(|field| field["name"] == *name);
        match fixed().iter().find(|field| !known(field)) {
            Some((name, _)) => {
                Err(wrong(&format!("'{name}' is missing; this is no table of captured requests")))
            }
            None => Ok(layout),
        }
    }

    /// The name of the table's folder: tables with the same columns are the same table.
    #[must_use]
    pub fn digest(&self) -> String {
        Digest::of(self.schema_string().as_bytes()).to_string()[..16].to_owned()
    }

    /// The inputs that cannot be had back as they were.
    #[must_use]
    pub fn hidden_inputs(&self) -> Vec<&str> {
        let redacted = self.side(Side::Input).filter(|(_, column)| column.form != Form::Values);
        let dropped = self.dropped.iter().filter(|(side, _)| *side == Side::Input);
        redacted
            .map(|(_, column)| column.tensor.as_str())
            .chain(dropped.map(|(_, name)| name.as_str()))
            .collect()
    }
}

fn dropped_text(side: Side, name: &str) -> String {
    format!("{}{name}", if side == Side::Input { "in_" } else { "out_" })
}

fn read_dropped(text: &str) -> Option<(Side, String)> {
    let input = text.strip_prefix("in_").map(|name| (Side::Input, name.to_owned()));
    input.or_else(|| Some((Side::Output, text.strip_prefix("out_")?.to_owned())))
}

/// A name that no other column has, whatever its case.
fn free(wanted: &str, taken: &mut Vec<String>) -> String {
    let is_taken = |name: &str| taken.iter().any(|other| other.to_lowercase() == name.to_lowercase());
    let mut name = wanted.to_owned();
    let mut number = 2;
    while is_taken(&name) {
        name = format!("{wanted}_{number}");
        number += 1;
    }
    taken.push(name.clone());
    name
}

#[cfg(test)]
mod tests {
    use gannet_models::{Dim, Redaction};

    use super::*;

    fn spec(name: &str, dtype: DType) -> TensorSpec {
        TensorSpec { name: name.into(), dtype, shape: vec![Dim::Dynamic(None)], labels: None }
    }

    #[test]
    fn columns_have_names_that_are_theirs_alone() {
        let inputs = ["x", "X", "a", "a_shape", "in put=1"].map(|name| spec(name, DType::Fp32));
        let signature =
            Signature { inputs: inputs.into(), outputs: vec![spec("x", DType::Uint64)], batched: true };
        let layout = Layout::new(&signature, &Redactor::default());
        let names: Vec<&str> = layout
            .columns
            .iter()
            .flat_map(|column| [column.values.as_str(), column.shape.as_str()])
            .collect();
        let expected = [
            "in_x",
            "in_x_shape",
            "in_X_2",
            "in_X_shape_2",
            "in_a",
            "in_a_shape_2",
            "in_a_shape",
            "in_a_shape_shape",
            "in_in_put_1",
            "in_in_put_1_shape",
            "out_x",
            "out_x_shape",
        ];
        assert_eq!(names, expected);
        assert_eq!(Layout::read(&layout.schema_string()).unwrap(), layout);
    }

    #[test]
    fn what_is_redacted_makes_another_table() {
        let mut output = spec("label", DType::Int64);
        output.labels = Some(Arc::from(["no".to_owned(), "yes".to_owned()]));
        let signature = Signature {
            inputs: vec![spec("a", DType::Bytes), spec("b", DType::Fp16)],
            outputs: vec![output],
            batched: false,
        };
        let plain = Layout::new(&signature, &Redactor::default());
        let methods = [("a".to_owned(), Method::Drop), ("b".to_owned(), Method::Mask)].into();
        let redaction = Redaction { inputs: methods, ..Redaction::default() };
        let redacted = Layout::new(&signature, &Redactor::new(redaction, None));
        assert_ne!(plain.digest(), redacted.digest());
        assert_eq!(plain.digest().len(), 16);
        assert_eq!((plain.hidden_inputs().len(), redacted.hidden_inputs()), (0, vec!["b", "a"]));
        assert_eq!(Layout::read(&redacted.schema_string()).unwrap(), redacted);
        assert!(Layout::read("{}").unwrap_err().to_string().contains("there are none"));
        assert!(
            Layout::read(r#"{"fields":[]}"#).unwrap_err().to_string().contains("'request_id' is missing")
        );
    }
}
