// guarded_call: included by plugin.h.
//
// Thread safety: from any thread.
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <string>
#include <typeinfo>

#include "base/threads/mutex.h"
#include "check/watch.h"

namespace chimera::check {

/// The name of the exception that is being handled.
inline std::string current_exception_name() {
  const std::type_info* type = abi::__cxa_current_exception_type();
  if (type == nullptr) return "unknown";
  int status = 0;
  char* name = abi::__cxa_demangle(type->name(), nullptr, nullptr, &status);
  std::string out = name != nullptr ? name : type->name();
  std::free(name);
  return out;
}

// Of Context::exceptions, while forward runs on several threads.
inline Mutex exceptions_mutex;

template <class Body>
int32_t guarded_call(Context& context, const char* function, Body&& body) {
  context.phase(function);
  try {
    const Inside inside;
    return body();
  } catch (...) {
    const MutexLock lock(exceptions_mutex);
    context.exceptions.push_back(current_exception_name() + " from " + function);
    return CHIMERA_INTERNAL;
  }
}

}  // namespace chimera::check
