// Traces the cases and prints one JSON object a line for each: see memory_trace.h.
//
//   cases_trace [small|large] [OP]
#include <cstdio>
#include <string>

#include "cases.h"
#include "memory_trace.h"

using namespace pygan::test;

namespace {

void print(const Case& c, const Memory& memory, const MemoryTrace& trace) {
  size_t input_bytes = 0, output_bytes = 0;
  for (const Memory::Tensor& tensor : memory.tensors()) (tensor.is_output ? output_bytes : input_bytes) += tensor.bytes;
  const Counts& counts = trace.counts();
  std::printf("{\"case\": \"%s\", \"input_bytes\": %zu, \"output_bytes\": %zu, \"allowed_bytes\": %zu, ",
              c.name.c_str(), input_bytes, output_bytes, memory.allowed());
  std::printf("\"read_sectors\": %zu, \"written_sectors\": %zu, \"ideal_sectors\": %zu, \"block_sectors\": %zu, ",
              size_t(counts.read_sectors), size_t(counts.written_sectors), size_t(counts.ideal_sectors),
              size_t(counts.block_sectors));
  std::printf("\"wavefronts\": %zu, \"ideal_wavefronts\": %zu, \"launches\": [", size_t(counts.wavefronts),
              size_t(counts.ideal_wavefronts));
  const char* separator = "";
  for (const Launch& launch : counts.launches) {
    std::printf("%s{\"kernel\": \"%zx\", \"threads\": %u, \"dynamic_shared_bytes\": %zu}", separator,
                reinterpret_cast<size_t>(launch.kernel), launch.threads, launch.dynamic_shared_bytes);
    separator = ", ";
  }
  std::printf("], \"stretches\": {");
  separator = "";
  for (const auto& [address, runs] : trace.stretches()) {
    std::printf("%s\"%zx\": %zu", separator, size_t(address), size_t(runs));
    separator = ", ";
  }
  std::printf("}}\n");
}

}  // namespace

int main(int count, char** words) {
  const Scale scale = count > 1 && std::string(words[1]) == "large" ? Scale::large : Scale::small;
  const std::string op = count > 2 ? words[2] : "";
  for (const Case& c : all_cases(scale)) {
    if (!op.empty() && c.op != op) continue;
    Memory memory;
    const MemoryTrace trace(memory);
    c.run(memory);
    print(c, memory, trace);
  }
}
