#include "experts/library/elf_note.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/elf/file.h"
#include "chimera/expert.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

#if defined(__x86_64__)
constexpr uint16_t kMachine = EM_X86_64;
#elif defined(__aarch64__)
constexpr uint16_t kMachine = EM_AARCH64;
#else
#error "chimera/expert.h is for 64-bit x86 and ARM"
#endif

Status corrupt(const std::string& label, std::string_view found, std::string_view expected) {
  return {Code::kDataCorrupt, fmt::format("{}: found {} (expected {})", label, found, expected),
          "Build it as plugin-api/template does."};
}

/// A NUL-padded field; false when it is none, or not printable.
template <size_t size>
bool take_text(const char (&field)[size], std::string& out) {
  out = note_text(field, size);
  return out.size() < size &&
         std::all_of(out.begin(), out.end(), [](char c) { return c >= 0x20 && c < 0x7f; });
}

Status read_note(const chimera_expert_note& raw, const std::string& label, ElfNote& note) {
  note.abi_major = raw.abi_major;
  note.abi_minor = raw.abi_minor;
  note.plugin_count = raw.plugin_count;
  const bool texts = take_text(raw.id, note.id) && take_text(raw.version, note.version) &&
                     take_text(raw.build, note.build);
  if (!texts || !is_plugin_id(note.id)) {
    return corrupt(label, "a note with a text that is not one",
                   "an id like com.example.law, a version and a build, printable and NUL-padded");
  }
  if (note.abi_major == CHIMERA_ABI_MAJOR) return {};
  return Status(Code::kFailedPrecondition,
                fmt::format("{}: found plugin ABI {}.{} (expected {}.x)", label, note.abi_major,
                            note.abi_minor, CHIMERA_ABI_MAJOR),
                "Build it against the headers of this version.");
}

Status read_symbols(const ElfFile& file, const std::string& label, ElfNote& note) {
  if (file.symbols.empty()) return corrupt(label, "no usable symbol table", "one");
  for (const ElfSymbol& symbol : file.symbols) {
    if (symbol.section == SHN_UNDEF) continue;
    if (symbol.binding == STB_GNU_UNIQUE) ++note.unique_symbols;
    if (symbol.name == CHIMERA_EXPERT_ENTRY_SYMBOL) note.has_entry = true;
  }
  if (note.has_entry) return {};
  return corrupt(label, "no symbol " CHIMERA_EXPERT_ENTRY_SYMBOL, "it exported");
}

}  // namespace

Result<ElfNote> read_elf_note(std::span<const std::byte> bytes, const std::string& label) {
  const Result<ElfFile> file =
      parse_elf({reinterpret_cast<const char*>(bytes.data()), bytes.size()});
  if (!file.ok()) return corrupt(label, file.status().message(), "a whole shared library");
  if (file->elf_class != ELFCLASS64 || file->byte_order != ELFDATA2LSB ||
      file->machine != kMachine || file->type != ET_DYN) {
    return corrupt(label,
                   fmt::format("an ELF file of class {}, machine {}, type {}", file->elf_class,
                               file->machine, file->type),
                   "a 64-bit shared library for this machine");
  }
  if (file->note_count != 1) {
    return corrupt(
        label, file->note_count == 0 ? "no note of owner Chimera" : "two notes of owner Chimera",
        "one, from CHIMERA_EXPERT_NOTE");
  }
  if (!file->note) {
    return corrupt(label, "a note of owner Chimera that is too short",
                   fmt::format("at least {} bytes", sizeof(chimera_expert_note)));
  }
  ElfNote note;
  note.gnu_build_id = file->gnu_build_id;
  CHIMERA_RETURN_IF_ERROR(read_note(*file->note, label, note));
  CHIMERA_RETURN_IF_ERROR(read_symbols(*file, label, note));
  return note;
}

}  // namespace chimera
