#include "experts/module/manifest.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>
#include <functional>
#include <set>

#include "base/io/digest.h"
#include "base/limits.h"
#include "base/yaml/tree.h"
#include "experts/module/files.h"

namespace chimera {
namespace {

// Bounds of what a manifest may ask for; far above any released model (DeepSeek-V3 has 61 layers
// and 256 experts), low enough that no count from a file can hurt.
constexpr int64_t kMaxLayers = 4096;
constexpr int64_t kMaxSlots = 65536;
constexpr int64_t kMaxHidden = 1 << 20;
constexpr size_t kMaxFiles = 64;
constexpr size_t kMaxText = 4096;
constexpr size_t kMaxProbeBytes = 16384;
constexpr size_t kMaxConfig = 65536;
constexpr int64_t kMaxDeadlineMs = 3'600'000;
constexpr int64_t kMaxMemoryMib = 1 << 20;

constexpr std::string_view kHint = "experts/legal/module.yaml is a complete example.";

bool has_control(std::string_view text) {
  return std::any_of(text.begin(), text.end(), [](char c) {
    const auto byte = static_cast<unsigned char>(c);
    return (byte < 0x20 && byte != '\n' && byte != '\t') || byte == 0x7f;
  });
}

/// Reads the tree of one module.yaml; every problem is noted and reading goes on.
class ManifestReader {
 public:
  ManifestReader(YamlProblems& problems, Sealing sealing)
      : problems_(problems), sealing_(sealing) {}

  Manifest read(const YamlNode& root) {
    Manifest m;
    const YamlNode* library = nullptr;
    fields(root, "module.yaml",
           {"chimera", "name", "version", "kind", "attach", "backbone", "files"},
           {{"chimera", [&](const YamlNode& n) { format(n); }},
            {"name", [&](const YamlNode& n) { read_name(n, m); }},
            {"version", [&](const YamlNode& n) { read_version(n, m); }},
            {"domain", [&](const YamlNode& n) { m.domain = text(n, "domain", 64); }},
            {"description",
             [&](const YamlNode& n) { m.description = text(n, "description", kMaxText); }},
            {"license", [&](const YamlNode& n) { m.license = text(n, "license", kMaxText); }},
            {"kind", [&](const YamlNode& n) { choice(n, "kind", kModuleKindNames, &m.kind); }},
            {"attach", [&](const YamlNode& n) { choice(n, "attach", kAttachNames, &m.attach); }},
            {"backbone", [&](const YamlNode& n) { read_backbone(n, m); }},
            {"layers", [&](const YamlNode& n) { read_layers(n, m); }},
            {"library", [&](const YamlNode& n) { library = &n; }},
            {"files", [&](const YamlNode& n) { read_files(n, m); }},
            {"routing", [&](const YamlNode& n) { read_routing(n, m); }},
            {"provenance", [&](const YamlNode& n) { read_provenance(n, m); }},
            {"probe", [&](const YamlNode& n) { read_probe(n, m); }}});
    // Last: it is checked against kind, attach and files.
    if (library != nullptr) read_library(*library, m);
    check_library(root, library, m);
    return m;
  }

 private:
  using Handler = std::function<void(const YamlNode&)>;

  void read_routing(const YamlNode& node, Manifest& m) {
    fields(node, "routing", {}, {{"top_k", [&](const YamlNode& n) {
                                    m.top_k = integer(n, "routing.top_k", 1, kMaxTopK);
                                  }}});
  }

