#include "check/watch.h"

#include <dlfcn.h>
#include <malloc.h>
#include <seccomp.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <cerrno>
#include <cstdio>
#include <cstring>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define CHIMERA_CHECK_SANITIZED 1
#else
#define CHIMERA_CHECK_SANITIZED 0
#endif

namespace chimera::check {
namespace {

thread_local bool t_inside = false;
std::atomic<uint64_t> g_allocations{0}, g_exit_handlers{0};
std::atomic<uint64_t> g_fail_at{0};  // value of g_allocations that fails; 0: none
std::atomic<bool> g_fail_on{false}, g_failed{false};
Board* g_board = nullptr;

}  // namespace

// Bytes of the heap that are in use; mallinfo counts what the thread caches hold as well.
static std::atomic<uint64_t> g_live_bytes{0};

namespace {

/// Counts an allocation; true when it shall fail.
[[maybe_unused]] bool count_allocation() {
  if (!t_inside) return false;
  const uint64_t number = g_allocations.fetch_add(1, std::memory_order_relaxed) + 1;
  const uint64_t fail_at = g_fail_at.load(std::memory_order_relaxed);
  if (fail_at == 0 || number < fail_at || (number > fail_at && !g_fail_on.load())) return false;
  g_failed.store(true);
  errno = ENOMEM;
  return true;
}

void on_system_call(int, siginfo_t* info, void*) {
  std::snprintf(g_board->text, Board::kText,
                "%s made system call %d of asm/unistd_64.h (expected none once it is warm).",
                g_board->phase, info->si_syscall);
  g_board->verdict = static_cast<uint32_t>(Verdict::kFail);
  __atomic_store_n(&g_board->done, 1u, __ATOMIC_RELEASE);
  _exit(0);
}

}  // namespace

bool allocations_watched() { return CHIMERA_CHECK_SANITIZED == 0; }

Inside::Inside(bool inside) : before_(t_inside) { t_inside = inside; }
Inside::~Inside() { t_inside = before_; }
bool inside_plugin() { return t_inside; }

uint64_t live_heap_bytes() { return g_live_bytes.load(); }
uint64_t plugin_allocations() { return g_allocations.load(); }
void fail_plugin_allocation(uint64_t nth, bool from_then_on) {
  g_failed.store(false);
  g_fail_on.store(from_then_on);
  g_fail_at.store(nth == 0 ? 0 : g_allocations.load() + nth);
}
bool allocation_failed() { return g_failed.load(); }
uint64_t exit_handlers() { return g_exit_handlers.load(); }

std::string forbid_system_calls(Context& context) {
  g_board = &context.board;
  struct sigaction action = {};
  action.sa_sigaction = on_system_call;
  action.sa_flags = SA_SIGINFO;
  sigaction(SIGSYS, &action, nullptr);
  // Never released: what frees it could make system calls, and the process ends soon.
  const scmp_filter_ctx filter = seccomp_init(SCMP_ACT_TRAP);
  int error = filter == nullptr ? -ENOMEM : 0;
  for (const int call : {SCMP_SYS(exit_group), SCMP_SYS(rt_sigreturn)}) {
    if (error == 0) error = seccomp_rule_add(filter, SCMP_ACT_ALLOW, call, 0);
  }
  if (error == 0) error = seccomp_load(filter);
  if (error == 0) return {};
  return std::string("this kernel installs no seccomp filter: ") + std::strerror(-error);
}

void conclude(Board& board, Verdict verdict, const char* text) {
  std::strncpy(board.text, text, Board::kText - 1);
  board.verdict = static_cast<uint32_t>(verdict);
  __atomic_store_n(&board.done, 1u, __ATOMIC_RELEASE);
  _exit(0);
}

}  // namespace chimera::check

#define CHIMERA_CHECK_EXPORT extern "C" __attribute__((visibility("default")))

#if !CHIMERA_CHECK_SANITIZED
// Registered exit handlers: atexit() of a library ends up in __cxa_atexit with a null argument,
// the destructor of a static object with its address. Only the former outlives a dlclose in spirit:
// code that somebody asked to run when the process ends.
CHIMERA_CHECK_EXPORT int __cxa_atexit(void (*handler)(void*), void* argument, void* library) {
  using Function = int (*)(void (*)(void*), void*, void*);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "__cxa_atexit"));
  if (argument == nullptr && chimera::check::inside_plugin()) {
    chimera::check::g_exit_handlers.fetch_add(1);
  }
  return real(handler, argument, library);
}
CHIMERA_CHECK_EXPORT int on_exit(void (*handler)(int, void*), void* argument) noexcept {
  using Function = int (*)(void (*)(int, void*), void*);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "on_exit"));
  if (chimera::check::inside_plugin()) chimera::check::g_exit_handlers.fetch_add(1);
  return real(handler, argument);
}

// glibc exports its allocator under these names too, for programs that wrap it.
extern "C" {
void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);
void __libc_free(void*);
}

namespace {
void* counted(void* block) {
  if (block != nullptr) chimera::check::g_live_bytes.fetch_add(malloc_usable_size(block));
  return block;
}
void uncount(void* block) {
  if (block != nullptr) chimera::check::g_live_bytes.fetch_sub(malloc_usable_size(block));
}
}  // namespace

CHIMERA_CHECK_EXPORT void* malloc(size_t size) noexcept {
  return chimera::check::count_allocation() ? nullptr : counted(__libc_malloc(size));
}
CHIMERA_CHECK_EXPORT void* calloc(size_t count, size_t size) noexcept {
  return chimera::check::count_allocation() ? nullptr : counted(__libc_calloc(count, size));
}
CHIMERA_CHECK_EXPORT void* realloc(void* block, size_t size) noexcept {
  if (chimera::check::count_allocation()) return nullptr;
  uncount(block);
  void* moved = __libc_realloc(block, size);
  if (moved == nullptr && size != 0) {
    counted(block);  // it is where it was
    return nullptr;
  }
  return counted(moved);
}
CHIMERA_CHECK_EXPORT void free(void* block) noexcept {
  uncount(block);
  __libc_free(block);
}
CHIMERA_CHECK_EXPORT void* memalign(size_t alignment, size_t size) noexcept {
  return chimera::check::count_allocation() ? nullptr : counted(__libc_memalign(alignment, size));
}
CHIMERA_CHECK_EXPORT void* aligned_alloc(size_t alignment, size_t size) noexcept {
  return memalign(alignment, size);
}
CHIMERA_CHECK_EXPORT int posix_memalign(void** out, size_t alignment, size_t size) noexcept {
  if (alignment % sizeof(void*) != 0 || (alignment & (alignment - 1)) != 0) return EINVAL;
  const int before = errno;
  void* block = memalign(alignment, size);
  errno = before;
  if (block == nullptr) return ENOMEM;
  *out = block;
  return 0;
}
#endif
