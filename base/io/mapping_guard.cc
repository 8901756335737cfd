#include "base/io/mapping_guard.h"

#include <signal.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <atomic>

#include "base/io/mapping_faults.h"
#include "base/threads/mutex.h"

namespace chimera {
namespace {

constexpr size_t kMostMappings = 1024;

/// What the signal handler may look at: plain atomics only.
struct Slot {
  std::atomic<uintptr_t> begin{0};
  std::atomic<uintptr_t> end{0};
};

// The handler has no other way to reach them than static memory.
std::array<Slot, kMostMappings> slots;
std::atomic<int> damaged_slot{-1};
struct sigaction previous;

Mutex mutex;
// Of the slots; made once, never freed.
std::array<std::string, kMostMappings>* paths GUARDED_BY(mutex) PT_GUARDED_BY(mutex);

void on_bus_error(int number, siginfo_t* info, void* context) {
  const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
  for (size_t i = 0; i < slots.size(); ++i) {
    const uintptr_t end = slots[i].end.load(std::memory_order_acquire);
    if (address < slots[i].begin.load(std::memory_order_acquire) || address >= end) continue;
    // A file that is too short here is so up to its end.
    const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
    const uintptr_t from = address / page * page;
    void* at = ::mmap(reinterpret_cast<void*>(from), end - from, PROT_READ,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED | MAP_NORESERVE, -1, 0);
    if (at == MAP_FAILED) break;
    int none = -1;
    damaged_slot.compare_exchange_strong(none, static_cast<int>(i));
    return;
  }
  if ((previous.sa_flags & SA_SIGINFO) != 0 && previous.sa_sigaction != nullptr) {
    previous.sa_sigaction(number, info, context);
  } else if (previous.sa_handler != SIG_DFL && previous.sa_handler != SIG_IGN) {
    previous.sa_handler(number);
  } else {
    // A fault repeats and ends the process as it would have; a signal that was sent does not.
    ::signal(number, SIG_DFL);
    if (info->si_code <= 0) ::raise(number);
  }
}

void install() REQUIRES(mutex) {
  if (paths != nullptr) return;
  paths = new std::array<std::string, kMostMappings>;
  struct sigaction action {};
  action.sa_sigaction = on_bus_error;
  action.sa_flags = SA_SIGINFO | SA_NODEFER;
  ::sigemptyset(&action.sa_mask);
  ::sigaction(SIGBUS, &action, &previous);
}

}  // namespace

MappingGuard::MappingGuard(void* base, size_t size, std::string path) {
  const MutexLock lock(mutex);
  install();
  for (size_t i = 0; i < slots.size(); ++i) {
    if (slots[i].end.load() != 0 || damaged_slot.load() == static_cast<int>(i)) continue;
    (*paths)[i] = std::move(path);
    slots[i].begin.store(reinterpret_cast<uintptr_t>(base), std::memory_order_release);
    slots[i].end.store(reinterpret_cast<uintptr_t>(base) + size, std::memory_order_release);
    slot_ = static_cast<int>(i);
    return;
  }
}

MappingGuard::~MappingGuard() {
  if (slot_ < 0) return;
  const MutexLock lock(mutex);
  slots[static_cast<size_t>(slot_)].end.store(0);
  slots[static_cast<size_t>(slot_)].begin.store(0);
}

bool mapping_guards(const void* address) {
  const auto at = reinterpret_cast<uintptr_t>(address);
  for (const Slot& slot : slots) {
    const uintptr_t end = slot.end.load(std::memory_order_acquire);
    if (at >= slot.begin.load(std::memory_order_acquire) && at < end) return true;
  }
  return false;
}

bool mapping_damaged() { return damaged_slot.load(std::memory_order_relaxed) >= 0; }

std::string damaged_mapping() {
  const int slot = damaged_slot.load();
  if (slot < 0) return {};
  const MutexLock lock(mutex);
  return (*paths)[static_cast<size_t>(slot)];
}

}  // namespace chimera
