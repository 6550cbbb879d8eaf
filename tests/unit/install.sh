#!/usr/bin/env bash
# Installs into an empty place and uses it from there, as a stranger would: pkg-config, shared and static, headers alone, the
# program without the source tree; and looks at what the library shows and keeps.
#   install.sh BUILD SOURCE PREFIX
set -euo pipefail
build=$1 source=$2 prefix=$3
place=$(mktemp -d)
trap 'rm -rf "$place"' EXIT
fail() { echo "FAILED: $*"; exit 1; }

meson install -C "$build" --no-rebuild --quiet --destdir "$place" >"$place/log" 2>&1 || { cat "$place/log"; fail "meson install"; }
lib=$(dirname "$(find "$place" -name libfovea.a)")
so=$(readlink -f "$lib/libfovea.so")
[ -f "$so" ] || fail "no shared library in $lib"

# the package, moved to where it was put
pc() { PKG_CONFIG_PATH=$lib/pkgconfig pkg-config "--define-variable=prefix=$place$prefix" "$@" fovea; }
cp "$source/examples/attention.c" "$place/"
cc=${CC:-cc}
$cc -std=c17 -Wall -Wextra -Werror "$place/attention.c" $(pc --cflags) $(pc --libs) -lm -o "$place/shared"
readelf -d "$place/shared" | grep >/dev/null 'libfovea\.so\.0' || fail "the shared program does not ask for libfovea.so.0"
LD_LIBRARY_PATH=$lib "$place/shared" || fail "the shared program"
$cc -std=c17 "$place/attention.c" $(pc --cflags) $(pc --static --libs | sed 's/-lfovea/-l:libfovea.a/') -lm -o "$place/static"
readelf -d "$place/static" | grep libfovea >/dev/null && fail "the static program asks for libfovea"
"$place/static" || fail "the static program"
[ "$(pc --modversion)" = "$(sed -n 's/^#define FV_VERSION "\(.*\)"/\1/p' "$source/include/fovea/attention.h")" ] || fail "pkg-config and header disagree on the version"

# each public header stands alone
for header in fovea attention model lab experimental; do
  echo "#include <fovea/$header.h>" | $cc -std=c17 -Wall -Wextra -Werror -fsyntax-only $(pc --cflags) -xc - || fail "$header.h alone"
done

# what the shared library shows: fv_ and nothing else, under a SONAME
readelf -d "$so" | grep >/dev/null 'SONAME.*libfovea\.so\.0' || fail "no SONAME"
others=$(nm -D --defined-only "$so" | awk '$3 !~ /^fv_/ { print $3 }')
[ -z "$others" ] || fail "exported beside fv_: $others"
nm -D --defined-only "$so" | grep >/dev/null ' T fv_attention$' || fail "fv_attention is not exported"

# what it keeps: no object of ours has a byte that can be written
writable=$(objdump -t "$lib/libfovea.a" | awk '/file format/ { object = $1 }
  / (\.data|\.bss|\.tdata|\.tbss|\*COM\*)/ && !/ \.data\.rel\.ro/ && $4 != "d" && $3 != "d" {
    match($0, /(\.data|\.bss|\.tdata|\.tbss|\*COM\*)[^ \t]*[ \t]+[0-9a-f]+/)
    split(substr($0, RSTART, RLENGTH), at)
    if (at[2] !~ /^0+$/) print object, $NF }')
[ -z "$writable" ] || fail "writable globals: $writable"

# the program finds the model that was installed with it
program=$place$prefix/bin/fovea
[ -x "$program" ] || fail "no program"
"$program" --version || fail "fovea --version"
[ -f "$place$prefix/share/fovea/models/fovea-27m-32k-q8_0.gguf" ] || fail "no model"
echo "installed, compiled, ran; $(nm -D --defined-only "$so" | wc -l) symbols, all fv_"
