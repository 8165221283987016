// Short blocking calls (files under /proc, asking a driver) off the loop: on one thread of their own, one after the other.
#pragma once

#include <boost/asio/associated_executor.hpp>
#include <boost/asio/async_result.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/thread_pool.hpp>
#include <boost/asio/use_awaitable.hpp>
#include <type_traits>

#include "net/task.h"

namespace hearth::fleet {

class Background {
 public:
  Background() : pool_(1) {}
  // Drops what has not begun and waits for what has.
  ~Background() {
    pool_.stop();
    pool_.join();
  }

  // Runs `work`, which does not throw, and resumes the caller on its own loop with what it returns.
  template <class F, class R = std::invoke_result_t<F>>
  net::Task<R> run(F work) {
    return net::asio::async_initiate<const net::asio::use_awaitable_t<>, void(R)>(
        [this](auto handler, F given) {
          // The caller's loop has work until the answer is there.
          auto executor = net::asio::prefer(net::asio::get_associated_executor(handler), net::asio::execution::outstanding_work.tracked);
          net::asio::post(pool_, [handler = std::move(handler), given = std::move(given), executor = std::move(executor)]() mutable {
            R result = given();
            net::asio::post(
                executor, [handler = std::move(handler), result = std::move(result)]() mutable { std::move(handler)(std::move(result)); });
          });
        },
        net::asio::use_awaitable, std::move(work));
  }

 private:
  net::asio::thread_pool pool_;
};

}  // namespace hearth::fleet
