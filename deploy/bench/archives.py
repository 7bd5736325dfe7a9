"""ZIPs of one large asset and of a thousand small ones, without nginx in front."""

from collections.abc import Iterator
from typing import Any

import httpx
from machine import AUTHORISED, KEY, Best, Figure, Server, Workplace, curl, mediasvc

SMALL = 1000  # assets of 64 KiB


def measure(place: Workplace) -> Iterator[Figure]:
    large, small = place.file(1024), place.file(0)
    with mediasvc(place) as ours, httpx.Client(headers={"Authorization": f"Bearer {KEY}"}) as client:
        curl("-T", large, "-H", AUTHORISED, f"{ours.url}/b/media/large/{large.name}")
        body = small.read_bytes()
        for number in range(SMALL):
            client.put(f"{ours.url}/b/media/small/{number}", content=body).raise_for_status()
        one, many = archive(client, ours, "large/"), archive(client, ours, "small/")
        of_one, of_many = Best(), Best()
        for _ in range(place.rounds):
            of_one.measure(ours, lambda: curl(one["url"]))
            of_many.measure(ours, lambda: curl(many["url"]))
    note = f"{one['size'] / 1e6 / of_one.seconds:.0f} MB/s; of {SMALL} of 64 KiB "
    note += f"{many['size'] / 1e6 / of_many.seconds:.0f} MB/s, {of_many.cpu / many['size'] * 1e9:.2f} s/GB"
    yield Figure("archive of 1 GiB, CPU", of_one.cpu / one["size"] * 1e9, "s/GB", 0.25, False, note)


def archive(client: httpx.Client, server: Server, prefix: str) -> dict[str, Any]:
    made = client.post(f"{server.url}/v1/archives", json={"prefix": prefix, "expires_in": "1h"})
    answer: dict[str, Any] = made.raise_for_status().json()
    return answer
