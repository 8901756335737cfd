// A thin C++17 wrapper of chimera/expert.h: derive from Expert, list the classes in
// CHIMERA_EXPERT_LIBRARY, done.
//
// Nothing thrown crosses the boundary: Failure carries its own status and text, std::bad_alloc
// becomes resource_exhausted, anything else becomes internal (which poisons the instance), with the
// text handed to chimera.error/1 where the host has it.
//
// Thread safety and lifetime: those of the C functions that the methods stand for; see their tags.
//
// This header defines nothing that must live on after deinit: no thread_local, no static object
// with a destructor. Compile with -fvisibility=hidden -fno-gnu-unique (plugin-api/template).
#pragma once

#include <cstring>
#include <exception>
#include <memory>
#include <new>
#include <string>
#include <string_view>
#include <utility>

#include "chimera/expert.h"
#include "chimera/services/error.h"
#include "chimera/services/log.h"

namespace chimera {
namespace plugin {

inline std::string_view view(chimera_text text) noexcept {
  return text.size == 0 ? std::string_view() : std::string_view(text.data_borrowed, text.size);
}
inline chimera_text text(std::string_view view) noexcept { return {view.data(), view.size()}; }

/// Throw it from prepare, activate, forward or reset: a status with a text that names the thing,
/// what was found and what was expected.
class Failure : public std::exception {
 public:
  Failure(int32_t status, std::string what) : status_(status), what_(std::move(what)) {}
  int32_t status() const noexcept { return status_; }
  const char* what() const noexcept override { return what_.c_str(); }

 private:
  int32_t status_;
  std::string what_;
};

/// The host, borrowed until destroy. No calls before prepare.
class Host {
 public:
  explicit Host(const chimera_host* host) noexcept : host_(host) {}
  const chimera_host* get() const noexcept { return host_; }

  /// The service, or null when the host has none: service<chimera_host_log>(CHIMERA_LOG_ID).
  template <class Service>
  const Service* service(const char* id) const noexcept {
    return static_cast<const Service*>(host_->get_service(host_, id));
  }
  /// The service; a Failure (failed_precondition) without it.
  template <class Service>
  const Service& require(const char* id) const {
    const Service* found = service<Service>(id);
    if (found == nullptr) {
      throw Failure(CHIMERA_FAILED_PRECONDITION, std::string("host: found no service ") + id);
    }
    return *found;
  }

 private:
  const chimera_host* host_;
};

/// One instance. The methods are the C functions of the same name; see their tags and promises.
class Expert {
 public:
  explicit Expert(Host host) noexcept : host_(host) {}
  virtual ~Expert() = default;
  Expert(const Expert&) = delete;
  Expert& operator=(const Expert&) = delete;

  virtual void prepare(std::string_view /*config*/) {}
  /// On a throw the object must be as before: members that are RAII need no more.
  virtual void activate(const chimera_expert_limits& limits) = 0;
  /// Overwrites y. A status may be returned or thrown; returning is cheaper.
  virtual int32_t forward(const chimera_expert_batch& batch) = 0;
  virtual void reset() {}
  virtual void deactivate() noexcept = 0;
  virtual const void* get_extension(const char* /*id*/) noexcept { return nullptr; }

 protected:
  const Host& host() const noexcept { return host_; }

