// See README.md.
#include "tensorflow/lite/micro/stub.h"
