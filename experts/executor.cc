#include "experts/executor.h"

#include <utility>

#include "base/steady_time.h"

namespace chimera {
namespace {

class CallerExecutor final : public ExpertExecutor {
 public:
  ExecutorPlace place() const override { return ExecutorPlace::kCaller; }
};

}  // namespace

bool ExpertCall::end_unwanted() {
  if (deadline_ns == 0 || steady_now_ns() < deadline_ns) return false;
  end({Code::kDeadlineExceeded, "not begun: the deadlines of all its rows had passed"});
  return true;
}

ExpertContext context_of(const ExpertCall& call, const ExpertContext& pass) {
  ExpertContext context = pass;
  context.deadline_ns = call.deadline_ns;
  context.row_epochs = call.row_epochs;
  return context;
}

void ExpertExecutor::run(std::span<ExpertCall> calls, ExpertContext& pass) {
  for (ExpertCall& call : calls) {
    if (call.done || call.end_unwanted()) continue;
    ExpertContext context = context_of(call, pass);
    call.end(call.expert->forward(call.x, call.rows, call.y, context));
  }
}

ExpertExecutor& caller_executor() {
  static CallerExecutor executor;  // has no state
  return executor;
}

}  // namespace chimera
