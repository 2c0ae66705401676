#!/usr/bin/env python3
"""What bench/peers stands on, without any of the programs: workers that take turns, fail, end or
give wrong results, and libheed by problem strings.
    test_peers.py SOURCE LIBHEED"""

import array
import json
import os
import sys

SOURCE, LIBHEED = sys.argv[1:3]
sys.path.insert(0, os.path.join(SOURCE, "bench", "peers"))
import common  # noqa: E402


def make(text):
    """Three variants; what goes wrong is in the text."""
    if text == "refuse":
        raise common.Skip("not today")
    yield common.Variant("good", lambda: None, lambda: 1.0, estimate=5)
    yield common.Variant("wrong", lambda: None, lambda: 2.0)
    if text == "end":
        print("noise on stdout is not an answer")
        os._exit(3)
    if text == "fail":
        raise ValueError("a bug\nof two lines")
    yield common.Variant("slow", lambda: sum(range(20000)), lambda: 1.0)


def check(text, out):
    if out != 1.0:
        raise common.Skip(f"wrong: {out}")
    return 0.25


def worker(name):
    return common.Worker(name, [sys.executable, __file__, SOURCE, LIBHEED, "--worker"], {})


def expect(condition, what):
    if not condition:
        sys.exit(f"FAILED: {what}")


def test_race():
    one, two = worker("one"), worker("two")
    timed, skipped = common.race([one, two], "all", 0.01, 4, 0)
    names = [(w.name, v["name"], len(s)) for w, v, s in timed]
    expect([n[:2] for n in names] == [("one", "good"), ("one", "slow"), ("two", "good"),
                                      ("two", "slow")], f"the right variants are timed: {names}")
    expect(all(3 <= n[2] <= 4 for n in names), f"3 to 4 samples: {names}")
    expect(all(ns > 0 for _, _, s in timed for ns in s), "times are positive")
    expect(timed[0][1]["estimate"] == 5 and timed[0][1]["error"] == 0.25, "more is handed on")
    expect([(w.name, n, why) for w, n, why in skipped] ==
           [("one", "wrong", "wrong: 2.0"), ("two", "wrong", "wrong: 2.0")], f"{skipped}")

    timed, skipped = common.race([one], "refuse", 0.01, 4, 0)
    expect(not timed and skipped[0][1:] == ("", "not today"), f"a refusal is told: {skipped}")
    timed, skipped = common.race([one], "fail", 0.01, 4, 0)
    expect(len(timed) == 1 and skipped[-1][1:] == ("", "ValueError: a bug"), f"{skipped}")
    timed, skipped = common.race([one, two], "all", 0.0, 3, 0)
    expect(len(timed) == 4, "a worker lives on after a failure")
    timed, skipped = common.race([one, two], "end", 0.01, 4, 0)
    expect(not timed and "its process ended with 3" in skipped[0][2], f"{skipped}")
    timed, skipped = common.race([one], "all", 0.01, 4, 0)
    expect(not timed and "its process ended" in skipped[0][2], "and stays ended")
    two.end()


def test_heed():
    heed = common.Heed(LIBHEED)
    text = "attention dtype=f32 b=1 sq=3 sk=3 hq=1 hk=1 d=4"
    expect(heed.full_text("attention  sq=3 sk=3   b=1 hq=1 hk=1 d=4").startswith(text), "words")
    plan, info = heed.plan(text)
    expect(info.impl.startswith(b"cpu:") and info.flops == 2 * 9 * 8 and info.threads >= 1,
           f"{info.impl} {info.flops}")
    q, out = array.array("f", [0.0] * 12), array.array("f", [9.0] * 12)
    v = array.array("f", range(12))
    at = [x.buffer_info()[0] for x in (q, q, v, out)]
    heed.runner(plan, "attention", at)()
    expect(all(abs(o - r) < 1e-5 for o, r in zip(out, [4, 5, 6, 7] * 3)),
           f"equal weights give the mean: {list(out)}")
    for bad in ("attention sq=three", "soup"):
        try:
            heed.plan(bad)
            expect(False, f"{bad} is refused")
        except common.Skip as why:
            expect(str(why), "with a sentence")


def test_results():
    document = {"results": [{"prob": "P", "median_ns": 400, "fraction_of_limit": 0.5,
                             "limit": "fma_f32"},
                            {"prob": "Q", "median_ns": 4, "fraction_of_limit": None,
                             "limit": None}]}
    limits = common.limits_of(document)
    expect(limits == {"P": (200.0, "fma_f32")}, f"{limits}")
    made = common.result("P", "torch:x", "f32", 2, [300, 100, 200], 1000, 50, limits["P"], 0.1)
    expect(made["median_ns"] == 200 and made["min_ns"] == 100 and made["gflops"] == 5, f"{made}")
    expect(made["fraction_of_limit"] == 1.0 and made["predicted"] is None, f"{made}")
    expect(abs(common.drift_of({"a": 100, "b": None}, {"a": 80, "b": 3}) - 0.2) < 1e-9, "drift")
    json.dumps(made)


if "--worker" in sys.argv:
    common.serve(make, check)
else:
    for test in (test_race, test_heed, test_results):
        test()
        print(f"{test.__name__}: good")
