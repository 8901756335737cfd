// Text whose tokens tell which module answered them.
//
// Thread safety: none.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "chimera_client/client.h"
#include "terminal/output.h"

namespace chimera::cli {

/// A token was answered by the module (or the backbone) with the largest share of the gate's mass
/// at its position; among equals by the first by name. On a terminal each module has a colour and
/// the backbone none; elsewhere "[NAME]" stands wherever another one takes over.
class ShareView {
 public:
  /// `out` outlives the view.
  explicit ShareView(const Output& out) : out_(out) {}

  /// Prints the token's text. A token without shares is shown as it is and counts for nobody.
  void show(const client::Token& token);
  /// One line per module, in order of appearance: its colour or mark, and how many tokens it
  /// answered.
  void legend() const;

 private:
  struct Answerer {
    std::string name;
    int colour = 0;  // of the foreground; 0: none
    int64_t tokens = 0;
  };
  Answerer& answerer(const std::string& name);

  const Output& out_;
  std::vector<Answerer> answerers_;  // in order of appearance
  size_t modules_ = 0;               // of them, without the backbone
  std::string last_;
};

}  // namespace chimera::cli