  /// Hands every known key of a map to its handler; notes unknown and missing keys.
  void fields(const YamlNode& map, const std::string& where,
              const std::vector<std::string>& required,
              const std::vector<std::pair<std::string, Handler>>& handlers) {
    if (map.kind != YamlNode::Kind::kMap) {
      problems_.add(map, where, "a map");
      return;
    }
    std::set<std::string> seen;
    for (const auto& [key, value] : map.entries) {
      const auto handler =
          std::find_if(handlers.begin(), handlers.end(),
                       [&, k = &key](const auto& h) { return h.first == k->text; });
      if (handler == handlers.end()) {
        std::vector<std::string> known;
        for (const auto& h : handlers) known.push_back(h.first);
        problems_.add(key, fmt::format("{}: found the unknown key {} (expected one of {})", where,
                                       key.found(), fmt::join(known, ", ")));
        continue;
      }
      seen.insert(key.text);
      handler->second(value);
    }
    for (const std::string& key : required) {
      if (seen.count(key) == 0) {
        problems_.add(map, fmt::format("{}: found no key {} (expected it)", where, key));
      }
    }
  }

  std::string text(const YamlNode& node, const std::string& key, size_t max_bytes) {
    if (node.kind != YamlNode::Kind::kScalar || has_control(node.text)) {
      problems_.add(node, key, "text without control characters");
      return {};
    }
    if (node.text.size() > max_bytes) {
      problems_.add(node, key, fmt::format("at most {} bytes", max_bytes));
      return {};
    }
    return node.text;
  }

  void format(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kScalar && node.text == "module/1") return;
    problems_.add(node, "chimera", "module/1");
  }

  /// Sets `value` to what the scalar spells; leaves it as it is after a problem.
  template <class E, size_t N>
  void choice(const YamlNode& node, const std::string& key, const EnumNames<E, N>& names,
              E* value) {
    std::optional<E> found;
    if (node.kind == YamlNode::Kind::kScalar) found = names.find(node.text);
    if (found) {
      *value = *found;
    } else {
      problems_.add(node, key, names.choices());
    }
  }

  int64_t integer(const YamlNode& node, const std::string& key, int64_t min, int64_t max) {
    int64_t value = 0;
    const char* end = node.text.data() + node.text.size();
    const bool digits = node.kind == YamlNode::Kind::kScalar && node.plain && !node.text.empty() &&
                        node.text.find_first_not_of("0123456789") == std::string::npos;
    if (!digits || std::from_chars(node.text.data(), end, value).ec != std::errc() || value < min ||
        value > max) {
      problems_.add(node, key, fmt::format("an integer from {} to {}", min, max));
      return min;
    }
    return value;
  }

  std::string digest(const YamlNode& node, const std::string& key) {
    if (node.kind == YamlNode::Kind::kScalar && is_sha256(node.text)) return node.text;
    const bool may_be_open =
        node.kind == YamlNode::Kind::kNull || node.kind == YamlNode::Kind::kScalar;
    if (sealing_ == Sealing::kUnsealed && may_be_open) return {};
    problems_.add(node, key, "sha256: and 64 lower-case hex digits");
    return {};
  }

  /// A list of distinct integers in ascending order.
  std::vector<int64_t> integers(const YamlNode& node, const std::string& key, int64_t limit) {
    std::vector<int64_t> values;
    if (node.kind != YamlNode::Kind::kList || node.items.empty()) {
      problems_.add(node, key, "a list of integers");
      return values;
    }
    for (const YamlNode& item : node.items) {
      const int64_t value = integer(item, key, 0, limit - 1);
      if (!values.empty() && value <= values.back()) {
        problems_.add(item, key, "each number once, in ascending order");
        continue;
      }
      values.push_back(value);
    }
    return values;
  }

  void read_name(const YamlNode& node, Manifest& m) {
    if (node.kind == YamlNode::Kind::kScalar && is_module_name(node.text)) {
      m.name = node.text;
      return;
    }
    problems_.add(node, "name",
                  "1 to 63 of a-z, 0-9, _ and -, first a letter or digit; not backbone or base");
  }

  void read_version(const YamlNode& node, Manifest& m) {
    const bool good =
        node.kind == YamlNode::Kind::kScalar && !node.text.empty() && node.text.size() <= 64 &&
        std::all_of(node.text.begin(), node.text.end(), [](char c) {
          return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                 c == '.' || c == '+' || c == '-' || c == '_';
        });
    if (!good) problems_.add(node, "version", "1 to 64 letters, digits, . + - _, e.g. 1.2.0");
    if (good) m.version = node.text;
  }