 private:
  Host host_;
};

/// Rows of a batch. REQUIRES: F32 rows (the only dtype of ABI 1.x).
inline const float* input_row(const chimera_expert_batch& batch, uint32_t row) noexcept {
  const auto* base = static_cast<const unsigned char*>(batch.x_borrowed);
  return reinterpret_cast<const float*>(base + row * batch.x_stride);
}
inline float* output_row(const chimera_expert_batch& batch, uint32_t row) noexcept {
  auto* base = static_cast<unsigned char*>(batch.y_borrowed);
  return reinterpret_cast<float*>(base + row * batch.y_stride);
}
/// The epoch of a row's routing table; 0: it is on none, or the host does not say (ABI 1.0).
inline uint64_t row_epoch(const chimera_expert_batch& batch, uint32_t row) noexcept {
  const bool told = CHIMERA_HAS_FIELD(chimera_expert_batch, &batch, row_epochs_borrowed) &&
                    batch.row_epochs_borrowed != nullptr;
  return told ? batch.row_epochs_borrowed[row] : 0;
}
/// Scratch memory of a worker.
inline void* scratch(const chimera_expert_batch& batch, uint32_t worker) noexcept {
  return static_cast<unsigned char*>(batch.scratch_borrowed) + worker * batch.scratch_stride;
}

namespace detail {

/// What the host holds: the C structure first, so that a pointer to one is a pointer to both.
struct Instance {
  chimera_expert abi;
  const chimera_host* host;
  std::unique_ptr<Expert> expert;
};

inline Instance* instance_of(chimera_expert* self) noexcept {
  return static_cast<Instance*>(self->plugin_data_owned);
}

inline int32_t report(const Instance* instance, int32_t status, const char* what) noexcept {
  const auto* error = static_cast<const chimera_host_error*>(
      instance->host->get_service(instance->host, CHIMERA_ERROR_ID));
  if (error != nullptr) error->set(instance->host, {what, std::strlen(what)});
  return status;
}

/// Runs `body`, which returns a status; nothing escapes.
template <class Body>
int32_t guarded(chimera_expert* self, Body&& body) noexcept {
  const Instance* instance = instance_of(self);
  try {
    return body(*instance->expert);
  } catch (const Failure& e) {
    return report(instance, e.status(), e.what());
  } catch (const std::bad_alloc&) {
    return report(instance, CHIMERA_RESOURCE_EXHAUSTED, "out of memory");
  } catch (const std::exception& e) {
    return report(instance, CHIMERA_INTERNAL, e.what());
  } catch (...) {
    return report(instance, CHIMERA_INTERNAL, "an exception of unknown type");
  }
}

inline int32_t prepare(chimera_expert* self, chimera_text config) noexcept {
  return guarded(self, [&](Expert& e) { return e.prepare(view(config)), CHIMERA_OK; });
}
inline int32_t activate(chimera_expert* self, const chimera_expert_limits* limits) noexcept {
  return guarded(self, [&](Expert& e) { return e.activate(*limits), CHIMERA_OK; });
}
inline int32_t forward(chimera_expert* self, const chimera_expert_batch* batch) noexcept {
  return guarded(self, [&](Expert& e) { return e.forward(*batch); });
}
inline int32_t reset(chimera_expert* self) noexcept {
  return guarded(self, [](Expert& e) { return e.reset(), CHIMERA_OK; });
}
inline void deactivate(chimera_expert* self) noexcept { instance_of(self)->expert->deactivate(); }
inline void destroy(chimera_expert* self) noexcept { delete instance_of(self); }
inline const void* get_extension(chimera_expert* self, const char* id) noexcept {
  return instance_of(self)->expert->get_extension(id);
}

template <class T>
chimera_expert* create(const chimera_host* host) noexcept {
  try {
    auto instance = std::make_unique<Instance>();
    instance->abi = {sizeof(chimera_expert),
                     0,
                     &T::descriptor,
                     instance.get(),
                     prepare,
                     activate,
                     forward,
                     reset,
                     deactivate,
                     destroy,
                     get_extension};
    instance->host = host;
    instance->expert = std::make_unique<T>(Host(host));
    return &instance.release()->abi;
  } catch (...) {
    return nullptr;
  }
}

}  // namespace detail

/// The C functions of a library of the classes T: each derives from Expert, has a constructor
/// T(Host) that only allocates, and `static const chimera_expert_descriptor descriptor`.
template <class... T>
struct Library {
  static uint32_t count() noexcept { return sizeof...(T); }
  static const chimera_expert_descriptor* descriptor(uint32_t index) noexcept {
    const chimera_expert_descriptor* const all[] = {&T::descriptor...};
    return index < sizeof...(T) ? all[index] : nullptr;
  }
  static chimera_expert* create(const char* id, const chimera_host* host) noexcept {
    chimera_expert* made = nullptr;
    const bool found = ((std::strcmp(id, T::descriptor.id_borrowed) == 0 &&
                         ((made = detail::create<T>(host)), true)) ||
                        ...);
    return found ? made : nullptr;
  }
  static constexpr chimera_expert_factory factory{sizeof(chimera_expert_factory), 0, count,
                                                  descriptor, create};

  static int32_t init(const chimera_init_info* /*info*/) noexcept { return CHIMERA_OK; }
  static void deinit() noexcept {}
  static const void* get_factory(const char* id) noexcept {
    return std::strcmp(id, CHIMERA_EXPERT_FACTORY_ID) == 0 ? &factory : nullptr;
  }
};

}  // namespace plugin
}  // namespace chimera

/// Defines the entry of a library; once, at file scope:
///   CHIMERA_EXPERT_LIBRARY(CHIMERA_ENTRY_UNLOAD_CLEAN, MyExpert);
#define CHIMERA_EXPERT_LIBRARY(entry_flags, ...)                        \
  CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = { \
      CHIMERA_EXPERT_MAGIC,                                             \
      sizeof(chimera_expert_entry),                                     \
      CHIMERA_ABI_MAJOR,                                                \
      CHIMERA_ABI_MINOR,                                                \
      0,                                                                \
      0,                                                                \
      entry_flags,                                                      \
      chimera::plugin::Library<__VA_ARGS__>::init,                      \
      chimera::plugin::Library<__VA_ARGS__>::deinit,                    \
      chimera::plugin::Library<__VA_ARGS__>::get_factory}
