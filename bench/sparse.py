#!/usr/bin/env python3
"""What sparse methods cost and lose on a prompt that asks: a text of Moby-Dick with facts hidden in it and questions about them,
with their answers, early, in the middle and at the end. `fovea compare` runs it dense and by each recipe; the table is Markdown.

  bench/sparse.py [--tokens 32700] [--rows 2048] [--program build/fovea] [RECIPE...]

Rows of "the others" are at equal density (the oracle) or nearly equal time (windows) as the methods, to hold them against.
"""
import argparse
import json
import os
import subprocess
import tempfile

RECIPES = [
    "xattention", "minference:vertical=500:slash=2000", "flexprefill", "spargeattn:sim=0.1:cdf=0.95",
    "sample-attention:alpha=0.5:window=0.04", "hip:k=1536", "dhsa:budget=4096", "delta(sinks:sinks=64:size=2048)",
    "block-topk:blocks=64", "oracle:density=0.1", "oracle:density=0.15", "oracle:density=0.2", "window:size=2048",
    "window:size=4096",
]
NAMES = ["copper", "marble", "winter", "silver", "harbour", "thunder", "amber", "velvet", "granite", "meadow", "falcon", "lantern"]


def document(book, characters):
    """Facts in the first half, each asked about and answered in the middle or at the end."""
    text = book[:characters]
    pieces = []
    for i in range(12):
        name = f"{NAMES[i]}-{NAMES[(i + 5) % 12]}"
        code = str(1000003 * (i + 3) % 8999993 + 1000000)
        fact = f" The special magic number for {name} is: {code}. "
        ask = (f"\n\nQuestion: What is the special magic number for {name} mentioned in the text?"
               f"\nAnswer: The special magic number for {name} mentioned in the text is {code}.\n\n")
        pieces.append((0.02 + 0.035 * i, fact))
        pieces.append(((0.10 if i < 2 else 0.60 if i < 7 else 0.97) + 0.004 * i, ask))
    out, at = [], 0
    for depth, piece in sorted(pieces):
        place = text.find(". ", int(depth * len(text))) + 1
        out += [text[at:place], piece]
        at = place
    return "".join(out) + text[at:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="prefill methods; default: the table of the documentation")
    parser.add_argument("--tokens", type=int, default=32700)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--program", default="build/fovea")
    parser.add_argument("--book", default="models/data/moby-dick.txt")
    a = parser.parse_args()
    with open(a.book, encoding="utf-8") as f:
        text = document(f.read(), int(a.tokens * 4.2))
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "text.txt")
        with open(path, "w", encoding="utf-8") as f:
            f.write(text)
        command = [a.program, "compare", "-f", path, "--lengths", str(a.tokens), "--rows", str(a.rows), "--json", "--quiet"]
        for recipe in a.recipes or RECIPES:
            whole = recipe if recipe.startswith("prefill=") else "prefill=" + recipe
            fallback = "delta(" not in whole and not any(w in whole for w in ("window", "sinks", "fallback", "dense"))
            command += ["-a", whole + (":fallback=0" if fallback or "sample" in whole else "")]
        result = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    rows = result["rows"]
    print(f"{rows[0]['length']} tokens, {rows[0]['positions']} rows of the second half\n")
    print("| prefill | attention | choosing | density | KL | KL, 99th percentile | same token | forced | greedy |\n|" + "---|" * 9)
    for r in rows:
        speed = rows[0]["attention_seconds"] / r["attention_seconds"]
        print(f"| `{r['recipe'].removeprefix('prefill=').removesuffix(':fallback=0')}` | {speed:.2f} x | {100 * r['select_share']:.0f}% | "
              f"{r['density']:.3f} | {r['kl']:.4f} | {r['kl_p99']:.3f} | {100 * r['top1']:.1f}% | {r['forced']}/{r['facts']} | "
              f"{r['greedy']}/{r['facts']} |")


if __name__ == "__main__":
    main()
