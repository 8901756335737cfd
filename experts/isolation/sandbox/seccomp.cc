// seccomp: the lists of system calls, compiled to a BPF program.
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>

#include "experts/isolation/sandbox/sandbox.h"

namespace chimera {
namespace {

#if defined(__x86_64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_X86_64;
#elif defined(__aarch64__)
constexpr uint32_t kArchitecture = AUDIT_ARCH_AARCH64;
#else
constexpr uint32_t kArchitecture = 0;
#endif

// What computing rows, sleeping and waking, log lines, memory without code in it, and the end of a
// process need.
constexpr int kServing[] = {
    SYS_futex,       SYS_read,          SYS_write,           SYS_readv,
    SYS_writev,      SYS_sendmsg,       SYS_recvmsg,         SYS_ppoll,
    SYS_close,       SYS_munmap,        SYS_mremap,          SYS_madvise,
    SYS_brk,         SYS_clock_gettime, SYS_clock_getres,    SYS_gettimeofday,
    SYS_nanosleep,   SYS_getpid,        SYS_clock_nanosleep, SYS_gettid,
    SYS_sched_yield, SYS_getcpu,        SYS_rt_sigreturn,    SYS_rt_sigprocmask,
    SYS_sigaltstack, SYS_getrandom,     SYS_membarrier,      SYS_restart_syscall,
    SYS_exit,        SYS_exit_group,    SYS_set_robust_list, SYS_sched_getaffinity,
#if defined(__x86_64__)
    SYS_poll,        SYS_time,
#endif
#ifdef SYS_rseq
    SYS_rseq,
#endif
};

// What libraries try by themselves and live without: it fails, with this error, and nobody dies.
struct Refused {
  int call;
  uint32_t error;
};
constexpr Refused kRefused[] = {
    {SYS_openat, EACCES},     {SYS_newfstatat, EACCES}, {SYS_fstat, EACCES},
    {SYS_readlinkat, EACCES}, {SYS_faccessat, EACCES},  {SYS_statx, EACCES},
    {SYS_getcwd, EACCES},     {SYS_ioctl, ENOTTY},      {SYS_lseek, ESPIPE},
    {SYS_fcntl, EPERM},       {SYS_uname, EPERM},       {SYS_sysinfo, EPERM},
    {SYS_prctl, EPERM},       {SYS_prlimit64, EPERM},   {SYS_rt_sigaction, EPERM},
    {SYS_clone, EAGAIN},      {SYS_clone3, ENOSYS},     {SYS_sched_setaffinity, EPERM},
    {SYS_getuid, EPERM},      {SYS_getdents64, EACCES},
#if defined(__x86_64__)
    {SYS_open, EACCES},       {SYS_stat, EACCES},       {SYS_access, EACCES},
    {SYS_readlink, EACCES},
#endif
};

// Loading needs these beside them: the dynamic loader, threads, and the steps of lock_down().
constexpr int kLoadingToo[] = {
    SYS_openat,
    SYS_newfstatat,
    SYS_fstat,
    SYS_readlinkat,
    SYS_faccessat,
    SYS_statx,
    SYS_getcwd,
    SYS_ioctl,
    SYS_lseek,
    SYS_fcntl,
    SYS_uname,
    SYS_sysinfo,
    SYS_prctl,
    SYS_prlimit64,
    SYS_rt_sigaction,
    SYS_seccomp,
    SYS_capset,
    SYS_pread64,
    SYS_mmap,
    SYS_mprotect,
    SYS_dup,
    SYS_dup3,
    SYS_set_tid_address,
    SYS_sched_setaffinity,
    SYS_getdents64,
    SYS_getuid,
    SYS_geteuid,
    SYS_getgid,
    SYS_getegid,
    SYS_sched_getparam,
    SYS_sched_getscheduler,
    SYS_mlock,
    SYS_memfd_create,
    SYS_clone,
#if defined(__x86_64__)
    SYS_open,
    SYS_stat,
    SYS_access,
    SYS_readlink,
    SYS_arch_prctl,
    SYS_getrlimit,
#endif
};

class Program {
 public:
  Program() {
    load(offsetof(seccomp_data, arch));
    jump_equal(kArchitecture, 1, 0);
    result(SECCOMP_RET_KILL_PROCESS);
    load(offsetof(seccomp_data, nr));
#if defined(__x86_64__)
    // The x32 numbers, another way to the same calls.
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, 0x40000000u, 0, 1));
    result(SECCOMP_RET_KILL_PROCESS);
#endif
  }

