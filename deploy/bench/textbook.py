"""The upload endpoint as the tutorials write it: UploadFile into aiofiles, no hash, no sync."""

import os
from pathlib import Path

import aiofiles
from fastapi import FastAPI, UploadFile

app = FastAPI()
target = Path(os.environ["TEXTBOOK_TARGET"])


@app.get("/up")
async def up() -> dict[str, bool]:
    return {"up": True}


@app.post("/upload")
async def upload(file: UploadFile) -> dict[str, int | None]:
    async with aiofiles.open(target, "wb") as out:
        while chunk := await file.read(1024 * 1024):
            await out.write(chunk)
    return {"size": file.size}
