#include "base/elf/file.h"

#include <dlfcn.h>
#include <elf.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <exception>
#include <fstream>
#include <sstream>

namespace chimera {
namespace {

/// A shared library with dynamic symbols and notes that every machine has: the C++ runtime.
std::string own_bytes() {
  Dl_info info{};
  EXPECT_NE(dladdr(reinterpret_cast<const void*>(&std::terminate), &info), 0);
  std::ostringstream out;
  out << std::ifstream(info.dli_fname, std::ios::binary).rdbuf();
  return out.str();
}

TEST(ElfFile, SaysWhatTheLoaderSees) {
  const std::string bytes = own_bytes();
  const Result<ElfFile> file = parse_elf(bytes);
  ASSERT_TRUE(file.ok()) << file.status().message();
  EXPECT_EQ(file->elf_class, ELFCLASS64);
  EXPECT_EQ(file->type, ET_DYN);
  EXPECT_THAT(file->needed, testing::Contains("libc.so.6"));
  EXPECT_EQ(file->note_count, 0u);
  size_t imports = 0;
  for (const ElfSymbol& symbol : file->symbols) imports += symbol.section == SHN_UNDEF ? 1 : 0;
  EXPECT_GT(imports, 10u);
}

TEST(ElfFile, AFileCutAnywhereIsReadWithinItsBytes) {
  const std::string bytes = own_bytes();
  size_t refused = 0;
  // On the heap and of the very size, so that a sanitizer sees every byte beyond.
  for (size_t size = 0; size < 8192; size += size < 512 ? 1 : 61) {
    const std::vector<char> cut(bytes.begin(), bytes.begin() + static_cast<ptrdiff_t>(size));
    refused += parse_elf({cut.data(), cut.size()}).ok() ? 0 : 1;
  }
  EXPECT_GT(refused, 512u);
  EXPECT_EQ(parse_elf(bytes.substr(0, 4096)).status().message(),
            "a segment that leaves the file: it is truncated");
}

TEST(ElfFile, RefusesOtherFilesAndMoreSegmentsThanAnyLibraryHas) {
  EXPECT_EQ(parse_elf("#!/bin/sh\n").status().message(), "no ELF file");
  EXPECT_EQ(parse_elf("").status().code(), Code::kDataCorrupt);
  std::string bytes = own_bytes();
  auto* header = reinterpret_cast<Elf64_Ehdr*>(bytes.data());
  header->e_phnum = 60'000;
  EXPECT_EQ(parse_elf(bytes).status().message(), "more segments than any library has");
  header->e_phnum = 3;
  header->e_phoff = UINT64_MAX - 8;
  EXPECT_EQ(parse_elf(bytes).status().message(), "program headers that leave the file");
}

}  // namespace
}  // namespace chimera
