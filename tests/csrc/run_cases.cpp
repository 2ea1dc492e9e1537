// Runs the small cases under several schedules and compares results with what is expected, and bits between schedules.
//
//   cases_fibers [--schedules N] [--only OP] [--skip FILE:LINE]
//
// --only takes the cases of one operator. --skip makes a mutant, in which the barrier on that line does nothing, and
// ends at the first failure. Exit status: 0 all is well, 1 a failure, 2 no case, or none that reaches that barrier.
#include <cstdio>
#include <cstring>
#include <string>

#include "cases.h"
#include "simt.h"

namespace {

using pygan::test::Case;
using pygan::test::Memory;

struct Arguments {
  unsigned schedules = 4;
  std::string only, skipped_file;
  unsigned skipped_line = 0;
};

Arguments parse(int count, char** words) {
  Arguments arguments;
  for (int i = 1; i + 1 < count; i += 2) {
    const std::string key = words[i], value = words[i + 1];
    if (key == "--schedules") arguments.schedules = unsigned(std::stoul(value));
    if (key == "--only") arguments.only = value;
    if (key == "--skip") {
      const size_t colon = value.rfind(':');
      arguments.skipped_file = value.substr(0, colon);
      arguments.skipped_line = unsigned(std::stoul(value.substr(colon + 1)));
    }
  }
  return arguments;
}

std::vector<unsigned char> output_bits(const Memory& memory) {
  std::vector<unsigned char> bits;
  for (const Memory::Tensor& tensor : memory.tensors()) {
    if (tensor.is_output) bits.insert(bits.end(), tensor.data, tensor.data + tensor.bytes);
  }
  return bits;
}

// What is wrong with one case, empty if nothing is.
std::string failure(const Case& c, unsigned schedules) {
  std::vector<unsigned char> bits_of_first;
  for (unsigned schedule = 0; schedule < schedules; ++schedule) {
    simt::set_schedule(schedule);
    const std::string when = " under schedule " + std::to_string(schedule);
    try {
      Memory memory;
      c.run(memory);
      if (!memory.ok()) return memory.failure() + when;
      std::vector<unsigned char> bits = output_bits(memory);
      if (schedule == 0) bits_of_first = std::move(bits);
      else if (bits != bits_of_first) return "other bits than under schedule 0" + when;
    } catch (const std::exception& error) {
      return error.what() + when;
    }
  }
  return "";
}

}  // namespace

int main(int count, char** words) {
  const Arguments arguments = parse(count, words);
  const bool mutant = arguments.skipped_line > 0;
  if (mutant) simt::skip_barrier(arguments.skipped_file.c_str(), arguments.skipped_line);
  unsigned run = 0, failed = 0;
  for (const Case& c : pygan::test::all_cases(pygan::test::Scale::small)) {
    if (!arguments.only.empty() && c.op != arguments.only) continue;
    ++run;
    const std::string what = failure(c, arguments.schedules);
    if (what.empty()) continue;
    ++failed;
    std::printf("%s: %s\n", c.name.c_str(), what.c_str());
    if (mutant) break;
  }
  std::printf("%u cases, %u schedules, %u failed\n", run, arguments.schedules, failed);
  if (failed) return 1;
  return run == 0 || (mutant && simt::skipped_barriers() == 0) ? 2 : 0;
}
