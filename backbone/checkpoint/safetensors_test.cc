// Reader: odd files that must load, files that change on disk, bounds on time and memory.
#include "backbone/checkpoint/safetensors.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>

#include "backbone/checkpoint/safetensors_image.h"
#include "base/io/digest.h"
#include "base/io/fault_env.h"
#include "base/testing.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;
using testing::HasSubstr;

TEST_F(SafetensorsTest, LoadsOddFiles) {
  const std::string a = entry("a", "U8", "[1]", "[0,1]");
  struct Odd {
    std::string name, bytes;
    size_t tensors;
  };
  const Odd files[] = {
      {"no tensors", image("{}"), 0},
      {"empty metadata", image(R"({"__metadata__":{}})"), 0},
      {"whitespace around", image(" \t\r\n{ } \n\n"), 0},
      {"whitespace inside",
       image("{ \"a\" : { \"dtype\" :\t\"U8\" ,\n\"shape\" : [ 1 ] , \"data_offsets\" : [ 0 , 1 ] "
             "} }",
             "x"),
       1},
      {"scalar", image("{" + entry("a", "F32", "[]", "[0,4]") + "}", "1234"), 1},
      {"zero dimension", image("{" + entry("a", "F32", "[3,0,2]", "[0,0]") + "}"), 1},
      {"empty tensors between",
       image("{" + entry("e", "F64", "[0]", "[1,1]") + "," + a + "," +
                 entry("f", "U8", "[0]", "[0,0]") + "," + entry("g", "U8", "[0]", "[1,1]") + "}",
             "x"),
       4},
      {"rank 8", image("{" + entry("a", "U8", "[1,1,1,1,1,1,1,2]", "[0,2]") + "}", "xy"), 1},
      {"empty name", image("{" + entry("", "U8", "[1]", "[0,1]") + "}", "x"), 1},
      {"not in data order", image("{" + entry("z", "U8", "[2]", "[1,3]") + "," + a + "}", "xyz"),
       2},
      {"keys in another order",
       image(R"({"a":{"data_offsets":[0,1],"shape":[1],"dtype":"U8"}})", "x"), 1},
      {"odd alignment", image("{" + a + "," + entry("b", "F32", "[1]", "[1,5]") + "}", "xyzuv"), 2},
      {"escaped keys",
       image(R"({"\u0061\/\n\ud83d\ude00":{"d\u0074ype":"U8","shape":[1],"data_offsets":[0,1]}})",
             "x"),
       1},
      {"metadata last", image("{" + a + R"(,"__metadata__":{"format":"pt","k":"\u0000"}})", "x"),
       1}};
  for (const Odd& odd : files) {
    SCOPED_TRACE(odd.name);
    put(odd.bytes);
    for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
      const auto file = SafetensorsFile::open(path_, residency);
      ASSERT_TRUE(file.ok()) << file.status().to_string();
      EXPECT_EQ(file->tensors().size(), odd.tensors);
      EXPECT_EQ(file->file_bytes(), odd.bytes.size());
      EXPECT_EQ(file->sha256(), sha256_of(odd.bytes));
      for (const TensorView& t : file->tensors()) EXPECT_EQ(file->find(t.name), &t);
      EXPECT_EQ(file->find("no such tensor"), nullptr);
    }
  }
}

TEST_F(SafetensorsTest, ViewsShowNameShapeAndBytes) {
  const std::string bytes =
      image("{" + entry("z", "BF16", "[2,1]", "[1,5]") + "," +
                entry("\\u00e4", "U8", "[1]", "[0,1]") + R"(,"__metadata__":{"format":"pt"}})",
            "xABCD");
  const auto file = parse(bytes);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  ASSERT_EQ(file->tensors().size(), 2u);
  EXPECT_EQ(file->tensors()[0].name, "\xc3\xa4");  // data order
  const TensorView& z = *file->find("z");
  EXPECT_EQ(z.dtype, DType::kBF16);
  EXPECT_EQ(z.shape, (std::vector<int64_t>{2, 1}));
  EXPECT_EQ(std::memcmp(z.bytes.data(), "ABCD", 4), 0);
  EXPECT_EQ(file->metadata().at("format"), "pt");
}

