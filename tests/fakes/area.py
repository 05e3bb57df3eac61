"""A submitter's module: it imports nothing that workers lack, so it can travel."""


def area(x, scale=1.0):
    return {"area": scale * x * x}


def told(x, scale=1.0):
    print("hello from", x)
    return area(x, scale)


def fail(x):
    raise ValueError("the tyres are flat")


def sleep(seconds):
    import time

    time.sleep(seconds)


def linger(path):
    """Ten minutes, from when there is a file."""
    import pathlib
    import time

    pathlib.Path(path).touch()
    time.sleep(600)


def length(page):
    return len(page)


def doubled(x):
    import plot

    return [plot.double(x), plot.__file__]
