"""Peak memory of a 2 GiB upload above idle, by every door, to disk and to S3."""

from collections.abc import Iterator
from pathlib import Path

import httpx
from ceph import gateway
from machine import AUTHORISED, KEY, Figure, Server, Workplace, curl, mediasvc


def measure(place: Workplace) -> Iterator[Figure]:
    source = place.file(2048)
    with mediasvc(place) as ours:
        yield from by_every_door(ours, source, "disk", 60)
    with gateway(place) as s3, mediasvc(place, **s3.env) as ours:
        yield from by_every_door(ours, source, "S3", 150)


def by_every_door(ours: Server, source: Path, store: str, goal: float) -> Iterator[Figure]:
    doors = {
        "PUT": ("-T", str(source), f"{ours.url}/b/media/large"),
        "drop box": ("-T", str(source), f"{ours.url}/u/large"),
        "form": ("-F", f"file=@{source}", f"{ours.url}/v1/assets"),
    }
    idle = ours.resident()
    for door, arguments in doors.items():
        ours.forget_peak()
        curl("-H", AUTHORISED, *arguments)
        above = ours.resident(peak=True) - idle
        delete_all(ours.url)  # the gateway keeps its bytes in memory
        yield Figure(f"2 GiB by {door} to {store}, peak above idle", above, "MiB", goal, False)


def delete_all(url: str) -> None:
    """Every asset of bucket `media`."""
    headers = {"Authorization": f"Bearer {KEY}"}
    for asset in httpx.get(f"{url}/v1/assets?bucket=media", headers=headers).json()["assets"]:
        httpx.delete(f"{url}/v1/assets/{asset['id']}", headers=headers).raise_for_status()
