// Loading a model is mostly reading its file. What is not in the page cache yet is read from the moment somebody wants the model, in order and in large
// pieces, beside everything else that has to happen first: requests that finish on the model before it, a process that starts, a vocabulary that is built.
// Paged in by the engine's own accesses it would come later and slower.
#pragma once

#include <boost/asio/thread_pool.hpp>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace hearth::fleet {

class ReadAhead {
 public:
  ReadAhead();
  ~ReadAhead();  // stops where it is
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;

  // Reads the files, after those asked for before: they share one disk. Only a hint: what cannot be read is left to the load, which says why. Nothing
  // happens when they hold more than `most` bytes: they would push each other out of the cache.
  void start(std::vector<std::string> files, std::int64_t most);

 private:
  struct Stop;
  std::shared_ptr<Stop> stop_;
  boost::asio::thread_pool thread_{1};
};

}  // namespace hearth::fleet
