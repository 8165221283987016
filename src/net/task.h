// Coroutines of the I/O loop. A Task runs on one io_context and is never touched from another thread.
// Hazards, learned once: name a value before `co_await f(value)`; never `co_await` inside a lambda coroutine whose captures die before it ends.
#pragma once

#include <boost/asio/any_io_executor.hpp>
#include <boost/asio/awaitable.hpp>

namespace hearth::net {

namespace asio = boost::asio;

template <class T>
using Task = asio::awaitable<T>;

}  // namespace hearth::net
