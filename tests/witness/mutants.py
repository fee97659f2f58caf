#!/usr/bin/env python3
"""A broken driver is caught by the strict card, by name; so is a broken kernel.

Each mutant of tests/data/mutants.txt is compiled, linked with the simulated card and lives through
tests/amdgpu_scenario_test.c; each of tests/data/kernel_mutants.s is assembled and run by
`radeon run --strict`. What must be said is the finding's name. Unbroken, both must pass.

    mutants.py [--radeon build/host/radeon] [--only TEXT]
"""
import argparse, concurrent.futures, os, re, shlex, subprocess, sys, tempfile
import numpy as np

DAY = ["host/rig", "amdgpu_rig_test", "amdgpu_scenario_test", "pci_fake", "test", "host/platform"]
RUN_MAX_S = 60


def mutants(path):
    """(file, nth place or None, old, new, findings)"""
    for block in open(path).read().split("\n@ ")[1:]:
        lines = block.split("\n")
        file, _, nth = lines[0].partition(" #")
        row = {line[0]: line[2:] for line in lines[1:] if line and line[0] in "-+="}
        yield file, int(nth) if nth else None, row["-"], row["+"], row["="].split()


def broken(file, nth, old, new):
    text = open(file).read()
    places = [m.start() for m in re.finditer(re.escape(old), text)]
    if nth is None and len(places) != 1 or nth is not None and len(places) < nth:
        raise ValueError(f"{file}: {len(places)} places of: {old}")
    at = places[(nth or 1) - 1]
    return text[:at] + new + text[at + len(old):]


def live_a_day(flags, change):
    """The names that the card said, in order, and whether the day passed."""
    with tempfile.TemporaryDirectory() as folder:
        objects = [f"build/host/tests/{name}.o" for name in DAY]
        extra = []
        if change:
            file = change[0]
            os.makedirs(f"{folder}/amdgpu")
            open(f"{folder}/{file}", "w").write(broken(*change[:4]))
            if file == "amdgpu/device.c":  # a part of the rig
                source, objects = "tests/host/rig.c", objects[1:]
            else:
                source = f"{folder}/{file}"
            extra = [f"{folder}/broken.o"]
            flags = flags[:1] + [f"-I{folder}"] + flags[1:]
            subprocess.run([*flags, "-c", source, "-o", extra[0]], check=True, timeout=RUN_MAX_S)
        subprocess.run([flags[0], "-pthread", *extra, *objects, "build/host/rooms.a", "-lm", "-o",
                        f"{folder}/day"], check=True, timeout=RUN_MAX_S)
        done = subprocess.run([f"{folder}/day", "--filter", "amdgpu_scenario", "--verbose",
                               "--seed", "1"], timeout=RUN_MAX_S, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return re.findall(r"\] sim: ([a-z0-9-]+): ", done.stdout), done.returncode == 0, done.stdout


def driver_case(flags, change):
    try:
        said, passed, output = live_a_day(flags, change)
    except (ValueError, subprocess.SubprocessError) as problem:
        return str(problem)
    wanted = change[4]
    if passed or not set(said) & set(wanted):
        last = output.strip().split("\n")[-1]
        how = "passed" if passed else "the card said"
        return f"want {' or '.join(wanted)}, {how} {said}: {last}"
    return None


# ---- kernels ----

def kernels(path):
    """(name, findings, assembler): `unbroken` is the text before the first mutant."""
    head, *blocks = re.split(r"^;@ ", open(path).read(), flags=re.M)
    yield "unbroken", [], head
    for block in blocks:
        title, *edits = block.strip("\n").split("\n")
        name, _, findings = title.partition(" = ")
        text = head
        old = "\n".join(line[2:] for line in edits if line.startswith(";-"))
        new = "\n".join(line[2:] for line in edits if line.startswith(";+"))
        if text.count(old) != 1:
            raise ValueError(f"{path}: {text.count(old)} places of: {old}")
        yield name, findings.split(), text.replace(old, new)


def kernel_case(radeon, case):
    name, findings, text = case
    with tempfile.TemporaryDirectory() as folder:
        source, binary, out = (f"{folder}/{part}" for part in ("k.s", "k.hsaco", "out"))
        open(source, "w").write(text)
        values = np.random.default_rng(1).integers(0, 1 << 20, 512, dtype=np.uint32)
        values.tofile(f"{folder}/in")
        subprocess.run(["clang-19", "-target", "amdgcn-amd-amdhsa", "-mcpu=gfx1100",
                        "-x", "assembler", source, "-o", binary], check=True)
        done = subprocess.run([radeon, "run", binary, "--kernel", "reverse", "--grid", "512,1,1",
                               "--block", "128,1,1", "--arg", f"in:{folder}/in", "--arg",
                               f"out:2048:{out}", "--strict"], text=True, timeout=RUN_MAX_S,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
        if not findings:
            right = values.reshape(4, 128)[:, ::-1].flatten() + 1
            ok = done.returncode == 0 and (np.fromfile(out, np.uint32) == right).all()
            return None if ok else f"unbroken, but {done.stdout}"
        said = any(re.search(rf"\b{re.escape(f)}\b", done.stdout) for f in findings)
    return None if done.returncode and said else f"want {findings}, saw {done.stdout[:300]}"


def main():
    args = argparse.ArgumentParser()
    args.add_argument("--radeon", default="build/host/radeon")
    args.add_argument("--only", default="")
    args = args.parse_args()
    make = ["make", "-s", "--no-print-directory"]
    subprocess.run([*make, "build/host/day", args.radeon], check=True)
    if not os.path.exists("build/firmware/psp_13_0_0_sos.bin"):
        print("no firmware in build/firmware")
        return 77
    flags = shlex.split(subprocess.run([*make, "host-flags"], check=True, text=True,
                                       stdout=subprocess.PIPE).stdout)
    _, passed, output = live_a_day(flags, None)
    cases = [(f"{m[0]}: {m[2]}", driver_case, flags, m) for m in mutants("tests/data/mutants.txt")]
    cases += [(f"kernel: {k[0]}", kernel_case, args.radeon, k)
              for k in kernels("tests/data/kernel_mutants.s")]
    cases = [case for case in cases if args.only in case[0]]
    failed = 0 if passed else 1
    if not passed:
        print("the unbroken driver fails:\n" + output[-2000:])
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        for case, fault in zip(cases, pool.map(lambda c: c[1](*c[2:]), cases)):
            if fault:
                failed += 1
                print(f"NOT CAUGHT {case[0]}\n    {fault}")
    print(f"{len(cases) + 1 - failed} passed, {failed} failed")
    return failed != 0


if __name__ == "__main__":
    sys.exit(main())
