#include "experts/library/elf_note.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

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

// A library has a dozen program headers and some twenty dynamic entries; the bounds keep a hostile
// file from costing time.
constexpr size_t kMaxSegments = 256;
constexpr size_t kMaxDynamic = 4096;

constexpr std::string_view kHint = "Build it as plugin-api/template does.";

/// The file with every access checked. Out of range: nullopt.
class ElfFile {
 public:
  explicit ElfFile(std::span<const std::byte> bytes) : bytes_(bytes) {}

  template <class T>
  std::optional<T> at(uint64_t offset) const {
    if (offset > bytes_.size() || bytes_.size() - offset < sizeof(T)) return std::nullopt;
    T value;
    std::memcpy(&value, bytes_.data() + offset, sizeof(T));
    return value;
  }

  std::optional<std::span<const std::byte>> range(uint64_t offset, uint64_t size) const {
    if (offset > bytes_.size() || bytes_.size() - offset < size) return std::nullopt;
    return bytes_.subspan(offset, size);
  }

  /// The NUL-terminated text at `offset`, empty when it does not end inside the file.
  std::string_view text(uint64_t offset) const {
    if (offset >= bytes_.size()) return {};
    const auto* begin = reinterpret_cast<const char*>(bytes_.data()) + offset;
    const auto* end = static_cast<const char*>(std::memchr(begin, 0, bytes_.size() - offset));
    return end == nullptr ? std::string_view() : std::string_view(begin, end);
  }

 private:
  std::span<const std::byte> bytes_;
};

class Reader {
 public:
  Reader(std::span<const std::byte> bytes, const std::string& label)
      : file_(bytes), label_(label) {}

  Result<ElfNote> read() {
    CHIMERA_RETURN_IF_ERROR(read_header());
    for (const Elf64_Phdr& segment : segments_) {
      if (segment.p_type == PT_NOTE) CHIMERA_RETURN_IF_ERROR(read_notes(segment));
    }
    if (!found_) {
      return corrupt("no note of owner Chimera", "one, from CHIMERA_EXPERT_NOTE");
    }
    if (note_.abi_major != CHIMERA_ABI_MAJOR) {
      return Status(Code::kFailedPrecondition,
                    fmt::format("{}: found plugin ABI {}.{} (expected {}.x)", label_,
                                note_.abi_major, note_.abi_minor, CHIMERA_ABI_MAJOR),
                    "Build it against the headers of this version.");
    }
    CHIMERA_RETURN_IF_ERROR(read_symbols());
    return std::move(note_);
  }

 private:
  Status corrupt(std::string_view found, std::string_view expected) const {
    return {Code::kDataCorrupt, fmt::format("{}: found {} (expected {})", label_, found, expected),
            std::string(kHint)};
  }

  Status read_header() {
    const auto header = file_.at<Elf64_Ehdr>(0);
    if (!header || std::memcmp(header->e_ident, ELFMAG, SELFMAG) != 0) {
      return corrupt("no ELF file", "a shared library");
    }
    if (header->e_ident[EI_CLASS] != ELFCLASS64 || header->e_ident[EI_DATA] != ELFDATA2LSB ||
        header->e_machine != kMachine || header->e_type != ET_DYN) {
      return corrupt(fmt::format("an ELF file of class {}, machine {}, type {}",
                                 header->e_ident[EI_CLASS], header->e_machine, header->e_type),
                     "a 64-bit shared library for this machine");
    }
    if (header->e_phentsize != sizeof(Elf64_Phdr) || header->e_phnum > kMaxSegments) {
      return corrupt(
          fmt::format("{} program headers of {} bytes", header->e_phnum, header->e_phentsize),
          "a regular program header table");
    }
    for (uint16_t i = 0; i < header->e_phnum; ++i) {
      // e_phoff + i * 56 cannot wrap: at() has refused offsets beyond the file before.
      if (header->e_phoff > UINT64_MAX - uint64_t{i} * sizeof(Elf64_Phdr)) {
        return corrupt("a program header outside of the file", "it inside");
      }
      const auto segment = file_.at<Elf64_Phdr>(header->e_phoff + uint64_t{i} * sizeof(Elf64_Phdr));
      if (!segment) return corrupt("a program header outside of the file", "it inside");
      if (!file_.range(segment->p_offset, segment->p_filesz)) {
        return corrupt("a segment outside of the file", "it inside");
      }
      segments_.push_back(*segment);
    }
    return {};
  }

