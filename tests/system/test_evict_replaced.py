"""`memory.evict_replaced` from outside: the account, the kernel's own figure, and answers."""
import json
import os
import shutil
import struct
import tempfile
import unittest
from pathlib import Path
from typing import Any

from harness import SLOW, Daemon, chimera_client, run, wait_for

MIB = 1 << 20
HIDDEN, WIDTH, EXPERTS, LAYERS, VOCAB = 256, 2048, 8, 2, 320
REPLACED = LAYERS * 6 * 3 * WIDTH * HIDDEN * 4  # bytes of the experts whose places `swap` takes


def checkpoint(out: Path) -> Path:
    """16 experts of 6 MiB (F32) and little else, OLMoE's shape; numbers from a fixed sequence."""
    config = {"architectures": ["OlmoeForCausalLM"], "model_type": "olmoe", "hidden_size": HIDDEN,
              "intermediate_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 4,
              "num_key_value_heads": 4, "num_experts": EXPERTS, "num_experts_per_tok": 2,
              "vocab_size": VOCAB, "max_position_embeddings": 512, "rms_norm_eps": 1e-5,
              "rope_theta": 10000.0, "norm_topk_prob": False, "hidden_act": "silu",
              "eos_token_id": 1, "tie_word_embeddings": False}
    shapes: dict[str, list[int]] = {"model.embed_tokens.weight": [VOCAB, HIDDEN],
                                    "lm_head.weight": [VOCAB, HIDDEN], "model.norm.weight": [HIDDEN]}
    for layer in range(LAYERS):
        at = f"model.layers.{layer}."
        for name in ("input_layernorm", "post_attention_layernorm", "self_attn.q_norm", "self_attn.k_norm"):
            shapes[f"{at}{name}.weight"] = [HIDDEN]
        for name in "qkvo":
            shapes[f"{at}self_attn.{name}_proj.weight"] = [HIDDEN, HIDDEN]
        shapes[f"{at}mlp.gate.weight"] = [EXPERTS, HIDDEN]
        for e in range(EXPERTS):
            for name, shape in (("gate", [WIDTH, HIDDEN]), ("up", [WIDTH, HIDDEN]), ("down", [HIDDEN, WIDTH])):
                shapes[f"{at}mlp.experts.{e}.{name}_proj.weight"] = shape
    out.mkdir()
    (out / "config.json").write_text(json.dumps(config))
    header: dict[str, Any] = {}
    end = 0
    for name, shape in shapes.items():
        size = 4 * shape[0] * (shape[1] if len(shape) > 1 else 1)
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [end, end + size]}
        end += size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 64)
    state = 1
    with (out / "model.safetensors").open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape in shapes.items():
            values = []
            for _ in range(4096):  # repeated: large enough to be different everywhere
                state = (state * 1103515245 + 12345) & 0x7fffffff
                values.append((state >> 8) / 2**22 - 1.0)
            scale = 1.0 if "norm" in name else 0.05
            block = struct.pack(f"<{len(values)}f", *(v * scale for v in values))
            left = header[name]["data_offsets"][1] - header[name]["data_offsets"][0]
            while left > 0:
                file.write(block[:left])
                left -= len(block)
    return out


