#include "base/io/foreign_file.h"

#include <algorithm>
#include <array>
#include <cctype>
#include <span>

namespace chimera {
namespace {

struct Kind {
  std::string_view begin;  // lower case where letters stand
  std::string_view what;
  std::string_view hint;
};

constexpr std::array<Kind, 2> kPointers = {{
    {"version https://git-lfs", "is a Git LFS pointer, not the file itself",
     "Fetch the file: git lfs pull, or download it."},
    {"/annex/objects/", "is a git-annex pointer, not the file itself",
     "Fetch the file: git annex get."},
}};
constexpr std::string_view kDownloadAgain = "Download it again.";
constexpr std::string_view kConvert =
    "Use the checkpoint in safetensors, as its vendor releases it or as save_pretrained writes it.";
constexpr std::array<Kind, 7> kFormats = {{
    {"<!doctype html", "is a web page", kDownloadAgain},
    {"<html", "is a web page", kDownloadAgain},
    {"<?xml", "is an XML document", kDownloadAgain},
    {"gguf", "is a GGUF file", kConvert},
    {"pk\x03\x04", "is a ZIP archive, as PyTorch writes", kConvert},
    {"\x80\x02", "is a Python pickle", kConvert},
    {"\x1f\x8b", "is compressed with gzip", "Decompress it."},
}};

Status refuse(std::string_view begin, const std::string& path, std::span<const Kind> kinds) {
  std::string lower(begin.substr(0, kForeignFileBytes));
  std::transform(lower.begin(), lower.end(), lower.begin(), [](char c) {
    return static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  });
  for (const Kind& kind : kinds) {
    if (lower.starts_with(kind.begin))
      return {Code::kDataCorrupt, path + ": " + std::string(kind.what), std::string(kind.hint)};
  }
  return {};
}

}  // namespace

Status refuse_pointer_file(std::string_view begin, const std::string& path) {
  return refuse(begin, path, kPointers);
}

Status refuse_foreign_file(std::string_view begin, const std::string& path) {
  CHIMERA_RETURN_IF_ERROR(refuse_pointer_file(begin, path));
  return refuse(begin, path, kFormats);
}

}  // namespace chimera
