/* Logs every row. */
#define ZOO_STATE const chimera_host_log* log;
#define ZOO_ON_PREPARE(z, config) \
  (z)->log = (const chimera_host_log*)(z)->host->get_service((z)->host, CHIMERA_LOG_ID)
#define ZOO_ROW(z, b, r, x, y)                                                \
  do {                                                                        \
    const chimera_text line = CHIMERA_TEXT("a row");                          \
    zoo_row(z, x, y);                                                         \
    if ((z)->log != NULL) (z)->log->write((z)->host, CHIMERA_LOG_INFO, line); \
  } while (0)
#include "zoo.h"
