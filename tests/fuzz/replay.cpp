// Runs a fuzz target without libFuzzer: every corpus file as it is, then seeded mutations of them. Deterministic for a seed, which is printed;
// HEARTH_FUZZ_SEED and HEARTH_FUZZ_RUNS override. Sanitizer builds of the tests get the fuzzers' coverage this way.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <random>
#include <string>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

void run(const std::string& input) { LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(input.data()), input.size()); }

std::string mutate(std::string input, const std::vector<std::string>& corpus, std::mt19937_64& random) {
  const auto below = [&](std::size_t n) { return static_cast<std::size_t>(random() % (n == 0 ? 1 : n)); };
  for (std::size_t edits = 1 + below(4); edits > 0; --edits) {
    switch (below(6)) {
      case 0:
        if (!input.empty()) input[below(input.size())] = static_cast<char>(random());
        break;
      case 1: input.insert(below(input.size() + 1), 1, static_cast<char>(random())); break;
      case 2:
        if (!input.empty()) input.erase(below(input.size()), 1 + below(8));
        break;
      case 3: input.resize(below(input.size() + 1)); break;
      case 4: {
        const std::size_t at = below(input.size() + 1);
        input.insert(at, input.substr(below(input.size() + 1), below(32)));
        break;
      }
      default: {
        const auto& other = corpus[below(corpus.size())];
        input.insert(below(input.size() + 1), other.substr(below(other.size() + 1), below(64)));
      }
    }
  }
  return input;
}

}  // namespace

int main(int argc, char** argv) {
  std::vector<std::string> corpus;
  if (argc > 1 && std::filesystem::is_directory(argv[1])) {
    for (const auto& entry : std::filesystem::directory_iterator(argv[1])) {
      std::ifstream file(entry.path(), std::ios::binary);
      corpus.emplace_back(std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>());
    }
  }
  if (corpus.empty()) {
    std::fprintf(stderr, "no corpus in %s\n", argc > 1 ? argv[1] : "(no folder given)");
    return 1;
  }
  const char* seed_text = std::getenv("HEARTH_FUZZ_SEED");
  const char* runs_text = std::getenv("HEARTH_FUZZ_RUNS");
  const std::uint64_t seed =
      seed_text != nullptr ? std::strtoull(seed_text, nullptr, 10) : 4711;  // the same every time: looking further is the fuzzers' work
  const std::uint64_t runs = runs_text != nullptr ? std::strtoull(runs_text, nullptr, 10) : 5000;
  std::printf("seed %llu, %zu corpus files, %llu mutations\n", static_cast<unsigned long long>(seed), corpus.size(),
              static_cast<unsigned long long>(runs));
  std::fflush(stdout);
  for (const auto& input : corpus) run(input);
  std::mt19937_64 random(seed);
  for (std::uint64_t i = 0; i < runs; ++i) run(mutate(corpus[static_cast<std::size_t>(random() % corpus.size())], corpus, random));
  return 0;
}
