"""From the command to the first 200 of /readyz, and memory at rest."""

import time
from collections.abc import Iterator
from contextlib import nullcontext

from ceph import gateway
from machine import Figure, Workplace, mediasvc


def measure(place: Workplace) -> Iterator[Figure]:
    for store, goal in (("disk", 120), ("S3", 150)):
        with gateway(place) if store == "S3" else nullcontext() as s3:
            env = s3.env if s3 else {}
            ready = []
            for _ in range(place.rounds):
                with mediasvc(place, **env) as ours:
                    ready.append(ours.ready_after)
                    time.sleep(2)
                    resident, helpers = ours.resident(), ours.helpers()
            yield Figure(
                f"first start on {store} to ready, slowest of {len(ready)}", max(ready), "s", 2, False
            )
            note = f"its helper processes {helpers:.0f} MiB"
            yield Figure(f"at rest on {store}", resident, "MiB", goal, False, note)
