/* Chimera expert plugins: the C ABI, version 1.1.
 *
 * A plugin is a shared library that supplies experts (feed-forward networks) for layers of a
 * Mixture-of-Experts model. It exports ONE symbol, the read-only data object
 * chimera_expert_entry_v1. The way from there to numbers:
 *
 *   entry.init -> entry.get_factory -> factory.descriptor / factory.create -> instance
 *   instance: create -> prepare -> activate -> forward* -> deactivate -> destroy; entry.deinit
 *
 *    mapped --init--> ready --create--> built --prepare--> idle --activate--> ACTIVE
 *                                         ^                 |  ^                |  forward*, reset
 *                                       destroy <-----------+  +---deactivate---+
 *    ready --deinit--> mapped --(close)--> gone
 *
 * Routing is the host's: a plugin never sees gates, tokens or users. It gets rows of hidden states
 * and overwrites rows of outputs; the host multiplies them by the gate weights and sums them in a
 * fixed order. The gate rows of a module are data beside the library (see docs/plugins.md).
 *
 * Tags. Every function pointer ends in a [thread & state] tag.
 *
 *   [control]   the host's control role. Control calls for one library never overlap, but may come
 *               from different OS threads.
 *   [worker]    the host's compute role: inside forward, or inside a parallel_for body of it. A
 *               role, not a thread: successive calls may come from different OS threads.
 *   [any]       any thread at any time in the stated state, concurrently.
 *
 *   States: mapped, ready, built, idle, active, as in the picture. A tag without a state means that
 *   the object exists.
 *
 * The host guarantees: no forward after deactivate begins; deactivate begins only when no forward
 * runs and no routing table names the instance.
 *
 * Ownership is in the names: *_owned passes ownership with the call, *_borrowed is lent - for the
 * call when it is a parameter, for the life of the structure when it is a field. Who allocates
 * frees; nothing from malloc crosses the boundary. Texts are UTF-8 with a length and are copied by
 * the receiver; ids are NUL-terminated ASCII.
 *
 * Versions. The major version is part of the symbol name and must be equal. The host's minor must
 * be at least entry.required_minor. Every structure begins with struct_size: fields are only ever
 * appended, a reader uses a field only if the size covers it (CHIMERA_HAS_FIELD), a writer zeroes
 * what it does not know. Everything optional is a service or an extension with an id "name/revision"; an id never
 * changes its meaning. In enumerations 0 is "unset"; an unknown value is refused, never guessed.
 *
 * Status. Functions return an int32_t of chimera/status_code.h; a value outside it counts as
 * CHIMERA_INTERNAL. CHIMERA_INTERNAL from prepare, activate, forward or reset POISONS the instance:
 * the host then calls nothing but deactivate (if active) and destroy.
 *
 * A plugin must not throw across the boundary, longjmp, exit or abort, change locale, working
 * directory, environment, signal handlers or masks or the floating-point environment, create
 * threads that outlive deactivate, or keep pointers it was lent. Build it with hidden visibility, a
 * version script and -fno-gnu-unique; avoid thread_local objects with destructors: the two make a
 * library impossible to unload. plugin-api/template is a complete example.
 *
 * What the minor versions brought:
 *   1.1   batch.row_epochs_borrowed, and batch.epoch is the epoch that all rows share (a host 1.0
 *         always says 0); batch.deadline_ns holds the deadlines of the requests, not only the
 *         module's own limit.
 *
 * 64-bit targets only. Sizes and offsets are frozen by the assertions at the end.
 */
#ifndef CHIMERA_EXPERT_H_
#define CHIMERA_EXPERT_H_

#include <stddef.h>
#include <stdint.h>

#include "chimera/status_code.h"