  void read_backbone(const YamlNode& node, Manifest& m) {
    std::vector<std::string> required{"hidden_size"};
    if (sealing_ == Sealing::kSealed) required.push_back("fingerprint");
    fields(
        node, "backbone", required,
        {{"fingerprint",
          [&](const YamlNode& n) { m.backbone_fingerprint = digest(n, "backbone.fingerprint"); }},
         {"hidden_size", [&](const YamlNode& n) {
            m.hidden_size = integer(n, "backbone.hidden_size", 1, kMaxHidden);
          }}});
  }

  void read_layers(const YamlNode& node, Manifest& m) {
    if (node.kind == YamlNode::Kind::kScalar && node.text == "all") return;
    if (node.kind != YamlNode::Kind::kList) {
      problems_.add(node, "layers", "all, or a list of layer numbers");
      return;
    }
    m.layers = integers(node, "layers", kMaxLayers);
  }

  void read_files(const YamlNode& node, Manifest& m) {
    if (node.kind != YamlNode::Kind::kList || node.items.empty() || node.items.size() > kMaxFiles) {
      problems_.add(node, "files", fmt::format("a list of 1 to {} files", kMaxFiles));
      return;
    }
    for (const YamlNode& item : node.items) {
      ManifestFile file;
      std::vector<std::string> required{"path"};
      if (sealing_ == Sealing::kSealed) required.push_back("sha256");
      fields(item, "files", required,
             {{"path", [&](const YamlNode& n) { file.path = read_path(n, m); }},
              {"sha256", [&](const YamlNode& n) { file.sha256 = digest(n, "files.sha256"); }}});
      m.files.push_back(std::move(file));
    }
  }

  std::string read_path(const YamlNode& node, const Manifest& m) {
    if (node.kind != YamlNode::Kind::kScalar || !is_module_path(node.text)) {
      problems_.add(node, "files.path",
                    "a relative path inside the module directory of letters, digits, . _ - and /, "
                    "without ..");
      return {};
    }
    if (std::any_of(m.files.begin(), m.files.end(),
                    [&](const ManifestFile& f) { return f.path == node.text; })) {
      problems_.add(node, "files.path", "every file once");
    }
    return node.text;
  }

  static int64_t default_deadline_ms(Isolation isolation) {
    switch (isolation) {
      case Isolation::kProcess:
        return LibrarySpec().deadline_ms;
      case Isolation::kInProcess:
        return kInProcessDeadlineMs;
    }
    return LibrarySpec().deadline_ms;
  }

  void read_library(const YamlNode& node, Manifest& m) {
    LibrarySpec spec;
    spec.deadline_ms = 0;
    fields(node, "library", {},
           {{"file", [&](const YamlNode& n) { spec.file = listed(n, "library.file", m); }},
            {"id", [&](const YamlNode& n) { spec.id = plugin_id(n); }},
            {"isolation",
             [&](const YamlNode& n) {
               choice(n, "library.isolation", kIsolationNames, &spec.isolation);
             }},
            {"on_failure",
             [&](const YamlNode& n) {
               choice(n, "library.on_failure", kFailurePolicyNames, &spec.on_failure);
             }},
            {"gate", [&](const YamlNode& n) { spec.gate = listed(n, "library.gate", m); }},
            {"config",
             [&](const YamlNode& n) { spec.config = text(n, "library.config", kMaxConfig); }},
            {"deadline_ms",
             [&](const YamlNode& n) {
               spec.deadline_ms = integer(n, "library.deadline_ms", 1, kMaxDeadlineMs);
             }},
            {"memory_mib",
             [&](const YamlNode& n) {
               spec.memory_mib = integer(n, "library.memory_mib", 0, kMaxMemoryMib);
             }},
            {"slots", [&](const YamlNode& n) { read_slots(n, "library.slots", &spec.slots); }}});
    if (spec.deadline_ms == 0) spec.deadline_ms = default_deadline_ms(spec.isolation);
    m.library = std::move(spec);
  }

