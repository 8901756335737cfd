// Standard output of programs whose answer is what they print: an answer that was lost (a full
// disk, a closed descriptor) must not end with exit status 0.
//
// Thread safety: none; from main, before and after everything else.
#pragma once

#include "base/status.h"

namespace chimera {

/// Puts a stand-in behind each of the descriptors 0, 1 and 2 that is closed, so that no file or
/// socket opened later gets its number and receives what was meant for it. Writing to the stand-in
/// of a closed output fails. First statement of main.
void guard_standard_streams();

/// Whether something written to standard output so far was lost.
bool standard_output_lost();

/// Writes out what is buffered. Not ok when anything that was ever written was lost, with the
/// reason of the system.
Status flush_standard_output();

/// For the end of main: `status`, or 1 where it is 0 and output was lost, which is then told on
/// standard error as "PROGRAM: …".
int finish_output(const char* program, int status);

}  // namespace chimera
