// guarded_call: included by plugin.h.
#pragma once

#include <cxxabi.h>

#include <cstdlib>
#include <exception>
#include <mutex>
#include <string>
#include <typeinfo>

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

inline std::mutex exceptions_mutex;  // forward may run on several threads

template <class Body>
int32_t guarded_call(Context& context, const char* function, Body&& body) {
  context.phase(function);
  try {
    const Inside inside;
    return body();
  } catch (...) {
    const std::lock_guard lock(exceptions_mutex);
    context.exceptions.push_back(current_exception_name() + " from " + function);
    return CHIMERA_INTERNAL;
  }
}

}  // namespace chimera::check