  /// Notes: three words and the owner, then the payload, each padded so that payload and next note
  /// begin at a multiple of 4 bytes from the note's begin (8 in segments that are aligned so).
  Status read_notes(const Elf64_Phdr& segment) {
    const uint64_t align = segment.p_align == 8 ? 8 : 4;
    const auto up = [&](uint64_t n) { return (n + align - 1) / align * align; };
    const uint64_t end = segment.p_offset + segment.p_filesz;  // inside the file
    uint64_t at = segment.p_offset;
    while (end - at >= sizeof(Elf64_Nhdr)) {
      const Elf64_Nhdr header = *file_.at<Elf64_Nhdr>(at);
      const uint64_t owner = at + sizeof(Elf64_Nhdr);
      // 32-bit sizes in 64-bit sums cannot wrap.
      const uint64_t payload = at + up(sizeof(Elf64_Nhdr) + uint64_t{header.n_namesz});
      const uint64_t next = payload + up(header.n_descsz);
      if (payload > end || header.n_descsz > end - payload) {
        return corrupt("a note that leaves its segment", "it inside");
      }
      CHIMERA_RETURN_IF_ERROR(take_note(header, owner, payload));
      if (next >= end) break;
      at = next;
    }
    return {};
  }

  Status take_note(const Elf64_Nhdr& header, uint64_t owner, uint64_t payload) {
    const std::string_view name = file_.text(owner);
    if (header.n_namesz == 4 && name == "GNU" && header.n_type == NT_GNU_BUILD_ID) {
      const auto id = file_.range(payload, std::min<uint64_t>(header.n_descsz, 64));
      note_.gnu_build_id.clear();
      for (const std::byte b : *id) note_.gnu_build_id += fmt::format("{:02x}", uint8_t(b));
      return {};
    }
    if (header.n_namesz != sizeof(CHIMERA_NOTE_OWNER) || name != CHIMERA_NOTE_OWNER ||
        header.n_type != CHIMERA_NOTE_TYPE) {
      return {};
    }
    if (found_) return corrupt("two notes of owner Chimera", "one");
    // A later minor may append fields.
    const auto raw = file_.at<chimera_expert_note>(payload);
    if (!raw || header.n_descsz < sizeof(chimera_expert_note)) {
      return corrupt(fmt::format("a note of {} bytes", header.n_descsz),
                     fmt::format("at least {}", sizeof(chimera_expert_note)));
    }
    found_ = true;
    note_.abi_major = raw->abi_major;
    note_.abi_minor = raw->abi_minor;
    note_.plugin_count = raw->plugin_count;
    const bool texts = take_text(raw->id, sizeof(raw->id), &note_.id) &&
                       take_text(raw->version, sizeof(raw->version), &note_.version) &&
                       take_text(raw->build, sizeof(raw->build), &note_.build);
    if (!texts || !is_plugin_id(note_.id)) {
      return corrupt("a note with a text that is not one",
                     "an id like com.example.law, a version "
                     "and a build, printable and NUL-padded");
    }
    return {};
  }

  static bool take_text(const char* field, size_t size, std::string* out) {
    const size_t length = strnlen(field, size);
    if (length == size) return false;
    out->assign(field, length);
    return std::all_of(out->begin(), out->end(), [](char c) { return c >= 0x20 && c < 0x7f; });
  }

  /// Where the byte of virtual address `address` lies in the file.
  std::optional<uint64_t> offset_of(uint64_t address) const {
    for (const Elf64_Phdr& s : segments_) {
      if (s.p_type == PT_LOAD && address >= s.p_vaddr && address - s.p_vaddr < s.p_filesz) {
        return s.p_offset + (address - s.p_vaddr);
      }
    }
    return std::nullopt;
  }

