// Group A: what the file says before any of its code runs. (7 and 9 also ask the loaded library.)
#include <elf.h>
#include <sodium.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <fstream>

#include "base/elf/file.h"
#include "check/cases/case.h"
#include "check/instructions.h"
#include "check/plugin.h"

namespace chimera::check {
namespace {

/// The parsed library, or the finding of a case that needs it: case 1 fails, others are skipped.
std::variant<ElfFile, Finding> parsed(Context& context) {
  auto parsed = parse_elf(context.subject.bytes);
  if (!parsed.ok()) {
    const std::string& found = parsed.status().message();
    if (context.case_number == 1)
      return fail("found {} (expected an ELF64 shared library).", found);
    return skip("see case 1: found {}.", found);
  }
  ElfFile& file = *parsed;
  if (context.case_number != 1 && file.elf_class != ELFCLASS64) {
    return skip("see case 1: it is no ELF64 file.");
  }
  return std::move(file);
}

bool exported(const ElfSymbol& s) {
  // Absolute ones are the names of symbol versions.
  return s.section != SHN_UNDEF && s.section != SHN_ABS && s.binding != STB_LOCAL &&
         (s.visibility == STV_DEFAULT || s.visibility == STV_PROTECTED);
}

std::string first_few(const std::vector<std::string>& names) {
  std::string out;
  for (size_t i = 0; i < names.size() && i < 3; ++i) out += (i == 0 ? "" : ", ") + names[i];
  return names.size() > 3 ? fmt::format("{} and {} more", out, names.size() - 3) : out;
}

bool writable(const ElfFile& file, uint64_t address) {
  const auto within = [&](const ElfSegment& s) {
    return address >= s.address && address - s.address < s.memory_size;
  };
  for (const ElfSegment& s : file.segments) {
    if (s.type == PT_GNU_RELRO && within(s)) return false;
  }
  return std::any_of(file.segments.begin(), file.segments.end(), [&](const ElfSegment& s) {
    return s.type == PT_LOAD && (s.flags & PF_W) != 0 && within(s);
  });
}

std::string sha256_text(const std::string& bytes) {
  std::array<unsigned char, crypto_hash_sha256_BYTES> hash;
  crypto_hash_sha256(hash.data(), reinterpret_cast<const unsigned char*>(bytes.data()),
                     bytes.size());
  std::string out = "sha256:";
  for (const unsigned char c : hash) out += fmt::format("{:02x}", c);
  return out;
}

/// What the note says otherwise than the loaded library; empty: nothing.
std::string note_against_library(const chimera_expert_note& note, const Plugin& plugin) {
  const auto& first = *plugin.factory().descriptor(0);
  const std::string id = note_text(note.id, sizeof(note.id));
  const std::string version = note_text(note.version, sizeof(note.version));
  if (id != first.id_borrowed)
    return fmt::format("id: note {}, descriptor {}", id, first.id_borrowed);
  if (version != text_of(first.version)) {
    return fmt::format("version: note {}, descriptor {}", version, text_of(first.version));
  }
  if (note.plugin_count != plugin.factory().count()) {
    return fmt::format("plugins: note {}, factory {}", note.plugin_count, plugin.factory().count());
  }
  if (note.abi_major != plugin.entry().abi_major || note.abi_minor != plugin.entry().abi_minor) {
    return fmt::format("ABI: note {}.{}, entry {}.{}", note.abi_major, note.abi_minor,
                       plugin.entry().abi_major, plugin.entry().abi_minor);
  }
  return {};
}

/// What the manifest says otherwise than the descriptor.
std::string manifest_against_library(const ModuleManifest& m, const chimera_expert_descriptor& d) {
  if (m.version != text_of(d.version)) {
    return fmt::format("version: manifest {}, descriptor {}", m.version, text_of(d.version));
  }
  if (m.hidden_size != int64_t{d.d_model}) {
    return fmt::format("row length: manifest {}, descriptor {}", m.hidden_size, d.d_model);
  }
  const std::string fingerprint = text_of(d.backbone_fingerprint);
  if (!fingerprint.empty() && fingerprint != m.fingerprint) {
    return fmt::format("fingerprint: manifest {}, descriptor {}", m.fingerprint, fingerprint);
  }
  if (m.layers) {
    std::vector<int64_t> layers;
    for (uint64_t i = 0; i < d.layer_count; ++i) layers.push_back(d.layers_borrowed[i].layer);
    if (layers != *m.layers) return "layers: manifest and descriptor list different ones";
  }
  return {};
}

}  // namespace

Finding check_elf_class(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const ElfFile& file = std::get<ElfFile>(result);
  if (file.elf_class != ELFCLASS64 || file.byte_order != ELFDATA2LSB) {
    return fail("found ELF class {} and byte order {} (expected 64-bit, little-endian).",
                file.elf_class, file.byte_order);
  }
  if (file.type != ET_DYN) return fail("found ELF type {} (expected a shared library).", file.type);
  if (file.machine != EM_X86_64) return fail("found machine {} (expected x86-64).", file.machine);
  const bool program = (file.flags1 & DF_1_PIE) != 0 ||
                       std::any_of(file.segments.begin(), file.segments.end(),
                                   [](const ElfSegment& s) { return s.type == PT_INTERP; });
  if (program) return fail("it is a program (expected a shared library).");
  return pass("64-bit shared library for x86-64.");
}

Finding check_one_symbol(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const ElfFile& file = std::get<ElfFile>(result);
  std::vector<std::string> others;
  const ElfSymbol* entry = nullptr;
  for (const ElfSymbol& s : file.symbols) {
    if (!exported(s) || s.binding == STB_GNU_UNIQUE) continue;  // unique ones: case 3
    if (s.name == CHIMERA_EXPERT_ENTRY_SYMBOL) {
      entry = &s;
    } else {
      others.emplace_back(s.name);
    }
  }
  if (entry == nullptr) return fail("found no symbol {}.", CHIMERA_EXPERT_ENTRY_SYMBOL);
  if (!others.empty()) {
    return fail("exports {} beside the entry (expected a version script with local: *).",
                first_few(others));
  }
  if (entry->type != STT_OBJECT || entry->size < sizeof(chimera_expert_entry)) {
    return fail("the entry has type {} and {} bytes (expected a data object of {} or more).",
                entry->type, entry->size, sizeof(chimera_expert_entry));
  }
  if (writable(file, entry->value))
    return fail("the entry lies in writable memory (expected const).");
  return pass("exports {} alone, read-only.", CHIMERA_EXPERT_ENTRY_SYMBOL);
}

Finding check_unique_symbols(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  std::vector<std::string> unique;
  for (const ElfSymbol& s : std::get<ElfFile>(result).symbols) {
    if (s.binding == STB_GNU_UNIQUE && s.section != SHN_UNDEF) unique.emplace_back(s.name);
  }
  if (unique.empty()) return pass("no STB_GNU_UNIQUE symbol.");
  return fail("{} STB_GNU_UNIQUE symbols, e.g. {}: compile with -fno-gnu-unique.", unique.size(),
              unique.front());
}

Finding check_hardening(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const ElfFile& file = std::get<ElfFile>(result);
  const auto find = [&](uint32_t type) {
    return std::find_if(file.segments.begin(), file.segments.end(),
                        [&](const ElfSegment& s) { return s.type == type; });
  };
  if (file.text_relocations || (file.flags & DF_TEXTREL) != 0) {
    return fail("it has text relocations: compile with -fPIC.");
  }
  const auto stack = find(PT_GNU_STACK);
  if (stack == file.segments.end() || (stack->flags & PF_X) != 0) {
    return fail("it asks for an executable stack: link with -z noexecstack.");
  }
  for (const ElfSegment& s : file.segments) {
    if (s.type == PT_LOAD && (s.flags & (PF_W | PF_X)) == (PF_W | PF_X)) {
      return fail("a segment is writable and executable.");
    }
  }
  if (find(PT_GNU_RELRO) == file.segments.end()) return fail("no relro: link with -z relro.");
  if (!file.bind_now && (file.flags & DF_BIND_NOW) == 0 && (file.flags1 & DF_1_NOW) == 0) {
    return fail("it binds lazily: link with -z now.");
  }
  return pass("position-independent, relro, bound at load time, no executable stack.");
}

Finding check_needed(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  static constexpr std::array kHave = {"libc.so.6",     "libm.so.6",     "libstdc++.so.6",
                                       "libgcc_s.so.1", "libdl.so.2",    "libpthread.so.0",
                                       "librt.so.1",    "libmvec.so.1",  "ld-linux-x86-64.so.2",
                                       "libasan.so.8",  "libubsan.so.1", "libtsan.so.2"};
  std::vector<std::string> others;
  for (const std::string& name : std::get<ElfFile>(result).needed) {
    const auto& allowed = context.subject.allowed_libraries;
    if (std::find(kHave.begin(), kHave.end(), name) == kHave.end() &&
        std::find(allowed.begin(), allowed.end(), name) == allowed.end()) {
      others.push_back(name);
    }
  }
  if (others.empty()) return pass("needs only the C and C++ run-time libraries.");
  return fail("needs {}: link it statically and hidden, or name it with --allow.",
              first_few(others));
}

Finding check_run_path(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const ElfFile& file = std::get<ElfFile>(result);
  for (const std::string& paths : {file.rpath, file.runpath}) {
    for (size_t begin = 0; begin < paths.size();) {
      const size_t end = std::min(paths.find(':', begin), paths.size());
      const std::string path = paths.substr(begin, end - begin);
      const bool own = path == "$ORIGIN" || path.rfind("$ORIGIN/", 0) == 0;
      if (!own || path.find("..") != std::string::npos) {
        return fail("looks for libraries in \"{}\" (expected no run path, or $ORIGIN).", path);
      }
      begin = end + 1;
    }
  }
  return pass(
      "{}", file.rpath.empty() && file.runpath.empty() ? "no run path." : "run path $ORIGIN only.");
}

Finding check_note(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const ElfFile& file = std::get<ElfFile>(result);
  if (file.note_count != 1 || !file.note) {
    return fail("found {} ELF notes of Chimera (expected one: CHIMERA_EXPERT_NOTE).",
                file.note_count);
  }
  if (file.note->abi_major != CHIMERA_ABI_MAJOR) {
    return fail("the note says ABI {} (expected {}).", file.note->abi_major, CHIMERA_ABI_MAJOR);
  }
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  std::string problem = note_against_library(*file.note, plugin);
  const auto& manifest = context.subject.manifest;
  if (problem.empty() && manifest)
    problem = manifest_against_library(*manifest, plugin.descriptor());
  if (!problem.empty()) return fail("{}.", problem);
  return pass("note{}, entry and descriptor agree: {} {}.", manifest ? ", manifest" : "",
              plugin.descriptor().id_borrowed, text_of(plugin.descriptor().version));
}

Finding check_digests(Context& context) {
  const auto& manifest = context.subject.manifest;
  if (!manifest) return skip("no module directory was given, so there is no manifest.");
  for (const ModuleFile& f : manifest->files) {
    const auto bytes = read_file(context.subject.module_dir + "/" + f.path, uint64_t{8} << 30);
    if (!bytes) return fail("{}: cannot be read.", f.path);
    const std::string found = sha256_text(*bytes);
    if (f.sha256.empty())
      return fail("{}: the manifest has no sha256 (run chimera module seal).", f.path);
    if (f.sha256 != found) return fail("{}: found {} (expected {}).", f.path, found, f.sha256);
  }
  return pass("{} files have the digests of module.yaml.", manifest->files.size());
}

Finding check_instructions(Context& context) {
  auto result = parsed(context);
  if (auto* finding = std::get_if<Finding>(&result)) return *finding;
  const std::string path = context.work_dir + "/disassembled.so";
  std::ofstream(path, std::ios::binary) << context.subject.bytes;
  const auto scan = scan_instructions(path);
  if (!scan)
    return skip("objdump is not installed (package binutils), so nothing was disassembled.");
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const uint64_t declared = with_implied(plugin.descriptor().cpu_features);
  std::string beyond;
  for (const auto& [feature, example] : scan->examples) {
    if ((declared & feature) != 0) continue;
    beyond += fmt::format("{}{} ({})", beyond.empty() ? "" : ", ", feature_name(feature), example);
  }
  const auto& symbols = std::get<ElfFile>(result).symbols;
  const bool asks =
      scan->asks_cpu || std::any_of(symbols.begin(), symbols.end(), [](const ElfSymbol& s) {
        return s.name == "getauxval" || s.name.rfind("__x86_get_cpu", 0) == 0;
      });
  if (beyond.empty())
    return pass("{} instructions, none beyond the declared features.", scan->count);
  if (asks) return pass("uses {} and asks the CPU at run time.", beyond);
  return fail("uses {} without declaring it in cpu_features and without ever asking the CPU.",
              beyond);
}

}  // namespace chimera::check
