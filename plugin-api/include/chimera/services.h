/* All host services of ABI 1.1; one header each, so that a plugin includes what it uses. */
#ifndef CHIMERA_SERVICES_H_
#define CHIMERA_SERVICES_H_

#include "chimera/services/cancel.h"
#include "chimera/services/clock.h"
#include "chimera/services/error.h"
#include "chimera/services/log.h"
#include "chimera/services/matmul.h"
#include "chimera/services/memory.h"
#include "chimera/services/metrics.h"
#include "chimera/services/parallel.h"
#include "chimera/services/thread_check.h"
#include "chimera/services/weights.h"

#endif /* CHIMERA_SERVICES_H_ */
