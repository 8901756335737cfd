#include "base/elf/file.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace chimera {
namespace {

// A library has a dozen program headers, some twenty dynamic entries and names of symbols of a few
// hundred bytes; the bounds keep a hostile file from costing time.
constexpr size_t kMaxSegments = 256;
constexpr uint64_t kMaxDynamic = 4096;
constexpr size_t kMaxName = 64 * 1024;

Status corrupt(std::string what) { return {Code::kDataCorrupt, std::move(what)}; }

/// Reads of a T at an offset that is checked.
class Bytes {
 public:
  explicit Bytes(std::string_view bytes) : bytes_(bytes) {}

  bool covers(uint64_t offset, uint64_t size) const {
    return offset <= bytes_.size() && size <= bytes_.size() - offset;
  }
  template <class T>
  std::optional<T> at(uint64_t offset) const {
    if (!covers(offset, sizeof(T))) return std::nullopt;
    T out;
    std::memcpy(&out, bytes_.data() + offset, sizeof(T));
    return out;
  }
  /// A NUL-terminated text that lies within [offset, limit).
  std::optional<std::string_view> text(uint64_t offset, uint64_t limit) const {
    if (offset >= limit || !covers(offset, limit - offset)) return std::nullopt;
    const std::string_view rest =
        bytes_.substr(offset, std::min<uint64_t>(limit - offset, kMaxName));
    const size_t end = rest.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    return rest.substr(0, end);
  }
  /// REQUIRES: covers().
  std::string_view range(uint64_t offset, uint64_t size) const {
    return bytes_.substr(offset, size);
  }

