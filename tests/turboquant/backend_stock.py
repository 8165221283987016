#!/usr/bin/env python3
"""The plug-in in stock tools: perplexity beside f16, the memory llama.cpp itself counts, and refusals.

  backend_stock.py STOCK_BIN PLUGIN MODEL

STOCK_BIN is the folder scripts/stock-tools builds into. Exit status 77, which ctest shows as skipped, when nobody did.
"""
import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SKIPPED = 77


def text() -> str:
    """Our own documentation: words of which the model knows some."""
    docs = Path(__file__).resolve().parent.parent.parent / "docs"
    return "\n".join((docs / name).read_text(encoding="utf-8") for name in ("architecture.md", "configuration.md"))


class Stock:
    def __init__(self, tools: Path, plugin: str, model: str):
        self.tools, self.plugin, self.model = tools, plugin, model
        self.corpus = tempfile.NamedTemporaryFile("w", suffix=".txt", encoding="utf-8")
        self.corpus.write(text())
        self.corpus.flush()

    def perplexity(self, profile: str, *more: str) -> tuple[int, str]:
        environment = {k: v for k, v in os.environ.items() if not k.startswith("GGML_")}
        if profile:
            environment |= {"GGML_BACKEND_PATH": self.plugin, "GGML_TURBOQUANT_PROFILE": profile}
        command = [self.tools / "llama-perplexity", "-m", self.model, "-f", self.corpus.name, "-c", "512", "--chunks", "8", "-t", "1", "-lv", "4", *more]
        for _ in range(10):
            done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
            # The tool, with and without us, sometimes ends before its log thread has written the last lines.
            if done.returncode != 0 or "Final estimate" in done.stdout + done.stderr:
                break
        return done.returncode, done.stdout + done.stderr


def found(pattern: str, output: str) -> str:
    match = re.search(pattern, output)
    assert match, f"no {pattern!r} in:\n{output[-4000:]}"
    return match.group(1)


def main() -> int:
    tools, plugin, model = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if not (tools / "llama-perplexity").exists():
        print(f"SKIPPED: there is no llama-perplexity in {tools}; scripts/stock-tools builds it")
        return SKIPPED
    stock = Stock(tools, plugin, model)
    value = r"Final estimate: PPL = ([\d.]+)"
    memory = r"KV buffer size = +([\d.]+) MiB"
    code, plain = stock.perplexity("")
    assert code == 0, plain[-4000:]
    assert "TurboQuant" not in plain
    expected, f16 = float(found(value, plain)), float(found(memory, plain))
    # By profile: how far perplexity may be from f16's, and at least how many times smaller the cache is.
    for profile, within, smaller in (("k8v8", 0.01, 1.8), ("k8v4", 0.02, 2.4), ("k3v2", 0.15, 5.0), ("k3v2,sinks=4", 0.15, 4.8)):
        code, output = stock.perplexity(profile)
        assert code == 0, output[-4000:]
        got, held = float(found(value, output)), float(found(r"TurboQuant " + memory, output))
        said = float(found(rf"KV cache {profile}: ([\d.]+) MiB", output))
        print(f"{profile}: perplexity {got:.2f} beside {expected:.2f}, {held:.2f} MiB beside {f16:.2f}")
        assert abs(got / expected - 1) < within, (profile, got, expected)
        cells = int(found(r"\( *(\d+) cells", output)) * int(found(r"cells, .*/(\d+) seqs", output))
        order = 8 * cells / 2**20  # each cell's place in it is kept beside the buffer
        assert f16 / said > smaller and abs(held + order - said) < 0.011, (profile, held, order, said, f16)
        assert "CPU_Mapped model buffer" in output, "the weights are no longer mapped"
        assert found(r"splits = (\d+)", output) == "1"
    for arguments, reason in ((("-fa", "off"), "flash attention is off"), (("-ctk", "q8_0"), "has the type q8_0")):
        code, output = stock.perplexity("k8v4", *arguments)
        assert code != 0 and reason in output, (arguments, code, output[-2000:])
    _, output = stock.perplexity("k9v9")
    assert 'there is no TurboQuant profile "k9v9": use k8v8' in output, output[:2000]
    print("passed")
    return 0


if __name__ == "__main__":
    sys.exit(main())
