//! Backend over ONNX Runtime.
