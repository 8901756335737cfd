/* chimera.metrics/1: counters and histograms in the host's `stats`, labelled with the module.
 *
 * Declared once in prepare or activate; updates are lock-free. */
#ifndef CHIMERA_SERVICES_METRICS_H_
#define CHIMERA_SERVICES_METRICS_H_

#include "chimera/expert.h"

#ifdef __cplusplus
extern "C" {
#endif

#define CHIMERA_METRICS_ID "chimera.metrics/1"

#define CHIMERA_METRICS_MAX 32        /* of each kind per instance */
#define CHIMERA_METRICS_MAX_BOUNDS 16 /* of a histogram */

typedef struct chimera_host_metrics {
  uint32_t struct_size;
  uint32_t reserved;
  /* Declares a counter named [a-z][a-z0-9_]{0,62}; its handle, at least 1, the same for the same
   * name; 0 when the name is wrong or there are too many. [control & built, idle, active] */
  uint32_t (*counter)(const chimera_host* host, chimera_text name);
  /* Declares a histogram with ascending finite upper bounds; beyond the last is one more bucket.
   * Handle as above. [control & built, idle, active] */
  uint32_t (*histogram)(const chimera_host* host, chimera_text name, const double* bounds_borrowed,
                        uint32_t bound_count);
  /* Adds to a counter; a handle that is none is ignored. [any] */
  void (*add)(const chimera_host* host, uint32_t counter, uint64_t amount);
  /* Counts one value; NaN and a handle that is none are ignored. [any] */
  void (*observe)(const chimera_host* host, uint32_t histogram, double value);
} chimera_host_metrics;

CHIMERA_FROZEN_SIZE(chimera_host_metrics, 40);
CHIMERA_FROZEN_OFFSET(chimera_host_metrics, observe, 32);

#ifdef __cplusplus
}
#endif

#endif /* CHIMERA_SERVICES_METRICS_H_ */
