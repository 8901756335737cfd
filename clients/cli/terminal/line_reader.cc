#include "terminal/line_reader.h"

#include <histedit.h>
#include <langinfo.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <clocale>
#include <csignal>
#include <cstdio>
#include <cwchar>
#include <iostream>
#include <string_view>

#include "commands.h"

namespace chimera::cli {
namespace {

constexpr int kHistoryLines = 500;

/// libedit asks for the prompt through a C function and gives it the client data.
char* prompt_of(EditLine* editor) {
  void* held = nullptr;
  el_get(editor, EL_CLIENTDATA, &held);
  return static_cast<std::string*>(held)->data();
}

/// libedit reads characters as the locale encodes them, and programs start in one that has ASCII
/// only: it drops every other. The protocol is UTF-8, so where the user's locale has another
/// encoding (LANG=C, or nothing set), the one without a language that every system has is taken.
void use_utf8() {
  const auto is_utf8 = [] { return std::string_view(nl_langinfo(CODESET)) == "UTF-8"; };
  if (std::setlocale(LC_CTYPE, "") != nullptr && is_utf8()) return;
  std::setlocale(LC_CTYPE, "C.UTF-8");
}

/// Ctrl-C while this lives waits for wait_for_key().
class HeldInterrupt {
 public:
  HeldInterrupt() {
    sigset_t held;
    sigemptyset(&held);
    sigaddset(&held, SIGINT);
    pthread_sigmask(SIG_BLOCK, &held, &before_);
  }
  ~HeldInterrupt() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }
  HeldInterrupt(const HeldInterrupt&) = delete;
  HeldInterrupt& operator=(const HeldInterrupt&) = delete;

 private:
  sigset_t before_;
};

/// False after Ctrl-C, whenever it came: libedit's own read would not notice one that came just
/// before it, until the next key.
bool wait_for_key() {
  sigset_t waiting;
  pthread_sigmask(SIG_SETMASK, nullptr, &waiting);
  sigdelset(&waiting, SIGINT);
  pollfd input{STDIN_FILENO, POLLIN, 0};
  while (ppoll(&input, 1, nullptr, &waiting) < 0) {
    if (errno != EINTR || interrupted()) return false;
  }
  return true;
}

/// libedit's source of characters: 1 and the character, 0 at the end, -1 on errors and Ctrl-C.
int read_key(EditLine*, wchar_t* out) {
  std::mbstate_t state{};
  while (wait_for_key()) {
    char byte = 0;
    const ssize_t got = ::read(STDIN_FILENO, &byte, 1);
    if (got <= 0) return static_cast<int>(got);
    const size_t length = std::mbrtowc(out, &byte, 1, &state);
    constexpr auto kBroken = static_cast<size_t>(-1), kUnfinished = static_cast<size_t>(-2);
    if (length == kBroken) state = {};  // no character: left out
    if (length != kBroken && length != kUnfinished) return 1;
  }
  return -1;
}

}  // namespace

struct LineReader::Editor {
  EditLine* line = nullptr;
  History* history = nullptr;
  HistEvent event{};

  ~Editor() {
    if (line != nullptr) el_end(line);
    if (history != nullptr) history_end(history);
  }
};

LineReader::LineReader(std::string prompt) : prompt_(std::move(prompt)) {
  if (isatty(STDIN_FILENO) != 1 || isatty(STDERR_FILENO) != 1) return;
  use_utf8();
  editor_ = std::make_unique<Editor>();
  editor_->history = history_init();
  // The prompt goes to standard error, so that answers can be piped on.
  editor_->line = el_init("chimera", stdin, stderr, stderr);
  if (editor_->history == nullptr || editor_->line == nullptr) {
    editor_.reset();
    return;
  }
  history(editor_->history, &editor_->event, H_SETSIZE, kHistoryLines);
  el_set(editor_->line, EL_CLIENTDATA, &prompt_);
  el_set(editor_->line, EL_PROMPT, prompt_of);
  el_set(editor_->line, EL_EDITOR, "emacs");
  el_set(editor_->line, EL_GETCFN, read_key);
  el_set(editor_->line, EL_HIST, history, editor_->history);
}

LineReader::~LineReader() = default;

std::optional<std::string> LineReader::next() {
  std::string line;
  if (editor_ == nullptr) {
    if (!std::getline(std::cin, line)) return std::nullopt;
    return line;
  }
  const HeldInterrupt held;
  while (true) {
    int count = 0;
    const char* text = el_gets(editor_->line, &count);
    if (text != nullptr && count > 0) {
      line.assign(text, static_cast<size_t>(count));
      break;
    }
    if (!clear_interrupt()) {
      std::fputc('\n', stderr);
      return std::nullopt;
    }
    std::fputs("\n(Ctrl-D or /quit leaves)\n", stderr);
    el_reset(editor_->line);
  }
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.pop_back();
  if (!line.empty()) history(editor_->history, &editor_->event, H_ENTER, line.c_str());
  return line;
}

}  // namespace chimera::cli
