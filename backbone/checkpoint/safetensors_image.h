// Safetensors files made by hand, for tests. Not part of any library.
//
// Thread safety: free functions; a fixture by the thread of its test.
#pragma once

#include <unistd.h>

#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <string>

#include <gtest/gtest.h>

#include "backbone/checkpoint/safetensors.h"

namespace chimera {

inline std::string length_bytes(uint64_t n) {
  std::string out(8, '\0');
  std::memcpy(out.data(), &n, 8);  // the tests run on little-endian machines only
  return out;
}

inline std::string image(const std::string& header, const std::string& data = "") {
  return length_bytes(header.size()) + header + data;
}

/// One entry of a header.
inline std::string entry(const std::string& name, const std::string& dtype,
                         const std::string& shape, const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape +
         ",\"data_offsets\":" + offsets + "}";
}

inline Result<SafetensorsFile> parse(const std::string& bytes) {
  return SafetensorsFile::parse(std::as_bytes(std::span(bytes)), "model.st");
}

/// A scratch directory with one file in it.
class SafetensorsTest : public testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = testing::TempDir() + "safetensors_test_XXXXXX";
    ASSERT_NE(::mkdtemp(pattern.data()), nullptr);
    dir_ = pattern;
    path_ = dir_ + "/model.safetensors";
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }

  void put(const std::string& bytes) const { std::ofstream(path_, std::ios::binary) << bytes; }

  std::string dir_;
  std::string path_;
};

}  // namespace chimera
