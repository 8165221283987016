// A load client that costs little enough to measure proxies with: one thread, epoll, kept connections, and just enough HTTP and SSE to time every
// frame. Closed loop (each connection sends its next request when the last answer ended) or open loop (requests leave on a schedule, and a late
// server's delay counts against it).
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace hearth::bench {

struct LoadPlan {
  unsigned short port = 0;                       // on loopback
  std::string path = "/v1/chat/completions";     // or /v1/messages: answers of both APIs are understood
  std::string headers;                           // further ones, each ended by CR LF
  std::function<std::string(std::size_t)> body;  // the n-th request's JSON, n from 0
  int connections = 1;                           // closed loop: streams at once; open loop: the most at once
  std::size_t requests = SIZE_MAX;
  double seconds = 5;    // no request starts after this
  double interval = 0;   // > 0: open loop, one arrival every `interval` seconds; latencies count from the planned arrival
  double give_up = 120;  // seconds after the last start until what is still open counts as an error
  const std::atomic<bool>* stop = nullptr;  // set by another thread: no request starts any more
};

// Times in microseconds.
struct LoadReport {
  std::size_t requests = 0;  // answered in full, status 200, streams ended by [DONE] or message_stop
  std::size_t errors = 0;
  std::string first_error;
  double seconds = 0;                                     // first byte sent to last byte received
  std::int64_t prompt_tokens = 0, completion_tokens = 0;  // sums of the answers' usage
  std::int64_t text_frames = 0;
  std::vector<float> latency;      // request to last byte
  std::vector<float> first_text;   // request to the first frame with text
  std::vector<float> gap;          // between two frames with text of one stream
  std::vector<float> transit;      // canned upstream's stamp to arrival, per stamped frame
  std::vector<std::string> texts;  // the first few answers' text, JSON-escaped, to compare servers

  // Adds another run's samples and counts; `seconds` add up.
  void merge(const LoadReport& other);
};

LoadReport run_load(const LoadPlan& plan);

// The p-quantile (0..1) by nearest rank; 0 for no samples.
double quantile(std::vector<float> samples, double p);

}  // namespace hearth::bench
