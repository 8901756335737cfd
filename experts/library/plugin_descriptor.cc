// check_plugin_descriptor: nothing that a plugin says of itself is believed.
#include <fmt/format.h>

#include <bit>
#include <cstring>

#include "experts/library/plugin_instance.h"

namespace chimera {
namespace {

constexpr uint64_t kMaxTextBytes = 4096;
constexpr uint64_t kMaxCount = 4096;

class DescriptorCheck {
 public:
  DescriptorCheck(const chimera_expert_descriptor& descriptor, const LibrarySource& source)
      : d_(descriptor), source_(source) {}

  Status run() {
    if (d_.struct_size < sizeof(chimera_expert_descriptor)) {
      expect(false, "struct_size", d_.struct_size,
             fmt::format("at least {}", sizeof(chimera_expert_descriptor)));
      return status();
    }
    check_texts();
    check_fit();
    check_numbers();
    check_layers();
    check_services();
    return status();
  }

 private:
  template <class T>
  void expect(bool good, const char* field, const T& found, const std::string& expected) {
    if (good) return;
    problems_ += fmt::format("{}{}: found {} (expected {})", problems_.empty() ? "" : "; ", field,
                             found, expected);
  }

  Status status() const {
    if (problems_.empty()) return {};
    return {Code::kFailedPrecondition, "descriptor: " + problems_,
            "The library and module.yaml must be of the same build and for this backbone."};
  }

  static std::string text(const chimera_text& t) {
    return t.size == 0 || t.size > kMaxTextBytes ? std::string()
                                                 : std::string(t.data_borrowed, t.size);
  }

  void check_texts() {
    const std::pair<const char*, const chimera_text*> texts[] = {
        {"version", &d_.version},
        {"vendor", &d_.vendor},
        {"license", &d_.license},
        {"description", &d_.description},
        {"backbone_fingerprint", &d_.backbone_fingerprint}};
    for (const auto& [name, t] : texts) {
      const bool good = t->size <= kMaxTextBytes && (t->size == 0 || t->data_borrowed != nullptr);
      expect(good, name, t->size, fmt::format("a text of at most {} bytes", kMaxTextBytes));
      if (!good) return;
    }
    const std::string version = text(d_.version);
    expect(version == source_.note.version, "version", version,
           source_.note.version + ", as the ELF note says");
    expect(version == source_.version, "version", version,
           source_.version + ", as module.yaml says");
    expect(d_.domain_count <= kMaxCount && (d_.domain_count == 0 || d_.domains_borrowed != nullptr),
           "domain_count", d_.domain_count, "as many as domains");
  }

  void check_fit() {
    const std::string fingerprint = text(d_.backbone_fingerprint);
    expect(fingerprint.empty() || fingerprint == source_.fingerprint, "backbone_fingerprint",
           fingerprint, source_.fingerprint);
    expect(d_.d_model == source_.hidden_size, "d_model", d_.d_model,
           std::to_string(source_.hidden_size));
    const uint64_t missing = d_.cpu_features & ~plugin_cpu_features();
    expect(missing == 0, "cpu_features", fmt::format("{:#x}", d_.cpu_features),
           fmt::format("no {:#x}, which this machine lacks", missing));
  }

  void check_numbers() {
    expect(d_.input_dtype == CHIMERA_DTYPE_F32, "input_dtype", d_.input_dtype, "1, F32");
    expect(d_.output_dtype == CHIMERA_DTYPE_F32, "output_dtype", d_.output_dtype, "1, F32");
    expect(d_.max_rows >= 1 && d_.max_rows <= CHIMERA_MAX_ROWS_LIMIT, "max_rows", d_.max_rows,
           fmt::format("1 to {}", CHIMERA_MAX_ROWS_LIMIT));
    expect(d_.alignment == 0 ||
               (std::has_single_bit(d_.alignment) && d_.alignment <= CHIMERA_MAX_ALIGNMENT),
           "alignment", d_.alignment,
           fmt::format("0 or a power of two up to {}", CHIMERA_MAX_ALIGNMENT));
    expect(d_.concurrency == CHIMERA_CONCURRENCY_SERIAL ||
               d_.concurrency == CHIMERA_CONCURRENCY_REENTRANT,
           "concurrency", d_.concurrency, "1 or 2");
    expect(d_.determinism == CHIMERA_DETERMINISM_BITWISE ||
               d_.determinism == CHIMERA_DETERMINISM_TOLERANCE,
           "determinism", d_.determinism, "1 or 2");
    expect(d_.scratch_bytes <= CHIMERA_MAX_SCRATCH_BYTES, "scratch_bytes", d_.scratch_bytes,
           fmt::format("at most {}", CHIMERA_MAX_SCRATCH_BYTES));
  }

  void check_layers() {
    const bool listed =
        d_.layer_count >= 1 && d_.layer_count <= kMaxCount && d_.layers_borrowed != nullptr;
    expect(listed, "layer_count", d_.layer_count, fmt::format("1 to {}", kMaxCount));
    if (!listed) return;
    std::map<int64_t, int64_t> has;
    for (uint64_t i = 0; i < d_.layer_count; ++i) {
      const chimera_expert_layer& layer = d_.layers_borrowed[i];
      const bool ascends = has.empty() || has.rbegin()->first < int64_t{layer.layer};
      expect(ascends, "layers", layer.layer, "ascending layers, each once");
      has[layer.layer] = layer.expert_count;
    }
    if (has == source_.experts) return;
    expect(false, "layers", words(has),
           words(source_.experts) + ", as the gate rows or slots of the module say");
  }

  static std::string words(const std::map<int64_t, int64_t>& layers) {
    std::string out;
    for (const auto& [layer, count] : layers) {
      out += fmt::format("{}{}:{}", out.empty() ? "" : " ", layer, count);
    }
    return "experts per layer " + out;
  }

  void check_services() {
    const bool listed =
        d_.required_service_count <= kMaxCount &&
        (d_.required_service_count == 0 || d_.required_services_borrowed != nullptr);
    expect(listed, "required_service_count", d_.required_service_count, "as many as are listed");
    for (uint64_t i = 0; listed && i < d_.required_service_count; ++i) {
      const char* id = d_.required_services_borrowed[i];
      expect(id != nullptr && has_plugin_service(id), "required_services",
             id == nullptr ? "null" : id, "services of this host");
    }
  }

  const chimera_expert_descriptor& d_;
  const LibrarySource& source_;
  std::string problems_;
};

}  // namespace

Status check_plugin_descriptor(const chimera_expert_descriptor& descriptor,
                               const LibrarySource& source) {
  return DescriptorCheck(descriptor, source).run();
}

uint64_t plugin_cpu_features() {
  uint64_t have = 0;
#if defined(__x86_64__)
  __builtin_cpu_init();
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
  const bool avx512 = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
  if (avx2) have |= CHIMERA_CPU_AVX2;
  if (avx512) have |= CHIMERA_CPU_AVX512;
  if (__builtin_cpu_supports("avx512vnni")) have |= CHIMERA_CPU_AVX512_VNNI;
  if (__builtin_cpu_supports("avx512bf16")) have |= CHIMERA_CPU_AVX512_BF16;
#endif
  return have;
}

}  // namespace chimera
