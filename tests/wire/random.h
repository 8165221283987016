// Random requests and answers are made of this; the seed is printed and can be given again.
#pragma once

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <iterator>
#include <optional>
#include <random>
#include <string>

namespace hearth::wire {

class Random {
 public:
  Random() {
    const char* given = std::getenv("HEARTH_TEST_SEED");
    seed_ = given != nullptr ? std::strtoull(given, nullptr, 10) : std::random_device{}();
    engine_.seed(seed_);
    std::printf("seed %llu (HEARTH_TEST_SEED repeats it)\n", static_cast<unsigned long long>(seed_));
  }
  std::size_t below(std::size_t n) { return static_cast<std::size_t>(engine_() % n); }
  bool once_in(std::size_t n) { return below(n) == 0; }
  bool coin() { return once_in(2); }
  // Never empty: an empty delta is none.
  std::string text() {
    static const char* pieces[] = {"a",
                                   " ",
                                   "\"",
                                   "\\",
                                   "\n",
                                   "\r\n",
                                   "\t",
                                   "\0x",
                                   "{",
                                   "}",
                                   "data: ",
                                   "[DONE]",
                                   "\xC3\xA9",
                                   "\xE2\x82\xAC",
                                   "\xF0\x9F\x98\x80",
                                   "\x7f",
                                   "\x01",
                                   "null"};
    std::string out;
    do out += pieces[below(std::size(pieces))];
    while (!once_in(6) || out.empty());
    return out;
  }
  std::string word() {
    std::string out;
    do out.push_back(static_cast<char>('a' + below(26)));
    while (!once_in(5));
    return out;
  }
  std::string bytes() {
    std::string out;
    for (std::size_t n = below(5); n > 0; --n) out.push_back(static_cast<char>(below(256)));
    return out;
  }
  float between(float low, float high) { return std::uniform_real_distribution<float>(low, high)(engine_); }
  int integer(int low, int high) { return std::uniform_int_distribution<int>(low, high)(engine_); }
  template <class T>
  void maybe(std::optional<T>& field, T value) {
    if (coin()) field = value;
  }

 private:
  std::uint64_t seed_;
  std::mt19937_64 engine_;
};

}  // namespace hearth::wire
