#include "clients/wire/endpoints.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdlib>

namespace chimera::wire {
namespace {

class Endpoints : public testing::Test {
 protected:
  void SetUp() override {
    const char* before = std::getenv("XDG_RUNTIME_DIR");
    had_ = before != nullptr;
    if (had_) before_ = before;
  }
  void TearDown() override {
    if (had_) {
      setenv("XDG_RUNTIME_DIR", before_.c_str(), /*overwrite=*/1);
    } else {
      unsetenv("XDG_RUNTIME_DIR");
    }
  }
  bool had_ = false;
  std::string before_;
};

TEST_F(Endpoints, XdgRuntimeDirIsUsedWhenAbsolute) {
  setenv("XDG_RUNTIME_DIR", "/run/user/7", 1);
  EXPECT_EQ(default_serve_endpoint(), "ipc:///run/user/7/chimera/serve.sock");
  EXPECT_EQ(default_control_endpoint(), "ipc:///run/user/7/chimera/control.sock");
}

TEST_F(Endpoints, FallsBackToADirectoryOfTheUser) {
  const std::string own = "/tmp/chimera-" + std::to_string(getuid());
  unsetenv("XDG_RUNTIME_DIR");
  EXPECT_EQ(runtime_dir(), own);
  setenv("XDG_RUNTIME_DIR", "relative", 1);
  EXPECT_EQ(runtime_dir(), own);
  setenv("XDG_RUNTIME_DIR", "", 1);
  EXPECT_EQ(runtime_dir(), own);
}

TEST_F(Endpoints, IpcPathOfEndpoints) {
  EXPECT_EQ(ipc_path("ipc:///run/x.sock"), "/run/x.sock");
  EXPECT_EQ(ipc_path("tcp://127.0.0.1:5555"), "");
}

}  // namespace
}  // namespace chimera::wire
