#include "check/guarded.h"

#include <signal.h>
#include <sys/mman.h>
#include <ucontext.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace chimera::check {
namespace {

constexpr size_t kPage = 4096;
constexpr int kSlots = 256;

enum class State : uint8_t { kFree, kWritable, kReadOnly, kRevoked };

/// Plain data: the fault handler reads it.
struct Region {
  const char* name;
  uintptr_t map, map_end, begin, end;
  State state;
};
Region g_regions[kSlots];
Board* g_board = nullptr;

/// Mappings of earlier regions, readable and writable, for later ones of the same size. They are
/// not given back to the system, so that a plugin that keeps a pointer crashes in the case about
/// that and not, by chance, in every other.
struct Spare {
  unsigned char* map;
  size_t size;
};
Spare g_spares[kSlots];
bool g_keep_revoked = false;  // case 29: whatever was lent stays without access for ever

unsigned char* take_spare(size_t size) {
  for (Spare& s : g_spares) {
    if (s.size != size) continue;
    s.size = 0;
    return s.map;
  }
  return nullptr;
}

bool put_spare(unsigned char* map, size_t size) {
  if (size > (size_t{16} << 20)) return false;
  for (Spare& s : g_spares) {
    if (s.size != 0) continue;
    s = {map, size};
    return true;
  }
  return false;
}

const Region* region_of(uintptr_t address) {
  for (const Region& r : g_regions) {
    if (r.state != State::kFree && address >= r.map && address < r.map_end) return &r;
  }
  return nullptr;
}

void describe(char* out, size_t size, uintptr_t address, bool write) {
  const char* verb = write ? "wrote" : "read";
  const Region* r = region_of(address);
  if (r == nullptr) {
    std::snprintf(out, size, "%s: segmentation fault at address %#zx (%s).", g_board->phase,
                  static_cast<size_t>(address), verb);
  } else if (r->state == State::kRevoked) {
    std::snprintf(out, size, "%s: %s %s, which was lent for an earlier call only.", g_board->phase,
                  verb, r->name);
  } else if (address >= r->end) {
    std::snprintf(out, size, "%s: %s %zu bytes past the end of %s (%zu bytes).", g_board->phase,
                  verb, static_cast<size_t>(address - r->end) + 1, r->name,
                  static_cast<size_t>(r->end - r->begin));
  } else if (address < r->begin) {
    std::snprintf(out, size, "%s: %s %zu bytes before %s.", g_board->phase, verb,
                  static_cast<size_t>(r->begin - address), r->name);
  } else if (r->state == State::kReadOnly) {
    std::snprintf(out, size, "%s: %s %s at byte %zu; it is read-only.", g_board->phase, verb,
                  r->name, static_cast<size_t>(address - r->begin));
  } else {
    std::snprintf(out, size, "%s: %s %s beyond the declared size of one part.", g_board->phase,
                  verb, r->name);
  }
}

void on_fault(int signal, siginfo_t* info, void* machine) {
  (void)signal;
  const auto* context = static_cast<const ucontext_t*>(machine);
  // Bit 1 of the page-fault error code: the access was a write.
  const bool write = (context->uc_mcontext.gregs[REG_ERR] & 2) != 0;
  describe(g_board->text, Board::kText, reinterpret_cast<uintptr_t>(info->si_addr), write);
  g_board->verdict = static_cast<uint32_t>(Verdict::kFail);
  __atomic_store_n(&g_board->done, 1u, __ATOMIC_RELEASE);
  _exit(0);
}

}  // namespace

Guarded::Guarded(const char* name, size_t size, size_t alignment, Flush flush) : size_(size) {
  const size_t room = (size + alignment + kPage - 1) / kPage * kPage;
  mapped_ = room + 2 * kPage;
  map_ = take_spare(mapped_);
  if (map_ == nullptr) {
    void* map =
        mmap(nullptr, mapped_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (map == MAP_FAILED) std::abort();
    map_ = static_cast<unsigned char*>(map);
  }
  slot_ = 0;
  while (slot_ < kSlots && g_regions[slot_].state != State::kFree) ++slot_;
  if (mprotect(map_ + kPage, room, PROT_READ | PROT_WRITE) != 0) std::abort();
  const auto first = reinterpret_cast<uintptr_t>(map_) + kPage;
  const uintptr_t at =
      flush == Flush::kBegin ? first : (first + room - size) / alignment * alignment;
  data_ = reinterpret_cast<unsigned char*>(at);
  if (slot_ == kSlots) slot_ = kSlots - 1;  // many tensors: the verdict names the last of them
  const auto begin = reinterpret_cast<uintptr_t>(map_);
  g_regions[slot_] = {name, begin, begin + mapped_, at, at + size, State::kWritable};
}

Guarded::~Guarded() {
  if (g_keep_revoked) {
    revoke();  // its description stays as well, as long as there are slots
    return;
  }
  writable();
  g_regions[slot_].state = State::kFree;
  if (!put_spare(map_, mapped_)) munmap(map_, mapped_);
}

void Guarded::read_only() {
  mprotect(map_ + kPage, mapped_ - 2 * kPage, PROT_READ);
  g_regions[slot_].state = State::kReadOnly;
}

void Guarded::writable() {
  mprotect(map_ + kPage, mapped_ - 2 * kPage, PROT_READ | PROT_WRITE);
  g_regions[slot_].state = State::kWritable;
}

void Guarded::protect_gaps(size_t part, size_t count) {
  for (size_t i = 0; i < count; ++i) mprotect(data_ + (i + 1) * part - kPage, kPage, PROT_NONE);
}

void Guarded::revoke() {
  mprotect(map_ + kPage, mapped_ - 2 * kPage, PROT_NONE);
  g_regions[slot_].state = State::kRevoked;
}

void catch_faults(Context& context) {
  g_board = &context.board;
  g_keep_revoked = context.case_number == 29;
  static bool installed = false;
  if (installed) return;
  installed = true;
  constexpr size_t kStack = 64 * 1024;
  void* stack = mmap(nullptr, kStack, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (stack != MAP_FAILED) {
    stack_t alternate = {};
    alternate.ss_sp = stack;
    alternate.ss_size = kStack;
    sigaltstack(&alternate, nullptr);
  }
  struct sigaction action = {};
  action.sa_sigaction = on_fault;
  action.sa_flags = SA_SIGINFO | SA_ONSTACK;
  sigaction(SIGSEGV, &action, nullptr);
  sigaction(SIGBUS, &action, nullptr);
}

}  // namespace chimera::check