 private:
  std::string_view bytes_;
};

struct Dynamic {
  uint64_t strtab = 0, strsz = 0, symtab = 0, hash = 0, gnu_hash = 0, rpath = 0, runpath = 0,
           soname = 0;
  bool has_rpath = false, has_runpath = false, has_soname = false;
  std::vector<uint64_t> needed;
};

void read_entry(const Elf64_Dyn& d, Dynamic& out, ElfFile& file) {
  const uint64_t v = d.d_un.d_val;
  switch (d.d_tag) {
    case DT_STRTAB:
      out.strtab = v;
      break;
    case DT_STRSZ:
      out.strsz = v;
      break;
    case DT_SYMTAB:
      out.symtab = v;
      break;
    case DT_HASH:
      out.hash = v;
      break;
    case DT_GNU_HASH:
      out.gnu_hash = v;
      break;
    case DT_NEEDED:
      out.needed.push_back(v);
      break;
    case DT_RPATH:
      out.rpath = v, out.has_rpath = true;
      break;
    case DT_RUNPATH:
      out.runpath = v, out.has_runpath = true;
      break;
    case DT_SONAME:
      out.soname = v, out.has_soname = true;
      break;
    case DT_TEXTREL:
      file.text_relocations = true;
      break;
    case DT_BIND_NOW:
      file.bind_now = true;
      break;
    case DT_FLAGS:
      file.flags = v;
      break;
    case DT_FLAGS_1:
      file.flags1 = v;
      break;
    default:
      break;
  }
}

/// Number of dynamic symbols, from the tables that the loader itself looks names up in.
std::optional<uint64_t> symbol_count(const Bytes& bytes, const ElfFile& file, const Dynamic& d) {
  if (d.hash != 0) {
    const auto at = file.file_offset(d.hash, 8);
    const auto chains = at ? bytes.at<uint32_t>(*at + 4) : std::nullopt;
    if (chains) return *chains;
    return std::nullopt;
  }
  if (d.gnu_hash == 0) return 0;
  const auto at = file.file_offset(d.gnu_hash, 16);
  if (!at) return std::nullopt;
  const auto buckets = bytes.at<uint32_t>(*at), first = bytes.at<uint32_t>(*at + 4),
             bloom = bytes.at<uint32_t>(*at + 8);
  if (!buckets || !first || !bloom) return std::nullopt;
  const uint64_t table = *at + 16 + uint64_t{*bloom} * 8;
  if (!bytes.covers(table, uint64_t{*buckets} * 4)) return std::nullopt;
  uint64_t last = 0;
  for (uint64_t b = 0; b < *buckets; ++b) {
    last = std::max<uint64_t>(last, bytes.at<uint32_t>(table + b * 4).value_or(0));
  }
  if (last < *first) return *first;
  const uint64_t chains = table + uint64_t{*buckets} * 4;
  for (;; ++last) {
    const auto word = bytes.at<uint32_t>(chains + (last - *first) * 4);
    if (!word) return std::nullopt;
    if ((*word & 1) != 0) return last + 1;
  }
}

std::string read_symbols(const Bytes& bytes, const Dynamic& d, uint64_t strings, ElfFile& file) {
  const auto count = symbol_count(bytes, file, d);
  if (!count) return "a symbol hash table that leaves the file";
  const auto table = file.file_offset(d.symtab, sizeof(Elf64_Sym));
  if (*count > 0 && !table) return "a symbol table that leaves the file";
  for (uint64_t i = 1; i < *count; ++i) {
    const auto s = bytes.at<Elf64_Sym>(*table + i * sizeof(Elf64_Sym));
    if (!s) return "a symbol table that leaves the file";
    const auto name = bytes.text(strings + s->st_name, strings + d.strsz);
    if (!name) return fmt::format("a name of symbol {} that leaves the string table", i);
    file.symbols.push_back({*name, static_cast<uint8_t>(ELF64_ST_BIND(s->st_info)),
                            static_cast<uint8_t>(ELF64_ST_TYPE(s->st_info)),
                            static_cast<uint8_t>(ELF64_ST_VISIBILITY(s->st_other)), s->st_shndx,
                            s->st_value, s->st_size});
  }
  return {};
}

std::string read_dynamic(const Bytes& bytes, const ElfSegment& segment, ElfFile& file) {
  Dynamic d;
  const uint64_t entries = std::min(segment.file_size / sizeof(Elf64_Dyn), kMaxDynamic);
  for (uint64_t i = 0; i < entries; ++i) {
    const auto entry = bytes.at<Elf64_Dyn>(segment.offset + i * sizeof(Elf64_Dyn));
    if (!entry) return "a dynamic section that leaves the file";
    if (entry->d_tag == DT_NULL) break;
    read_entry(*entry, d, file);
  }
  const auto strings = file.file_offset(d.strtab, d.strsz);
  if (!strings || d.strsz == 0) return "a string table that leaves the file";
  const uint64_t end = *strings + d.strsz;
  const auto text = [&](uint64_t offset) {
    return offset < d.strsz ? bytes.text(*strings + offset, end) : std::nullopt;
  };
  for (const uint64_t offset : d.needed) {
    const auto name = text(offset);
    if (!name) return "a name of a needed library that leaves the string table";
    file.needed.emplace_back(*name);
  }
  if (d.has_rpath) file.rpath = text(d.rpath).value_or("?");
  if (d.has_runpath) file.runpath = text(d.runpath).value_or("?");
  if (d.has_soname) file.soname = text(d.soname).value_or("?");
  return read_symbols(bytes, d, *strings, file);
}

void take_note(const Elf64_Nhdr& head, std::string_view owner, std::string_view payload,
               ElfFile& file) {
  if (owner == std::string_view("GNU\0", 4) && head.n_type == NT_GNU_BUILD_ID) {
    file.gnu_build_id.clear();
    for (const char byte : payload.substr(0, 64)) {
      file.gnu_build_id += fmt::format("{:02x}", static_cast<uint8_t>(byte));
    }
  }
  if (owner != std::string_view(CHIMERA_NOTE_OWNER, sizeof(CHIMERA_NOTE_OWNER)) ||
      head.n_type != CHIMERA_NOTE_TYPE) {
    return;
  }
  ++file.note_count;
  // A later minor may append fields.
  if (!file.note && payload.size() >= sizeof(chimera_expert_note)) {
    std::memcpy(&file.note.emplace(), payload.data(), sizeof(chimera_expert_note));
  }
}

/// Notes: three words and the owner, then the payload, each padded so that payload and next note
/// begin at a multiple of 4 bytes from the note's begin (8 in segments that are aligned so).
bool read_notes(const Bytes& bytes, const ElfSegment& segment, uint64_t align, ElfFile& file) {
  if (!bytes.covers(segment.offset, segment.file_size)) return false;
  const auto up = [align](uint64_t n) { return (n + align - 1) / align * align; };
  const uint64_t end = segment.offset + segment.file_size;
  for (uint64_t at = segment.offset; end - at >= sizeof(Elf64_Nhdr);) {
    const Elf64_Nhdr head = *bytes.at<Elf64_Nhdr>(at);
    // 32-bit sizes in 64-bit sums cannot wrap.
    const uint64_t payload = at + up(sizeof(Elf64_Nhdr) + uint64_t{head.n_namesz});
    if (payload > end || head.n_descsz > end - payload) return false;
    take_note(head, bytes.range(at + sizeof(Elf64_Nhdr), head.n_namesz),
              bytes.range(payload, head.n_descsz), file);
    at = payload + up(head.n_descsz);
    if (at >= end) break;
  }
  return true;
}

}  // namespace