  /// A path that `files` lists.
  std::string listed(const YamlNode& node, const std::string& key, const Manifest& m) {
    const bool is = node.kind == YamlNode::Kind::kScalar &&
                    std::any_of(m.files.begin(), m.files.end(),
                                [&](const ManifestFile& f) { return f.path == node.text; });
    if (is) return node.text;
    problems_.add(node, key, "the path of one of `files`");
    return {};
  }

  std::string plugin_id(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kScalar && is_plugin_id(node.text)) return node.text;
    problems_.add(node, "library.id",
                  "1 to 127 of a-z, 0-9, . _ and -, first a letter or digit, e.g. com.example.law");
    return {};
  }

  /// What depends on more than one key; fills in what follows from `files`.
  void check_library(const YamlNode& root, const YamlNode* node, Manifest& m) {
    if (m.kind != ModuleKind::kLibrary) {
      if (node != nullptr) {
        problems_.add(*node,
                      "library: found it in a module of kind weights (expected no such key)");
      }
      return;
    }
    const YamlNode& at = node != nullptr ? *node : root;
    if (!m.library) m.library.emplace();
    LibrarySpec& spec = *m.library;
    const auto lists = [&](const std::string& path) {
      return std::any_of(m.files.begin(), m.files.end(),
                         [&](const auto& f) { return f.path == path; });
    };
    const auto is_library = [](const ManifestFile& f) { return f.path.ends_with(".so"); };
    const auto first = std::find_if(m.files.begin(), m.files.end(), is_library);
    if (spec.file.empty() && std::count_if(m.files.begin(), m.files.end(), is_library) == 1) {
      spec.file = first->path;
    }
    if (spec.file.empty()) {
      problems_.add(at,
                    "library.file: found nothing (expected the .so among `files`, as there is "
                    "not exactly one)");
    }
    if (spec.gate.empty() && lists("gate.safetensors")) spec.gate = "gate.safetensors";
    if (!spec.gate.empty() && !spec.gate.ends_with(".safetensors")) {
      problems_.add(at, "library.gate: found " + spec.gate + " (expected a .safetensors file)");
    }
    if ((m.attach == Attach::kReplace) == spec.slots.empty()) {
      problems_.add(at, spec.slots.empty()
                            ? "library.slots: found nothing (expected the slots of each layer, as "
                              "attach: replace)"
                            : "library.slots: found it (expected it beside attach: replace only)");
    }
  }

  void read_provenance(const YamlNode& node, Manifest& m) {
    fields(node, "provenance", {},
           {{"data", [&](const YamlNode& n) { read_data(n, m); }},
            {"parents", [&](const YamlNode& n) { read_parents(n, m); }},
            {"slots",
             [&](const YamlNode& n) { read_slots(n, "provenance.slots", &m.original_slots); }},
            {"num_experts_per_tok", [&](const YamlNode& n) {
               m.original_top_k = integer(n, "provenance.num_experts_per_tok", 1, kMaxSlots);
             }}});
  }

  void read_data(const YamlNode& node, Manifest& m) {
    if (node.kind != YamlNode::Kind::kList) {
      problems_.add(node, "provenance.data", "a list of sources");
      return;
    }
    for (const YamlNode& item : node.items) {
      m.data_sources.push_back(item.kind == YamlNode::Kind::kScalar ? item.text : item.flow());
    }
  }

  void read_parents(const YamlNode& node, Manifest& m) {
    if (node.kind != YamlNode::Kind::kList) {
      problems_.add(node, "provenance.parents", "a list");
      return;
    }
    for (const YamlNode& item : node.items) m.parents.push_back(item.flow());
  }

