// Boost.DLL and the dynamic loader; nothing else in Chimera calls them.
#define BOOST_DLL_USE_STD_FS
#include "experts/library/plugin_image.h"

#include <dlfcn.h>
#include <fmt/format.h>
#include <link.h>

#include <algorithm>
#include <boost/dll/shared_library.hpp>
#include <chrono>
#include <cstring>
#include <thread>

#include "experts/library/process_state.h"

namespace chimera {
namespace {

// ABI: init takes less than 10 ms. Only warned of, as a busy machine takes longer.
constexpr std::chrono::milliseconds kSlowInit{10};
// Another thread of the daemon may have a file open at the moment of the comparison; what the
// library left behind is still there at every later look.
constexpr std::chrono::milliseconds kSettling{20};
constexpr int kSettlingLooks = 25;

constexpr uint8_t kMagic[8] = CHIMERA_EXPERT_MAGIC;
constexpr uint32_t kKnownFlags = CHIMERA_ENTRY_UNLOAD_CLEAN | CHIMERA_ENTRY_KEEP_LOADED;

struct Mapping {
  const std::string* path;
  uintptr_t begin = UINTPTR_MAX, end = 0;
  uint64_t bytes = 0;
};

/// Fills in the segments of the object that was opened under mapping.path; none: bytes stay 0.
void find_mapping(Mapping* mapping) {
  ::dl_iterate_phdr(
      [](dl_phdr_info* info, size_t, void* data) {
        auto& m = *static_cast<Mapping*>(data);
        if (info->dlpi_name == nullptr || *m.path != info->dlpi_name) return 0;
        for (int i = 0; i < info->dlpi_phnum; ++i) {
          const ElfW(Phdr)& segment = info->dlpi_phdr[i];
          if (segment.p_type != PT_LOAD) continue;
          const uintptr_t begin = info->dlpi_addr + segment.p_vaddr;
          m.begin = std::min(m.begin, begin);
          m.end = std::max(m.end, begin + segment.p_memsz);
          m.bytes += segment.p_memsz;
        }
        return 1;
      },
      mapping);
}

bool still_loaded(const std::string& path) {
  Mapping mapping{&path};
  find_mapping(&mapping);
  if (mapping.bytes != 0) return true;
  void* handle = ::dlopen(path.c_str(), RTLD_LAZY | RTLD_NOLOAD);
  if (handle != nullptr) ::dlclose(handle);
  return handle != nullptr;
}

}  // namespace

struct PluginImage::Library {
  boost::dll::shared_library handle;
};

PluginImage::PluginImage(const LibrarySource& source, LibraryRuntime& runtime)
    : runtime_(runtime),
      module_(source.module),
      label_(fmt::format("module {}: library {}", source.module, source.spec.file)),
      note_(source.note) {}

Result<std::unique_ptr<PluginImage>> PluginImage::load(const LibrarySource& source,
                                                       LibraryRuntime& runtime) {
  CHIMERA_RETURN_IF_ERROR(runtime.admit(source.module));
  std::unique_ptr<PluginImage> image(new PluginImage(source, runtime));
  const ProcessState before = ProcessState::now();
  CHIMERA_RETURN_IF_ERROR(image->open(*source.image));
  CHIMERA_RETURN_IF_ERROR(image->check_entry());
  CHIMERA_RETURN_IF_ERROR(image->initialise(source.dir));
  std::string changed = ProcessState::now().difference(before);
  for (int look = 0; !changed.empty() && look < kSettlingLooks; ++look) {
    std::this_thread::sleep_for(kSettling);
    changed = ProcessState::now().difference(before);
  }
  if (!changed.empty()) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("{}: found side effects of loading it: {} (expected none)",
                              image->label_, changed),
                  "Constructors and init must leave the process alone; see plugin-api/template.");
  }
  return image;
}

Status PluginImage::open(const SealedFile& file) {
  path_ = file.unique_path(LibraryRuntime::next_generation());
  try {
    const ControlCallGuard guard;
    library_ = std::make_unique<Library>();
    // The form that throws: the one with an error code drops the loader's own text.
    library_->handle.load(path_,
                          boost::dll::load_mode::rtld_now | boost::dll::load_mode::rtld_local);
    runtime_.count_loaded();
    Mapping mapping{&path_};
    find_mapping(&mapping);
    begin_ = mapping.begin;
    end_ = mapping.end;
    mapped_bytes_ = mapping.bytes;
    if (library_->handle.has(CHIMERA_EXPERT_ENTRY_SYMBOL)) {
      entry_ = &library_->handle.get<const chimera_expert_entry>(CHIMERA_EXPERT_ENTRY_SYMBOL);
    }
    return {};
  } catch (const std::exception& e) {
    std::string text = e.what();
    for (size_t at; (at = text.find(path_)) != std::string::npos;) {
      text.replace(at, path_.size(), "it");
    }
    return {Code::kDataCorrupt, fmt::format("{}: the dynamic loader refused it: {}", label_, text),
            "Its needed libraries must be installed; link it as plugin-api/template does."};
  }
}