std::optional<uint64_t> ElfFile::file_offset(uint64_t address, uint64_t size) const {
  for (const ElfSegment& s : segments) {
    if (s.type == PT_LOAD && address >= s.address && address - s.address <= s.file_size &&
        size <= s.file_size - (address - s.address)) {
      return s.offset + (address - s.address);
    }
  }
  return std::nullopt;
}

Result<ElfFile> parse_elf(std::string_view view) {
  const Bytes bytes(view);
  ElfFile file;
  if (view.size() < EI_NIDENT || std::memcmp(view.data(), ELFMAG, SELFMAG) != 0) {
    return corrupt("no ELF file");
  }
  file.elf_class = static_cast<uint8_t>(view[EI_CLASS]);
  file.byte_order = static_cast<uint8_t>(view[EI_DATA]);
  if (file.elf_class != ELFCLASS64 || file.byte_order != ELFDATA2LSB) return file;
  const auto head = bytes.at<Elf64_Ehdr>(0);
  if (!head) return corrupt("an ELF header that leaves the file");
  file.type = head->e_type;
  file.machine = head->e_machine;
  if (head->e_phnum > 0 && head->e_phentsize != sizeof(Elf64_Phdr)) {
    return corrupt("program headers of an unknown size");
  }
  if (head->e_phnum > kMaxSegments) return corrupt("more segments than any library has");
  if (!bytes.covers(head->e_phoff, uint64_t{head->e_phnum} * sizeof(Elf64_Phdr))) {
    return corrupt("program headers that leave the file");
  }
  for (uint64_t i = 0; i < head->e_phnum; ++i) {
    const Elf64_Phdr p = *bytes.at<Elf64_Phdr>(head->e_phoff + i * sizeof(Elf64_Phdr));
    if (p.p_type == PT_LOAD && !bytes.covers(p.p_offset, p.p_filesz)) {
      return corrupt("a segment that leaves the file: it is truncated");
    }
    file.segments.push_back({p.p_type, p.p_flags, p.p_offset, p.p_vaddr, p.p_filesz, p.p_memsz});
    if (p.p_type == PT_NOTE &&
        !read_notes(bytes, file.segments.back(), p.p_align == 8 ? 8 : 4, file)) {
      return corrupt("a note that leaves its segment");
    }
  }
  const auto dynamic = std::find_if(file.segments.begin(), file.segments.end(),
                                    [](const ElfSegment& s) { return s.type == PT_DYNAMIC; });
  if (dynamic == file.segments.end()) return file;
  if (std::string problem = read_dynamic(bytes, *dynamic, file); !problem.empty()) {
    return corrupt(std::move(problem));
  }
  return file;
}

std::string note_text(const char* field, size_t size) {
  return std::string(field, strnlen(field, size));
}

}  // namespace chimera
