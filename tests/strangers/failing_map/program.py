"""One of the items makes my helper fail."""

import geometry

import tallymesh


def aspect(item):
    width, height = item
    return {"aspect": geometry.ratio(width, height)}


if __name__ == "__main__":
    sizes = [(4, 3), (16, 9), (5, 0)]
    print(tallymesh.map(aspect, sizes, budget="1").results())