Status PluginImage::check_entry() const {
  const auto bad = [&](Code code, const std::string& found, const std::string& expected) {
    return Status(code, fmt::format("{}: entry: found {} (expected {})", label_, found, expected),
                  "Build it as plugin-api/template does.");
  };
  const auto at = reinterpret_cast<uintptr_t>(entry_);
  if (entry_ == nullptr || at < begin_ || at + sizeof(chimera_expert_entry) > end_) {
    return bad(Code::kDataCorrupt, "none inside the library", CHIMERA_EXPERT_ENTRY_SYMBOL);
  }
  if (std::memcmp(entry_->magic, kMagic, sizeof(kMagic)) != 0) {
    return bad(Code::kDataCorrupt, "another magic", "CHIMERA1");
  }
  if (entry_->struct_size < sizeof(chimera_expert_entry)) {
    return bad(Code::kDataCorrupt, fmt::format("struct_size {}", entry_->struct_size),
               fmt::format("at least {}", sizeof(chimera_expert_entry)));
  }
  if (entry_->abi_major != note_.abi_major || entry_->abi_minor != note_.abi_minor) {
    return bad(Code::kDataCorrupt, fmt::format("ABI {}.{}", entry_->abi_major, entry_->abi_minor),
               fmt::format("{}.{}, as its note says", note_.abi_major, note_.abi_minor));
  }
  if (entry_->required_minor > CHIMERA_ABI_MINOR) {
    return bad(Code::kFailedPrecondition,
               fmt::format("required ABI {}.{}", entry_->abi_major, entry_->required_minor),
               fmt::format("at most {}.{}", CHIMERA_ABI_MAJOR, CHIMERA_ABI_MINOR));
  }
  if ((entry_->flags & ~kKnownFlags) != 0) {
    return bad(Code::kFailedPrecondition, fmt::format("flags {:#x}", entry_->flags),
               fmt::format("bits of {:#x}", kKnownFlags));
  }
  if (entry_->init == nullptr || entry_->deinit == nullptr || entry_->get_factory == nullptr) {
    return bad(Code::kDataCorrupt, "a null function", "init, deinit and get_factory");
  }
  return {};
}

Status PluginImage::initialise(const std::string& dir) {
  chimera_init_info info{};
  info.struct_size = sizeof(info);
  info.abi_major = CHIMERA_ABI_MAJOR;
  info.abi_minor = CHIMERA_ABI_MINOR;
  info.module_dir = {dir.data(), dir.size()};
  const auto start = std::chrono::steady_clock::now();
  int32_t status = 0;
  {
    const ControlCallGuard guard;
    status = entry_->init(&info);
  }
  const auto took = std::chrono::steady_clock::now() - start;
  if (took > kSlowInit) {
    runtime_.log(LibraryRuntime::Severity::kWarning, module_,
                 fmt::format("init took {} ms (expected less than {})",
                             std::chrono::duration_cast<std::chrono::milliseconds>(took).count(),
                             kSlowInit.count()));
  }
  if (status != CHIMERA_OK) {
    return {Code::kFailedPrecondition,
            fmt::format("{}: init: found status {} (expected 0)", label_, status)};
  }
  initialised_ = true;
  factory_ =
      static_cast<const chimera_expert_factory*>(entry_->get_factory(CHIMERA_EXPERT_FACTORY_ID));
  if (factory_ == nullptr || factory_->struct_size < sizeof(chimera_expert_factory) ||
      factory_->count == nullptr || factory_->descriptor == nullptr ||
      factory_->create == nullptr) {
    return {Code::kDataCorrupt, fmt::format("{}: found no usable factory (expected {})", label_,
                                            CHIMERA_EXPERT_FACTORY_ID)};
  }
  return {};
}

const chimera_expert_descriptor* PluginImage::find(const std::string& id) const {
  // A library has a few plugins; the bound keeps a wrong count from looping.
  const uint32_t count = std::min<uint32_t>(factory_->count(), 1024);
  for (uint32_t i = 0; i < count; ++i) {
    const chimera_expert_descriptor* descriptor = factory_->descriptor(i);
    if (descriptor != nullptr && descriptor->id_borrowed != nullptr &&
        id == std::string_view(descriptor->id_borrowed,
                               strnlen(descriptor->id_borrowed, CHIMERA_MAX_ID_BYTES + 1))) {
      return descriptor;
    }
  }
  return nullptr;
}

std::string PluginImage::reason_to_keep() const {
  if (const size_t threads = ProcessState::plugin_threads(); threads != 0) {
    return fmt::format("{} threads that plugins started still run", threads);
  }
  if (const auto handlers = ProcessState::handlers_in(begin_, end_); !handlers.empty()) {
    return fmt::format("it handles signal {}", handlers.front());
  }
  if (note_.unique_symbols != 0) {
    return fmt::format("it has {} unique symbols (build it with -fno-gnu-unique)",
                       note_.unique_symbols);
  }
  // Never initialised: only constructors ran, and closing it runs the destructors.
  if (!initialised_) return {};
  if ((entry_->flags & CHIMERA_ENTRY_KEEP_LOADED) != 0) return "it asks for it";
  if ((entry_->flags & CHIMERA_ENTRY_UNLOAD_CLEAN) == 0) {
    return "it does not declare that it unloads cleanly";
  }
  return {};
}

PluginImage::~PluginImage() {
  if (!library_ || !library_->handle.is_loaded()) return;
  const ControlCallGuard guard;
  if (initialised_) entry_->deinit();
  std::string reason = reason_to_keep();
  if (!reason.empty()) {
    // Makes the loader keep the image when the handle goes.
    ::dlopen(path_.c_str(), RTLD_LAZY | RTLD_NOLOAD | RTLD_NODELETE);
  }
  library_.reset();
  if (reason.empty() && !still_loaded(path_)) {
    runtime_.count_unloaded();
    return;
  }
  if (reason.empty()) reason = "the dynamic loader did not unmap it (thread-local destructors?)";
  runtime_.count_kept({module_, note_.version, note_.id, mapped_bytes_, std::move(reason)});
}

}  // namespace chimera
