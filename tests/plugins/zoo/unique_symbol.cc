// A static object inside an inline function: compiled with -fgnu-unique it gets a symbol that keeps
// the library mapped for ever. (Linked without the version script, which would hide it.)
#include <cstddef>
struct Counter {
  __attribute__((visibility("default"))) static int& value() {
    static int count = 0;
    return count;
  }
};
#define ZOO_ON_FORWARD(z, b) ++Counter::value()
#define ZOO_FLAGS 0
#define ZOO_CONCURRENCY CHIMERA_CONCURRENCY_SERIAL
#include "zoo.h"
