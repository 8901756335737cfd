/* Takes heap memory in every call. */
#define ZOO_ON_FORWARD(z, b)               \
  void* volatile temporary = malloc(1024); \
  free(temporary)
#include "zoo.h"
