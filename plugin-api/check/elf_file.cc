#include "check/elf_file.h"

#include <elf.h>
#include <fmt/format.h>

#include <algorithm>
#include <cstring>

namespace chimera::check {
namespace {

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
  std::optional<std::string> text(uint64_t offset, uint64_t limit) const {
    if (offset >= limit || !covers(offset, limit - offset)) return std::nullopt;
    const std::string_view rest = bytes_.substr(offset, limit - offset);
    const size_t end = rest.find('\0');
    if (end == std::string_view::npos) return std::nullopt;
    return std::string(rest.substr(0, end));
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
  if (!count) return "its symbol hash table leaves the file";
  const auto table = file.file_offset(d.symtab, sizeof(Elf64_Sym));
  if (*count > 0 && !table) return "its symbol table leaves the file";
  for (uint64_t i = 1; i < *count; ++i) {
    const auto s = bytes.at<Elf64_Sym>(*table + i * sizeof(Elf64_Sym));
    if (!s) return "its symbol table leaves the file";
    const auto name = bytes.text(strings + s->st_name, strings + d.strsz);
    if (!name) return fmt::format("the name of symbol {} leaves the string table", i);
    file.symbols.push_back({*name, static_cast<uint8_t>(ELF64_ST_BIND(s->st_info)),
                            static_cast<uint8_t>(ELF64_ST_TYPE(s->st_info)),
                            static_cast<uint8_t>(ELF64_ST_VISIBILITY(s->st_other)), s->st_shndx,
                            s->st_value, s->st_size});
  }
  return {};
}

std::string read_dynamic(const Bytes& bytes, const ElfSegment& segment, ElfFile& file) {
  Dynamic d;
  for (uint64_t at = 0; at + sizeof(Elf64_Dyn) <= segment.file_size; at += sizeof(Elf64_Dyn)) {
    const auto entry = bytes.at<Elf64_Dyn>(segment.offset + at);
    if (!entry) return "its dynamic section leaves the file";
    if (entry->d_tag == DT_NULL) break;
    read_entry(*entry, d, file);
  }
  const auto strings = file.file_offset(d.strtab, d.strsz);
  if (!strings || d.strsz == 0) return "its string table leaves the file";
  const uint64_t end = *strings + d.strsz;
  const auto text = [&](uint64_t offset) {
    return offset < d.strsz ? bytes.text(*strings + offset, end) : std::nullopt;
  };
  for (const uint64_t offset : d.needed) {
    const auto name = text(offset);
    if (!name) return "the name of a needed library leaves the string table";
    file.needed.push_back(*name);
  }
  if (d.has_rpath) file.rpath = text(d.rpath).value_or("?");
  if (d.has_runpath) file.runpath = text(d.runpath).value_or("?");
  if (d.has_soname) file.soname = text(d.soname).value_or("?");
  return read_symbols(bytes, d, *strings, file);
}

uint64_t padded(uint64_t size) { return (size + 3) & ~uint64_t{3}; }

void read_notes(const Bytes& bytes, const ElfSegment& segment, ElfFile& file) {
  uint64_t at = segment.offset;
  if (!bytes.covers(at, segment.file_size)) return;
  const uint64_t end = at + segment.file_size;
  while (end - at >= sizeof(Elf64_Nhdr)) {
    const auto head = bytes.at<Elf64_Nhdr>(at);
    at += sizeof(Elf64_Nhdr);
    const uint64_t name = padded(head->n_namesz), payload = padded(head->n_descsz);
    if (name > end - at || payload > end - at - name) return;
    const auto owner = bytes.text(at, at + head->n_namesz);
    if (owner && *owner == CHIMERA_NOTE_OWNER && head->n_type == CHIMERA_NOTE_TYPE) {
      ++file.note_count;
      if (!file.note && head->n_descsz >= sizeof(chimera_expert_note)) {
        file.note = bytes.at<chimera_expert_note>(at + name);
      }
    }
    at += name + payload;
  }
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

std::variant<ElfFile, std::string> parse_elf(std::string_view view) {
  const Bytes bytes(view);
  ElfFile file;
  if (view.size() < EI_NIDENT || std::memcmp(view.data(), ELFMAG, SELFMAG) != 0) {
    return "it is no ELF file";
  }
  file.elf_class = static_cast<uint8_t>(view[EI_CLASS]);
  file.byte_order = static_cast<uint8_t>(view[EI_DATA]);
  if (file.elf_class != ELFCLASS64 || file.byte_order != ELFDATA2LSB) return file;
  const auto head = bytes.at<Elf64_Ehdr>(0);
  if (!head) return "its ELF header leaves the file";
  file.type = head->e_type;
  file.machine = head->e_machine;
  if (head->e_phnum > 0 && head->e_phentsize != sizeof(Elf64_Phdr)) {
    return "its program headers have an unknown size";
  }
  for (uint64_t i = 0; i < head->e_phnum; ++i) {
    const auto p = bytes.at<Elf64_Phdr>(head->e_phoff + i * sizeof(Elf64_Phdr));
    if (!p) return "its program headers leave the file";
    if (p->p_type == PT_LOAD && !bytes.covers(p->p_offset, p->p_filesz)) {
      return "a segment leaves the file: it is truncated";
    }
    file.segments.push_back(
        {p->p_type, p->p_flags, p->p_offset, p->p_vaddr, p->p_filesz, p->p_memsz});
  }
  for (const ElfSegment& s : file.segments) {
    if (s.type == PT_NOTE) read_notes(bytes, s, file);
  }
  for (const ElfSegment& s : file.segments) {
    if (s.type != PT_DYNAMIC) continue;
    if (std::string problem = read_dynamic(bytes, s, file); !problem.empty()) return problem;
  }
  return file;
}

std::string note_text(const char* field, size_t size) {
  return std::string(field, strnlen(field, size));
}

}  // namespace chimera::check