class EvictReplaced(unittest.TestCase):
    def setUp(self) -> None:
        self.scratch = Path(tempfile.mkdtemp(prefix="chimera-evict-"))
        self.backbone = checkpoint(self.scratch / "checkpoint")
        run("chimera", "module", "split", str(self.backbone), "--backbone", str(self.scratch / "unused"),
            "--modules-out", str(self.scratch / "modules"), "--attach", "replace", "--module", "swap=1-6")
        self.swap = str(self.scratch / "modules" / "swap")

    def tearDown(self) -> None:
        shutil.rmtree(self.scratch, ignore_errors=True)

    def daemon(self, **memory: Any) -> Daemon:
        return Daemon(self.backbone, memory={"evict_replaced": True, **memory},
                      serve={"max_sequences": 4, "max_context": 128})

    @staticmethod
    def experts(client: chimera_client.Client) -> dict[str, int]:
        parts: list[dict[str, Any]] = client.stats()["memory"]["parts"]
        return next(part for part in parts if part["use"] == "experts")

    def wait_until_gone(self, client: chimera_client.Client) -> None:
        """All of them: they go in slices."""
        wait_for(lambda: self.experts(client).get("evicted_bytes") == REPLACED, "the replaced experts to go")

    @staticmethod
    def pss(daemon: Daemon) -> int:
        assert daemon.process is not None
        lines = Path(f"/proc/{daemon.process.pid}/smaps_rollup").read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) * 1024

    @staticmethod
    def answer(client: chimera_client.Client, **modules: Any) -> list[int]:
        tokens: list[int] = client.complete(tokens=[5, 6, 7], max_tokens=12, temperature=0, ignore_eos=True,
                                            **({"modules": modules} if modules else {}))["tokens"]
        return tokens

    def test_memory_goes_and_comes_back_as_the_account_says(self) -> None:
        with self.daemon() as daemon, daemon.client() as client:
            before = self.answer(client)
            whole = self.experts(client)["bytes"]
            used = client.info()["memory"]["used_bytes"]
            held = self.pss(daemon)
            wish = {"modules": [{"path": self.swap}]}
            for probe in (False, True):
                self.assertEqual(client.plan(wish, probe=probe)["experts_bytes"], -REPLACED)
            client.load(self.swap)
            self.wait_until_gone(client)
            self.assertEqual(self.experts(client)["bytes"], whole - REPLACED)
            module = next(part["bytes"] for part in client.stats()["memory"]["parts"] if part["use"] == "module")
            self.assertEqual(client.info()["memory"]["used_bytes"], used - REPLACED + module)
            if SLOW == 1:  # a sanitizer keeps freed memory
                wait_for(lambda: abs(self.pss(daemon) - (held - REPLACED + module)) < 0.05 * held, "their memory to go")
            self.answer(client)
            self.assertEqual(self.answer(client, exclude=["swap"]), before)
            self.assertEqual(self.experts(client)["bytes"], whole)
            client.unload("swap")
            self.assertEqual(self.answer(client), before)
            self.assertEqual(self.experts(client)["bytes"], whole)
            wait_for(lambda: abs(self.pss(daemon) - held) < 0.05 * held, "the memory of before")

    def test_a_file_that_is_gone_or_another_keeps_the_module(self) -> None:
        weights = self.backbone / "model.safetensors"
        with self.daemon() as daemon, daemon.client() as client:
            before = self.answer(client)
            client.load(self.swap)
            self.wait_until_gone(client)
            served = self.answer(client)
            away = weights.rename(self.scratch / "away")
            for code in ("not_found", "data_corrupt"):
                with self.assertRaises(chimera_client.ChimeraError) as refused:
                    client.unload("swap")
                self.assertEqual(refused.exception.code, code)
                self.assertEqual([m["name"] for m in client.modules()], ["swap"])
                self.assertEqual(self.answer(client), served)
                changed = bytearray(away.read_bytes())
                changed[-WIDTH * HIDDEN * 4 * 4] ^= 1  # of an expert that was replaced
                weights.write_bytes(changed)
            os.replace(away, weights)
            client.unload("swap")
            self.assertEqual(self.answer(client), before)

    def test_a_budget_without_room_for_both_refuses_the_change(self) -> None:
        with self.daemon(kv="1MiB") as daemon, daemon.client() as client:
            whole = self.experts(client)["bytes"]
            used = client.stats()["memory"]["used_bytes"]
        shutil.copytree(self.swap, self.scratch / "again")
        manifest = self.scratch / "again" / "module.yaml"
        manifest.write_text(manifest.read_text().replace('name: "swap"', 'name: "again"'))
        budget = f"{(used + whole * 7 // 8) // MIB} MiB"
        with self.daemon(kv="1MiB", budget=budget) as daemon, daemon.client() as client:
            before = self.answer(client)
            client.load(self.swap)
            self.wait_until_gone(client)
            client.load(str(self.scratch / "again"), enabled=False)
            with self.assertRaises(chimera_client.ChimeraError) as refused:
                client.unload("swap")
            self.assertEqual(refused.exception.code, "resource_exhausted")
            self.assertIn("experts of the backbone, to be read again: needs", str(refused.exception))
            self.assertEqual([m["name"] for m in client.modules()], ["swap", "again"])
            account = client.stats()["memory"]
            self.assertLessEqual(account["used_bytes"], account["budget_bytes"])
            client.unload("again")
            wait_for(lambda: "again 1.0.0" not in [p.get("name") for p in client.stats()["memory"]["parts"]],
                     "the place of what was unloaded")
            client.unload("swap")
            self.assertEqual(self.answer(client), before)


if __name__ == "__main__":
    unittest.main()