TEST_F(SafetensorsTest, RefusesWhatIsNoRegularFile) {
  const std::string fifo = dir_ + "/fifo", looped = dir_ + "/loop";
  ASSERT_EQ(::mkfifo(fifo.c_str(), 0600), 0);
  ASSERT_EQ(::symlink(looped.c_str(), looped.c_str()), 0);
  for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
    for (const std::string& path : {fifo, dir_, looped, std::string("/dev/zero")}) {
      const auto file = SafetensorsFile::open(path, residency);
      EXPECT_EQ(file.status().code(), Code::kInvalidArgument) << path;
      EXPECT_THAT(file.status().message(), HasSubstr(path));
    }
    EXPECT_EQ(SafetensorsFile::open(dir_ + "/none", residency).status().code(), Code::kNotFound);
  }
}

TEST_F(SafetensorsTest, FollowsSymbolicLinks) {
  put(image("{}"));
  const std::string link = dir_ + "/link.safetensors";
  ASSERT_EQ(::symlink(path_.c_str(), link.c_str()), 0);
  EXPECT_TRUE(SafetensorsFile::open(link, Residency::kCopied).ok());
}

// A file of 100 TB costs nothing to make. Its header is fine, so only memory can refuse it.
TEST_F(SafetensorsTest, RefusesHugeSparseFileBeforeCopyingIt) {
  const uint64_t bytes = 8ull << 40;
  const std::string size = std::to_string(bytes);
  put(image("{" + entry("a", "U8", "[" + size + "]", "[0," + size + "]") + "}"));
  const uint64_t header = fs::file_size(path_);
  if (::truncate(path_.c_str(), static_cast<off_t>(header + bytes)) != 0) {
    GTEST_SKIP() << "the file system has no sparse files of 8 TiB";
  }
  const auto file = SafetensorsFile::open(path_, Residency::kCopied);
  EXPECT_EQ(file.status().code(), Code::kResourceExhausted);
  EXPECT_THAT(file.status().message(), HasSubstr(path_));
}

// --- R21: the daemon must not care what happens to the file afterwards ------------------------

class ChangedFileTest : public SafetensorsTest {
 protected:
  static constexpr size_t kData = 5u << 20;

  void SetUp() override {
    SafetensorsTest::SetUp();
    const std::string n = std::to_string(kData);
    std::string data(kData, '\0');
    for (size_t i = 0; i < kData; ++i) data[i] = static_cast<char>(i * 31 % 251);
    bytes_ = image("{" + entry("a", "U8", "[" + n + "]", "[0," + n + "]") + "}", data);
    put(bytes_);
    auto file = SafetensorsFile::open(path_, Residency::kCopied);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    view_ = *file->find("a");  // keeps the memory alive after the file object is gone
  }
  void expect_intact() const {
    EXPECT_EQ(std::memcmp(view_.bytes.data(), bytes_.data() + bytes_.size() - kData, kData), 0);
  }

  std::string bytes_;
  TensorView view_;
};

TEST_F(ChangedFileTest, Truncated) {
  ASSERT_EQ(::truncate(path_.c_str(), 0), 0);
  expect_intact();
}

TEST_F(ChangedFileTest, Overwritten) {
  put(std::string(bytes_.size(), '!'));
  expect_intact();
}

TEST_F(ChangedFileTest, RenamedOverAndRemoved) {
  const std::string other = dir_ + "/other";
  std::ofstream(other) << "other";
  fs::rename(other, path_);
  expect_intact();
  fs::remove(path_);
  expect_intact();
}

/// Runs `meddle` before the n-th read.
class MeddlingEnv : public Env {
 public:
  MeddlingEnv(int n, std::function<void()> meddle) : n_(n), meddle_(std::move(meddle)) {}
  ssize_t pread(int fd, void* buffer, size_t size, off_t offset) override {
    if (--n_ == 0) meddle_();
    return Env::pread(fd, buffer, std::min<size_t>(size, 1u << 20), offset);
  }

