"""1 GiB and 64 KiB assets, without nginx in front, against nginx's static sendfile of the same files."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from machine import AUTHORISED, Best, Figure, Workplace, bare, curl, mediasvc, nginx


def measure(place: Workplace) -> Iterator[Figure]:
    large, small = place.file(1024), place.file(0)
    with mediasvc(place) as ours, nginx(place) as static, bare(place) as floor:
        for file in (large, small):
            curl("-T", file, "-H", AUTHORISED, f"{ours.url}/b/media/{file.name}")
        mine, theirs, rates = Best(), Best(), {"ours": 0.0, "static": 0.0, "floor": 0.0, "file": 0.0}
        for _ in range(place.rounds):
            theirs.measure(static, lambda: curl(f"{static.url}/{large.name}"))
            mine.measure(ours, lambda: curl("-H", AUTHORISED, f"{ours.url}/b/media/{large.name}"))
            rates["static"] = max(rates["static"], requests(f"{static.url}/{small.name}"))
            rates["floor"] = max(rates["floor"], requests(f"{floor.url}/"))
            rates["file"] = max(rates["file"], requests(f"{floor.url}/file"))
            rates["ours"] = max(rates["ours"], requests(f"{ours.url}/b/media/{small.name}"))
    size = large.stat().st_size
    note = f"{size / 1e6 / mine.seconds:.0f} and {size / 1e6 / theirs.seconds:.0f} MB/s, "
    note += f"CPU {mine.cpu / size * 1e9:.2f} and {theirs.cpu / size * 1e9:.2f} s/GB"
    yield Figure("download of 1 GiB, throughput ÷ nginx", theirs.seconds / mine.seconds, "×", 0.9, True, note)
    note = f"{rates['ours']:.0f} and {rates['static']:.0f} a second"
    yield Figure("64 KiB assets ÷ nginx", rates["ours"] / rates["static"], "×", 0.4, True, note)
    floor_ratio = rates["floor"] / rates["static"]
    yield Figure("64 KiB from memory by a bare ASGI callable ÷ nginx: the floor", floor_ratio, "×", 0.4, True)
    floor_ratio = rates["file"] / rates["static"]
    yield Figure("the same, read from a file at each request", floor_ratio, "×", 0.4, True)


def requests(url: str) -> float:
    """Requests a second over 16 kept-alive connections."""
    wrk = shutil.which("wrk") or "wrk"
    command = [wrk, "-t1", "-c16", "-d4s", "-H", AUTHORISED, url]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(f"{Path(url).name}: {said}")
    found = re.search(r"Requests/sec:\s*([\d.]+)", said)
    assert found, said
    return float(found[1])
