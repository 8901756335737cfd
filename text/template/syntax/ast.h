// The parsed template.
//
// One struct per node kind; which one a node is follows from `kind`. `height` bounds how deep
// evaluation recurses.
//
// Thread safety: nodes are immutable after parsing and shared by concurrent renders.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "text/template/value/value.h"

namespace chimera::jinja {

/// Index into Template::names.
using Symbol = uint32_t;

struct Expr;
using ExprPtr = std::unique_ptr<const Expr>;

/// f(a, *b, k=c, **d)
struct Arguments {
  std::vector<ExprPtr> positional;
  std::vector<std::pair<std::string, ExprPtr>> named;
  ExprPtr more_positional, more_named;  // may be null
};

enum class Op : uint8_t {
  kAdd,
  kSubtract,
  kMultiply,
  kDivide,
  kFloorDivide,
  kModulo,
  kPower,
  kEqual,
  kNotEqual,
  kLess,
  kLessEqual,
  kGreater,
  kGreaterEqual,
  kIn,
  kNotIn,
};

struct Expr {
  enum class Kind : uint8_t {
    kConstant,   // constant
    kName,       // symbol
    kTuple,      // parts
    kList,       // parts
    kDict,       // parts: key, value, key, value, …
    kAttribute,  // parts[0].name
    kItem,       // parts[0][parts[1]]
    kSlice,      // parts[0][parts[1]:parts[2]:parts[3]], each of the last three may be null
    kCall,       // parts[0](arguments)
    kFilter,     // parts[0] | name(arguments); parts[0] null in filter blocks
    kTest,       // parts[0] is [not] name(arguments)
    kNegate,
    kPlus,
    kNot,      // parts[0]
    kBinary,   // parts[0] op parts[1]
    kCompare,  // parts[0] comparisons[0] parts[1] comparisons[1] …
    kConcat,   // parts joined by ~
    kAnd,
    kOr,      // parts[0], parts[1]
    kChoice,  // parts[0] if parts[1] else parts[2] (may be null)
  };
  Kind kind = Kind::kConstant;
  int line = 1;
  int height = 1;
  std::vector<ExprPtr> parts;
  Value constant;
  Symbol symbol = 0;
  std::string name;
  Arguments arguments;
  std::vector<Op> comparisons;
  Op op = Op::kAdd;
  bool negated = false;  // is not
};

/// Left side of an assignment: a name, namespace.attribute, or a tuple of targets.
struct Target {
  Symbol symbol = 0;
  std::string attribute;  // "" for a plain name
  bool is_tuple = false;
  std::vector<Target> parts;
};

struct Statement;
using StatementPtr = std::unique_ptr<const Statement>;
using Body = std::vector<StatementPtr>;

struct Parameter {
  Symbol symbol = 0;
  ExprPtr fallback;  // null: required
};

/// A macro, or the body of a call block.
struct MacroCode {
  std::string name;
  std::vector<Parameter> parameters;
  Body body;
  bool uses_caller = false, uses_varargs = false, uses_kwargs = false;
};

struct Statement {
  enum class Kind : uint8_t {
    kData,        // text
    kOutput,      // exprs, printed one after another
    kIf,          // exprs[i] guards bodies[i]; one body more is the else
    kFor,         // target in exprs[0] if exprs[1] (may be null): bodies[0], else bodies[1]
    kSet,         // target = exprs[0]
    kSetBlock,    // target = bodies[0] through filter exprs[0] (may be null)
    kWith,        // targets = exprs: bodies[0]
    kFilter,      // bodies[0] through exprs[0]
    kMacro,       // macro, bound to symbol
    kCall,        // exprs[0] is a call that gets macro as `caller`
    kGeneration,  // bodies[0]; marks what an assistant wrote when training, nothing here
    kBreak,
    kContinue,
  };
  Kind kind = Kind::kData;
  int line = 1;
  int height = 1;
  Text text;
  std::vector<ExprPtr> exprs;
  std::vector<Body> bodies;
  Target target;
  std::vector<Target> targets;
  MacroCode macro;
  Symbol symbol = 0;
  bool recursive = false;
};

/// Bounds of a template: longer or deeper ones are refused when they are parsed.
inline constexpr size_t kMaxTemplateBytes = size_t{1} << 20;
inline constexpr int kMaxHeight = 200;

}  // namespace chimera::jinja