 private:
  int n_;
  std::function<void()> meddle_;
};

TEST_F(ChangedFileTest, ChangedWhileBeingReadIsRefused) {
  for (int n = 1; n <= 4; ++n) {
    MeddlingEnv truncating(n, [&] { ASSERT_EQ(::truncate(path_.c_str(), 20), 0); });
    const auto cut = SafetensorsFile::open(path_, Residency::kCopied, truncating);
    EXPECT_EQ(cut.status().code(), Code::kDataCorrupt) << n;
    EXPECT_THAT(cut.status().message(), HasSubstr("while being read"));
    put(bytes_);
    ::usleep(20'000);  // past one tick of the clock that stamps files
    MeddlingEnv writing(n, [&] {
      std::fstream f(path_, std::ios::binary | std::ios::in | std::ios::out);
      f.seekp(-1, std::ios::end);
      f.put('!');
    });
    const auto changed = SafetensorsFile::open(path_, Residency::kCopied, writing);
    EXPECT_EQ(changed.status().code(), Code::kDataCorrupt) << n;
    put(bytes_);
  }
}

/// Large files are read by several threads; here a sparse one with marks where shares meet.
TEST_F(SafetensorsTest, LargeFilesArriveWhole) {
  constexpr uint64_t kData = (288u << 20) + 12345;
  const std::string header =
      "{" +
      entry("a", "U8", "[" + std::to_string(kData) + "]", "[0," + std::to_string(kData) + "]") +
      "}";
  put(image(header, ""));
  const uint64_t start = fs::file_size(path_);
  fs::resize_file(path_, start + kData);
  const std::vector<uint64_t> marks = {0, (32u << 20) - 1, 32u << 20, (256u << 20) + 7, kData - 1};
  {
    std::fstream f(path_, std::ios::binary | std::ios::in | std::ios::out);
    for (size_t i = 0; i < marks.size(); ++i) {
      f.seekp(static_cast<std::streamoff>(start + marks[i]));
      f.put(static_cast<char>(i + 1));
    }
  }
  const auto file = SafetensorsFile::open(path_, Residency::kCopied);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  const std::span<const std::byte> bytes = file->find("a")->bytes;
  ASSERT_EQ(bytes.size(), kData);
  for (size_t i = 0; i < marks.size(); ++i)
    EXPECT_EQ(std::to_integer<size_t>(bytes[marks[i]]), i + 1);
  EXPECT_EQ(std::count(bytes.begin(), bytes.end(), std::byte{0}),
            static_cast<int64_t>(kData - marks.size()));
}

// --- R20 and R17 ------------------------------------------------------------------------------

TEST_F(SafetensorsTest, EveryFailingCallIsReported) {
  put(image("{" + entry("a", "U8", "[5]", "[0,5]") + "}", "12345"));
  int fired = 0;
  for (const auto call : {FaultEnv::kOpen, FaultEnv::kRead, FaultEnv::kClose}) {
    for (const int error : {EIO, ENOMEM, EMFILE, EINTR}) {
      for (int n = 1;; ++n) {
        FaultEnv env;
        env.limit_io(3);
        env.fail_nth(call, n, error);
        const auto file = SafetensorsFile::open(path_, Residency::kCopied, env);
        EXPECT_EQ(env.open_fds(), 0);
        if (!env.fired()) break;
        ++fired;
        EXPECT_EQ(file.ok(), error == EINTR || call == FaultEnv::kClose);
      }
    }
  }
  EXPECT_GT(fired, 50);
}

// Bounds grow with the header, so a sixth of the longest shows them as well, and sooner.
constexpr size_t kCrowdedBytes = 16u << 20;

/// A header of that length, of small entries.
std::string crowded_header(size_t& tensors) {
  std::string header = "{";
  for (tensors = 0; header.size() + 80 < kCrowdedBytes; ++tensors) {
    if (tensors > 0) header += ',';
    header += entry(std::to_string(tensors), "U8", "[1]",
                    "[" + std::to_string(tensors) + "," + std::to_string(tensors + 1) + "]");
  }
  return header + "}";
}

double milliseconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - start)
      .count();
}