  void read_slots(const YamlNode& node, const std::string& name,
                  std::map<int64_t, std::vector<int64_t>>* slots) {
    if (node.kind != YamlNode::Kind::kMap) {
      problems_.add(node, name, "a map from layer to a list of slots");
      return;
    }
    for (const auto& [key, value] : node.entries) {
      const int64_t layer = integer(key, name, 0, kMaxLayers - 1);
      (*slots)[layer] = integers(value, name, kMaxSlots);
    }
  }

  void read_probe(const YamlNode& node, Manifest& m) {
    fields(
        node, "probe", {},
        {{"text", [&](const YamlNode& n) { m.probe_text = text(n, "probe.text", kMaxProbeBytes); }},
         {"max_bits_per_byte", [&](const YamlNode& n) { read_bound(n, m); }},
         {"tokens_digest",
          [&](const YamlNode& n) { m.probe_tokens_digest = digest(n, "probe.tokens_digest"); }}});
    if (m.probe_max_bits_per_byte && m.probe_text.empty()) {
      problems_.add(node, "probe: found max_bits_per_byte without text (expected both or none)");
    }
  }

  void read_bound(const YamlNode& node, Manifest& m) {
    double value = 0.0;
    const char* end = node.text.data() + node.text.size();
    const auto parsed = std::from_chars(node.text.data(), end, value);
    if (node.kind != YamlNode::Kind::kScalar || !node.plain || parsed.ec != std::errc() ||
        parsed.ptr != end || !(value > 0.0) || !(value <= 64.0)) {
      problems_.add(node, "probe.max_bits_per_byte", "a number above 0 and at most 64");
      return;
    }
    m.probe_max_bits_per_byte = value;
  }

  YamlProblems& problems_;
  Sealing sealing_;
};

}  // namespace

bool is_module_name(std::string_view name) {
  const auto letter_or_digit = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9');
  };
  if (name.empty() || name.size() > 63 || name == "backbone" || name == "base") return false;
  return letter_or_digit(name.front()) && std::all_of(name.begin(), name.end(), [&](char c) {
           return letter_or_digit(c) || c == '_' || c == '-';
         });
}

bool is_plugin_id(std::string_view id) {
  const auto inner = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '.' || c == '_' || c == '-';
  };
  return !id.empty() && id.size() <= 127 && std::all_of(id.begin(), id.end(), inner) &&
         id.front() != '.' && id.front() != '_' && id.front() != '-';
}

bool is_module_path(std::string_view path) {
  if (path.empty() || path.size() > 255) return false;
  for (size_t begin = 0; begin <= path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string_view part = path.substr(begin, end - begin);
    if (part.empty() || part == "." || part == "..") return false;
    begin = end + 1;
  }
  return std::all_of(path.begin(), path.end(), [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '.' ||
           c == '_' || c == '-' || c == '/';
  });
}

Result<Manifest> parse_manifest(std::string_view yaml, const std::string& label, Sealing sealing) {
  if (yaml.size() > kMaxManifestBytes) {
    return Status(Code::kInvalidArgument, fmt::format("{}: found {} bytes (expected at most {})",
                                                      label, yaml.size(), kMaxManifestBytes));
  }
  YamlProblems problems(label);
  Result<YamlNode> root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  Manifest manifest = ManifestReader(problems, sealing).read(*root);
  if (!problems.empty()) return problems.status(std::string(kHint));
  manifest.digest = sha256_of(yaml);
  return manifest;
}

std::optional<int64_t> Manifest::fitted_top_k() const {
  if (top_k || !original_top_k || *original_top_k > kMaxTopK) return top_k;
  return original_top_k;
}

Result<Manifest> read_manifest(const std::string& dir, Sealing sealing) {
  const Result<ModuleFile> file = ModuleFile::open(dir, "module.yaml");
  if (!file.ok()) return file.status();
  const Result<std::string> text = file->text(kMaxManifestBytes);
  if (!text.ok()) return text.status();
  return parse_manifest(*text, dir + "/module.yaml", sealing);
}

}  // namespace chimera
