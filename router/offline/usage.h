// What `chimera-module --help` prints, from which its manual page is made.
//
// Thread safety: a constant.
#pragma once

namespace chimera {

inline constexpr const char* kModuleUsage = R"(Usage: chimera-module [--json] COMMAND ...
       chimera-module --help | --version

  split CHECKPOINT --backbone OUT --modules-out DIR --module NAME=SLOTS
        [--module ...] [--map FILE] [--attach append|replace] [--license TEXT]
                          cut experts out of a checkpoint into modules
  split FINETUNE --parent CHECKPOINT --modules-out DIR --module NAME
        [--license TEXT]
                          make what a fine-tune changed a module of its parent
  graft BACKBONE MODULE... --out DIR
                          put backbone and modules together into one checkpoint
  convert CHECKPOINT --out DIR [--type f32|f16|bf16]
                          write a checkpoint, or a GGUF file, as safetensors
  pack MODULE --out DIR [--precision q8|q4]
                          write the module with its weights packed as that
                          precision keeps them, so that a load only reads them
  backbone pack CHECKPOINT --out DIR [--precision q8|q4|CLASSES]
                          write the checkpoint with its weights packed, so that
                          a daemon maps them; it keeps its source's fingerprint
  backbone verify PACKED --source CHECKPOINT
                          prove it: pack the source again and compare
  inspect PATH            say what a module or checkpoint holds, and if it runs;
                          exit status 1 when Chimera would refuse the checkpoint
  verify MODULE [--backbone DIR] [--key FILE.pub]
                          check digests, shapes, numbers, the backbone's fit and
                          who signed it
  fingerprint CHECKPOINT  print the backbone fingerprint
  seal MODULE --backbone DIR
                          write fingerprint and file digests into module.yaml
  sign MODULE --key FILE [--expires DAY]
                          sign module.yaml, which names every file's digest
  assemble RECIPE.yaml --out DIR [--memory SIZE] [--threads N]
        [--shard-size SIZE]
                          make a checkpoint or module from parents by a recipe;
                          a run that was killed goes on where it was
  assemble RECIPE.yaml --dry-run
                          say what that would do, tensor by tensor
  merge ADAPTER --backbone CHECKPOINT --out DIR [--shard-size SIZE]
        [--module NAME [--license TEXT]] [--threads N]
                          fold an adapter (LoRA) into the checkpoint, or the
                          experts that it changes into a module of weights
  fit-gate MODULE --backbone DIR --text FILE... [--against FILE...] --out DIR
        [--limit-bytes N] [--prior X] [--rounds N] [--precision P] [--threads N]
                          write the module with gate rows fitted to texts that
                          it is for, and to others
  diff A B [--csv] [--plot FILE.svg] [--spectrum N] [--threads N]
                          how far two checkpoints or modules are apart, where

A CHECKPOINT is the directory of one in safetensors, or a GGUF file.
CLASSES are such as experts=q4,attention=q8,head=q8; what is not named stays as
it is stored. `chimera backbone ...` is `chimera-module backbone ...`.

SLOTS are expert numbers of every layer with a router, such as 2 or 2-5,7, or of
single layers, such as 0:1,2;3:4 (layer 0: experts 1 and 2; layer 3: expert 4).
--map FILE takes them from a YAML map:

  legal: 2-5,7
  bio: {0: [1, 2], 3-5: 4}

Exit status: 0 done, 1 failed, 2 wrong usage, 75 try again (out of space or
memory).
)";

}  // namespace chimera