#ifdef __cplusplus
#define CHIMERA_STATIC_ASSERT(condition, text) static_assert(condition, text)
extern "C" {
#else
#define CHIMERA_STATIC_ASSERT(condition, text) _Static_assert(condition, text)
#endif

#define CHIMERA_ABI_MAJOR 1
#define CHIMERA_ABI_MINOR 1

/* Whether the structure behind `pointer` is long enough to have `field`. To be asked before the use
 * of a field that came with a minor version above the plugin's required_minor. */
#define CHIMERA_HAS_FIELD(type, pointer, field) \
  ((pointer)->struct_size >= offsetof(type, field) + sizeof((pointer)->field))

/* ---- texts ----------------------------------------------------------------------------------- */

/* UTF-8, not NUL-terminated. size 0: no text, data may be null. */
typedef struct chimera_text {
  const char* data_borrowed;
  uint64_t size; /* bytes */
} chimera_text;

/* A chimera_text initialiser from a string literal. */
#define CHIMERA_TEXT(literal) \
  { literal, sizeof(literal) - 1 }

/* ---- values ---------------------------------------------------------------------------------- */

/* dtype. Hosts 1.x send and take F32 rows; tensors may have any of these. */
#define CHIMERA_DTYPE_F32 UINT32_C(1)
#define CHIMERA_DTYPE_BF16 UINT32_C(2)
#define CHIMERA_DTYPE_F16 UINT32_C(3)
#define CHIMERA_DTYPE_I8 UINT32_C(4)
#define CHIMERA_DTYPE_U8 UINT32_C(5)
#define CHIMERA_DTYPE_I32 UINT32_C(6)
#define CHIMERA_DTYPE_I64 UINT32_C(7)

/* concurrency: whether forward calls of one instance may overlap. */
#define CHIMERA_CONCURRENCY_SERIAL UINT32_C(1)
#define CHIMERA_CONCURRENCY_REENTRANT UINT32_C(2)

/* determinism. BITWISE: an output row is a function of its input row alone, to the bit, whatever
 * the batch, the workers, the time. TOLERANCE: only up to rounding; streams on such an expert are
 * not reproducible, and the host says so. */
#define CHIMERA_DETERMINISM_BITWISE UINT32_C(1)
#define CHIMERA_DETERMINISM_TOLERANCE UINT32_C(2)

/* cpu_features: what forward needs at least. A plugin that dispatches at run time needs less. */
#define CHIMERA_CPU_AVX2 (UINT64_C(1) << 0)   /* with FMA and F16C */
#define CHIMERA_CPU_AVX512 (UINT64_C(1) << 1) /* F, BW, DQ, VL */
#define CHIMERA_CPU_AVX512_VNNI (UINT64_C(1) << 2)
#define CHIMERA_CPU_AVX512_BF16 (UINT64_C(1) << 3)
#define CHIMERA_CPU_AMX_INT8 (UINT64_C(1) << 4)
#define CHIMERA_CPU_AMX_BF16 (UINT64_C(1) << 5)
#define CHIMERA_CPU_AVX_VNNI (UINT64_C(1) << 6)
#define CHIMERA_CPU_KNOWN (UINT64_C(0x7f)) /* bits above are refused by a host of this version */

/* entry.flags. UNLOAD_CLEAN is a claim - after deinit nothing of the library is left, it can be
 * unmapped - and the host verifies it. KEEP_LOADED: never unmap. Neither set: kept. */
#define CHIMERA_ENTRY_UNLOAD_CLEAN (UINT32_C(1) << 0)
#define CHIMERA_ENTRY_KEEP_LOADED (UINT32_C(1) << 1)

/* Alignment of every row, scratch and tensor pointer the host lends, and what strides are
 * multiples of, in bytes: one cache line, one AVX-512 register. */
#define CHIMERA_ALIGNMENT 64

/* Bounds that host and checker enforce. */
#define CHIMERA_MAX_ROWS_LIMIT UINT32_C(65536)
#define CHIMERA_MAX_WORKERS UINT32_C(1024)
#define CHIMERA_MAX_SCRATCH_BYTES (UINT64_C(1) << 30) /* per worker */
#define CHIMERA_MAX_ALIGNMENT UINT32_C(4096)
#define CHIMERA_MAX_ID_BYTES 127 /* of ids, without the NUL */

/* ---- descriptor ------------------------------------------------------------------------------ */

/* The experts of one layer: numbers 0 .. expert_count-1 of forward's `expert`. */
typedef struct chimera_expert_layer {
  uint32_t layer;
  uint32_t expert_count; /* at least 1 */
} chimera_expert_layer;

/* What an expert plugin is. Static and immutable; valid from init to deinit. The host compares it
 * with the module's manifest and ELF note, and refuses on any difference. */
typedef struct chimera_expert_descriptor {
  uint32_t struct_size;
  uint32_t reserved;       /* 0 */
  const char* id_borrowed; /* reverse domain, e.g. "com.example.legal": [a-z0-9._-]{1,127} */
  chimera_text version;    /* semantic version, e.g. "1.2.0" */
  chimera_text vendor;
  chimera_text license; /* SPDX expression */
  chimera_text description;
  const chimera_text* domains_borrowed; /* labels, e.g. "legal" */
  uint64_t domain_count;
  chimera_text backbone_fingerprint; /* "sha256:..." of the backbone it fits; empty: any that has
                                        the dimensions below */
  uint32_t d_model;                  /* length of a row */
  uint32_t d_ff;                     /* widest inner layer; for cost estimates. 0: not said */
  const chimera_expert_layer* layers_borrowed; /* ascending by layer, each once */
  uint64_t layer_count;                        /* at least 1 */
  uint32_t input_dtype;                        /* of x; CHIMERA_DTYPE_F32 */
  uint32_t output_dtype;                       /* of y; CHIMERA_DTYPE_F32 */
  uint32_t max_rows;      /* per forward, 1 .. CHIMERA_MAX_ROWS_LIMIT; the host splits batches */
  uint32_t alignment;     /* of rows and scratch: 0 = CHIMERA_ALIGNMENT, else a power of two up to
                             CHIMERA_MAX_ALIGNMENT */
  uint32_t concurrency;   /* CHIMERA_CONCURRENCY_* */
  uint32_t determinism;   /* CHIMERA_DETERMINISM_* */
  uint64_t scratch_bytes; /* that forward needs per worker, up to CHIMERA_MAX_SCRATCH_BYTES */
  uint64_t cpu_features;  /* CHIMERA_CPU_* */
  const char* const* required_services_borrowed; /* ids; a host without one refuses the plugin */
  uint64_t required_service_count;
  const char* const* optional_services_borrowed; /* ids */
  uint64_t optional_service_count;
  uint64_t expected_ns_per_row; /* first guess for the scheduler; 0: not said */
  uint64_t cancel_latency_ns;   /* forward returns this long after deadline or cancellation at the
                                   latest; 0: 10 ms */
} chimera_expert_descriptor;

/* ---- host ------------------------------------------------------------------------------------ */

/* The host as an instance sees it. Lent to create; valid until destroy returns. */
typedef struct chimera_host chimera_host;
struct chimera_host {
  uint32_t struct_size;
  uint16_t abi_major;
  uint16_t abi_minor;
  chimera_text name;     /* "chimerad", "chimera-plugin-host", ... */
  chimera_text version;  /* of the program */
  void* host_data_owned; /* the host's own; do not touch */

  /* The service with this id, as the structure of its header, or null when the host has none. The
   * structure stays valid as long as the host does. Look services up in prepare and keep them.
   * [control & built, idle, active] */
  const void* (*get_service)(const chimera_host* host, const char* service_id_borrowed);
};

/* ---- forward --------------------------------------------------------------------------------- */

/* One call's rows. Everything is lent for the call only. */
typedef struct chimera_expert_batch {
  uint32_t struct_size;
  uint32_t layer;         /* as in descriptor.layers */
  uint32_t expert;        /* 0 .. expert_count-1 of that layer */
  uint32_t n_rows;        /* 0 .. limits.max_rows. 0 is legal and must succeed */
  const void* x_borrowed; /* [n_rows, d_model], read-only, shared with other experts; the rest of a
                             row up to its stride is readable and zero */
  void* y_borrowed;  /* [n_rows, d_model], uninitialised, this call's alone: OVERWRITE every value.
                        The rest of a row up to its stride may be written */
  uint64_t x_stride; /* bytes from row to row, multiple of CHIMERA_ALIGNMENT */
  uint64_t y_stride;
  uint32_t input_dtype; /* as in the descriptor */
  uint32_t output_dtype;
  uint32_t worker_count;   /* of this call, 1 .. limits.worker_count */
  uint32_t reserved;       /* 0 */
  void* scratch_borrowed;  /* uninitialised; worker w's begins at w * scratch_stride */
  uint64_t scratch_size;   /* usable bytes per worker, at least descriptor.scratch_bytes */
  uint64_t scratch_stride; /* bytes */
  uint64_t deadline_ns;    /* chimera.clock/1 time after which nobody can use the result: every
                              request with a row in this batch has given up by then, or the module's
                              own limit is reached. Rows of requests with more time, or without a
                              deadline, keep it away: giving up at it harms nobody. 0: none */
  const uint32_t* cancel_borrowed; /* not 0: give up, return CHIMERA_CANCELLED. Written by other
                                      threads: read it atomically (relaxed is enough), or ask
                                      chimera.cancel/1. May be null */
  uint64_t epoch; /* of the routing table that all rows are on; 0: on different ones, or on none (a
                     self-test), or a host 1.0. For logs and statistics: outputs must not depend on
                     epochs */

  /* Since 1.1. [n_rows], the epoch of each row's routing table: rows of sequences that began before
   * and after a swap share a batch. Null: the rows are on none. */
  const uint64_t* row_epochs_borrowed;
} chimera_expert_batch;

/* ---- instance -------------------------------------------------------------------------------- */

/* What activate may count on. */
typedef struct chimera_expert_limits {
  uint32_t struct_size;
  uint32_t max_rows;       /* largest n_rows, at most descriptor.max_rows */
  uint32_t worker_count;   /* largest worker_count */
  uint32_t max_concurrent; /* forward calls that may overlap; 1 for the serial class */
  uint64_t memory_bytes;   /* cap of chimera.memory/1 for this instance */
} chimera_expert_limits;

/* An instance, owned by the plugin from create to destroy. The functions must not be null. */
typedef struct chimera_expert chimera_expert;
struct chimera_expert {
  uint32_t struct_size;
  uint32_t reserved;                                    /* 0 */
  const chimera_expert_descriptor* descriptor_borrowed; /* the factory's own, the same address */
  void* plugin_data_owned; /* the plugin's own; the host does not touch it */

  /* Looks up services, validates the configuration (the text of `library.config` in module.yaml,
   * often empty), checks dimensions. On failure destroy follows. [control & built] */
  int32_t (*prepare)(chimera_expert* self, chimera_text config);

  /* Allocates, maps, packs weights, warms up. Afterwards forward needs no allocation. On failure
   * the instance is idle again: activate itself has released what it had. [control & idle] */
  int32_t (*activate)(chimera_expert* self, const chimera_expert_limits* limits_borrowed);

  /* Computes y = expert(x) for all rows, overwriting y. On anything but CHIMERA_OK the host ignores
   * y. Must refuse n_rows > limits.max_rows and an unknown layer or expert with
   * CHIMERA_INVALID_ARGUMENT. Must not block on I/O or foreign locks, allocate from the system or
   * make system calls in steady state. Overlapping calls on one instance only if its concurrency
   * is REENTRANT. The host saves and restores MXCSR around the call; on entry flush-to-zero and
   * denormals-are-zero are OFF, rounding is to nearest, exceptions are masked. [worker & active] */
  int32_t (*forward)(chimera_expert* self, const chimera_expert_batch* batch_borrowed);

  /* Drops caches: outputs afterwards equal those of a fresh instance. No forward is running.
   * [control & active] */
  int32_t (*reset)(chimera_expert* self);

  /* Releases everything that activate obtained. Cannot fail. [control & active] */
  void (*deactivate)(chimera_expert* self);

  /* Frees the instance; `self` is gone. Cannot fail. [control & built, idle] */
  void (*destroy)(chimera_expert* self_owned);

  /* The extension with this id, or null. Lives as long as the instance. [any] */
  const void* (*get_extension)(chimera_expert* self, const char* extension_id_borrowed);
};

/* ---- factory --------------------------------------------------------------------------------- */

#define CHIMERA_EXPERT_FACTORY_ID "chimera.expert-factory/1"

/* The plugins of a library. Static; valid from init to deinit. */
typedef struct chimera_expert_factory {
  uint32_t struct_size;
  uint32_t reserved; /* 0 */

  /* Number of plugins in this library; constant. [any & ready] */
  uint32_t (*count)(void);

  /* The descriptor of plugin `index`, the same address every time; null when out of range.
   * [any & ready] */
  const chimera_expert_descriptor* (*descriptor)(uint32_t index);

  /* A new instance of the plugin with exactly this id, owned by the plugin until destroy; null when
   * the id is unknown or memory is short. Allocates only: must not call the host. Several
   * instances may exist at a time and are independent. [control & ready] */
  chimera_expert* (*create)(const char* plugin_id_borrowed, const chimera_host* host_borrowed);
} chimera_expert_factory;

/* ---- entry ----------------------------------------------------------------------------------- */

/* The first eight bytes of the entry: "CHIMERA" and the major version as a digit. */
#define CHIMERA_EXPERT_MAGIC \
  { 'C', 'H', 'I', 'M', 'E', 'R', 'A', '1' }

/* What init is told. Lent for the call. */
typedef struct chimera_init_info {
  uint32_t struct_size;
  uint16_t abi_major; /* of the host */
  uint16_t abi_minor;
  chimera_text module_dir; /* absolute path of the module's directory; empty when the host does not
                              let the plugin read files (isolated plugins: use chimera.weights/1) */
} chimera_init_info;

/* The one exported object. */
typedef struct chimera_expert_entry {
  uint8_t magic[8]; /* CHIMERA_EXPERT_MAGIC */
  uint32_t struct_size;
  uint16_t abi_major;      /* CHIMERA_ABI_MAJOR it was compiled with */
  uint16_t abi_minor;      /* CHIMERA_ABI_MINOR it was compiled with */
  uint16_t required_minor; /* least minor of a host it can work with */
  uint16_t reserved;       /* 0 */
  uint32_t flags;          /* CHIMERA_ENTRY_* */

  /* First call into the library; under 10 ms; no I/O outside the module's directory. Each
   * successful init is paired with one deinit; the pair may come again. After a failure deinit is
   * not called. [control & mapped] */
  int32_t (*init)(const chimera_init_info* info_borrowed);

  /* Undoes init: threads, descriptors, handlers, registrations are gone afterwards. Cannot fail.
   * [control & ready, no instance alive] */
  void (*deinit)(void);

  /* The factory with this id (CHIMERA_EXPERT_FACTORY_ID), or null. [any & ready] */
  const void* (*get_factory)(const char* factory_id_borrowed);
} chimera_expert_entry;

#define CHIMERA_EXPERT_ENTRY_SYMBOL "chimera_expert_entry_v1"

/* Marks the plugin's definition of the entry:
 *   CHIMERA_EXPORT const chimera_expert_entry chimera_expert_entry_v1 = { ... };  */
#ifdef __cplusplus
/* Without the linkage specification a const object is taken for a local one. */
#define CHIMERA_EXPORT extern "C" __attribute__((visibility("default"), used))
#else
#define CHIMERA_EXPORT __attribute__((visibility("default"), used))
#endif
extern __attribute__((visibility("default"))) const chimera_expert_entry chimera_expert_entry_v1;

/* ---- ELF note -------------------------------------------------------------------------------- */

/* Says in the file what the library is, so that a host can refuse it without running any of its
 * code (loading a library already runs its constructors). Texts are NUL-padded; unused bytes 0. */
#define CHIMERA_NOTE_OWNER "Chimera"           /* with its NUL: 8 bytes */
#define CHIMERA_NOTE_TYPE UINT32_C(0x434d0001) /* "CM", expert library */
#define CHIMERA_NOTE_SECTION ".note.chimera"

/* The note's payload. */
typedef struct chimera_expert_note {
  uint16_t abi_major;
  uint16_t abi_minor;
  uint32_t plugin_count; /* plugins in the library; `id` is that of the first */
  char id[CHIMERA_MAX_ID_BYTES + 1];
  char version[64];
  char build[64]; /* names the build: a commit, a number; may be empty */
} chimera_expert_note;

/* The note with its ELF header, as it lies in the file. */
typedef struct chimera_expert_note_section {
  uint32_t owner_size;
  uint32_t payload_size;
  uint32_t type;
  char owner[8];
  chimera_expert_note payload;
} chimera_expert_note_section;

/* Emits the note; once per library, at file scope, with string literals:
 *   CHIMERA_EXPERT_NOTE("com.example.legal", "1.2.0", "build 17");  */
#define CHIMERA_EXPERT_NOTE(id_literal, version_literal, build_literal)    \
  static const chimera_expert_note_section chimera_expert_note_            \
      __attribute__((section(CHIMERA_NOTE_SECTION), used, aligned(4))) = { \
          8,                                                               \
          sizeof(chimera_expert_note),                                     \
          CHIMERA_NOTE_TYPE,                                               \
          CHIMERA_NOTE_OWNER,                                              \
          {CHIMERA_ABI_MAJOR, CHIMERA_ABI_MINOR, 1, id_literal, version_literal, build_literal}}

/* ---- frozen layout --------------------------------------------------------------------------- */

#define CHIMERA_FROZEN_SIZE(type, size) \
  CHIMERA_STATIC_ASSERT(sizeof(type) == (size), "ABI 1: size of " #type " is frozen")
#define CHIMERA_FROZEN_OFFSET(type, field, offset)        \
  CHIMERA_STATIC_ASSERT(offsetof(type, field) == (offset), \
                        "ABI 1: " #type "." #field " is frozen")

/* Structures grow at their end with the minor version, fields stay where they are. */
CHIMERA_FROZEN_SIZE(void*, 8);
CHIMERA_FROZEN_SIZE(chimera_text, 16);
CHIMERA_FROZEN_SIZE(chimera_expert_layer, 8);
CHIMERA_FROZEN_SIZE(chimera_expert_descriptor, 224);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, id_borrowed, 8);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, version, 16);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, domains_borrowed, 80);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, backbone_fingerprint, 96);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, d_model, 112);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, layers_borrowed, 120);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, input_dtype, 136);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, max_rows, 144);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, concurrency, 152);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, determinism, 156);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, scratch_bytes, 160);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, cpu_features, 168);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, required_services_borrowed, 176);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, optional_services_borrowed, 192);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, expected_ns_per_row, 208);
CHIMERA_FROZEN_OFFSET(chimera_expert_descriptor, cancel_latency_ns, 216);
CHIMERA_FROZEN_SIZE(chimera_host, 56);
CHIMERA_FROZEN_OFFSET(chimera_host, host_data_owned, 40);
CHIMERA_FROZEN_OFFSET(chimera_host, get_service, 48);
CHIMERA_FROZEN_SIZE(chimera_expert_batch, 120); /* 112 in ABI 1.0 */
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, epoch, 104);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, n_rows, 12);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, x_borrowed, 16);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, x_stride, 32);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, worker_count, 56);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, scratch_borrowed, 64);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, deadline_ns, 88);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, cancel_borrowed, 96);
CHIMERA_FROZEN_OFFSET(chimera_expert_batch, row_epochs_borrowed, 112);
CHIMERA_FROZEN_SIZE(chimera_expert_limits, 24);
CHIMERA_FROZEN_OFFSET(chimera_expert_limits, memory_bytes, 16);
CHIMERA_FROZEN_SIZE(chimera_expert, 80);
CHIMERA_FROZEN_OFFSET(chimera_expert, prepare, 24);
CHIMERA_FROZEN_OFFSET(chimera_expert, forward, 40);
CHIMERA_FROZEN_OFFSET(chimera_expert, get_extension, 72);
CHIMERA_FROZEN_SIZE(chimera_expert_factory, 32);
CHIMERA_FROZEN_OFFSET(chimera_expert_factory, create, 24);
CHIMERA_FROZEN_SIZE(chimera_init_info, 24);
CHIMERA_FROZEN_SIZE(chimera_expert_entry, 48);
CHIMERA_FROZEN_OFFSET(chimera_expert_entry, struct_size, 8);
CHIMERA_FROZEN_OFFSET(chimera_expert_entry, flags, 20);
CHIMERA_FROZEN_OFFSET(chimera_expert_entry, init, 24);
CHIMERA_FROZEN_SIZE(chimera_expert_note, 264);
CHIMERA_FROZEN_SIZE(chimera_expert_note_section, 284);
CHIMERA_FROZEN_OFFSET(chimera_expert_note_section, payload, 20);

#ifdef __cplusplus
} /* extern "C" */
#endif

#endif /* CHIMERA_EXPERT_H_ */
