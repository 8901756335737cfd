// What @huggingface/gguf finds in a GGUF file, as JSON: node read.mjs FILE.
import { GGMLQuantizationType, gguf } from "@huggingface/gguf";

const found = await gguf(process.argv[2], { allowLocalFile: true });
const plain = (key, value) => (typeof value === "bigint" ? Number(value) : value);
const tensors = found.tensorInfos.map((t) => ({
  name: t.name,
  shape: t.shape,
  type: GGMLQuantizationType[t.dtype],
  offset: t.offset,
}));
const start = found.tensorDataOffset;
console.log(JSON.stringify({ metadata: found.metadata, tensors, start }, plain));
