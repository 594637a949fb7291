// Declarations that stand for TFLite-micro's: see README.md.
#ifndef GANNET_STUB_H
#define GANNET_STUB_H
#include <stddef.h>
#include <stdint.h>

typedef enum TfLiteStatus { kTfLiteOk = 0, kTfLiteError = 1 } TfLiteStatus;
typedef union TfLitePtrUnion {
  int8_t* int8;
  float* f;
} TfLitePtrUnion;
struct TfLiteTensor {
  TfLitePtrUnion data;
};
struct TFLMRegistration {
  int kind;
};

namespace tflite {
#define GANNET_REGISTER(name) TFLMRegistration Register_##name();
#define GANNET_REGISTER_INT8(name) \
  GANNET_REGISTER(name)            \
  GANNET_REGISTER(name##_INT8)
GANNET_REGISTER_INT8(ADD)
GANNET_REGISTER_INT8(AVERAGE_POOL_2D)
GANNET_REGISTER_INT8(CONV_2D)
GANNET_REGISTER_INT8(DEPTHWISE_CONV_2D)
GANNET_REGISTER_INT8(FULLY_CONNECTED)
GANNET_REGISTER_INT8(MAX_POOL_2D)
GANNET_REGISTER_INT8(MUL)
GANNET_REGISTER_INT8(PAD)
GANNET_REGISTER_INT8(SOFTMAX)
GANNET_REGISTER_INT8(TRANSPOSE)
GANNET_REGISTER(CONCATENATION)
GANNET_REGISTER(DEQUANTIZE)
GANNET_REGISTER(HARD_SWISH)
GANNET_REGISTER(LEAKY_RELU)
GANNET_REGISTER(LOGISTIC)
GANNET_REGISTER(MEAN)
GANNET_REGISTER(QUANTIZE)
GANNET_REGISTER(RELU)
GANNET_REGISTER(RELU6)
GANNET_REGISTER(RESHAPE)
GANNET_REGISTER(SUB)
GANNET_REGISTER(TANH)

struct Model {
  uint32_t version() const;
};
const Model* GetModel(const void* buffer);

class MicroOpResolver {};

template <unsigned int tOpCount>
class MicroMutableOpResolver : public MicroOpResolver {
 public:
#define GANNET_ADD(method, name) \
  TfLiteStatus method(const TFLMRegistration& registration = Register_##name()) { return count(registration); }
  GANNET_ADD(AddAdd, ADD)
  GANNET_ADD(AddAveragePool2D, AVERAGE_POOL_2D)
  GANNET_ADD(AddConcatenation, CONCATENATION)
  GANNET_ADD(AddConv2D, CONV_2D)
  GANNET_ADD(AddDepthwiseConv2D, DEPTHWISE_CONV_2D)
  GANNET_ADD(AddDequantize, DEQUANTIZE)
  GANNET_ADD(AddFullyConnected, FULLY_CONNECTED)
  GANNET_ADD(AddHardSwish, HARD_SWISH)
  GANNET_ADD(AddLeakyRelu, LEAKY_RELU)
  GANNET_ADD(AddLogistic, LOGISTIC)
  GANNET_ADD(AddMaxPool2D, MAX_POOL_2D)
  GANNET_ADD(AddMean, MEAN)
  GANNET_ADD(AddMul, MUL)
  GANNET_ADD(AddPad, PAD)
  GANNET_ADD(AddQuantize, QUANTIZE)
  GANNET_ADD(AddRelu, RELU)
  GANNET_ADD(AddRelu6, RELU6)
  GANNET_ADD(AddReshape, RESHAPE)
  GANNET_ADD(AddSoftmax, SOFTMAX)
  GANNET_ADD(AddSub, SUB)
  GANNET_ADD(AddTanh, TANH)
  GANNET_ADD(AddTranspose, TRANSPOSE)

 private:
  // the real one refuses more operators than it was made for
  TfLiteStatus count(const TFLMRegistration&) { return ++used_ <= tOpCount ? kTfLiteOk : kTfLiteError; }
  unsigned int used_ = 0;
};

class MicroInterpreter {
 public:
  MicroInterpreter(const Model* model, const MicroOpResolver& op_resolver, uint8_t* tensor_arena,
                   size_t tensor_arena_size);
  TfLiteStatus AllocateTensors();
  TfLiteStatus Invoke();
  TfLiteTensor* input(size_t index);
  TfLiteTensor* output(size_t index);
};
}  // namespace tflite
#endif
