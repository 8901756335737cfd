/* Exports a function beside the entry. (Linked without the version script.) */
#include "zoo.h"
extern __attribute__((visibility("default"))) int zoo_helper(int);
int zoo_helper(int value) { return value + 1; }