uint64_t resident_bytes() { return static_cast<uint64_t>(testing_support::resident_kib()) << 10; }

TEST_F(SafetensorsTest, ReadsHeadersAsLongAsTheFormatAllows) {
  std::string header = "{" + entry("a", "U8", "[1]", "[0,1]") + "}";
  header.resize(SafetensorsFile::kMaxHeaderBytes, ' ');
  const auto file = parse(image(header, "x"));
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_NE(file->find("a"), nullptr);
  EXPECT_FALSE(parse(image(header + " ", "x")).ok());
}

TEST_F(SafetensorsTest, NamesFilesThatAreSomethingElse) {
  const std::vector<std::pair<std::string, std::string>> cases = {
      {"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 5368709120\n",
       "Git LFS pointer"},
      {"/annex/objects/SHA256E-s1--0", "git-annex pointer"},
      {"<!DOCTYPE html><html><body>404</body></html>", "web page"},
      {std::string("GGUF\x03\0\0\0\0\0\0\0", 12), "GGUF"},
      {std::string("PK\x03\x04\0\0\0\0\0\0", 10), "ZIP archive"},
      {std::string("\x80\x02}q\0\0\0\0\0\0", 10), "pickle"}};
  for (const auto& [text, what] : cases) {
    std::ofstream(path_, std::ios::binary) << text;
    for (const Residency residency : {Residency::kCopied, Residency::kMapped}) {
      const auto file = SafetensorsFile::open(path_, residency);
      ASSERT_EQ(file.status().code(), Code::kDataCorrupt) << what;
      EXPECT_NE(file.status().message().find(what), std::string::npos) << file.status().to_string();
      EXPECT_EQ(file.status().message().find("header length"), std::string::npos);
    }
    EXPECT_NE(parse(text).status().message().find(what), std::string::npos);
  }
}

TEST_F(SafetensorsTest, NamesNewerDTypesWithoutBlamingTheFile) {
  for (const char* dtype : {"F8_E8M0", "F4", "F6_E2M3", "F8_E4M3FNUZ"}) {
    const auto file = parse(image("{" + entry("a", dtype, "[2]", "[0,2]") + "}", "xx"));
    ASSERT_EQ(file.status().code(), Code::kUnimplemented) << dtype;
    const std::string text = file.status().to_string();
    EXPECT_NE(text.find("dtype " + std::string(dtype) + " is not supported"), std::string::npos)
        << text;
    EXPECT_EQ(text.find("current safetensors library"), std::string::npos) << text;
  }
}

TEST_F(SafetensorsTest, CrowdedHeaderStaysInBounds) {
  size_t tensors = 0;
  const std::string header = crowded_header(tensors);
  const std::string good = image(header, std::string(tensors, 'x'));
  [[maybe_unused]] const uint64_t before = resident_bytes();
  auto start = std::chrono::steady_clock::now();
  {
    const auto file = parse(good);
    ASSERT_TRUE(file.ok()) << file.status().to_string();
    EXPECT_EQ(file->tensors().size(), tensors);
    std::printf("%zu tensors indexed in %.1f ms\n", tensors, milliseconds_since(start));
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
    EXPECT_LE(resident_bytes() - before, 4 * header.size());
#endif
  }
  const std::string bad = image(header, std::string(tensors + 1, 'x'));
  start = std::chrono::steady_clock::now();
  EXPECT_FALSE(parse(bad).ok());
  std::printf("refused at its end in %.1f ms\n", milliseconds_since(start));
  const std::string many_keys = image([] {
    std::string text = "{";
    while (text.size() + 20 < kCrowdedBytes) text += "\"data_offsets\"";
    return text;
  }());
  EXPECT_FALSE(parse(many_keys).ok());
}

}  // namespace
}  // namespace chimera
