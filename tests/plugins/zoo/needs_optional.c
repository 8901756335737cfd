/* Crashes without a service that it calls optional. */
#define ZOO_ON_PREPARE(z, config)                                                   \
  do {                                                                              \
    const chimera_host_log* log =                                                   \
        (const chimera_host_log*)(z)->host->get_service((z)->host, CHIMERA_LOG_ID); \
    const chimera_text line = CHIMERA_TEXT("prepared");                             \
    log->write((z)->host, CHIMERA_LOG_DEBUG, line);                                 \
  } while (0)
#include "zoo.h"
