// seccomp: the lists of system calls, compiled and installed by libseccomp.
//
// The filter knows the machine's own architecture alone: calls in another one's numbering (32 bits,
// x32) are another way to the same kernel, and deadly.
#include <sched.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <memory>

#include "experts/isolation/sandbox/sandbox.h"

namespace chimera {
namespace {

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
#if defined(__x86_64__)
    SYS_open,
    SYS_stat,
    SYS_access,
    SYS_readlink,
    SYS_arch_prctl,
    SYS_getrlimit,
#endif
};

/// A filter under construction. The first error stays and is what install() answers.
class Filter {
 public:
  /// `otherwise`: what happens to calls without a rule.
  explicit Filter(uint32_t otherwise)
      : context_(seccomp_init(otherwise), seccomp_release), otherwise_(otherwise) {
    if (context_ == nullptr) {
      error_ = EINVAL;
      return;
    }
    set(SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
    set(SCMP_FLTATR_CTL_NNP, 0);       // the caller's to set, and to report
    set(SCMP_FLTATR_CTL_TSYNC, 1);     // all threads
    set(SCMP_FLTATR_CTL_OPTIMIZE, 2);  // a binary tree: six comparisons instead of sixty
    set(SCMP_FLTATR_API_SYSRAWRC, 1);  // the kernel's own errors
  }

  void allow(int call) { add(SCMP_ACT_ALLOW, call); }
  void refuse(int call, uint32_t error) { add(SCMP_ACT_ERRNO(error), call); }
  /// Allowed when the argument has none of `bits`, else refused with EPERM.
  void allow_without(int call, unsigned argument, uint64_t bits) {
    add(SCMP_ACT_ALLOW, call, {argument, SCMP_CMP_MASKED_EQ, bits, 0});
    add(SCMP_ACT_ERRNO(EPERM), call, {argument, SCMP_CMP_MASKED_EQ, bits, bits});
  }
  /// Allowed when the argument has all of `bits`, else as what has no rule.
  void allow_with(int call, unsigned argument, uint64_t bits) {
    add(SCMP_ACT_ALLOW, call, {argument, SCMP_CMP_MASKED_EQ, bits, bits});
  }
  /// Allowed when the argument is `value`, else deadly.
  void allow_equal(int call, unsigned argument, uint64_t value) {
    add(SCMP_ACT_ALLOW, call, {argument, SCMP_CMP_EQ, value, 0});
    add(SCMP_ACT_KILL_PROCESS, call, {argument, SCMP_CMP_NE, value, 0});
  }

  /// 0, or an errno.
  int install() {
    if (error_ == 0) keep(seccomp_load(context_.get()));
    return error_;
  }
  int allowed() const { return allowed_; }

 private:
  void keep(int result) {
    if (error_ == 0 && result < 0) error_ = -result;
  }
  void set(scmp_filter_attr attribute, uint32_t value) {
    keep(seccomp_attr_set(context_.get(), attribute, value));
  }
  void add(uint32_t action, int call) { keep_rule(action, call, 0, nullptr); }
  void add(uint32_t action, int call, const scmp_arg_cmp& when) {
    keep_rule(action, call, 1, &when);
  }
  void keep_rule(uint32_t action, int call, unsigned count, const scmp_arg_cmp* when) {
    // libseccomp takes no rule that does what happens anyway.
    if (error_ != 0 || action == otherwise_) return;
    keep(seccomp_rule_add_array(context_.get(), action, call, count, when));
    if (action == SCMP_ACT_ALLOW) ++allowed_;
  }

  const std::unique_ptr<void, decltype(&seccomp_release)> context_;
  const uint32_t otherwise_;
  int error_ = 0;
  int allowed_ = 0;
};

}  // namespace

int restrict_calls(CallList list, int* calls) {
  const bool serving = list == CallList::kServing;
  // A constructor that tries something else is told no; later it is the end.
  Filter filter(serving ? SCMP_ACT_KILL_PROCESS : SCMP_ACT_ERRNO(EPERM));
  for (const int call : kServing) filter.allow(call);
  // abort() and failed assertions signal their own process.
  filter.allow_equal(SYS_tgkill, 0, static_cast<uint64_t>(getpid()));
  if (serving) {
    filter.allow_without(SYS_mmap, 2, PROT_EXEC);
    filter.allow_without(SYS_mprotect, 2, PROT_EXEC);
    for (const Refused& r : kRefused) filter.refuse(r.call, r.error);
  } else {
    // Its flags lie in memory, where a filter cannot look; the C library falls back to clone.
    filter.refuse(SYS_clone3, ENOSYS);
    // Threads, and no processes: a constructor's child would outlive the daemon.
    filter.allow_with(SYS_clone, 0, CLONE_THREAD | CLONE_VM | CLONE_SIGHAND);
    for (const int call : kLoadingToo) filter.allow(call);
  }
  *calls = filter.allowed();
  return filter.install();
}

}  // namespace chimera
