//! Golden requests: a version that does not give the answers it came with is refused. Must not know the format
//! they are written in.

use gannet_models::{DType, ModelSettings, Signature};

use crate::{
    Tensor,
    batch::assemble::Layout,
    request::{GoldenCase, shape_text},
    servable::instance::Worker,
    tensor::byte_elements,
};

/// Runs every case and compares.
pub(super) fn check(
    cases: &[GoldenCase],
    signature: &Signature,
    (settings, call_rows): (&ModelSettings, usize),
    worker: &mut Worker,
) -> Result<(), String> {
    let layout = Layout::new(signature, &settings.padding);
    for case in cases {
        let name = &case.name;
        let request = &case.request;
        let (outputs, _) = worker
            .run_alone(&layout, &request.inputs, request.rows, call_rows)
            .map_err(|error| format!("golden request {name} failed: {error}"))?;
        if case.expected.is_empty() {
            finite(&outputs, signature)
                .map_err(|why| format!("the example request {name} was not answered: output {why}"))?;
        }
        for (index, expected) in &case.expected {
            let output = &signature.outputs[*index].name;
            compare(expected, &outputs[*index], case.rtol, case.atol)
                .map_err(|why| format!("golden request {name} was not met: output '{output}' {why}"))?;
        }
    }
    Ok(())
}

/// Whether every floating-point value is a number: all that an example without answers can show.
fn finite(outputs: &[Tensor], signature: &Signature) -> Result<(), String> {
    for (tensor, spec) in outputs.iter().zip(&signature.outputs) {
        let wrong = floats(tensor).and_then(|values| values.iter().position(|value| !value.is_finite()));
        if let Some(at) = wrong {
            return Err(format!("'{}' is not finite at flat index {at}", spec.name));
        }
    }
    Ok(())
}

/// Whether two tensors agree: integers, booleans and strings exactly, floating-point values within
/// `atol + rtol * |expected|`, `NaN` with `NaN`.
///
/// # Errors
/// A text naming the first element that differs.
pub fn compare(expected: &Tensor, got: &Tensor, rtol: f64, atol: f64) -> Result<(), String> {
    if expected.dtype != got.dtype || expected.shape != got.shape {
        return Err(format!(
            "is {} {}, expected {} {}",
            got.dtype,
            shape_text(&got.shape),
            expected.dtype,
            shape_text(&expected.shape)
        ));
    }
    if let (Some(expected), Some(got)) = (floats(expected), floats(got)) {
        let differs = |(e, g): (&f64, &f64)| {
            let same = e == g || (e.is_nan() && g.is_nan());
            let close = e.is_finite() && (e - g).abs() <= atol + rtol * e.abs();
            !same && !close
        };
        let found = expected.iter().zip(&got).position(differs);
        return found.map_or(Ok(()), |at| {
            Err(format!(
                "at flat index {at} is {}, expected {} (rtol {rtol:e}, atol {atol:e})",
                got[at], expected[at]
            ))
        });
    }
    if expected.data == got.data {
        return Ok(());
    }
    let (expected, got) = (elements_text(expected), elements_text(got));
    let at = expected.iter().zip(&got).position(|(e, g)| e != g).unwrap_or(0);
    Err(format!("at flat index {at} is {}, expected {} (compared exactly)", got[at], expected[at]))
}

/// The values of a floating-point tensor.
fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    let data = &tensor.data;
    let values = match tensor.dtype {
        DType::Fp16 => {
            data.chunks_exact(2).map(|c| half::f16::from_le_bytes([c[0], c[1]]).to_f64()).collect()
        }
        DType::Bf16 => {
            data.chunks_exact(2).map(|c| half::bf16::from_le_bytes([c[0], c[1]]).to_f64()).collect()
        }
        DType::Fp32 => data.as_chunks::<4>().0.iter().map(|c| f64::from(f32::from_le_bytes(*c))).collect(),
        DType::Fp64 => data.as_chunks::<8>().0.iter().map(|c| f64::from_le_bytes(*c)).collect(),
        _ => return None,
    };
    Some(values)
}

/// Elements as text, for the message.
fn elements_text(tensor: &Tensor) -> Vec<String> {
    let Some(size) = tensor.dtype.size_bytes() else {
        let text = |element: Result<&[u8], String>| {
            format!("{:?}", String::from_utf8_lossy(element.unwrap_or(b"?")))
        };
        return byte_elements(&tensor.data).map(text).collect();
    };
    let signed = matches!(tensor.dtype, DType::Int8 | DType::Int16 | DType::Int32 | DType::Int64);
    let text = |chunk: &[u8]| {
        let negative = signed && chunk[size - 1] & 0x80 != 0;
        let mut wide = [if negative { 0xff } else { 0 }; 8];
        wide[..size].copy_from_slice(chunk);
        if signed { i64::from_le_bytes(wide).to_string() } else { u64::from_le_bytes(wide).to_string() }
    };
    tensor.data.chunks_exact(size).map(text).collect()
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;

    use super::*;
    use crate::tensor::Shape;

    fn tensor(dtype: DType, data: &[u8], rows: usize) -> Tensor {
        Tensor { dtype, shape: Shape::from_slice(&[rows]), data: Bytes::copy_from_slice(data) }
    }

    fn f32s(values: &[f32]) -> Tensor {
        let data: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
        tensor(DType::Fp32, &data, values.len())
    }

    #[test]
    fn floats_within_tolerance_others_exactly() {
        let nan = f32::NAN;
        assert_eq!(compare(&f32s(&[1.0, nan]), &f32s(&[1.00005, nan]), 1e-4, 1e-5), Ok(()));
        let message = compare(&f32s(&[1.0, 2.0]), &f32s(&[1.0, 2.01]), 1e-4, 1e-5).unwrap_err();
        assert!(message.starts_with("at flat index 1 is 2.00999"), "{message}");
        assert!(compare(&f32s(&[1.0]), &f32s(&[nan]), 1e-4, 1e-5).is_err());
        assert!(compare(&f32s(&[f32::INFINITY]), &f32s(&[1.0]), 1e-4, 1e-5).is_err());
        assert_eq!(compare(&f32s(&[f32::INFINITY]), &f32s(&[f32::INFINITY]), 1e-4, 1e-5), Ok(()));
        let ints = |v: i32| tensor(DType::Int32, &v.to_le_bytes(), 1);
        assert_eq!(
            compare(&ints(-5), &ints(-6), 1.0, 9.0).unwrap_err(),
            "at flat index 0 is -6, expected -5 (compared exactly)"
        );
        assert!(compare(&f32s(&[1.0]), &ints(1), 1.0, 9.0).unwrap_err().contains("INT32"));
    }
}
