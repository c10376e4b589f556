"""Leaves processes without a parent behind, and ends with the exit code that it reads."""

import os
import sys
import time

code = int(sys.stdin.read() or 0)
for _ in range(3):
    if os.fork() == 0:
        if os.fork() == 0:
            os.setsid()
            for descriptor in (0, 1, 2):
                os.close(descriptor)
            time.sleep(0.2)
        os._exit(0)
    os.wait()
print("done", flush=True)
os._exit(code)
