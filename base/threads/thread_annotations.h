// What a mutex protects, said to the compiler.
//
// Clang's -Wthread-safety (Hutchins, Ballman and Sutherland, "C/C++ Thread Safety Analysis", 2014)
// reads these and refuses code that touches data without its mutex; `scripts/lint` runs it. Other
// compilers see nothing. The names are those of Clang's manual.
//
// - GUARDED_BY(m) on a member: touched only while m is held. PT_GUARDED_BY(m): so is what it points
//   at.
// - REQUIRES(m) on a function: its caller holds m. EXCLUDES(m): its caller does not.
// - ACQUIRE(m), RELEASE(m), TRY_ACQUIRE(true, m): what a function does with m.
// - ASSERT_CAPABILITY(m): once the function has returned, m counts as held.
// - RETURN_CAPABILITY(m): the function returns m.
// - CAPABILITY("mutex"), SCOPED_CAPABILITY: on the class of a mutex and on that of its guard.
// - NO_THREAD_SAFETY_ANALYSIS: on a function that the analysis cannot follow; a comment says why it
//   is right.
//
// Thread safety: macros only.
#pragma once

#if defined(__clang__)
#define CHIMERA_THREAD_ATTRIBUTE(...) __attribute__((__VA_ARGS__))
#else
#define CHIMERA_THREAD_ATTRIBUTE(...)
#endif

#define CAPABILITY(name) CHIMERA_THREAD_ATTRIBUTE(capability(name))
#define SCOPED_CAPABILITY CHIMERA_THREAD_ATTRIBUTE(scoped_lockable)
#define GUARDED_BY(x) CHIMERA_THREAD_ATTRIBUTE(guarded_by(x))
#define PT_GUARDED_BY(x) CHIMERA_THREAD_ATTRIBUTE(pt_guarded_by(x))
#define REQUIRES(...) CHIMERA_THREAD_ATTRIBUTE(requires_capability(__VA_ARGS__))
#define ACQUIRE(...) CHIMERA_THREAD_ATTRIBUTE(acquire_capability(__VA_ARGS__))
#define RELEASE(...) CHIMERA_THREAD_ATTRIBUTE(release_capability(__VA_ARGS__))
#define TRY_ACQUIRE(...) CHIMERA_THREAD_ATTRIBUTE(try_acquire_capability(__VA_ARGS__))
#define EXCLUDES(...) CHIMERA_THREAD_ATTRIBUTE(locks_excluded(__VA_ARGS__))
#define ASSERT_CAPABILITY(x) CHIMERA_THREAD_ATTRIBUTE(assert_capability(x))
#define RETURN_CAPABILITY(x) CHIMERA_THREAD_ATTRIBUTE(lock_returned(x))
#define NO_THREAD_SAFETY_ANALYSIS CHIMERA_THREAD_ATTRIBUTE(no_thread_safety_analysis)
