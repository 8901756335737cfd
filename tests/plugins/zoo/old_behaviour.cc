// Its version lies in a unique symbol, so a new copy of the library speaks with the old one's
// voice. (Linked without the version script, with -fgnu-unique.)
#include <cstddef>
struct Text {
  __attribute__((visibility("default"))) static char* version() {
    static char text[] = "1.0.0";
    return text;
  }
};
#define ZOO_FLAGS 0
#define ZOO_DESCRIPTOR static
#define ZOO_ON_INIT() (zoo_descriptor.version.data_borrowed = Text::version(), CHIMERA_OK)
#include "zoo.h"