  Status read_symbols() {
    const auto dynamic = std::find_if(segments_.begin(), segments_.end(),
                                      [](const auto& s) { return s.p_type == PT_DYNAMIC; });
    if (dynamic == segments_.end()) return corrupt("no dynamic section", "one");
    std::optional<uint64_t> symbols, strings, hash, gnu_hash;
    for (size_t i = 0; i < std::min(kMaxDynamic, dynamic->p_filesz / sizeof(Elf64_Dyn)); ++i) {
      const auto entry = file_.at<Elf64_Dyn>(dynamic->p_offset + i * sizeof(Elf64_Dyn));
      if (!entry || entry->d_tag == DT_NULL) break;
      if (entry->d_tag == DT_SYMTAB) symbols = offset_of(entry->d_un.d_ptr);
      if (entry->d_tag == DT_STRTAB) strings = offset_of(entry->d_un.d_ptr);
      if (entry->d_tag == DT_HASH) hash = offset_of(entry->d_un.d_ptr);
      if (entry->d_tag == DT_GNU_HASH) gnu_hash = offset_of(entry->d_un.d_ptr);
    }
    const std::optional<uint64_t> count = hash       ? hash_count(*hash)
                                          : gnu_hash ? gnu_hash_count(*gnu_hash)
                                                     : std::nullopt;
    if (!symbols || !strings || !count) return corrupt("no usable symbol table", "one");
    return read_table(*symbols, *strings, *count);
  }

  Status read_table(uint64_t symbols, uint64_t strings, uint64_t count) {
    if (count > SIZE_MAX / sizeof(Elf64_Sym) || !file_.range(symbols, count * sizeof(Elf64_Sym))) {
      return corrupt("a symbol table that leaves the file", "it inside");
    }
    for (uint64_t i = 0; i < count; ++i) {
      const Elf64_Sym symbol = *file_.at<Elf64_Sym>(symbols + i * sizeof(Elf64_Sym));
      if (symbol.st_shndx == SHN_UNDEF) continue;
      if (ELF64_ST_BIND(symbol.st_info) == STB_GNU_UNIQUE) ++note_.unique_symbols;
      if (strings <= UINT64_MAX - symbol.st_name &&
          file_.text(strings + symbol.st_name) == CHIMERA_EXPERT_ENTRY_SYMBOL) {
        note_.has_entry = true;
      }
    }
    if (note_.has_entry) return {};
    return corrupt("no symbol " CHIMERA_EXPERT_ENTRY_SYMBOL, "it exported");
  }

  std::optional<uint64_t> hash_count(uint64_t at) const {
    const auto chains = file_.at<uint32_t>(at + 4);
    return chains ? std::optional<uint64_t>(*chains) : std::nullopt;
  }

  /// One more than the largest index that a chain reaches. Layout: nbuckets, first symbol, bloom
  /// words, shift; the bloom words; the buckets; the chains, whose last link has bit 0 set.
  std::optional<uint64_t> gnu_hash_count(uint64_t at) const {
    const auto header = file_.at<std::array<uint32_t, 4>>(at);
    if (!header) return std::nullopt;
    const auto [buckets, first, bloom, shift] = *header;
    const uint64_t bucket_at = at + 16 + uint64_t{bloom} * 8;
    const uint64_t chain_at = bucket_at + uint64_t{buckets} * 4;
    if (!file_.range(bucket_at, uint64_t{buckets} * 4)) return std::nullopt;
    uint64_t last = 0;
    for (uint32_t i = 0; i < buckets; ++i) {
      last = std::max<uint64_t>(last, *file_.at<uint32_t>(bucket_at + uint64_t{i} * 4));
    }
    if (last < first) return first;  // no symbol is defined
    for (;; ++last) {
      const auto link = file_.at<uint32_t>(chain_at + (last - first) * 4);
      if (!link) return std::nullopt;
      if ((*link & 1) != 0) return last + 1;
    }
  }

  ElfFile file_;
  const std::string& label_;
  std::vector<Elf64_Phdr> segments_;
  ElfNote note_;
  bool found_ = false;
};

}  // namespace

Result<ElfNote> read_elf_note(std::span<const std::byte> file, const std::string& label) {
  return Reader(file, label).read();
}

}  // namespace chimera
