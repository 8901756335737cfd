#include "text/constraint/code_points.h"

#include <algorithm>
#include <array>
#include <string>

#include "base/utf8.h"

namespace chimera::constraint {
namespace {

constexpr uint32_t kLast = 0x10FFFF, kFirstSurrogate = 0xD800, kLastSurrogate = 0xDFFF;

/// Characters whose encodings have the same length, as sequences of byte ranges: split until all
/// bytes behind the first that differs run from 80 to BF.
void add_sequences(NetworkBuilder& builder, uint32_t first, uint32_t last, NodeId next,
                   NodeId& out) {
  for (int tail = 1; tail <= 3; ++tail) {
    const uint32_t mask = (uint32_t{1} << (6 * tail)) - 1;
    if (first >> (6 * tail) == last >> (6 * tail) || first < 0x80) continue;
    if ((first & mask) != 0) {
      add_sequences(builder, first, first | mask, next, out);
      add_sequences(builder, (first | mask) + 1, last, next, out);
      return;
    }
    if ((last & mask) != mask) {
      add_sequences(builder, first, (last & ~mask) - 1, next, out);
      add_sequences(builder, last & ~mask, last, next, out);
      return;
    }
  }
  std::string low, high;
  append_char(first, low);
  append_char(last, high);
  NodeId node = next;
  for (size_t i = low.size(); i-- > 0;) {
    node = builder.byte(static_cast<uint8_t>(low[i]), static_cast<uint8_t>(high[i]), node);
  }
  out = builder.either(node, out);
}

}  // namespace

CodePoints::CodePoints(std::initializer_list<CodePointRange> ranges) : ranges_(ranges) {
  normalize();
}

CodePoints CodePoints::all() { return {{0, kLast}}; }

void CodePoints::add(uint32_t first, uint32_t last) {
  ranges_.push_back({first, last});
  normalize();
}

void CodePoints::add(const CodePoints& other) {
  ranges_.insert(ranges_.end(), other.ranges_.begin(), other.ranges_.end());
  normalize();
}

void CodePoints::remove(uint32_t first, uint32_t last) { *this = without({{first, last}}); }

CodePoints CodePoints::complement() const {
  CodePoints out;
  uint32_t from = 0;
  for (const CodePointRange& range : ranges_) {
    if (range.first > from) out.ranges_.push_back({from, range.first - 1});
    from = range.last + 1;
  }
  if (from <= kLast) out.ranges_.push_back({from, kLast});
  out.normalize();
  return out;
}

CodePoints CodePoints::without(const CodePoints& other) const {
  CodePoints out = complement();
  out.add(other);
  return out.complement();
}

bool CodePoints::contains(uint32_t code_point) const {
  return std::any_of(ranges_.begin(), ranges_.end(), [code_point](const CodePointRange& range) {
    return range.first <= code_point && code_point <= range.last;
  });
}

void CodePoints::normalize() {
  std::vector<CodePointRange> parts;
  for (const CodePointRange& range : ranges_) {
    if (range.first < kFirstSurrogate)
      parts.push_back({range.first, std::min(range.last, kFirstSurrogate - 1)});
    if (range.last > kLastSurrogate)
      parts.push_back({std::max(range.first, kLastSurrogate + 1), range.last});
  }
  std::sort(parts.begin(), parts.end(),
            [](const CodePointRange& a, const CodePointRange& b) { return a.first < b.first; });
  ranges_.clear();
  for (const CodePointRange& part : parts) {
    if (!ranges_.empty() && part.first <= ranges_.back().last + 1) {
      ranges_.back().last = std::max(ranges_.back().last, part.last);
    } else {
      ranges_.push_back(part);
    }
  }
}

NodeId one_of(NetworkBuilder& builder, const CodePoints& set, NodeId next) {
  // Where the length of the encoding changes.
  constexpr std::array<uint32_t, 4> kLasts = {0x7F, 0x7FF, 0xFFFF, kLast};
  NodeId out = builder.fail();
  for (const CodePointRange& range : set.ranges()) {
    uint32_t first = range.first;
    for (const uint32_t last : kLasts) {
      if (first > last || first > range.last) continue;
      add_sequences(builder, first, std::min(last, range.last), next, out);
      first = last + 1;
    }
  }
  return out;
}

}  // namespace chimera::constraint
