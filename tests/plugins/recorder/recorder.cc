// The checker turned round: a plugin that watches its host.
//
// It computes nothing (its outputs are zero) and looks at every call: is it its turn, does it come
// in the role it should, is the memory what the contract promises? Each call is a line of JSON in
// the file that the configuration names; each breach is a line too, and counts in the metric
// `breaches`, which is visible where a sandbox lets it open no file.
//
// Configuration: "key=value" separated by blanks. log=PATH; fail=prepare|activate|forward.
// Instances and the library itself are never freed: a call that comes too late is recorded too.
#include "recorder.h"

#include <immintrin.h>
#include <unistd.h>

#include <cstdarg>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <string>

namespace recorder {

namespace {

std::atomic<int> g_log{-1};
std::atomic<uint32_t> g_instances{0};  // alive
std::atomic<uint64_t> g_breaches{0};
std::atomic<int> g_ready{0};    // init minus deinit
std::atomic<int> g_control{0};  // control calls that run

long long now_ns() {
  timespec t = {};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<long long>(t.tv_sec) * 1000000000LL + t.tv_nsec;
}

}  // namespace

uint64_t breaches() { return g_breaches.load(); }

void write_line(const char* format, ...) {
  const int fd = g_log.load();
  if (fd < 0) return;
  char line[512];
  // Each loaded copy of the library has an address of its own.
  int n = std::snprintf(line, sizeof(line), "{\"ns\":%lld,\"thread\":%d,\"library\":\"%p\",",
                        now_ns(), gettid(), static_cast<const void*>(&kDescriptor));
  va_list arguments;
  va_start(arguments, format);
  n += std::vsnprintf(line + n, sizeof(line) - static_cast<size_t>(n) - 3, format, arguments);
  va_end(arguments);
  if (n > static_cast<int>(sizeof(line)) - 4) n = static_cast<int>(sizeof(line)) - 4;
  line[n++] = '}';
  line[n++] = '\n';
  // One write of one line to a file opened for appending: lines of several threads do not mix.
  if (write(fd, line, static_cast<size_t>(n)) < 0) return;
}

void open_log(const std::string& path) {
  std::FILE* file = std::fopen(path.c_str(), "a");
  if (file == nullptr) return;
  const int old = g_log.exchange(dup(fileno(file)));
  std::fclose(file);
  if (old >= 0) close(old);
}

void breach(const Instance* instance, const char* call, const char* what) {
  g_breaches.fetch_add(1);
  write_line("\"event\":\"breach\",\"instance\":%u,\"call\":\"%s\",\"what\":\"%s\"",
             instance != nullptr ? instance->number : 0, call, what);
  if (instance != nullptr && instance->metrics != nullptr && instance->counter != 0) {
    instance->metrics->add(instance->host, instance->counter, 1);
  }
}

void expect(bool holds, const Instance* instance, const char* call, const char* what) {
  if (!holds) breach(instance, call, what);
}

Control::Control(const Instance* instance, const char* call) : instance_(instance), call_(call) {
  expect(g_control.fetch_add(1) == 0, instance, call, "another control call is running");
  write_line("\"event\":\"%s\",\"instance\":%u", call, instance != nullptr ? instance->number : 0);
}
Control::~Control() {
  g_control.fetch_sub(1);
  write_line("\"event\":\"%s-end\",\"instance\":%u", call_,
             instance_ != nullptr ? instance_->number : 0);
}

void check_fpu(const Instance* instance, const char* call) {
  // All exceptions masked, to nearest, flush-to-zero and denormals-are-zero off.
  expect((_mm_getcsr() & 0xffc0u) == 0x1f80u, instance, call, "MXCSR is not the promised one");
}

int32_t init(const chimera_init_info* info) {
  const Control control(nullptr, "init");
  expect(info->struct_size >= sizeof(*info), nullptr, "init", "struct_size is too small");
  expect(info->abi_major == CHIMERA_ABI_MAJOR, nullptr, "init", "another major version");
  const int before = g_ready.fetch_add(1);
  expect(before == 0, nullptr, "init", "init without deinit before");
  return CHIMERA_OK;
}

void deinit() {
  const Control control(nullptr, "deinit");
  expect(g_ready.fetch_sub(1) == 1, nullptr, "deinit", "deinit without init");
  expect(g_instances.load() == 0, nullptr, "deinit", "an instance is alive");
}

chimera_expert* create(const char* id, const chimera_host* host) {
  const Control control(nullptr, "create");
  expect(g_ready.load() == 1, nullptr, "create", "not between init and deinit");
  if (std::strcmp(id, kDescriptor.id_borrowed) != 0) return nullptr;
  expect(host != nullptr && host->struct_size >= sizeof(*host), nullptr, "create", "no host");
  g_instances.fetch_add(1);
  // Microseconds: instances of several copies of this library have different numbers too.
  return make_instance(host, static_cast<uint32_t>(now_ns() / 1000) | 1u);
}

void forget_instance() { g_instances.fetch_sub(1); }

namespace {

uint32_t count() { return 1; }
const chimera_expert_descriptor* descriptor(uint32_t index) {
  return index == 0 ? &kDescriptor : nullptr;
}
const chimera_expert_factory kFactory = {sizeof(chimera_expert_factory), 0, count, descriptor,
                                         create};

const void* get_factory(const char* id) {
  expect(g_ready.load() == 1, nullptr, "get_factory", "not between init and deinit");
  return std::strcmp(id, CHIMERA_EXPERT_FACTORY_ID) == 0 ? &kFactory : nullptr;
}

}  // namespace
}  // namespace recorder

CHIMERA_EXPERT_NOTE("org.chimera.recorder", "1.0.0", "");

CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = {CHIMERA_EXPERT_MAGIC,
                                                                     sizeof(chimera_expert_entry),
                                                                     CHIMERA_ABI_MAJOR,
                                                                     CHIMERA_ABI_MINOR,
                                                                     0,
                                                                     0,
                                                                     CHIMERA_ENTRY_KEEP_LOADED,
                                                                     recorder::init,
                                                                     recorder::deinit,
                                                                     recorder::get_factory};
