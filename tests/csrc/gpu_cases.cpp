// Runs the small cases on a GPU, compares results with what is expected, and bits between two runs.
//
//   cases_gpu [--only OP]
//
// Exit status: 0 all is well, 1 a failure, 2 no case. Under compute-sanitizer every kernel and branch is looked at.
#include <cstdio>
#include <exception>
#include <string>
#include <vector>

#include "cases.h"

namespace {

using pygan::test::Case;
using pygan::test::Memory;

std::vector<unsigned char> run(const Case& c, std::string& failure) {
  std::vector<unsigned char> bits;
  try {
    Memory memory;
    c.run(memory);
    Memory::finish();
    if (!memory.ok()) failure = memory.failure();
    for (const Memory::Tensor& tensor : memory.tensors()) {
      if (tensor.is_output) bits.insert(bits.end(), tensor.data, tensor.data + tensor.bytes);
    }
  } catch (const std::exception& error) {
    failure = error.what();
  }
  return bits;
}

}  // namespace

int main(int count, char** words) {
  const std::string only = count == 3 && std::string(words[1]) == "--only" ? words[2] : "";
  unsigned number = 0, failed = 0;
  for (const Case& c : pygan::test::all_cases(pygan::test::Scale::small)) {
    if (!only.empty() && c.op != only) continue;
    ++number;
    std::string failure;
    const std::vector<unsigned char> bits = run(c, failure);
    if (failure.empty() && run(c, failure) != bits && failure.empty()) failure = "other bits in a second run";
    if (failure.empty()) continue;
    ++failed;
    std::printf("%s: %s\n", c.name.c_str(), failure.c_str());
  }
  std::printf("%u cases, %u failed\n", number, failed);
  return failed ? 1 : number ? 0 : 2;
}
