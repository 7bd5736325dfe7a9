"""The HTTP door: the only room that knows FastAPI, Starlette and uvicorn."""
