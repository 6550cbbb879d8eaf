"""The code that docs/adding-a-method.md shows is that of the files it names, whole, and selector and row have under 60 lines.

A block of code follows a line that names its file in backquotes: `tests/method/toy/alike.c`:
"""
import pathlib
import re
import sys

MOST = 59
page = pathlib.Path(sys.argv[1])
root = page.resolve().parent.parent
shown = re.findall(r"^`(tests/method/toy/[\w.]+)`:?\n+```c\n(.*?)^```$", page.read_text(), re.M | re.S)
failures = 0
for name, code in shown:
    if code != (root / name).read_text():
        failures += 1
        print(f"{page}: the code below `{name}` is not that file's: copy it")
lines = sum(code.count("\n") for _, code in shown)
if sorted(name.rsplit("/", 1)[1] for name, _ in shown) != ["alike.c", "row.c"]:
    failures += 1
    print(f"{page}: shows {[name for name, _ in shown]}; it should show alike.c and row.c, once each")
if lines > MOST:
    failures += 1
    print(f"{page}: the toy has {lines} lines; the page promises less than {MOST + 1}")
print(f"{len(shown)} files, {lines} lines, {failures} failures")
sys.exit(failures > 0)
