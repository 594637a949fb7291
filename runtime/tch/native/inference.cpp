// What the wrapper crate does not offer: LibTorch's inference mode, and freezing, which folds a module's attributes into
// its graph. No exception leaves a function. Must not know models or tensors.

#include <cstddef>
#include <cstring>
#include <exception>
#include <memory>
#include <sstream>
#include <string>

#include <c10/core/InferenceMode.h>
#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/serialization/import.h>

extern "C" {

// Begins inference mode on this thread; nullptr where that fails.
void *gannet_tch_inference_begin() {
  try {
    return new c10::InferenceMode(true);
  } catch (...) {
    return nullptr;
  }
}

// Ends it, on the same thread.
void gannet_tch_inference_end(void *mode) { delete static_cast<c10::InferenceMode *>(mode); }

// Reads an archive of TorchScript and gives back one of the module frozen, as a text to be asked for its bytes;
// nullptr where that fails, with the reason in `why`.
void *gannet_tch_freeze(const unsigned char *archive, size_t length, char *why, size_t why_length) {
  std::string reason = "unknown";
  try {
    std::istringstream in(std::string(reinterpret_cast<const char *>(archive), length));
    torch::jit::Module module = torch::jit::load(in, c10::Device(c10::kCPU));
    module.eval();
    std::ostringstream out;
    torch::jit::freeze(module).save(out);
    return std::make_unique<std::string>(out.str()).release();
  } catch (const std::exception &error) {
    reason = error.what();
  } catch (...) {
  }
  if (why_length > 0) {
    std::strncpy(why, reason.c_str(), why_length - 1);
    why[why_length - 1] = '\0';
  }
  return nullptr;
}

const char *gannet_tch_bytes(const void *text) { return static_cast<const std::string *>(text)->data(); }

size_t gannet_tch_length(const void *text) { return static_cast<const std::string *>(text)->size(); }

void gannet_tch_drop(void *text) { delete static_cast<std::string *>(text); }

}