  void allow(int call) { on(call, SECCOMP_RET_ALLOW); }
  void refuse(int call, uint32_t error) { on(call, SECCOMP_RET_ERRNO | error); }
  /// Allowed when the argument has none of `bits`, else refused with EPERM.
  void allow_without(int call, int argument, uint32_t bits) {
    jump_equal(static_cast<uint32_t>(call), 0, 4);
    load(argument_offset(argument));
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, bits, 1, 0));
    result(SECCOMP_RET_ALLOW);
    result(SECCOMP_RET_ERRNO | EPERM);
    ++allowed_;
  }
  /// Allowed when the argument is `value`, else deadly.
  void allow_equal(int call, int argument, uint32_t value) {
    jump_equal(static_cast<uint32_t>(call), 0, 4);
    load(argument_offset(argument));
    jump_equal(value, 0, 1);
    result(SECCOMP_RET_ALLOW);
    result(SECCOMP_RET_KILL_PROCESS);
    ++allowed_;
  }
  void otherwise(uint32_t action) { result(action); }

  int install() {
    const sock_fprog program{static_cast<unsigned short>(code_.size()), code_.data()};
    const long done =
        syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_TSYNC, &program);
    if (done == 0) return 0;
    return done > 0 ? EBUSY : errno;  // > 0: a thread that could not be brought in line
  }
  int allowed() const { return allowed_; }

 private:
  // Lower half of a 64-bit argument; the flags in question all lie there.
  static uint32_t argument_offset(int argument) {
    return static_cast<uint32_t>(offsetof(seccomp_data, args)) +
           8u * static_cast<uint32_t>(argument);
  }
  void load(size_t offset) {
    code_.push_back(BPF_STMT(BPF_LD | BPF_W | BPF_ABS, static_cast<uint32_t>(offset)));
  }
  void jump_equal(uint32_t value, uint8_t if_equal, uint8_t if_not) {
    code_.push_back(BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, value, if_equal, if_not));
  }
  void result(uint32_t action) { code_.push_back(BPF_STMT(BPF_RET | BPF_K, action)); }
  void on(int call, uint32_t action) {
    jump_equal(static_cast<uint32_t>(call), 0, 1);
    result(action);
    if (action == SECCOMP_RET_ALLOW) ++allowed_;
  }

  std::vector<sock_filter> code_;
  int allowed_ = 0;
};

}  // namespace

int restrict_calls(CallList list, int* calls) {
  if (kArchitecture == 0) return ENOSYS;
  const bool serving = list == CallList::kServing;
  Program program;
  for (const int call : kServing) program.allow(call);
  // abort() and failed assertions signal their own process.
  program.allow_equal(SYS_tgkill, 0, static_cast<uint32_t>(getpid()));
  if (serving) {
    program.allow_without(SYS_mmap, 2, PROT_EXEC);
    program.allow_without(SYS_mprotect, 2, PROT_EXEC);
    for (const Refused& r : kRefused) program.refuse(r.call, r.error);
  } else {
    // Its flags lie in memory, where a filter cannot look; the C library falls back to clone.
    program.refuse(SYS_clone3, ENOSYS);
    for (const int call : kLoadingToo) program.allow(call);
  }
  // A constructor that tries something else is told no; later it is the end.
  program.otherwise(serving ? SECCOMP_RET_KILL_PROCESS : (SECCOMP_RET_ERRNO | EPERM));
  *calls = program.allowed();
  return program.install();
}

}  // namespace chimera
