from hearth.drivers.base import *


class DockerDriver(Driver):
    name = "docker"

    def __init__(self, *a, **k):
        pass

    async def open(self):
        raise DriverUnavailable("couldn't connect to docker daemon")

    async def close(self):
        pass

    async def prepare(self, spec):
        raise NotImplementedError
