#!/usr/bin/env python3
"""What sparse methods cost and lose on a prompt that asks: a text of Moby-Dick with facts hidden in it and questions about them,
with their answers, early, in the middle and at the end. `fovea compare` runs it dense and by each recipe; the table is Markdown.

  bench/sparse.py [--all | --others] [--tokens 32700] [--rows 2048] [--program build/fovea] [RECIPE...]

Windows and the oracle run beside the recipes, to hold them against: a method's KL as a share of that of a window whose attention
takes the same time, and its agreement less that of the oracle at the same density. What lies between two windows' times, or
two oracles' densities, is interpolated (KL by its logarithm); what lies outside is held against the nearest. `--all` is
every method that a model's prompt can take, `--others` those of them that are not in the first table, by themselves;
`METHOD@` has its profile made first, by `fovea calibrate` with its defaults.
"""
import argparse
import json
import math
import os
import subprocess
import tempfile

WINDOWS = (1 / 32, 1 / 16, 3 / 32, 1 / 8, 3 / 16, 9 / 32)  # of the tokens
ORACLES = ["oracle:density=%g" % density for density in (0.05, 0.1, 0.15, 0.2, 0.3, 0.4)]
RECIPES = [
    "xattention", "minference:vertical=500:slash=2000", "flexprefill", "spargeattn:sim=0.1:cdf=0.965", "sale:threshold=0.02",
    "sample-attention:alpha=0.5:window=0.04", "hip:k=1536:window=1024", "dhsa:budget=4096", "delta(sinks:sinks=64:size=2048)",
    "block-topk:blocks=64",
]
OTHERS = [
    "minference@", "flexprefill:gamma=0.95", "spargeattn", "spargeattn@", "sale", "sale@", "dam@", "dhsa@", "dilated", "gna",
    "hyper-attention", "longheads", "lsg", "lsg:reduction=3", "masformer", "moa",
    "power-attention", "s2-attention", "sinks:sinks=64:size=2048", "sparse-fixed", "sparse-strided", "star-attention", "top-theta@",
    "random:density=0.1", "delta(flexprefill)",
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


def with_profile(program, recipe, folder):
    """`METHOD@...` with the file of a profile that was made for it."""
    if "@" not in recipe:
        return recipe
    method, rest = recipe.split("@", 1)
    path = os.path.join(folder, method + ".json")
    extent = {"dam": ["-n", "1024", "--prompts", "4"], "minference": ["-n", "16384"], "top-theta": ["-n", "16384"]}
    subprocess.run([program, "calibrate", method, "-o", path, "--quiet", *extent.get(method, ["-n", "8192"])],
                   check=True, stdout=subprocess.DEVNULL)
    return f"{method}@{path}{rest}"


def between(points, x):
    """y at x of the line through points (x, y), and of its ends beyond them."""
    points = sorted(points)
    x = min(max(x, points[0][0]), points[-1][0])
    for (x0, y0), (x1, y1) in zip(points, points[1:]):
        if x <= x1:
            return y0 + (y1 - y0) * (x - x0) / (x1 - x0)
    return points[-1][1]


def compare(a, recipes, folder):
    """The rows of `fovea compare`, dense first."""
    path = os.path.join(folder, "text.txt")
    with open(a.book, encoding="utf-8") as book, open(path, "w", encoding="utf-8") as f:
        f.write(document(book.read(), int(a.tokens * 4.2)))
    command = [a.program, "compare", "-f", path, "--lengths", str(a.tokens), "--rows", str(a.rows), "--json", "--quiet"]
    for recipe in recipes:
        falls_back = "delta(" not in recipe and recipe.split(":")[0] not in ("window", "sinks", "dense")
        command += ["-a", "prefill=" + with_profile(a.program, recipe, folder) + (":fallback=0" if falls_back else "")]
    return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)["rows"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipes", nargs="*", help="prefill methods; default: the table of the documentation")
    parser.add_argument("--all", action="store_true", help="every method that a prompt can take")
    parser.add_argument("--others", action="store_true", help="those that are not in the first table, without windows and the oracle")
    parser.add_argument("--tokens", type=int, default=32700)
    parser.add_argument("--rows", type=int, default=2048)
    parser.add_argument("--program", default="build/fovea")
    parser.add_argument("--book", default="models/data/moby-dick.txt")
    a = parser.parse_args()
    sizes = [f"window:size={round(share * a.tokens)}" for share in WINDOWS]
    beside = [] if a.others else ORACLES + sizes
    recipes = (OTHERS if a.others else a.recipes or RECIPES + (OTHERS if a.all else [])) + beside
    with tempfile.TemporaryDirectory() as folder:
        rows = compare(a, recipes, folder)
    dense = rows[0]
    oracles = rows[len(rows) - len(beside):][:len(ORACLES)]
    windows = rows[len(rows) - len(beside):][len(ORACLES):]
    for r in rows:
        r["speed"] = dense["attention_seconds"] / r["attention_seconds"]
    print(f"{dense['length']} tokens, {dense['positions']} rows of the second half\n")
    print("| prefill | attention | choosing | density | KL | of a window's | KL, 99th percentile | same token | less the oracle's |"
          " forced | greedy |\n|" + "---|" * 11)
    for name, r in zip(["dense"] + recipes, rows):
        share, less = "", ""
        if beside and r is not dense and r not in oracles and r not in windows:
            window = math.exp(between([(math.log(w["speed"]), math.log(w["kl"])) for w in windows], math.log(r["speed"])))
            oracle = between([(o["density"], o["top1"]) for o in oracles], r["density"])
            share, less = f"{r['kl'] / window:.2f}", f"{100 * (r['top1'] - oracle):+.1f}"
        print(f"| `{name}` | {r['speed']:.2f} x | {100 * r['select_share']:.0f}% | {r['density']:.3f} | {r['kl']:.4f} | {share} | "
              f"{r['kl_p99']:.3f} | {100 * r['top1']:.1f}% | {less} | {r['forced']}/{r['facts']} | {r['greedy']}/{r['facts']} |")


if __name__ == "__main__":
    main()
