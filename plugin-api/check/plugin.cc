#include "check/plugin.h"

#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "base/elf/file.h"
#include "check/guarded.h"

namespace chimera::check {
namespace {

constexpr uint8_t kMagic[8] = CHIMERA_EXPERT_MAGIC;

std::string entry_problem(const chimera_expert_entry& e) {
  if (std::memcmp(e.magic, kMagic, sizeof(kMagic)) != 0) {
    return "the entry does not begin with CHIMERA_EXPERT_MAGIC";
  }
  if (e.struct_size < sizeof(chimera_expert_entry)) {
    return fmt::format("entry.struct_size: found {} (expected {} or more)", e.struct_size,
                       sizeof(chimera_expert_entry));
  }
  if (e.abi_major != CHIMERA_ABI_MAJOR) {
    return fmt::format("entry.abi_major: found {} (expected {})", e.abi_major, CHIMERA_ABI_MAJOR);
  }
  if (e.required_minor > CHIMERA_ABI_MINOR) {
    return fmt::format("entry.required_minor: found {} (expected {} at most)", e.required_minor,
                       CHIMERA_ABI_MINOR);
  }
  const uint32_t known = CHIMERA_ENTRY_UNLOAD_CLEAN | CHIMERA_ENTRY_KEEP_LOADED;
  if ((e.flags & ~known) != 0 || e.flags == known) {
    return fmt::format("entry.flags: found {:#x} (expected UNLOAD_CLEAN, KEEP_LOADED or neither)",
                       e.flags);
  }
  if (e.init == nullptr || e.deinit == nullptr || e.get_factory == nullptr) {
    return "the entry has a null function";
  }
  return {};
}

bool id_ok(const char* id) {
  if (id == nullptr) return false;
  const size_t n = strnlen(id, CHIMERA_MAX_ID_BYTES + 1);
  if (n == 0 || n > CHIMERA_MAX_ID_BYTES) return false;
  return std::all_of(id, id + n, [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  });
}

std::string layers_problem(const chimera_expert_descriptor& d) {
  if (d.layer_count == 0 || d.layers_borrowed == nullptr) {
    return "layers: found none (expected 1 or more)";
  }
  for (uint64_t i = 0; i < d.layer_count; ++i) {
    if (d.layers_borrowed[i].expert_count == 0) {
      return fmt::format("layers[{}].expert_count: found 0 (expected 1 or more)", i);
    }
    if (i > 0 && d.layers_borrowed[i].layer <= d.layers_borrowed[i - 1].layer) {
      return fmt::format("layers[{}].layer: found {} (expected ascending numbers)", i,
                         d.layers_borrowed[i].layer);
    }
  }
  return {};
}

std::string services_problem(const char* name, const char* const* ids, uint64_t count) {
  if (count > 0 && ids == nullptr) return fmt::format("{}: found a null list", name);
  for (uint64_t i = 0; i < count; ++i) {
    if (ids[i] == nullptr || ids[i][0] == '\0') return fmt::format("{}[{}]: found no id", name, i);
  }
  return {};
}

std::string numbers_problem(const chimera_expert_descriptor& d) {
  if (d.d_model == 0) return "d_model: found 0 (expected 1 or more)";
  if (d.input_dtype != CHIMERA_DTYPE_F32 || d.output_dtype != CHIMERA_DTYPE_F32) {
    return fmt::format("dtypes: found {} and {} (expected CHIMERA_DTYPE_F32)", d.input_dtype,
                       d.output_dtype);
  }
  if (d.max_rows == 0 || d.max_rows > CHIMERA_MAX_ROWS_LIMIT) {
    return fmt::format("max_rows: found {} (expected 1 to {})", d.max_rows, CHIMERA_MAX_ROWS_LIMIT);
  }
  if ((d.alignment & (d.alignment - 1)) != 0 || d.alignment > CHIMERA_MAX_ALIGNMENT) {
    return fmt::format("alignment: found {} (expected 0 or a power of two up to {})", d.alignment,
                       CHIMERA_MAX_ALIGNMENT);
  }
  if (d.concurrency != CHIMERA_CONCURRENCY_SERIAL &&
      d.concurrency != CHIMERA_CONCURRENCY_REENTRANT) {
    return fmt::format("concurrency: found {} (expected 1 or 2)", d.concurrency);
  }
  if (d.determinism != CHIMERA_DETERMINISM_BITWISE &&
      d.determinism != CHIMERA_DETERMINISM_TOLERANCE) {
    return fmt::format("determinism: found {} (expected 1 or 2)", d.determinism);
  }
  if (d.scratch_bytes > CHIMERA_MAX_SCRATCH_BYTES) {
    return fmt::format("scratch_bytes: found {} (expected {} at most)", d.scratch_bytes,
                       CHIMERA_MAX_SCRATCH_BYTES);
  }
  if ((d.cpu_features & ~CHIMERA_CPU_KNOWN) != 0) {
    return fmt::format("cpu_features: found {:#x} (expected bits of CHIMERA_CPU_KNOWN)",
                       d.cpu_features);
  }
  return {};
}

std::string lists_text(const chimera_expert_descriptor& d) {
  std::string out;
  for (uint64_t i = 0; i < d.domain_count; ++i) out += text_of(d.domains_borrowed[i]) + ",";
  for (uint64_t i = 0; i < d.layer_count; ++i) {
    out += fmt::format("|{}:{}", d.layers_borrowed[i].layer, d.layers_borrowed[i].expert_count);
  }
  for (uint64_t i = 0; i < d.required_service_count; ++i) {
    out += fmt::format("|{}", d.required_services_borrowed[i]);
  }
  for (uint64_t i = 0; i < d.optional_service_count; ++i) {
    out += fmt::format("|{}", d.optional_services_borrowed[i]);
  }
  return out;
}

}  // namespace

std::string text_of(chimera_text text) {
  return text.size == 0 || text.data_borrowed == nullptr
             ? std::string()
             : std::string(text.data_borrowed, text.size);
}

std::string descriptor_problem(const chimera_expert_descriptor& d) {
  if (d.struct_size < sizeof(d)) {
    return fmt::format("struct_size: found {} (expected {} or more)", d.struct_size, sizeof(d));
  }
  if (!id_ok(d.id_borrowed)) return "id: found none of [a-z0-9._-]{1,127}";
  if (d.version.size == 0) return "version: found no text (expected a semantic version)";
  for (const chimera_text t :
       {d.version, d.vendor, d.license, d.description, d.backbone_fingerprint}) {
    if (t.size > 0 && t.data_borrowed == nullptr) return "a text is null and not empty";
  }
  if (d.domain_count > 0 && d.domains_borrowed == nullptr) return "domains: found a null list";
  for (const std::string& problem :
       {numbers_problem(d), layers_problem(d),
        services_problem("required_services", d.required_services_borrowed,
                         d.required_service_count),
        services_problem("optional_services", d.optional_services_borrowed,
                         d.optional_service_count)}) {
    if (!problem.empty()) return problem;
  }
  return {};
}

std::string descriptor_text(const chimera_expert_descriptor& d) {
  return fmt::format("{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}", d.id_borrowed,
                     text_of(d.version), text_of(d.vendor), text_of(d.license),
                     text_of(d.description), text_of(d.backbone_fingerprint), d.d_model, d.d_ff,
                     d.input_dtype, d.output_dtype, d.max_rows, d.alignment, d.concurrency,
                     d.determinism, d.scratch_bytes, d.cpu_features, d.expected_ns_per_row,
                     d.cancel_latency_ns) +
         lists_text(d);
}

Plugin::~Plugin() {
  deinit();
  // Like a host: what does not claim to be unload-clean stays, so that a thread it left behind does
  // not run into unmapped code in every case that is about something else.
  if (unload_clean()) close();
}

std::string Plugin::map(const std::string& bytes) {
  // Like a host: a file that is cut short crashes the dynamic loader and not the plugin.
  const auto file = parse_elf(bytes);
  if (!file.ok()) return "found " + file.status().message();
  const std::string stem = std::filesystem::path(context_.subject.library).stem().string();
  path_ = fmt::format("{}/{}-{}.so", context_.work_dir, stem, context_.copies++);
  const auto begin = std::chrono::steady_clock::now();
  {
    std::ofstream out(path_, std::ios::binary);
    out.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
    if (!out.flush()) return path_ + ": cannot be written";
  }
  copy_ns_ = static_cast<uint64_t>((std::chrono::steady_clock::now() - begin).count());
  const int32_t status = guarded_call(context_, "loading (constructors)", [&] {
    handle_ = dlopen(path_.c_str(), RTLD_NOW | RTLD_LOCAL);
    return handle_ == nullptr ? CHIMERA_INTERNAL : CHIMERA_OK;
  });
  if (status != CHIMERA_OK) {
    const char* text = dlerror();
    return text != nullptr ? text : "it cannot be loaded";
  }
  entry_ = static_cast<const chimera_expert_entry*>(dlsym(handle_, CHIMERA_EXPERT_ENTRY_SYMBOL));
  if (entry_ == nullptr) return "it has no symbol " CHIMERA_EXPERT_ENTRY_SYMBOL;
  unload_clean_ = (entry_->flags & CHIMERA_ENTRY_UNLOAD_CLEAN) != 0;
  return entry_problem(*entry_);
}

std::string Plugin::init() {
  const std::string& dir = context_.subject.module_dir;
  Guarded text("module_dir", dir.size(), 1), memory("the init info", sizeof(chimera_init_info), 8);
  std::memcpy(text.data(), dir.data(), dir.size());
  const chimera_init_info info = {sizeof(chimera_init_info),
                                  CHIMERA_ABI_MAJOR,
                                  CHIMERA_ABI_MINOR,
                                  {reinterpret_cast<const char*>(text.data()), dir.size()}};
  std::memcpy(memory.data(), &info, sizeof(info));
  const auto* lent = reinterpret_cast<const chimera_init_info*>(memory.data());
  const int32_t status = guarded_call(context_, "init", [&] { return entry_->init(lent); });
  if (status != CHIMERA_OK) return fmt::format("init returned status {}", status);
  ready_ = true;
  guarded_call(context_, "get_factory", [&] {
    factory_ =
        static_cast<const chimera_expert_factory*>(entry_->get_factory(CHIMERA_EXPERT_FACTORY_ID));
    return CHIMERA_OK;
  });
  if (factory_ == nullptr) return "get_factory gave null for " CHIMERA_EXPERT_FACTORY_ID;
  if (factory_->struct_size < sizeof(chimera_expert_factory) || factory_->count == nullptr ||
      factory_->descriptor == nullptr || factory_->create == nullptr) {
    return "the factory is too small or has a null function";
  }
  const std::string wanted = context_.subject.manifest ? context_.subject.manifest->id : "";
  descriptor_ = nullptr;
  return std::string(guarded_call(context_, "the scan of descriptors",
                                  [&] {
                                    for (uint32_t i = 0; i < factory_->count(); ++i) {
                                      const auto* d = factory_->descriptor(i);
                                      if (d == nullptr) break;
                                      if (descriptor_ == nullptr &&
                                          (wanted.empty() || wanted == d->id_borrowed)) {
                                        descriptor_ = d;
                                      }
                                    }
                                    return descriptor_ != nullptr ? CHIMERA_OK : CHIMERA_NOT_FOUND;
                                  }) == CHIMERA_OK
                         ? ""
                         : "the factory has no descriptor " + wanted);
}

Problem Plugin::open() {
  if (context_.case_number != 11) catch_faults(context_);
  std::string problem = map(context_.subject.bytes);
  if (problem.empty()) problem = init();
  if (problem.empty()) problem = descriptor_problem(*descriptor_);
  if (problem.empty()) return std::nullopt;
  return skip("it cannot be used, see case 10: {}.", problem);
}

void Plugin::deinit() {
  if (!ready_) return;
  ready_ = false;
  guarded_call(context_, "deinit", [&] {
    entry_->deinit();
    return CHIMERA_OK;
  });
}

bool Plugin::close() {
  if (handle_ == nullptr) return true;
  guarded_call(context_, "closing (destructors)", [&] { return dlclose(handle_); });
  handle_ = nullptr;
  entry_ = nullptr;
  std::error_code error;
  std::filesystem::remove(path_, error);
  return !is_mapped(path_);
}

bool is_mapped(const std::string& path) {
  struct Search {
    const std::string* path;
    bool found;
  } search{&path, false};
  dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& s = *static_cast<Search*>(data);
        s.found = s.found || *s.path == info->dlpi_name;
        return 0;
      },
      &search);
  if (search.found) return true;
  // The dynamic loader may have forgotten what the kernel still maps.
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (line.find(path) != std::string::npos) return true;
  }
  return false;
}

}  // namespace chimera::check
