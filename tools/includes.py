#!/usr/bin/env python3
"""Checks who includes whom (DESIGN section 3) and that every header compiles alone.

The table below is the architecture: a module may include its own folder, base, and what is
listed.  A line that is not allowed is printed, and the exit status is 1."""
import os
import re
import subprocess
import sys

ALLOWED = {
    "base": "",
    "tensor": "",
    "kern": "tensor",
    "dev": "tensor kern",
    "model": "tensor",
    "tok": "",
    "kv": "",
    "sched": "kv",
    "guide": "tok",
    "sample": "tensor dev guide",
    "par": "tensor",
    "hub": "",
    "fwd": "tensor dev model par",
    "quant": "tensor kern",
    "convert": "tensor dev model fwd quant tok",
    "engine": "tensor dev model fwd kv sched sample guide tok par",
    "server": "tok engine",
    "bench": "sample tok engine kern dev tensor guide",
}
# dev/cpu and dev/cuda are behind dev/dev.h; kern/<isa> behind kern/kern.h: nobody else enters.
PRIVATE = re.compile(r"_int\.h$|^kern/(ref|avx2|avxvnni|avx512|avx512vnni|avx512bf16)/|^dev/(cpu|cuda|hpu)/|^model/arch/")


def main() -> int:
    root = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "src")
    bad = 0
    headers = []
    for folder, _, names in os.walk(root):
        for name in sorted(names):
            if not name.endswith((".c", ".h")):
                continue
            path = os.path.join(folder, name)
            rel = os.path.relpath(path, root)
            module = rel.split(os.sep)[0]
            if name.endswith(".h"):
                headers.append(rel)
            if module == "cli":
                continue
            if module not in ALLOWED:
                print(f"src/{rel}: module '{module}' is not in the table of tools/includes.py")
                bad += 1
                continue
            allowed = {module, "base", *ALLOWED[module].split()}
            with open(path, encoding="utf-8") as f:
                for number, line in enumerate(f, 1):
                    m = re.match(r'\s*#\s*include\s+"([^"]+)"', line)
                    if not m:
                        continue
                    target = m.group(1)
                    owner = target.split("/")[0]
                    if target.startswith("quire/"):
                        continue
                    if "/" not in target or owner not in allowed:
                        print(f"src/{rel}:{number}: {module} may not include \"{target}\"")
                        bad += 1
                    elif owner != module and PRIVATE.search(target):
                        print(f"src/{rel}:{number}: \"{target}\" is private to {owner}")
                        bad += 1
    if "--headers" in sys.argv:
        cflags = subprocess.run(["pkg-config", "--cflags", "jansson", "libmicrohttpd", "hwloc", "libcurl"],
                                capture_output=True, text=True, check=True).stdout.split()
        for rel in headers:
            r = subprocess.run(["cc", "-std=c17", "-D_GNU_SOURCE", "-Wall", "-Werror", "-I", root, "-I",
                                os.path.join(root, "..", "include"), *cflags, "-fsyntax-only",
                                *(["-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16",
                                   "-mavx512vnni", "-mavx2", "-mfma", "-mf16c"] if re.search(r"kern/avx", rel) else []),
                                "-x", "c", os.path.join(root, rel)], capture_output=True, text=True)
            if r.returncode:
                print(f"src/{rel} does not compile alone:\n{r.stderr}")
                bad += 1
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
