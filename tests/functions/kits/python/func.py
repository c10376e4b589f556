"""A function with Fn's kit for Python: answers 201 with the body of the request and a header, and logs a line."""

import asyncio
import io
import os
import sys

from fdk import response

met = asyncio.Event()
meeting = 0


async def handler(ctx, data: io.BytesIO):
    global meeting
    body = data.getvalue()
    print(f"{len(body)} bytes", file=sys.stderr, flush=True)
    if body == b"fail":
        raise ValueError("on purpose")
    if body == b"meet":
        meeting += 1
        if meeting == int(os.environ["MEET"]):
            met.set()
        await met.wait()
    headers = {"X-Made-By": "python", "Content-Type": "text/x-python"}
    return response.Response(ctx, response_data=body.decode(), headers=headers, status_code=201)
