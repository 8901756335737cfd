/* Carries no ELF note. */
#define ZOO_NOTE typedef int zoo_no_note
#include "zoo.h"
