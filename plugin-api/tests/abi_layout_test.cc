// The binary layout of ABI 1, field by field, against the golden file abi/layout-1.txt. That file
// changes by appending only: a line that is there stays.
//
// All structures have explicit padding, so the listed fields must tile each structure exactly; a
// field that somebody adds to a header and not here leaves a hole and fails.
#include <gtest/gtest.h>

#include <fstream>
#include <sstream>
#include <string>
#include <vector>

#include "chimera/draft/residency.h"
#include "chimera/services.h"

namespace {

struct Field {
  std::string name;
  size_t offset, size;
};
struct Layout {
  std::string name;
  size_t size;
  std::vector<Field> fields;
};

#define F(field) \
  Field { #field, offsetof(T, field), sizeof(T::field) }
#define LAYOUT(type, ...)                           \
  [] {                                              \
    using T = type;                                 \
    return Layout{#type, sizeof(T), {__VA_ARGS__}}; \
  }()

std::vector<Layout> layouts() {
  return {
      LAYOUT(chimera_text, F(data_borrowed), F(size)),
      LAYOUT(chimera_expert_layer, F(layer), F(expert_count)),
      LAYOUT(chimera_expert_descriptor, F(struct_size), F(reserved), F(id_borrowed), F(version),
             F(vendor), F(license), F(description), F(domains_borrowed), F(domain_count),
             F(backbone_fingerprint), F(d_model), F(d_ff), F(layers_borrowed), F(layer_count),
             F(input_dtype), F(output_dtype), F(max_rows), F(alignment), F(concurrency),
             F(determinism), F(scratch_bytes), F(cpu_features), F(required_services_borrowed),
             F(required_service_count), F(optional_services_borrowed), F(optional_service_count),
             F(expected_ns_per_row), F(cancel_latency_ns)),
      LAYOUT(chimera_host, F(struct_size), F(abi_major), F(abi_minor), F(name), F(version),
             F(host_data_owned), F(get_service)),
      LAYOUT(chimera_expert_batch, F(struct_size), F(layer), F(expert), F(n_rows), F(x_borrowed),
             F(y_borrowed), F(x_stride), F(y_stride), F(input_dtype), F(output_dtype),
             F(worker_count), F(reserved), F(scratch_borrowed), F(scratch_size), F(scratch_stride),
             F(deadline_ns), F(cancel_borrowed), F(epoch), F(row_epochs_borrowed)),
      LAYOUT(chimera_expert_limits, F(struct_size), F(max_rows), F(worker_count), F(max_concurrent),
             F(memory_bytes)),
      LAYOUT(chimera_expert, F(struct_size), F(reserved), F(descriptor_borrowed),
             F(plugin_data_owned), F(prepare), F(activate), F(forward), F(reset), F(deactivate),
             F(destroy), F(get_extension)),
      LAYOUT(chimera_expert_factory, F(struct_size), F(reserved), F(count), F(descriptor),
             F(create)),
      LAYOUT(chimera_init_info, F(struct_size), F(abi_major), F(abi_minor), F(module_dir)),
      LAYOUT(chimera_expert_entry, F(magic), F(struct_size), F(abi_major), F(abi_minor),
             F(required_minor), F(reserved), F(flags), F(init), F(deinit), F(get_factory)),
      LAYOUT(chimera_expert_note, F(abi_major), F(abi_minor), F(plugin_count), F(id), F(version),
             F(build)),
      LAYOUT(chimera_expert_note_section, F(owner_size), F(payload_size), F(type), F(owner),
             F(payload)),
      LAYOUT(chimera_host_log, F(struct_size), F(reserved), F(write)),
      LAYOUT(chimera_host_error, F(struct_size), F(reserved), F(set)),
      LAYOUT(chimera_host_memory, F(struct_size), F(reserved), F(allocate), F(release),
             F(used_bytes)),
      LAYOUT(chimera_tensor, F(struct_size), F(dtype), F(rank), F(reserved), F(shape),
             F(data_borrowed), F(byte_size), F(name)),
      LAYOUT(chimera_host_weights, F(struct_size), F(reserved), F(count), F(at), F(find)),
      LAYOUT(chimera_host_parallel, F(struct_size), F(reserved), F(run)),
      LAYOUT(chimera_matrix_source, F(struct_size), F(dtype), F(rows), F(cols), F(row_stride),
             F(data_borrowed), F(scales_borrowed)),
      LAYOUT(chimera_host_matmul, F(struct_size), F(reserved), F(pack), F(release), F(multiply),
             F(swiglu)),
      LAYOUT(chimera_host_clock, F(struct_size), F(reserved), F(monotonic_ns)),
      LAYOUT(chimera_host_cancel, F(struct_size), F(reserved), F(check)),
      LAYOUT(chimera_host_thread_check, F(struct_size), F(reserved), F(role)),
      LAYOUT(chimera_host_metrics, F(struct_size), F(reserved), F(counter), F(histogram), F(add),
             F(observe)),
      LAYOUT(chimera_expert_residency, F(struct_size), F(reserved), F(resident_bytes)),
  };
}

std::string text_of(const std::vector<Layout>& all) {
  std::ostringstream out;
  for (const Layout& layout : all) {
    out << layout.name << " " << layout.size << "\n";
    for (const Field& f : layout.fields) {
      out << "  " << f.offset << " " << f.size << " " << f.name << "\n";
    }
  }
  return out.str();
}

TEST(AbiLayout, FieldsTileEveryStructure) {
  for (const Layout& layout : layouts()) {
    size_t end = 0;
    for (const Field& f : layout.fields) {
      EXPECT_EQ(f.offset, end) << layout.name << ": a hole or an unlisted field before " << f.name;
      end = f.offset + f.size;
    }
    EXPECT_EQ(end, layout.size) << layout.name << ": something after the last listed field";
  }
}

TEST(AbiLayout, IsTheGoldenOne) {
  const std::string path = CHIMERA_SOURCE_DIR "/plugin-api/abi/layout-1.txt";
  std::ifstream file(path);
  ASSERT_TRUE(file) << path;
  std::ostringstream golden;
  golden << file.rdbuf();
  EXPECT_EQ(text_of(layouts()), golden.str())
      << "A change of an existing line breaks every plugin that was ever built. New fields are "
         "appended to a structure and to the golden file, with a new ABI minor.";
}

// The numbers that plugins have compiled in.
TEST(AbiLayout, StatusCodesKeepTheirNumbers) {
  EXPECT_EQ(CHIMERA_OK, 0);
  EXPECT_EQ(CHIMERA_INVALID_ARGUMENT, 1);
  EXPECT_EQ(CHIMERA_NOT_FOUND, 2);
  EXPECT_EQ(CHIMERA_FAILED_PRECONDITION, 4);
  EXPECT_EQ(CHIMERA_RESOURCE_EXHAUSTED, 6);
  EXPECT_EQ(CHIMERA_DEADLINE_EXCEEDED, 7);
  EXPECT_EQ(CHIMERA_CANCELLED, 8);
  EXPECT_EQ(CHIMERA_INTERNAL, 12);
}

}  // namespace
