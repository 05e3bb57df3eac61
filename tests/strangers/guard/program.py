"""What the function uses is only made in the part that runs when this file is the script."""

import threading

import tallymesh


def tidy(text):
    with lock:
        return text.strip().lower()


if __name__ == "__main__":
    lock = threading.Lock()
    tallymesh.map(tidy, [" A ", " B"], budget="1")
