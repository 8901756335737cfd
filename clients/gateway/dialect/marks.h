// What the dialects' marks are, to the letter. Private to the room.
//
// Sources: the chat templates of NousResearch/Hermes-3, Qwen/Qwen2.5, Qwen/Qwen3 and Qwen3-Coder,
// meta-llama/Llama-3.1, mistralai's v3 to v13 tokenizers, deepseek-ai/DeepSeek-V3 and V3.1, and
// openai/gpt-oss with the harmony format it describes.
//
// Thread safety: constants.
#pragma once

#include <string_view>

namespace chimera::gateway::mark {

inline constexpr std::string_view kSpace = " \t\r\n";

inline constexpr std::string_view kThink = "<think>", kThinkEnd = "</think>";
inline constexpr std::string_view kMistralThink = "[THINK]", kMistralThinkEnd = "[/THINK]";

inline constexpr std::string_view kToolCall = "<tool_call>", kToolCallEnd = "</tool_call>";
inline constexpr std::string_view kFunction = "<function=", kFunctionEnd = "</function>";
inline constexpr std::string_view kParameter = "<parameter=", kParameterEnd = "</parameter>";

inline constexpr std::string_view kPythonTag = "<|python_tag|>";

inline constexpr std::string_view kMistralCalls = "[TOOL_CALLS]", kMistralArgs = "[ARGS]",
                                  kMistralCallId = "[CALL_ID]";

inline constexpr std::string_view kDeepSeekCalls = "<｜tool▁calls▁begin｜>",
                                  kDeepSeekCallsEnd = "<｜tool▁calls▁end｜>",
                                  kDeepSeekCall = "<｜tool▁call▁begin｜>",
                                  kDeepSeekCallEnd = "<｜tool▁call▁end｜>",
                                  kDeepSeekSep = "<｜tool▁sep｜>";

inline constexpr std::string_view kStart = "<|start|>", kChannel = "<|channel|>",
                                  kMessage = "<|message|>", kConstrain = "<|constrain|>",
                                  kEnd = "<|end|>", kReturn = "<|return|>", kCall = "<|call|>";

}  // namespace chimera::gateway::mark
